"""Heads on a frozen network: the best one under a prior that follows the noise, saved alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from pseudokit.config.keys import Config, Model, Train
from pseudokit.config.types import UserError
from pseudokit.data.folds import make_folds
from pseudokit.training import predict
from pseudokit.training.label_propagation import neighbor_graph, propagate_labels
from pseudokit.training.linear_probe import (
    MIN_PSEUDO_LABEL_PRIOR,
    PRIORS,
    alike_features,
    fit_head,
    head_log_probs,
    linear_classifier,
)
from pseudokit.training.models import TrainedModel, create_model, load_model, save_model, with_head
from pseudokit.training.predict import embed, log_probs

CLASSES = tuple("0123456789")


def fitted(x, labels, k, given_labels=None):
    """Head and history, where all labels are given, or these."""
    return fit_head(x, labels, k, False, labels if given_labels is None else given_labels)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network, spec = create_model(Model(), CLASSES, 16, 1)
    return network, replace(spec, amp_dtype="fp32")


@pytest.fixture(scope="module")
def digits():
    """(400, 16, 16, 1) uint8 and (400,) labels."""
    data = load_digits()
    return (data.images[:400] * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[
        ..., None
    ], data.target[:400]


def embedded(backbone, pixels, rows=None) -> ndarray:
    network, spec = backbone
    rows = np.arange(len(pixels)) if rows is None else rows
    return embed(network, spec, pixels, rows, Train(amp_dtype="fp32", device="cpu"))


def numbers(n=300, d=7, k=3, seed=0):
    """Gaussian classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    return (rng.normal(labels[:, None] * rng.normal(size=d), 1.5, (n, d)) + 5).astype(
        np.float32
    ), labels


def probs_of(head, x) -> ndarray:
    return head(torch.from_numpy(x)).softmax(1).detach().numpy()


def test_soft_targets_that_say_one_class_are_the_labels_and_weight_zero_teaches_nothing():
    x, labels = numbers()
    hard, soft = (
        probs_of(fitted(x, y, 3)[0], x) for y in (labels, np.eye(3, dtype=np.float32)[labels])
    )
    np.testing.assert_allclose(hard, soft, atol=1e-3)
    weightless = np.eye(3, dtype=np.float32)[labels]
    weightless[::2] = 0
    assert np.abs(probs_of(fitted(x, weightless, 3)[0], x) - hard).max() > 0.01


def test_a_given_label_counts_as_ten_pseudo_labels_unless_the_run_changes_given_labels():
    x, labels = numbers()
    others = np.roll(labels, 7)

    def probs_with(x_rows, targets, given_labels):
        return probs_of(fit_head(x_rows, targets, 3, False, given_labels, prior=1000.0)[0], x)

    both, none = np.concatenate([labels, others]), np.full(600, -1)
    given_labels = np.concatenate([labels, none[:300]])
    favored = probs_with(np.tile(x, (2, 1)), both, given_labels)
    ten_times = np.concatenate([np.tile(labels, 10), others])
    repeated = probs_with(np.tile(x, (11, 1)), ten_times, np.full(3300, -1))
    np.testing.assert_allclose(favored, repeated, atol=2e-3)
    given_labels[0] = (given_labels[0] + 1) % 3
    alike = [probs_with(np.tile(x, (2, 1)), both, given) for given in (given_labels, none)]
    np.testing.assert_allclose(*alike, atol=2e-3)
    assert np.abs(alike[0] - favored).max() > 0.1


def test_a_class_without_rows_and_a_unit_that_never_changes_do_no_harm():
    x, labels = numbers()
    x[:, 3] = 2
    head, _ = fitted(x, labels, 5)
    probs = probs_of(head, x)
    assert np.isfinite(probs).all()
    assert probs[:, 3:].max() < 0.05


