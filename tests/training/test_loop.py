"""The training loop: it learns, repeats to the byte, and every option does what its name says."""

import copy
import gc
import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Model, Train
from pseudokit.config.types import UserError
from pseudokit.training.batches import TrainingSet
from pseudokit.training.linear_probe import fit_head
from pseudokit.training.loop import step_budget, train_model
from pseudokit.training.models import TrainedModel, create_model, with_head
from pseudokit.training.predict import embed, log_probs

LEARN = np.random.default_rng(0).permutation(1200)
"""In no order: labels belong to the rows of a training set, wherever these stand among the images."""
HELD_OUT = np.arange(1200, 1797)
FEW_ROWS = np.arange(200)
"""Rows where nothing has to be learned well: every training looks at all of its rows once more at the end."""
STEPS = 40
QUICK = {"batch_size": 64, "amp_dtype": "fp32", "augment": "none", "device": "cpu"}
STEADY = {"schedule": "constant", "weight_decay": 0, "optimizer": "sgd", "batch_size": 16}
"""One plain step of gradient descent: what it changes is proportional to rate and gradient."""


@pytest.fixture(scope="module")
def digits():
    """(1797, 16, 16, 1) uint8 and (1797,) labels."""
    data = load_digits()
    images = (data.images * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
    return images, data.target.astype(np.int64)


def trained(digits, *, rows=LEARN, steps=STEPS, seed=0, labels=None, **options):
    """(network, history, network before training) for a recipe of these options."""
    pixels, target = digits
    torch.manual_seed(seed)
    classes = tuple(map(str, range(10)))
    network, spec = create_model(Model(), classes, pixels.shape[1], 1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training_set = TrainingSet(
        pixels, rows, target[rows] if labels is None else labels, steps, seed
    )
    network, history = train_model(network, spec, training_set, Train(**QUICK | options))
    return TrainedModel(network, replace(spec, amp_dtype="fp32")), history, before


def probs(model, digits, rows=HELD_OUT) -> ndarray:
    return np.exp(log_probs(model, digits[0], rows, device="cpu"))


def accuracy(model, digits) -> float:
    return (probs(model, digits).argmax(1) == digits[1][HELD_OUT]).mean()


def first_norm(model) -> torch.nn.BatchNorm2d:
    return next(
        module for module in model.network.modules() if isinstance(module, torch.nn.BatchNorm2d)
    )


def first_norm_inputs(model, digits, rows) -> torch.Tensor:
    """(channels, …) what the first batch norm is given, over these images."""
    seen = []
    hook = first_norm(model).register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].float())
    )
    probs(model, digits, rows)
    hook.remove()
    return torch.cat(seen).transpose(0, 1).flatten(1)


def change(model, before, *names) -> torch.Tensor:
    """What training added to these parameters (all of them without names), as one vector."""
    after = dict(model.network.named_parameters())
    return torch.cat([(after[n].detach() - before[n]).flatten() for n in (names or after)])


@pytest.fixture(scope="module")
def plain(digits):
    return trained(digits)


def test_it_learns_digits_that_it_has_not_seen(plain, digits):
    model, history, _ = plain
    assert accuracy(model, digits) > 0.9
    assert history.loss.iloc[-1] < 0.3 < 1.5 < history.loss.iloc[0]
    assert not model.network.training


def test_the_history_has_its_columns_and_counts_epochs(plain):
    history = plain[1]
    assert list(history) == ["epoch", "loss", "lr", "seconds", "skipped"]
    assert history.epoch.iloc[-1] == pytest.approx(STEPS * 64 / 1200, abs=1e-3)
    assert history.epoch.is_monotonic_increasing
    assert 15 <= len(history) <= 40


