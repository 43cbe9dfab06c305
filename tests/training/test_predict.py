"""The inference loop: probabilities of the rows that were asked for, in their order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pseudokit.config.keys import Model, Train
from pseudokit.data.transforms import build
from pseudokit.training import predict
from pseudokit.training.batches import TrainingSet
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.predict import log_probs

CPU = {"device": "cpu"}


def made(classes=("a", "b"), channels=1):
    """A network for 16 pixels, and its spec."""
    torch.manual_seed(0)
    network, spec = create_model(Model(), tuple(classes), 16, channels)
    return network, replace(spec, amp_dtype="fp32")


@pytest.fixture(scope="module")
def pixels():
    images = (load_digits().images[:400] * 15.9).astype(np.uint8)
    return images.repeat(2, 1).repeat(2, 2)[..., None]


@pytest.fixture(scope="module")
def model(pixels):
    """A few steps are enough for predictions that differ from row to row."""
    network, spec = made("0123456789")
    recipe = Train(batch_size=32, augment="none", amp_dtype="fp32", **CPU)
    network, _ = train_model(
        network,
        spec,
        TrainingSet(pixels, np.arange(400), load_digits().target[:400], 30, 0),
        recipe,
    )
    return TrainedModel(network, spec, "hash")


def test_probabilities_are_normalized_and_those_of_the_network(model, pixels):
    logs = log_probs(model, pixels, np.arange(60), **CPU)
    assert logs.shape == (60, 10)
    assert logs.dtype == np.float32
    np.testing.assert_allclose(np.exp(logs).sum(1), 1, atol=1e-5)
    images = torch.from_numpy(pixels[:60]).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(model.spec.mean), torch.tensor(model.spec.std)
    with torch.no_grad():
        wanted = model.network((images - mean) / std).log_softmax(1)
    np.testing.assert_allclose(logs, wanted, atol=1e-3)


@pytest.mark.parametrize("tta", [1, 3])
def test_rows_of_three_channels_are_normalized_by_channel(tta):
    network, spec = made(channels=3)
    network.eval()
    pixels = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), np.uint8)
    images = torch.from_numpy(pixels) / 255
    wanted = ((images - torch.tensor(spec.mean)) / torch.tensor(spec.std)).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network(wanted)
    output = log_probs(
        TrainedModel(network, spec, ""), pixels, np.arange(4), tta=tta, spec="none", **CPU
    )
    np.testing.assert_allclose(output, logits.log_softmax(1), atol=1e-4)


def test_the_order_is_that_of_the_rows(model, pixels):
    rows = np.random.default_rng(1).permutation(200)
    straight = log_probs(model, pixels, np.arange(200), **CPU)
    np.testing.assert_allclose(log_probs(model, pixels, rows, **CPU), straight[rows], atol=1e-4)
    np.testing.assert_allclose(
        log_probs(model, pixels, np.array([7, 7, 3]), **CPU), straight[[7, 7, 3]], atol=1e-4
    )


@pytest.mark.parametrize("size", [1, 7, 50, 51])
def test_batches_leave_no_mark(model, pixels, monkeypatch, size):
    whole = log_probs(model, pixels, np.arange(50), **CPU)
    monkeypatch.setattr(predict, "batch_size", lambda *_: size)
    np.testing.assert_allclose(log_probs(model, pixels, np.arange(50), **CPU), whole, atol=1e-4)


@pytest.mark.parametrize("tta", [1, 3])
def test_no_rows_give_no_probabilities(model, pixels, tta):
    assert log_probs(model, pixels, np.arange(0), tta=tta, **CPU).shape == (0, 10)


def test_the_first_view_is_the_image_itself_and_the_others_are_augmented(model, pixels):
    rows = np.arange(40)
    one, two, three = (
        np.exp(log_probs(model, pixels, rows, tta=n, spec="affine", **CPU)) for n in (1, 2, 3)
    )
    assert np.abs(three - one).max() > 0.01
    np.testing.assert_allclose(three.sum(1), 1, atol=1e-5)
    turned = (
        build("affine", 16, seed=1)(torch.from_numpy(pixels[rows]), 0).permute(0, 3, 1, 2) / 255
    )
    with torch.no_grad():
        other = model.network((turned - model.spec.mean[0]) / model.spec.std[0]).softmax(1)
    np.testing.assert_allclose(2 * two - one, other, atol=1e-3)
    assert np.abs(3 * three - 2 * two - other.numpy()).max() > 0.01, "the third view is a new draw"


def test_views_without_augmentation_change_nothing(model, pixels):
    one, three = (
        log_probs(model, pixels, np.arange(20), tta=n, spec="none", **CPU) for n in (1, 3)
    )
    np.testing.assert_allclose(np.exp(three), np.exp(one), atol=1e-5)


def test_more_views_of_the_same_seed_are_the_same(model, pixels):
    first, again = (
        log_probs(model, pixels, np.arange(20), tta=3, spec="affine", **CPU) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


def test_a_certain_model_stays_finite(pixels):
    """Logits a thousand apart: in probabilities that is exactly zero, whose logarithm no one can average."""
    network, spec = made()
    with torch.no_grad():
        network.fc.weight.zero_()
        network.fc.bias.copy_(torch.tensor([1000.0, 0.0]))
    for tta in (1, 2):
        logs = log_probs(
            TrainedModel(network, spec, ""), pixels, np.arange(3), tta=tta, spec="affine", **CPU
        )
        assert np.isfinite(logs).all()


def test_half_precision_says_nearly_the_same(model, pixels):
    halved = replace(model, spec=replace(model.spec, amp_dtype="bf16"))
    full, half = (np.exp(log_probs(m, pixels, np.arange(100), **CPU)) for m in (model, halved))
    assert half.dtype == np.float32
    assert np.abs(full - half).mean() < 0.01


def test_a_network_in_training_mode_is_not_judged_in_it(model, pixels):
    """Batch statistics would make a row's verdict depend on its neighbors."""
    wanted = log_probs(model, pixels, np.arange(5), **CPU)
    model.network.train()
    np.testing.assert_allclose(log_probs(model, pixels, np.arange(5), **CPU), wanted, atol=1e-5)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    log_probs(model, pixels, np.arange(5), **CPU)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_batch_holds_many_small_images_and_few_large_ones():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert predict.batch_size(4096, cpu) == 1
    assert predict.batch_size(28, cpu) > 4 * predict.batch_size(128, cpu) > 16
    assert (
        predict.batch_size(8, cuda)
        == predict.MAX_BATCH_IMAGES
        >= predict.batch_size(28, cuda)
        > predict.batch_size(28, cpu)
    )
