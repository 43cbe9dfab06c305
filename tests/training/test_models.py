"""Networks: made, given weights that fit, kept, read back, and refused where anything is wrong."""

import json
import os
import pickle

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pseudokit.config.keys import Model
from pseudokit.config.types import UserError
from pseudokit.training.models import create_model, load_model, save_model

CLASSES = ("a", "b", "c")


def refusal(size=16, channels=1, **model) -> str:
    with pytest.raises(UserError) as caught:
        create_model(Model(**model), CLASSES, size, channels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights_file(folder, name="test_resnet", classes=10, channels=3) -> tuple:
    """A file of real weights as people hand them on, and the weights."""
    torch.manual_seed(1)
    state = timm.create_model(name, num_classes=classes, in_chans=channels).state_dict()
    torch.save(state, folder / f"{name}.pth")
    return folder / f"{name}.pth", state


def test_a_model_fits_the_classes_and_images_that_it_is_made_for():
    for channels, size in ((1, 16), (3, 28)):
        network, spec = create_model(Model(), CLASSES, size, channels)
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 3)
        assert spec.classes == list(CLASSES)
        assert (spec.size, spec.channels, len(spec.mean), len(spec.std)) == (
            size,
            channels,
            channels,
            channels,
        )


def test_arguments_of_the_model_are_passed_on():
    network, _ = create_model(Model(kwargs={"drop_rate": 0.3}), CLASSES, 16, 1)
    assert network.drop_rate == 0.3


def test_a_saved_model_reads_back_with_identical_logits(tmp_path):
    torch.manual_seed(3)
    network, spec = create_model(Model(kwargs={"drop_rate": 0.1}), CLASSES, 16, 1)
    # Moves the running statistics, which have to be kept as well.
    network.train()(torch.randn(8, 1, 16, 16))
    saved = save_model(tmp_path / "fold_0", network, spec)
    loaded = load_model(tmp_path / "fold_0")
    images = torch.randn(5, 1, 16, 16).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), network.eval()(images))
    assert loaded.spec == spec
    assert loaded.hash == saved.hash
    assert not loaded.network.training


def test_the_hash_names_the_weights(tmp_path):
    torch.manual_seed(0)
    network, spec = create_model(Model(), CLASSES, 16, 1)
    first = save_model(tmp_path / "a", network, spec).hash
    assert save_model(tmp_path / "b", network, spec).hash == first
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-3
    assert save_model(tmp_path / "c", network, spec).hash != first
    assert json.loads((tmp_path / "a" / "model.json").read_text())["hash"] == first


def test_weights_that_are_not_those_of_the_model_are_refused_by_name(tmp_path):
    network, spec = create_model(Model(), CLASSES, 16, 1)
    save_model(tmp_path, network, spec)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=str(file)):
        load_model(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=str(file)):
        load_model(tmp_path)


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "student")):
        load_model(tmp_path / "student")


@pytest.mark.parametrize(
    ("name", "meant"), [("resnet_18", "resnet18"), ("tset_resnet", "test_resnet")]
)
def test_an_unknown_model_names_the_nearest(name, meant):
    message = refusal(name=name)
    assert f"model.name='{name}'" in message
    assert meant in message.replace(name, "")


def test_a_wrong_argument_of_the_model_is_named():
    message = refusal(kwargs={"drop_rat": 0.1})
    assert "model.kwargs" in message
    assert "drop_rat" in message


@pytest.mark.parametrize("key", ["num_classes", "in_chans", "features_only"])
def test_an_argument_that_follows_from_the_data_is_refused(key):
    message = refusal(kwargs={key: 1})
    assert "model.kwargs" in message
    assert key in message


def test_weights_that_hold_nan_are_refused_by_name(tmp_path):
    network = timm.create_model("test_resnet", num_classes=2, in_chans=1)
    state = {
        name: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "spoilt.pth")
    message = refusal(checkpoint=str(tmp_path / "spoilt.pth"))
    assert "spoilt.pth" in message
    assert "NaN" in message


