"""What soft pseudo-labels teach: the shapes of pseudo.power and pseudo.trim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pseudokit.config.keys import Pseudo
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.soft_targets import sharpen

N, LABELED, K = 200, 60, 4
SOFT = {"targets": "soft", "cutoff": 0}


@pytest.fixture
def log_probs():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(N, K)) + 3 * np.eye(K)[np.arange(N) % K]
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def given_labels():
    return np.where(np.arange(N) < LABELED, np.arange(N) % K, -1)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        float,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(0, 1, allow_subnormal=False),
    ),
    st.sampled_from([0.1, 0.5, 1, 2, 5]),
    st.floats(0, 0.99),
)
def test_what_is_trimmed_is_zero_and_what_stays_keeps_its_proportions(values, power, trim):
    values[:, 0] += 1e-3  # a row without any probability has no class
    probs = values / values.sum(1, keepdims=True)
    taught = sharpen(probs, power, trim)
    assert np.allclose(taught.sum(1), 1)
    sharp = np.maximum(probs, 1e-30) ** power
    sharp /= sharp.sum(1, keepdims=True)
    best = sharp.argmax(1)
    assert np.isclose(taught.max(1), taught[np.arange(len(best)), best]).all(), "the class stays"
    is_small = (sharp < trim - 1e-12) & (sharp < sharp.max(1, keepdims=True) - 1e-12)
    assert (taught[is_small] == 0).all()
    kept = taught > 0
    scale = sharp.max(1) / taught.max(1)
    assert np.allclose((taught * scale[:, None])[kept], sharp[kept], atol=1e-9)


def test_without_a_shape_the_probabilities_are_taught_to_the_last_bit(log_probs, given_labels):
    decisions = decide_labels(log_probs, given_labels, "augment", Pseudo(**SOFT))
    unlabeled = np.flatnonzero(given_labels < 0)
    targets = decisions.targets()
    assert (targets[unlabeled] == decisions.posterior(unlabeled).astype(np.float32)).all()
    assert (targets[:LABELED] == np.eye(K)[given_labels[:LABELED]]).all()
    assert (decisions.weight[unlabeled] == decisions.confidence[unlabeled]).all()
    hard = decide_labels(log_probs, given_labels, "augment", Pseudo(cutoff=0))
    assert (hard.targets() == hard.label).all()


def test_soft_without_a_cutoff_teaches_every_unlabeled_row_and_every_class(log_probs, given_labels):
    log_probs[LABELED:, 3] = np.log(1e-4)  # a class that is nowhere the likeliest
    policy = Pseudo(**SOFT)
    decisions = decide_labels(log_probs, given_labels, "augment", policy)
    assert (decisions.decision[LABELED:] == "accept").all()
    targets = decisions.targets()
    assert np.allclose(targets.sum(1), 1)
    assert (targets[LABELED:] > 0).all()


def test_the_weight_of_a_soft_row_is_the_share_of_its_label(log_probs, given_labels):
    policy = Pseudo(**SOFT, power=2, trim=0.05)
    decisions = decide_labels(log_probs, given_labels, "augment", policy)
    targets = decisions.targets()
    of_label = targets[np.arange(N), decisions.label]
    assert np.allclose(decisions.weight, of_label)
    assert np.allclose(targets.sum(1), 1)
    probs = np.exp(log_probs[LABELED:]) ** 2
    probs /= probs.sum(1, keepdims=True)
    assert ((targets[LABELED:] == 0) == (probs < 0.05)).all()
    assert (targets == 0).any()


def test_label_sets_have_the_same_shapes_class_by_class():
    rng = np.random.default_rng(0)
    truth = (rng.random((N, 3)) < (0.3, 0.5, 0.7)).astype(int)
    z = rng.normal(3 * (2 * truth - 1), 2.0)
    log_probs = np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], -1).astype(np.float32)
    given_labels = truth.copy()
    given_labels[LABELED:] = -1
    given_labels[0, 1] = -1
    policy = Pseudo(**SOFT, power=2, trim=0.1)
    decisions = decide_labels(log_probs, given_labels, "augment", policy)
    targets = decisions.targets()
    p_yes = np.exp(log_probs[..., 1].astype(float))
    sharp = p_yes**2 / (p_yes**2 + (1 - p_yes) ** 2)
    expected = np.select([sharp < 0.1, sharp > 0.9], [0, 1], sharp)
    assert np.allclose(targets[LABELED:], expected[LABELED:], atol=1e-5)
    assert {0.0, 1.0} < set(targets[LABELED:].ravel().tolist())
    answered = given_labels >= 0
    assert np.allclose(targets[answered], truth[answered])
    is_right_side = (targets >= 0.5) == (truth == 1)
    assert is_right_side[answered].all()


def test_soft_pseudo_labels_are_counted_by_what_they_teach(log_probs, given_labels):
    log_probs[LABELED:] = np.log([0.4, 0.3, 0.2, 0.1])
    decisions = decide_labels(log_probs, given_labels, "augment", Pseudo(**SOFT))
    expected = (N - LABELED) * np.array([0.4, 0.3, 0.2, 0.1])
    assert np.allclose(decisions.soft_pseudo_counts(), expected)
