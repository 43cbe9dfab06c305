"""python -m pseudokit.weights: a file that fits, or why there is none."""

import timm
import torch
from huggingface_hub import constants

from pseudokit.config.keys import Model
from pseudokit.training.models import create_model
from pseudokit.weights import weights_command
from tests.naming import refused


def test_a_checkpoint_becomes_a_file_that_the_kit_reads(tmp_path, capsys):
    torch.manual_seed(0)
    state = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    file = tmp_path / "test_resnet.safetensors"
    weights_command(["test_resnet", "--file", f"{tmp_path / 'theirs.pth'}", "--out", str(file)])
    assert f"model.checkpoint={file}" in capsys.readouterr().out
    network, _ = create_model(Model(checkpoint=str(file)), ("a", "b"), 16, 3)
    torch.testing.assert_close(network.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_weights_that_are_nowhere_or_do_not_fit_are_refused(tmp_path, monkeypatch):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    out = tmp_path / "out.safetensors"
    for argv in (["test_vit", "--file", str(tmp_path / "other.pth")], ["test_vit", "--file", "no"]):
        refused(lambda argv=argv: weights_command([*argv, "--out", str(out)]), "test_vit", "--file")
    refused(lambda: weights_command(["resnet_18"]), "resnet_18", "resnet18")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refused(lambda: weights_command(["test_vit", "--out", str(out)]), "test_vit", out)
    assert not out.exists()