def test_images_of_a_size_that_the_model_cannot_take_are_refused_before_training():
    message = refusal(name="vit_tiny_patch16_224", size=20)
    assert "vit_tiny_patch16_224" in message
    assert "20×20" in message, "the size"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_the_same_architecture_are_used_and_the_head_is_fresh(
    tmp_path, ending, channels
):
    file, state = weights_file(tmp_path)
    if ending == "safetensors":
        save_file(state, file := file.with_suffix(".safetensors"))
    network, _ = create_model(Model(checkpoint=str(file)), CLASSES, 16, channels)
    weights = network.state_dict()
    assert weights["fc.weight"].shape == (3, 96)
    for name in state:
        if not name.startswith("fc."):
            wanted = (
                state[name].sum(1, keepdim=True)
                if name == "conv1.0.weight" and channels == 1
                else state[name]
            )
            torch.testing.assert_close(weights[name], wanted, msg=name)


def test_a_missing_weights_file_is_refused(tmp_path):
    assert f"model.checkpoint={tmp_path / 'none.pth'}" in refusal(
        checkpoint=str(tmp_path / "none.pth")
    )


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, ending):
    file = tmp_path / f"weights.{ending}"
    for content in (b"an error page of some server\n" * 9, b""):
        file.write_bytes(content)
        assert f"model.checkpoint={file}" in refusal(checkpoint=str(file))
    torch.save({}, tmp_path / "empty.pth")
    assert "model.checkpoint=" in refusal(checkpoint=str(tmp_path / "empty.pth"))


class Payload:
    """Makes a folder when it is unpickled by a loader that runs what it reads."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_in_a_weights_file_is_not_run(tmp_path, zipped):
    file, mark = tmp_path / "model.pth", tmp_path / "it_ran"
    if zipped:
        torch.save({"state_dict": {"conv1.0.weight": torch.zeros(1)}, "extra": Payload(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(mark), protocol=2))
    assert f"model.checkpoint={file}" in refusal(checkpoint=str(file))
    assert not mark.exists()


@pytest.mark.parametrize("other", ["test_vit", "test_efficientnet", "test_convnext"])
def test_weights_of_another_architecture_are_refused(tmp_path, other):
    """timm itself is not strict where the number of classes differs, and would go on with random weights."""
    file, _ = weights_file(tmp_path, other)
    message = refusal(checkpoint=str(file))
    assert f"model.checkpoint={file}" in message
    assert any(name in message for name in create_model(Model(), CLASSES, 16, 3)[0].state_dict()), (
        "a tensor is named"
    )


def test_pixels_are_normalized_as_the_model_was_pretrained_or_as_asked():
    assert create_model(Model(), CLASSES, 16, 3)[1].mean == list(
        create_model(Model(), CLASSES, 16, 3)[0].pretrained_cfg["mean"]
    )
    asked = Model(
        kwargs={"pretrained_cfg_overlay": {"mean": [0.5, 0.5, 0.5], "std": [0.1, 0.2, 0.3]}}
    )
    spec = create_model(asked, CLASSES, 16, 3)[1]
    assert (spec.mean, spec.std) == ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3])
    assert create_model(asked, CLASSES, 16, 1)[1].std == pytest.approx([0.2])


@pytest.mark.parametrize(
    "overlay",
    [
        {"file": "weights.pth"},
        {"url": "https://example.org"},
        "hub",
        {"mean": [1], "hf_hub_id": "a"},
    ],
)
def test_an_overlay_that_would_fetch_weights_is_refused(overlay):
    assert "pretrained_cfg_overlay" in refusal(kwargs={"pretrained_cfg_overlay": overlay})


def test_two_networks_of_one_seed_are_equal():
    def made(seed):
        torch.manual_seed(seed)
        return create_model(Model(), CLASSES, 16, 1)[0].state_dict()

    first, again, other = made(0), made(0), made(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert np.isfinite(first["fc.weight"]).all()
