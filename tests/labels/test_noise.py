"""The noise matrix, its name and the posterior, on simulated models of which the truth is known."""

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pseudokit.labels.calibration import calibrate
from pseudokit.labels.noise import bootstrap_rate, deconvolve, estimate_noise
from pseudokit.labels.posterior import Posterior

K, N = 6, 12_000


def uniform(rate):
    return np.full((K, K), rate / (K - 1)) + np.eye(K) * (1 - rate - rate / (K - 1))


def pair(rate):
    return np.eye(K) * (1 - rate) + np.roll(np.eye(K), 1, axis=1) * rate


def uneven(seed=0):
    """Class-dependent noise: from 5 to 40 % of a class, most of it to two others."""
    rng = np.random.default_rng(seed)
    off = rng.dirichlet(np.full(K - 1, 0.5), K) * np.linspace(0.05, 0.4, K)[:, None]
    return np.stack([np.insert(row, i, 1 - row.sum()) for i, row in enumerate(off)])


def world(matrix, sharpness=6.0, n=N, seed=0):
    """A calibrated model q (n, K), truths drawn from it, and given labels drawn from T[truth]."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, K)) * sharpness
    q = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    truth = (rng.random((n, 1)) >= q.cumsum(1)[:, :-1]).sum(1)
    given_labels = (rng.random((n, 1)) >= matrix.cumsum(1)[truth][:, :-1]).sum(1)
    return q, truth, given_labels


def logs_of(q):
    return np.log(np.maximum(q, 1e-300))


def posterior(q, given_labels, matrix):
    return Posterior(logs_of(q), given_labels, matrix)(np.arange(len(q)))


def estimated(q, given_labels):
    return estimate_noise(Posterior(logs_of(q), given_labels).summary(), q.shape[1])


def matrix_of(q, given_labels):
    return estimated(q, given_labels)[0]


def type_of(q, given_labels):
    return estimated(q, given_labels)[1]


def rate_and_interval(q, given_labels):
    posterior = Posterior(logs_of(q), given_labels)
    summary = posterior.summary()
    return bootstrap_rate(posterior, summary.best, summary.confidence)


MATRICES = {"uniform": uniform(0.2), "pair": pair(0.3), "class-dependent": uneven()}


@pytest.mark.parametrize("name", MATRICES)
def test_the_noise_matrix_is_found_and_named(name):
    q, _, given_labels = world(MATRICES[name])
    assert np.abs(matrix_of(q, given_labels) - MATRICES[name]).max() < 0.06
    assert type_of(q, given_labels) == name


def test_no_noise_and_noise_on_hard_rows_are_told_from_noise_of_the_class():
    q, truth, _ = world(uniform(0.2), sharpness=100)
    assert type_of(q, truth) == "none"
    q, truth, _ = world(uniform(0.2), sharpness=4)
    second = np.argsort(q, axis=1)[:, -2]
    hardest = q.max(1) < np.quantile(q.max(1), 0.2)
    assert type_of(q, np.where(hardest & (truth == q.argmax(1)), second, truth)) == "look-alike"


@pytest.mark.parametrize("name", MATRICES)
def test_the_posterior_is_calibrated_and_ranks_better_than_self_confidence(name):
    q, truth, given_labels = world(MATRICES[name], sharpness=3)
    probs = posterior(q, given_labels, matrix_of(q, given_labels))
    p_wrong, wrong = 1 - probs[np.arange(N), given_labels], truth != given_labels
    tenths = np.minimum((p_wrong * 10).astype(int), 9)
    for tenth in np.unique(tenths):
        rows = tenths == tenth
        assert abs(p_wrong[rows].mean() - wrong[rows].mean()) < 0.05 + 2 / np.sqrt(rows.sum())
    assert abs(p_wrong.mean() - wrong.mean()) < 0.01
    plain = average_precision_score(wrong, 1 - q[np.arange(N), given_labels])
    assert average_precision_score(wrong, p_wrong) > plain - 0.002 + 0.015 * (name != "uniform")


@pytest.mark.parametrize("name", ["uniform", "class-dependent"])
def test_the_interval_holds_the_true_rate_and_shrinks_with_more_rows(name):
    q, truth, given_labels = world(MATRICES[name])
    rate, least, most = rate_and_interval(q, given_labels)
    assert least - 0.005 <= (truth != given_labels).mean() <= most + 0.005
    assert least < rate < most
    _, few_least, few_most = rate_and_interval(q[:1000], given_labels[:1000])
    assert few_most - few_least > 1.5 * (most - least)


@settings(max_examples=100, deadline=None)
@over(
    st.integers(2, 7), st.integers(1, 60), st.sampled_from([0, 0.3, 3, 300]), st.integers(0, 2**31)
)
def test_wild_input_gives_distributions(k, n, sharpness, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * sharpness
    q = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    given_labels = rng.integers(0, rng.integers(1, k + 1), n)
    matrix, noise_type = estimated(q, given_labels)
    calibrated, hot = calibrate(
        np.log(np.maximum(q, 1e-30)), given_labels, matrix, noisy=bool(seed % 2)
    )
    rate, least, most = rate_and_interval(q, given_labels)
    for rows in (
        matrix,
        posterior(q, given_labels, matrix),
        deconvolve(q, matrix),
        np.exp(calibrated),
    ):
        assert np.isfinite(rows).all()
        assert (rows >= 0).all()
        assert np.allclose(rows.sum(1), 1)
    assert 0.04 < hot < 11
    assert np.isfinite(rate)
    assert 0 <= least <= most <= 1 + 1e-9
    assert noise_type in ("none", "look-alike", "pair", "uniform", "class-dependent")
