"""The head on a frozen backbone: one scale for all units, a prior that follows the noise."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pseudokit.training.linear_probe import PSEUDO_LABEL_PRIOR, fit_head

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
    head, history = fit_head(x, labels, K)
    scaled = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    expected = LogisticRegression(C=1 / prior_of(history), tol=1e-8, max_iter=1000).fit(scaled, labels)
    np.testing.assert_allclose(probs(head, x), expected.predict_proba(scaled), atol=2e-3)
    assert history.loss.iloc[-1] < history.loss.iloc[0] == pytest.approx(np.log(K), abs=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_the_embeddings_is_of_no_account(factor):
    x, labels = features()
    shifted = (x * factor + 7 * factor).astype(np.float32)
    np.testing.assert_allclose(
        probs(fit_head(x, labels, K)[0], x), probs(fit_head(shifted, labels, K)[0], shifted), atol=5e-3
    )


def test_a_unit_that_hardly_varies_among_few_labels_does_not_decide_elsewhere():
    """With a scale for each unit, what is nearly constant among the labels blows up on other rows."""
    x, labels = features(5 * K, d=300)
    others, truth = features(400, d=300)
    x[:, :40] = 3 + (x[:, :40] - 3) * 0.01
    accuracy = (probs(fit_head(x, labels, K)[0], others).argmax(1) == truth).mean()
    alone = (probs(fit_head(x[:, 40:], labels, K)[0], others[:, 40:]).argmax(1) == truth).mean()
    assert accuracy > alone - 0.03
    assert accuracy > 0.5


def test_noisy_labels_choose_a_stronger_prior():
    x, labels = features(800, distance=0.8)
    clean, noisy = (prior_of(fit_head(x, y, K)[1]) for y in (labels, flip(labels, 0.4)))
    assert noisy > clean


def test_pseudo_labels_neither_choose_the_prior_nor_weaken_it():
    x, labels = features(400)
    given_labels = np.where(np.arange(400) < 40, labels, -1)
    own, _ = fit_head(x[:40], labels[:40], K)
    _, history = fit_head(x, labels, K, given_labels=given_labels)
    _, other = fit_head(x, np.where(given_labels < 0, (labels + 1) % K, labels), K, given_labels=given_labels)
    assert prior_of(history) == prior_of(other) >= PSEUDO_LABEL_PRIOR
    assert np.isfinite(probs(own, x)).all()


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a_handful_of_labels_is_enough_to_fit_if_not_to_choose(n):
    x, labels = features(n)
    assert np.isfinite(probs(fit_head(x, labels, K)[0], x)).all()


def test_the_same_rows_make_the_same_bytes():
    x, labels = features(300)
    first, second = (fit_head(x, flip(labels, 0.2), K)[0].weight for _ in range(2))
    assert torch.equal(first, second)