def test_the_network_with_a_head_says_what_the_head_says_of_embeddings(backbone, digits):
    pixels, labels = digits
    x = embedded(backbone, pixels)
    untouched = backbone[0].get_classifier().weight.clone()
    network = with_head(backbone[0], fitted(x, labels, 10)[0].state_dict())
    model = TrainedModel(network, backbone[1], "")
    whole = log_probs(model, pixels, np.arange(400), device="cpu")
    np.testing.assert_allclose(head_log_probs(model, x), whole, atol=1e-3)
    assert (whole.argmax(1) == labels).mean() > 0.8, "a random network, but 400 of 400 were learned"
    assert torch.equal(backbone[0].get_classifier().weight, untouched)
    first = next(iter(network.parameters()))
    assert first.data_ptr() == next(iter(backbone[0].parameters())).data_ptr(), (
        "the backbone is not copied"
    )


def test_embeddings_are_those_of_the_rows_in_any_batches(backbone, digits, monkeypatch):
    pixels = digits[0]
    whole = embedded(backbone, pixels)
    monkeypatch.setattr(predict, "batch_size", lambda *_: 7)
    rows = np.array([5, 399, 0, 0, 17, 3, 2, 1, 300])
    np.testing.assert_allclose(embedded(backbone, pixels, rows), whole[rows], atol=1e-4)


def test_a_head_is_saved_alone_and_read_back_with_its_backbone(tmp_path, backbone, digits):
    saved = save_model(tmp_path / "backbone", *backbone)
    head, _ = fitted(embedded(backbone, digits[0]), digits[1], 10)
    network = with_head(backbone[0], head.state_dict())
    model = save_model(tmp_path / "round_1" / "fold_0", network, backbone[1], saved.hash)
    assert (tmp_path / "round_1" / "fold_0" / "model.safetensors").stat().st_size < 10_000
    back = load_model(tmp_path / "round_1" / "fold_0")
    assert (back.hash, back.backbone) == (model.hash, saved.hash)
    rows = np.arange(50)
    np.testing.assert_array_equal(
        *(log_probs(m, digits[0], rows, device="cpu") for m in (model, back))
    )


def test_a_head_without_its_backbone_is_refused_by_name(tmp_path, backbone):
    saved = save_model(tmp_path / "backbone", *backbone)
    folder = tmp_path / "round_1" / "fold_0"
    save_model(folder, *backbone, "another")
    with pytest.raises(UserError, match=rf"{tmp_path / 'backbone'}.*--fresh"):
        load_model(folder)
    save_model(folder, *backbone, saved.hash)
    (tmp_path / "backbone" / "model.json").unlink()
    with pytest.raises(UserError, match=str(tmp_path / "backbone")):
        load_model(folder)


def test_a_network_whose_last_layer_is_not_linear_is_refused():
    network = torch.nn.Module()
    network.get_classifier = lambda: torch.nn.Identity()
    with pytest.raises(UserError, match=r"model\.freeze_backbone.*Identity.*model\.name"):
        linear_classifier(network)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": {"freeze_backbone": True}}, "model.checkpoint"),
        (
            {"model": {"freeze_backbone": True, "checkpoint": "w"}, "pseudo": {"tta": 2}},
            "pseudo.tta",
        ),
        (
            {"model": {"freeze_backbone": True, "checkpoint": "w"}, "predict": {"tta": 2}},
            "predict.tta",
        ),
        (
            {
                "model": {"freeze_backbone": True, "checkpoint": "w"},
                "train": {"consistency_weight": 1},
            },
            "train.consistency_weight",
        ),
    ],
)
def test_keys_that_a_frozen_network_cannot_heed_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Config.model_validate(keys)
    if message in ("predict.tta", "train.consistency_weight"):
        assert (
            not Config.model_validate(keys | {"student": {"name": "resnet18"}})
            .model_of("student")
            .freeze_backbone
        )


