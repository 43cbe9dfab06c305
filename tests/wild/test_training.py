"""A training that is none is refused or told before its first step, and weights in a wrapper are found."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pseudokit.config.keys import Model, Train
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.prepare import prepare
from pseudokit.training.batches import TrainingSet
from pseudokit.training.loop import train_model
from pseudokit.training.models import ModelSpec, TrainedModel, create_model, load_model, save_model
from pseudokit.training.predict import log_probs
from tests.naming import refused

CLASSES = ("cat", "dog")
N_ROWS = 60


@pytest.fixture
def start(tmp_path, caplog):
    """start(*overrides) → what is logged while 60 images are prepared; t.csv has them, group g has 54 of them."""
    rng = np.random.default_rng(0)
    for i in range(N_ROWS):
        image = Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8))
        image.save(tmp_path / f"{i}.png")
        image.save(tmp_path / f"copy{i}.bmp")
    table = pd.DataFrame(
        {"id": np.arange(N_ROWS), "label": [CLASSES[i % 2] for i in range(N_ROWS)]}
    )
    table["g"] = ["a" if i < 54 else str(i) for i in range(N_ROWS)]
    table.to_csv(tmp_path / "t.csv", index=False)
    table["id"] = [f"copy{i}" for i in range(N_ROWS)]
    table.to_csv(tmp_path / "v.csv", index=False)
    (tmp_path / "c.yaml").touch()

    def start(*overrides: str, mode: str = "denoise") -> str:
        data = [f"data.train={tmp_path / 't.csv'}", "pseudo.folds=2", *overrides]
        run = Run(tmp_path / "run", mode, load_config(tmp_path / "c.yaml", data))
        run.path.mkdir(exist_ok=True)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            prepare(run)
        return "\n".join(line for line in caplog.messages if line.startswith("warning"))

    return start


def test_a_batch_of_one_image_is_refused_where_batches_are_normalized(start):
    refused(lambda: start("train.batch_size=1"), "train.batch_size=1", "model.name")
    refused(
        lambda: start(
            "train.batch_size=1", "model.name=test_vit", "data.size=32", "student.name=test_resnet"
        ),
        "train.batch_size=1",
        "student.name",
    )
    assert start("train.batch_size=1", "model.name=test_vit", "data.size=32") == ""
    parts = ["train.batch_size=8", "train.accumulate=5"]
    refused(lambda: start(*parts), *parts, "model.name")
    assert start(*parts, "model.name=test_vit", "data.size=32") == ""


def test_a_group_that_fills_a_fold_is_told(start):
    assert start() == ""
    for folds in (2, 5):
        warning = start("data.group_col=g", f"pseudo.folds={folds}")
        assert "data.group_col" in warning
        assert "60" in warning


def test_scored_rows_that_are_copies_of_learned_ones_are_told(start, tmp_path):
    for split in ("val", "trusted", "test"):
        assert f"data.{split}" in start(f"data.{split}={tmp_path / 'v.csv'}")
    half = pd.read_csv(tmp_path / "v.csv")[:2]
    half.to_csv(tmp_path / "v.csv", index=False)
    assert "data.val" in start(f"data.val={tmp_path / 'v.csv'}"), "all of two"


def test_several_wrong_things_are_told_at_once(start, tmp_path):
    gone = [f"data.{split}={tmp_path / split}.csv" for split in ("val", "test")]
    student = ["student.name=test_resnet", "student.checkpoint=no.pth"]
    wrong = ["train.loss=nope", "model.name=resnte18", *student]
    refused(
        lambda: start(*gone, *wrong),
        *gone,
        "train.loss=nope",
        "'resnte18'",
        "resnet18",
        "student.checkpoint=no.pth",
    )


# ---- steps


def small_set(steps: int) -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 16, 16, 1), np.uint8)
    return TrainingSet(pixels, np.arange(32), np.arange(32) % 2, steps, 0)


@pytest.mark.parametrize("lr", [1e3, 1e15, 1e30])
def test_a_learning_rate_that_is_far_too_high_ends_in_one_line_or_in_numbers(lr):
    """It may learn nothing, which the run says itself, but nothing that is no number comes out."""
    train = Train(batch_size=8, lr=lr, augment="none")
    network, spec = create_model(Model(), CLASSES, 16, 1)
    data = small_set(4)

    def finite_numbers() -> bool:
        trained, _ = train_model(network, spec, data, train)
        return np.isfinite(log_probs(TrainedModel(trained, spec), data.pixels, data.rows)).all()

    try:
        assert finite_numbers()
    except UserError as error:
        told = str(error)
    else:
        told = "train.lr"
    assert "train.lr" in told


def test_a_training_whose_steps_were_all_left_out_is_none():
    network, spec = create_model(Model(), CLASSES, 16, 1)
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient * np.nan)
    for steps in (1, 5):
        with pytest.raises(UserError, match=r"gradient.*train\.lr"):
            train_model(network, spec, small_set(steps), Train(batch_size=8, augment="none"))


def test_a_network_that_predicts_no_numbers_is_refused():
    network, spec = create_model(Model(), CLASSES, 16, 1)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    data = small_set(1)
    with pytest.raises(UserError, match=r"train\.lr"):
        log_probs(TrainedModel(network, spec), data.pixels, data.rows)


# ---- models


def features(network) -> torch.Tensor:
    """What comes before the classifier, which is fresh."""
    with torch.no_grad():
        return network.eval().forward_features(torch.ones(2, 1, 32, 32))


def logits(network) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("", "test_vit"),
        ("", "test_resnet"),
        ("model.", "test_vit"),
        ("module.", "test_resnet"),
        ("model._orig_mod.", "test_resnet"),
        ("a.b.c.", "test_resnet"),
    ],
)
def test_weights_in_a_wrapper_are_the_same_weights(tmp_path, prefix, name):
    torch.manual_seed(5)
    network, _ = create_model(Model(name=name), CLASSES, 32, 1)
    tensors = {f"{prefix}{key}": tensor for key, tensor in network.state_dict().items()}
    others = {
        "loss.weight": torch.ones(2),
        **{
            f"ema.{prefix}{key}": torch.zeros_like(tensor)
            for key, tensor in network.state_dict().items()
        },
    }
    state = {"state_dict": tensors | others, "epoch": 3, "optimizer_states": [{"lr": 0.1}]}
    torch.save(state, tmp_path / "x.ckpt")
    torch.manual_seed(6)
    loaded, _ = create_model(Model(name=name, checkpoint=str(tmp_path / "x.ckpt")), CLASSES, 32, 1)
    for tensor, other in zip(features(loaded), features(network), strict=True):
        torch.testing.assert_close(tensor, other)


def test_weights_of_two_networks_are_refused(tmp_path):
    network, _ = create_model(Model(name="test_resnet"), CLASSES, 32, 1)
    tensors = network.state_dict().items()
    two = {prefix + key: tensor for prefix in ("student.", "teacher.") for key, tensor in tensors}
    torch.save(two, tmp_path / "x.pth")
    config = Model(name="test_resnet", checkpoint=str(tmp_path / "x.pth"))
    refused(lambda: create_model(config, CLASSES, 32, 1), "x.pth", "student.", "teacher.")


def test_a_transformer_takes_images_of_another_size_than_that_of_its_pretraining(tmp_path):
    (tmp_path / "x.pth").touch()
    broken = Model(name="test_vit", checkpoint=str(tmp_path / "x.pth"))
    with pytest.raises(UserError) as caught:
        create_model(broken, CLASSES, 32, 1)
    assert "160" not in str(caught.value), "the fault of the file, not of the size"
    config = Model(name="test_vit")
    network, spec = create_model(config, CLASSES, 32, 1)
    assert isinstance(spec, ModelSpec)
    save_model(tmp_path, network, spec)
    torch.testing.assert_close(logits(load_model(tmp_path).network), logits(network))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("facebook/dinov2-small", "vit_small_patch14_dinov2"),
        ("google/vit-base-patch16-224", "vit_base_patch16_224"),
        ("hf-hub:timm/resnet18.a1_in1k", "resnet18"),
        ("hf_hub:timm/vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224"),
        ("microsoft/resnet-50", "resnet50"),
        ("EfficientNet-B0", "efficientnet_b0"),
        ("resnte18", "resnet18"),
    ],
)
def test_a_name_of_another_library_suggests_the_model_of_timm(name, meant):
    refused(lambda: create_model(Model(name=name), CLASSES, 32, 1), "model.name", meant)
