"""Weights of several predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.labels.ensemble import best_weights, mixture

from .test_metrics import logits_of


def model(labels, skill, seed):
    logits = np.random.default_rng(seed).normal(size=(len(labels), 4))
    logits[np.arange(len(labels)), labels] += skill
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def loss(probs, labels):
    return -np.log(probs[np.arange(len(labels)), labels]).mean()


@given(st.lists(st.floats(0, 4), min_size=1, max_size=4), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_no_single_model_and_no_equal_mean_fits_the_labels_better(skills, seed):
    labels = np.random.default_rng(seed).integers(0, 4, 200)
    probs = np.stack([model(labels, skill, seed + i + 1) for i, skill in enumerate(skills)])
    weights = best_weights(probs, labels)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    best = loss(mixture(probs, weights), labels)
    assert best <= loss(probs.mean(0), labels) + 1e-9
    assert all(best <= loss(alone, labels) + 1e-4 for alone in probs)


def test_a_model_that_knows_nothing_gets_next_to_no_weight():
    labels = np.random.default_rng(0).integers(0, 4, 500)
    weights = best_weights(np.stack([model(labels, 3, 1), model(labels, 0, 2)]), labels)
    assert weights[1] < 0.1


def test_the_better_of_two_runs_has_the_greater_weight(labels):
    labels = labels.copy()
    labels[::5, 2] = -1
    probs = np.exp(np.stack([logits_of(labels, 0, sure=1.0), logits_of(labels, 1, sure=4.0)]))
    weights = best_weights(probs, labels)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.7
    assert np.allclose(mixture(probs, weights).sum(-1), 1)
