"""Models that know nothing decide nothing."""

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.sanity import learned_nothing

K = 10


def predictions(n, accuracy, seed):
    """(predicted, given): right with this probability, else any class."""
    rng = np.random.default_rng(seed)
    given_labels = rng.integers(0, K, n)
    return np.where(rng.random(n) < accuracy, given_labels, rng.integers(0, K, n)), given_labels


def test_random_predictions_are_seen_through_nearly_always_and_good_ones_never_blamed():
    blind = [learned_nothing(*predictions(200, 0.0, seed), K) != "" for seed in range(200)]
    assert np.mean(blind) > 0.97
    assert not any(learned_nothing(*predictions(200, 0.4, seed), K) for seed in range(200))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_one_class_for_all_is_no_knowledge_however_frequent_the_class(share):
    given_labels = np.where(np.arange(500) < 500 * share, 0, 1)
    assert learned_nothing(np.zeros(500, int), given_labels, 2)


def test_rows_without_a_label_and_classes_of_one_row_are_not_asked():
    predicted, given_labels = predictions(300, 1.0, 0)
    assert not learned_nothing(
        np.r_[predicted, np.zeros(1000, int)], np.r_[given_labels, np.full(1000, -1)], K
    )
    singles = np.arange(100)
    assert not learned_nothing((singles + 1) % 100, singles, 100)
    assert not learned_nothing(np.zeros(20, int), np.arange(20) % 2, 2)


@pytest.mark.parametrize("mode", ["denoise", "augment", "joint"])
def test_no_label_is_changed_or_given_by_such_models(mode):
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.full(K, 0.05), 400) + 1e-9)
    given_labels = np.where(np.arange(400) < 200, rng.integers(0, K, 400), -1)
    policy = Pseudo(cutoff=0.5)
    d = decide_labels(log_probs, given_labels, mode, policy)
    assert (d.label == given_labels).all()
    assert set(d.decision) == {"keep", "leave"}
    assert (d.targets() == given_labels).all()
    assert not (d.p_wrong > 0).any()