@pytest.mark.parametrize("augment", ["none", "affine"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(digits, augment):
    first, again, other = (
        trained(digits, rows=FEW_ROWS, steps=8, seed=seed, augment=augment, ema_decay=0.9)[
            0
        ].network.state_dict()
        for seed in (1, 1, 2)
    )
    for name in first:
        assert first[name].numpy().tobytes() == again[name].numpy().tobytes(), name
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"augment": "photo"},
        {"augment": "small", "consistency_weight": 1.0, "strong_augment": "photo"},
    ],
)
def test_other_processes_make_the_same_images(digits, options):
    """…, in the same order, whatever their number; and they end with the training."""
    pixels, target = digits
    results = []
    for workers in (0, 2):
        torch.manual_seed(0)
        network, spec = create_model(Model(), tuple("0123456789"), 16, 1)
        training_set = TrainingSet(pixels, FEW_ROWS, target[FEW_ROWS], 6, 0, unlabeled=HELD_OUT)
        network, _ = train_model(
            network, spec, training_set, Train(**QUICK | options, num_workers=workers)
        )
        results.append(network.fc.weight.detach())
    assert torch.equal(*results)
    gc.collect()
    assert not multiprocessing.active_children()


def test_dropout_repeats_whatever_was_drawn_before(digits):
    """A resumed run has drawn other random numbers by then."""
    pixels, target = digits
    results = []
    for earlier in (0, 5):
        torch.manual_seed(0)
        network, spec = create_model(Model(kwargs={"drop_rate": 0.5}), tuple("0123456789"), 16, 1)
        torch.rand(earlier)
        train_model(
            network, spec, TrainingSet(pixels, FEW_ROWS, target[FEW_ROWS], 5, 0), Train(**QUICK)
        )
        results.append(network.fc.weight.detach().clone())
    assert torch.equal(*results)


def test_training_does_not_touch_the_images(digits):
    before = digits[0].copy()
    trained(digits, rows=FEW_ROWS, steps=5, augment="affine")
    np.testing.assert_array_equal(digits[0], before)


@pytest.mark.parametrize(
    ("n", "options", "steps"),
    [
        (1000, {"epochs": 6, "batch_size": 100}, 60),
        (1000, {"epochs": 0.5, "batch_size": 100}, 5),
        (250, {"epochs": 10, "batch_size": 128, "min_steps": 160}, 160),
        (60000, {"epochs": 1, "batch_size": 128, "min_steps": 200}, 469),
        (3, {"epochs": 0.1, "batch_size": 128}, 1),
    ],
)
def test_the_step_budget_is_the_epochs_but_at_least_the_floor(n, options, steps):
    assert step_budget(n, Train(**options)) == steps


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_set_smaller_than_a_batch_is_learned(digits, n):
    model, history, _ = trained(digits, rows=LEARN[:n], steps=40)
    assert np.isfinite(history.loss).all()
    assert (probs(model, digits, LEARN[:n]).argmax(1) == digits[1][LEARN[:n]]).all()


def test_both_precisions_train_on_the_cpu(plain, digits):
    # On some CPUs bf16 needs images of 24 pixels, see device.MIN_BF16_PIXELS.
    large = digits[0].repeat(2, 1).repeat(2, 2), digits[1]
    in_bf16 = trained(large, amp_dtype="bf16")
    for (model, history, _), images in ((plain, digits), (in_bf16, large)):
        assert history.loss.iloc[-1] < 0.7
        assert accuracy(model, images) > 0.85
        assert {value.dtype for value in model.network.parameters()} == {torch.float32}