def test_embeddings_are_compared_whatever_their_scale():
    """Three groups in two of twenty units that a third, large and random, would drown."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 40)
    x = rng.normal(0, 1, (120, 20))
    x[:, :6] += 6 * rng.normal(0, 1, (3, 6))[group]
    x *= 1e-6
    x[:, 7] = 3e-6
    log_probs = propagate_labels(
        neighbor_graph(alike_features(x.astype(np.float32))),
        np.array([0, 40, 80]),
        np.array([0, 1, 2]),
        3,
    )
    assert (log_probs.argmax(1) == group).mean() > 0.95


K = 4


def features(n=200, d=60, seed=0, distance=0.35):
    """Gaussian classes in many units: (n, d) float32, (n,) labels."""
    rng = np.random.default_rng([seed, n])
    centers = np.random.default_rng(seed).normal(size=(K, d)) * distance
    labels = np.arange(n) % K
    return (centers[labels] + rng.normal(size=(n, d)) + 3).astype(np.float32), labels


def flip(labels, rate, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < rate, rng.integers(0, K, len(labels)), labels)


def probs(head, x):
    return head(torch.from_numpy(x)).softmax(1).detach().numpy()


def prior_of(history):
    return history.prior.iloc[0]


def test_it_is_the_logistic_regression_of_embeddings_in_one_scale():
    x, labels = features()
    head, history = fitted(x, labels, K)
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    expected = LogisticRegression(C=1 / prior_of(history), tol=1e-8, max_iter=1000).fit(
        scaled, labels
    )
    np.testing.assert_allclose(probs(head, x), expected.predict_proba(scaled), atol=2e-3)
    assert history.loss.iloc[-1] < history.loss.iloc[0] == pytest.approx(np.log(K), abs=1e-3)


@pytest.mark.parametrize(("n", "d"), [(48, 200), (120, 60)])
def test_the_prior_is_the_one_that_cross_validation_would_choose(n, d):
    x, labels = features(n, d, distance=0.15)
    _, history = fitted(x, labels, K)
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    folds = make_folds(labels, np.arange(n), 5, seed=0)

    def held_out_loss(prior):
        model = LogisticRegression(C=1 / prior, tol=1e-6, max_iter=1000)
        probs = cross_val_predict(
            model, scaled, labels, cv=PredefinedSplit(folds), method="predict_proba"
        )
        return log_loss(labels, probs)

    losses = [held_out_loss(prior) for prior in PRIORS]
    assert 0 < np.argmin(losses) < len(PRIORS) - 1
    assert prior_of(history) == PRIORS[np.argmin(losses)]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_the_embeddings_is_of_no_account(factor):
    x, labels = features()
    shifted = (x * factor + 7 * factor).astype(np.float32)
    np.testing.assert_allclose(
        probs(fitted(x, labels, K)[0], x),
        probs(fitted(shifted, labels, K)[0], shifted),
        atol=5e-3,
    )


def test_a_unit_that_hardly_varies_among_few_labels_does_not_decide_elsewhere():
    """With a scale for each unit, what is nearly constant among the labels blows up on other rows."""
    x, labels = features(5 * K, d=300)
    others, truth = features(400, d=300)
    x[:, :40] = 3 + (x[:, :40] - 3) * 0.01
    accuracy = (probs(fitted(x, labels, K)[0], others).argmax(1) == truth).mean()
    alone = (probs(fitted(x[:, 40:], labels, K)[0], others[:, 40:]).argmax(1) == truth).mean()
    assert accuracy > alone - 0.03
    assert accuracy > 0.5


def test_noisy_labels_choose_a_stronger_prior():
    x, labels = features(800, distance=0.8)
    clean, noisy = (prior_of(fitted(x, y, K)[1]) for y in (labels, flip(labels, 0.4)))
    assert noisy > clean


def test_pseudo_labels_neither_choose_the_prior_nor_weaken_it():
    x, labels = features(400)
    given_labels = np.where(np.arange(400) < 40, labels, -1)
    labeled_only, _ = fitted(x[:40], labels[:40], K)
    _, history = fitted(x, labels, K, given_labels=given_labels)
    _, other = fitted(
        x, np.where(given_labels < 0, (labels + 1) % K, labels), K, given_labels=given_labels
    )
    assert prior_of(history) == prior_of(other) >= MIN_PSEUDO_LABEL_PRIOR
    assert np.isfinite(probs(labeled_only, x)).all()


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a_handful_of_labels_is_enough_to_fit_if_not_to_choose(n):
    x, labels = features(n)
    assert np.isfinite(probs(fitted(x, labels, K)[0], x)).all()


def test_the_same_rows_make_the_same_bytes():
    x, labels = features(300)
    first, second = (fitted(x, flip(labels, 0.2), K)[0].weight for _ in range(2))
    assert torch.equal(first, second)
