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


def said_of(truth, seed=1, sure=5.0):
    z = np.random.default_rng(seed).normal(sure * (2 * truth - 1), 2.0)
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], -1).astype(np.float32)


def noisy(truth, c, rate):
    given_labels, rows = truth.copy(), np.random.default_rng(2).random(len(truth)) < rate
    given_labels[rows, c] = 1 - given_labels[rows, c]
    return given_labels


def with_pool(truth):
    given_labels = truth.copy()
    given_labels[::2] = -1
    return given_labels


@pytest.mark.parametrize("mode", ["augment", "denoise", "joint"])
def test_every_class_is_decided_as_if_it_were_alone(truth, mode):
    given_labels, logs, policy = with_pool(noisy(truth, 0, 0.2)), said_of(truth), Pseudo()
    found = decide_labels(logs, given_labels, mode, policy)
    for c in range(3):
        alone = decide_labels(logs[:, c], given_labels[:, c], mode, policy)
        assert (found.label[:, c] == alone.label).all()
        for name in ("decision", "reason", "p_wrong"):
            assert found.each(name)[:, c].tolist() == pytest.approx(
                getattr(alone, name).tolist(), nan_ok=True
            )


def test_a_pool_receives_yes_and_no_and_what_is_not_sure_stays_unknown(truth):
    given_labels, logs = with_pool(truth), said_of(truth, sure=3.0)
    found = decide_labels(logs, given_labels, "augment", Pseudo(cutoff=0.9))
    pool, sure = found.label[::2], np.exp(logs[::2].max(-1)) >= 0.9
    assert ((pool >= 0) == sure).all()
    assert {-1, 0, 1} == set(pool.ravel())
    assert (found.label[1::2] == truth[1::2]).all()  # given labels stand
    some = sure.any(1)
    assert (found.confidence[::2][some] >= 0.9).all()
    assert (found.decision[::2] == np.where(some, "accept", "leave")).all()
    targets = found.targets()
    assert targets.shape == (N, 3)
    assert (targets == found.label).all()


def test_the_noise_of_one_class_is_found_in_that_class_alone(truth):
    given_labels = noisy(truth, 1, 0.25)
    found = decide_labels(said_of(truth), given_labels, "denoise", Pseudo())
    dataset = Dataset(
        np.arange(N).astype(str).astype(object),
        *[np.full(N, "train", object)] * 2,
        given_labels,
        np.full(N, "", object),
        CLASSES,
    )
    about = summary(found, dataset, OutOfFoldPredictions(said_of(truth), np.full(N, "m", object)))
    rates = {name: noise["rate"] for name, noise in about["noise_by_class"].items()}
    assert rates["bee"] == pytest.approx(0.25, abs=0.04)
    assert max(rates["ant"], rates["cat"]) < 0.03
    assert about["estimated_rate"] == pytest.approx(np.mean(list(rates.values())))
    assert (found.label[:, 1] != truth[:, 1]).mean() < 0.3 * (
        given_labels[:, 1] != truth[:, 1]
    ).mean()
    assert (found.label[:, ::2] != truth[:, ::2]).mean() < 0.02
    wrong = (given_labels != truth).any(1)
    assert found.p_wrong[wrong].mean() > 0.8
    assert found.p_wrong[~wrong].mean() < 0.15
    table = decisions_table(found, dataset, np.full(N, "m", object))
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
    found = decide_labels(said_of(truth), given_labels, "denoise", Pseudo())
    assert (found.label[::2, 2] == -1).all()
    assert np.isfinite(found.p_wrong).all()
    assert set(found.decision) <= {"keep", "relabel", "soften", "review", "drop"}


def test_a_softened_or_weighted_answer_is_a_probability_of_yes(truth):
    given_labels = noisy(truth, 0, 0.3)
    targets = decide_labels(
        said_of(truth, sure=1.5), given_labels, "denoise", Pseudo(uncertain_labels="soften")
    ).targets()
    assert ((targets >= 0) & (targets <= 1)).all()
    assert ((targets > 0.05) & (targets < 0.95)).any()
    less = decide_labels(
        said_of(truth, sure=1.5), given_labels, "denoise", Pseudo(uncertain_labels="downweight")
    )
    answers = less.targets()
    kept = less.label == given_labels
    assert ((answers[kept] >= 0.5) == (given_labels[kept] == 1))[answers[kept] != 0.5].all()