def test_averaged_weights_are_others_than_the_last_ones_and_as_good(plain, digits):
    averaged = trained(digits, ema_decay=0.9)[0]
    assert not torch.equal(averaged.network.fc.weight, plain[0].network.fc.weight)
    assert accuracy(averaged, digits) > 0.9
    # a decay of nearly nothing is the last weights themselves
    last, other = (
        trained(digits, rows=FEW_ROWS, steps=10, ema_decay=decay)[0].network.fc.weight
        for decay in (1e-9, 0.0)
    )
    torch.testing.assert_close(last, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("linear_probe_first", [True, False])
def test_head_first_begins_with_the_best_head_of_a_backbone_that_is_trained(
    plain, digits, linear_probe_first
):
    pixels, target = digits
    network = copy.deepcopy(plain[0].network)
    network.fc.reset_parameters()
    before = {name: value.clone() for name, value in network.named_parameters()}
    still = {
        "optimizer": "sgd",
        "lr": 1e-9,
        "schedule": "constant",
        "weight_decay": 0,
        "linear_probe_first": linear_probe_first,
    }
    training_set = TrainingSet(pixels, LEARN, target[LEARN], 5, 0)
    train, spec = Train(**QUICK | still), plain[0].spec
    if linear_probe_first:
        embeddings = embed(network, spec, pixels, LEARN, train)
        head, _ = fit_head(embeddings, target[LEARN], 10, False, target[LEARN])
        network = with_head(network, head.state_dict())
    network, history = train_model(network, spec, training_set, train)
    assert (history.loss.max() < 0.2) if linear_probe_first else (history.loss.min() > 1)
    for name, value in network.named_parameters():
        assert torch.allclose(value, before[name], atol=1e-5) != (
            linear_probe_first and name.startswith("fc.")
        ), name
        assert value.requires_grad, "everything may learn"
    kept = all(
        torch.equal(value, plain[0].network.get_buffer(name))
        for name, value in network.named_buffers()
    )
    assert kept == linear_probe_first, "the statistics under which the head is right"


def learning_rates(digits, schedule, **options) -> ndarray:
    """The rates of 20 steps."""
    recipe = {"schedule": schedule, "lr": 0.01, "batch_size": 8} | options
    history = trained(digits, rows=FEW_ROWS, steps=20, **recipe)[1]
    assert len(history) == 20
    return history.lr.to_numpy()


def test_onecycle_rises_to_the_peak_and_falls_to_nothing(digits):
    rates = learning_rates(digits, "onecycle")
    top = int(rates.argmax())
    assert 3 <= top <= 6
    assert 0.009 < rates[top] <= 0.01
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] < 1e-4
    assert rates[0] < 0.005


def test_cosine_warms_up_and_falls_to_nothing(digits):
    rates = learning_rates(digits, "cosine")
    top = int(rates.argmax())
    assert 3 <= top <= 5
    assert rates[top] == pytest.approx(0.01)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top + 1 :]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    half = rates[top + 1 :][7]
    assert half == pytest.approx(0.005, rel=0.25), "a cosine is half way down in the middle"


def test_constant_stays_after_the_warm_up(digits):
    rates = learning_rates(digits, "constant")
    assert rates[0] < 0.005
    np.testing.assert_allclose(rates[5:], 0.01)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_every_schedule_takes_any_number_of_steps(digits, schedule):
    for steps in (1, 2, 3, 4, 7):
        _, history, _ = trained(digits, rows=FEW_ROWS, steps=steps, batch_size=4, schedule=schedule)
        assert np.isfinite(history.loss).all()


def test_lower_layers_learn_at_lower_rates(digits):
    lengths = {}
    layers = [
        "conv1.0.weight",
        "layer2.0.downsample.1.weight",
        "layer4.0.downsample.1.weight",
        "fc.weight",
    ]
    for decay in (1.0, 0.5):
        recipe = STEADY | {"lr": 1e-3, "layer_decay": decay}
        model, _, before = trained(digits, rows=FEW_ROWS, steps=1, **recipe)
        lengths[decay] = np.array([change(model, before, name).norm().item() for name in layers])
    rate = lengths[0.5] / lengths[1.0]
    assert rate[-1] == pytest.approx(1, rel=0.01)
    assert (np.diff(rate) > 0).all()
    assert rate[0] < 0.3


