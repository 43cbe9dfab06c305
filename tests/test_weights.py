"""python -m pseudokit.weights: a file that fits, or why there is none."""

from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

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


class Hub(SimpleHTTPRequestHandler):
    """Answers as the hub does, to what huggingface_hub asks for one file."""

    def end_headers(self):
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"0"')
        self.send_header("X-Error-Code", "EntryNotFound")  # if it is one
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def hub(folder, monkeypatch):
    """A hub of this machine with the files of a folder, and an empty cache."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        places = {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": False,
        }
        for name, value in places.items():
            monkeypatch.setattr(constants, name, value)
        yield
        server.shutdown()


def test_weights_come_from_the_hub_and_then_from_its_cache(tmp_path, monkeypatch):
    out = tmp_path / "out.safetensors"
    network = timm.create_model("test_resnet")
    folder = tmp_path / network.pretrained_cfg["hf_hub_id"] / "resolve" / "main"
    with hub(tmp_path, monkeypatch):
        refused(lambda: weights_command(["test_resnet", "--out", str(out)]), "404", "--file", out)
        folder.mkdir(parents=True)
        save_file(network.state_dict(), folder / "model.safetensors")
        weights_command(["test_resnet", "--out", str(out)])
    for name, tensor in load_file(out).items():
        assert tensor.equal(network.state_dict()[name])
    content = out.read_bytes()
    out.unlink()
    weights_command(["test_resnet", "--out", str(out)])
    assert out.read_bytes() == content


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
