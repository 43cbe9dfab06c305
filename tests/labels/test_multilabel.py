"""Decisions on label sets: each class by itself, positive and negative, with a noise and cutoffs of its own."""

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.data.dataset import Dataset
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.out_of_fold import OutOfFoldPredictions
from pseudokit.round_store import decisions_table, summary

N, CLASSES = 600, ("ant", "bee", "cat")


@pytest.fixture
def truth():
    return (np.random.default_rng(0).random((N, 3)) < (0.2, 0.4, 0.6)).astype(int)


def log_probs_of(truth, seed=1, margin=5.0):
    z = np.random.default_rng(seed).normal(margin * (2 * truth - 1), 2.0)
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], -1).astype(np.float32)


def noisy(truth, c, rate):
    given_labels, rows = truth.copy(), np.random.default_rng(2).random(len(truth)) < rate
    given_labels[rows, c] = 1 - given_labels[rows, c]
    return given_labels


def half_unlabeled(truth):
    given_labels = truth.copy()
    given_labels[::2] = -1
    return given_labels


@pytest.mark.parametrize("mode", ["augment", "denoise", "joint"])
def test_every_class_is_decided_as_if_it_were_alone(truth, mode):
    given_labels, log_probs, policy = (
        half_unlabeled(noisy(truth, 0, 0.2)),
        log_probs_of(truth),
        Pseudo(),
    )
    decisions = decide_labels(log_probs, given_labels, mode, policy)
    for c in range(3):
        alone = decide_labels(log_probs[:, c], given_labels[:, c], mode, policy)
        assert (decisions.label[:, c] == alone.label).all()
        for name in ("decision", "reason", "p_wrong"):
            assert decisions.each(name)[:, c].tolist() == pytest.approx(
                getattr(alone, name).tolist(), nan_ok=True
            )


def test_unlabeled_images_get_yes_and_no_and_what_is_not_sure_stays_unknown(truth):
    given_labels, log_probs = half_unlabeled(truth), log_probs_of(truth, margin=3.0)
    decisions = decide_labels(log_probs, given_labels, "augment", Pseudo(cutoff=0.9))
    answers, is_sure = decisions.label[::2], np.exp(log_probs[::2].max(-1)) >= 0.9
    assert ((answers >= 0) == is_sure).all()
    assert {-1, 0, 1} == set(answers.ravel())
    assert (decisions.label[1::2] == truth[1::2]).all()  # given labels stand
    has_answer = is_sure.any(1)
    assert (decisions.confidence[::2][has_answer] >= 0.9).all()
    assert (decisions.decision[::2] == np.where(has_answer, "accept", "leave")).all()
    targets = decisions.targets()
    assert targets.shape == (N, 3)
    assert (targets == decisions.label).all()


def test_the_noise_of_one_class_is_found_in_that_class_alone(truth):
    given_labels = noisy(truth, 1, 0.25)
    decisions = decide_labels(log_probs_of(truth), given_labels, "denoise", Pseudo())
    dataset = Dataset(
        np.arange(N).astype(str).astype(object),
        *[np.full(N, "train", object)] * 2,
        given_labels,
        np.full(N, "", object),
        CLASSES,
    )
    about = summary(
        decisions, dataset, OutOfFoldPredictions(log_probs_of(truth), np.full(N, "m", object))
    )
    rates = {name: noise["rate"] for name, noise in about["noise_by_class"].items()}
    assert rates["bee"] == pytest.approx(0.25, abs=0.04)
    assert max(rates["ant"], rates["cat"]) < 0.03
    assert about["estimated_rate"] == pytest.approx(np.mean(list(rates.values())))
    assert (decisions.label[:, 1] != truth[:, 1]).mean() < 0.3 * (
        given_labels[:, 1] != truth[:, 1]
    ).mean()
    assert (decisions.label[:, ::2] != truth[:, ::2]).mean() < 0.02
    wrong = (given_labels != truth).any(1)
    assert decisions.p_wrong[wrong].mean() > 0.8
    assert decisions.p_wrong[~wrong].mean() < 0.15
    table = decisions_table(decisions, dataset, np.full(N, "m", object))
    assert (
        table.given_label[0]
        == " ".join(n for n, one in zip(CLASSES, given_labels[0], strict=True) if one)
        or "(none)"
    )
    assert set(about["label_sets"]) >= set(table.label)
    assert len(table) == N


def test_an_unknown_answer_of_a_labeled_image_is_no_fault_of_it(truth):
    given_labels = truth.copy()
    given_labels[::2, 2] = -1
    decisions = decide_labels(log_probs_of(truth), given_labels, "denoise", Pseudo())
    assert (decisions.label[::2, 2] == -1).all()
    assert np.isfinite(decisions.p_wrong).all()
    assert set(decisions.decision) <= {"keep", "relabel", "soften", "review", "drop"}


def test_a_softened_or_weighted_answer_is_a_probability_of_yes(truth):
    given_labels = noisy(truth, 0, 0.3)
    targets = decide_labels(
        log_probs_of(truth, margin=1.5), given_labels, "denoise", Pseudo(uncertain_labels="soften")
    ).targets()
    assert ((targets >= 0) & (targets <= 1)).all()
    assert ((targets > 0.05) & (targets < 0.95)).any()
    weighted = decide_labels(
        log_probs_of(truth, margin=1.5),
        given_labels,
        "denoise",
        Pseudo(uncertain_labels="downweight"),
    )
    answers = weighted.targets()
    kept = weighted.label == given_labels
    assert ((answers[kept] >= 0.5) == (given_labels[kept] == 1))[answers[kept] != 0.5].all()