def test_gradients_are_clipped_to_the_norm(digits):
    def length(clip):
        model, _, before = trained(digits, rows=FEW_ROWS, steps=1, lr=1, clip_grad=clip, **STEADY)
        return change(model, before).norm().item()

    assert length(2e-2) == pytest.approx(2 * length(1e-2), rel=0.02)
    assert length(1e-2) < 0.02
    assert length(None) == pytest.approx(length(1e6), rel=1e-3)
    assert length(None) > 10 * length(1e-2)


def test_weight_decay_spares_biases_and_norms(digits):
    """With a rate this small the loss moves nothing that can be seen; decay shrinks each weight by lr × decay."""
    options = {"lr": 1e-6, "schedule": "constant", "batch_size": 8}
    model, _, before = trained(digits, rows=FEW_ROWS, steps=1, weight_decay=1e5, **options)
    after = dict(model.network.named_parameters())
    torch.testing.assert_close(after["fc.weight"], 0.9 * before["fc.weight"], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(after["bn1.weight"], before["bn1.weight"], atol=1e-5, rtol=1e-5)


def test_smoothed_labels_make_modest_predictions(plain, digits):
    smooth = trained(digits, label_smoothing=0.4)[0]
    assert accuracy(smooth, digits) > 0.9
    assert probs(smooth, digits).max(1).mean() < 0.8 < probs(plain[0], digits).max(1).mean()


def test_a_balanced_loss_makes_up_for_rare_classes():
    """Of noise nothing but the share of each class can be learned: 9:1 as it is, 1:1 when balanced."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (2000, 16, 16, 1), np.uint8)
    rows, labels = np.arange(1500), np.where(rng.random(1500) < 0.9, 3, 7)
    results = {}
    for loss in ("cross_entropy", "balanced_cross_entropy"):
        model, _, _ = trained((noise, None), rows=rows, labels=labels, steps=60, lr=1e-2, loss=loss)
        results[loss] = probs(model, (noise, None), np.arange(1500, 2000)).mean(0)
    assert results["cross_entropy"][3] == pytest.approx(0.9, abs=0.05)
    assert results["balanced_cross_entropy"][3] == pytest.approx(0.5, abs=0.15)
    assert results["balanced_cross_entropy"][7] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("optimizer", ["sgd", "lamb"])
def test_any_timm_optimizer_learns(digits, optimizer):
    """As adamw does, with which all others are trained."""
    lr = {"sgd": 0.05}.get(optimizer, 6e-3)
    _, history, _ = trained(digits, steps=40, optimizer=optimizer, lr=lr)
    assert history.loss.iloc[-1] < 0.7 * history.loss.iloc[0]


def test_an_unknown_optimizer_is_refused_by_its_key(digits):
    with pytest.raises(UserError, match=r"train\.optimizer='adamwx'") as caught:
        trained(digits, steps=1, optimizer="adamwx")
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_here_is_refused_by_its_key(digits):
    missing = (
        "mps" if torch.cuda.is_available() or not torch.backends.mps.is_available() else "cuda"
    )
    with pytest.raises(UserError, match=rf"train\.device={missing}"):
        trained(digits, steps=1, device=missing)


def test_soft_targets_that_say_one_class_are_the_labels_and_weight_zero_teaches_nothing(
    digits, plain
):
    labels = digits[1][LEARN]
    soft = trained(digits, labels=np.eye(10, dtype=np.float32)[labels])[0]
    torch.testing.assert_close(
        soft.network.fc.weight, plain[0].network.fc.weight, atol=1e-3, rtol=1e-2
    )
    wrong = (labels + 1) % 10
    half = np.arange(len(LEARN)) % 2 == 0
    targets = np.eye(10, dtype=np.float32)[np.where(half, wrong, labels)] * ~half[:, None]
    assert accuracy(trained(digits, labels=targets)[0], digits) > 0.85, (
        "rows of weight 0 are all wrong"
    )


def test_training_without_a_finite_gradient_is_wrong_input_not_a_model(digits):
    with pytest.raises(UserError, match=r"train\.lr"):
        trained(digits, rows=FEW_ROWS, lr=1e30, optimizer="sgd", schedule="constant")


def test_consistency_teaches_from_images_without_labels(digits):
    """Twenty labels: what the others add is far more than chance."""
    pixels, target = digits
    rows = np.concatenate([np.flatnonzero(target[:1200] == k)[:2] for k in range(10)])
    unlabeled = np.setdiff1d(LEARN, rows)
    results = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        network, spec = create_model(Model(), tuple("0123456789"), 16, 1)
        training_set = TrainingSet(pixels, rows, target[rows], 120, 0, unlabeled=unlabeled)
        options = {
            "consistency_weight": weight,
            "unlabeled_ratio": 2,
            "augment": "affine",
            "ema_decay": 0.95,
            "lr": 3e-3,
        }
        network, _ = train_model(
            network, spec, training_set, Train(**QUICK | options | {"batch_size": 32})
        )
        results[weight] = accuracy(TrainedModel(network, spec, ""), digits)
    assert results[1.0] > results[0.0] + 0.05


def test_consistency_never_sees_a_label_of_unlabeled_images(digits):
    """The labels of other rows, whatever they are, leave the result as it is."""
    pixels, target = digits
    states = []
    for labels in (target, (target + 1) % 10):
        targets = np.where(np.arange(len(target)) < 100, target, labels)
        torch.manual_seed(0)
        network, spec = create_model(Model(), tuple("0123456789"), 16, 1)
        training_set = TrainingSet(
            pixels, np.arange(100), targets[:100], 5, 0, unlabeled=np.arange(100, 600)
        )
        states.append(
            train_model(network, spec, training_set, Train(**QUICK | {"consistency_weight": 1.0}))[
                0
            ].state_dict()
        )
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_consistency_leaves_no_trace_in_running_statistics(digits):
    """Images that are looked at, however foreign, do not shift what predictions are normalized by."""
    pixels, target = digits[0].copy(), digits[1]
    pixels[100:] = 255 - pixels[100:]
    torch.manual_seed(0)
    network, spec = create_model(Model(), tuple("0123456789"), 16, 1)
    training_set = TrainingSet(
        pixels, np.arange(100), target[:100], 1, 0, unlabeled=np.arange(100, 600)
    )
    model = TrainedModel(
        train_model(network, spec, training_set, Train(**QUICK | {"consistency_weight": 1.0}))[0],
        spec,
        "",
    )
    labeled, unlabeled = (
        first_norm_inputs(model, (pixels, target), rows).mean(1)
        for rows in (np.arange(96), np.arange(100, 600))
    )
    kept = first_norm(model).running_mean
    assert torch.dist(kept, labeled) < 0.1 * torch.dist(labeled, unlabeled)


@pytest.mark.parametrize("ema", [0.0, 0.99])
def test_a_short_training_is_judged_by_statistics_of_its_own_images(digits, ema):
    """Moving averages of a dozen steps are still near those of a fresh network, with which nothing is recognized."""
    model = trained(digits, steps=12, ema_decay=ema)[0]
    assert accuracy(model, digits) > 0.3
    mean = first_norm_inputs(model, digits, LEARN).mean(1)
    assert torch.allclose(first_norm(model).running_mean, mean, atol=0.05 * mean.abs().max().item())
    assert first_norm(model).momentum is not None


def test_statistics_do_not_hang_on_the_order_of_the_rows(digits):
    """A folder sorted by class has batches of one class each, whose variances miss what classes differ by."""
    rows = np.arange(640)[np.argsort(digits[1][:640], kind="stable")]
    model = trained(digits, rows=rows, steps=3)[0]
    real = first_norm_inputs(model, digits, rows).var(1)
    assert torch.allclose(first_norm(model).running_var, real, rtol=0.1)
