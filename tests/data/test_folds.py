"""Folds: every labeled row in one, classes balanced, groups and duplicates together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from pseudokit.data.folds import find_clusters, make_folds


def alone(n) -> ndarray:
    return np.arange(n)


@st.composite
def cases(draw):
    """Labels (some -1, some classes tiny) and clusters of any shape, with one giant among them or not."""
    n, k, folds = draw(st.integers(1, 60)), draw(st.integers(1, 5)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, draw(st.sampled_from([0.2, 5])))))
    labels[rng.random(n) < draw(st.sampled_from([0, 0.3]))] = -1
    labels[0] = max(labels[0], 0)
    clusters = rng.integers(0, draw(st.integers(1, 70)), n)
    clusters[rng.random(n) < draw(st.sampled_from([0, 0.5, 1]))] = 0
    return labels, clusters, folds


@settings(max_examples=300, deadline=None)
@given(cases(), st.integers(0, 5))
def test_each_labeled_row_has_one_fold_and_its_cluster_shares_it(case, seed):
    labels, clusters, n_folds = case
    folds = make_folds(labels, clusters, n_folds, seed)
    assert folds.shape == labels.shape
    assert (folds[~np.isin(clusters, clusters[labels >= 0])] == -1).all()
    assert ((folds[labels >= 0] >= 0) & (folds[labels >= 0] < n_folds)).all()
    for cluster in np.unique(clusters[labels >= 0]):
        assert len(np.unique(folds[clusters == cluster])) == 1


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    n_folds=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_without_clusters_classes_and_folds_are_balanced_to_one_row(counts, n_folds, seed):
    counts = [max(count, n_folds) for count in counts]
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = make_folds(labels, alone(len(labels)), n_folds, seed)
    for k in range(len(counts)):
        per_fold = np.bincount(folds[labels == k], minlength=n_folds)
        assert per_fold.max() - per_fold.min() <= 1
    sizes = np.bincount(folds, minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1


def test_small_clusters_leave_classes_nearly_balanced():
    labels = np.tile(np.repeat(np.arange(5), 4), 30)
    clusters = np.arange(len(labels)) // 2
    folds = make_folds(labels, clusters, 5, seed=0)
    counts = np.array([np.bincount(folds[labels == k], minlength=5) for k in range(5)])
    assert (np.abs(counts - 24) <= 2).all()


def test_one_giant_cluster_leaves_the_other_rows_in_all_folds():
    labels = np.arange(100) % 4
    clusters = np.where(np.arange(100) < 40, 0, np.arange(100))
    folds = make_folds(labels, clusters, 3, seed=0)
    assert len(np.unique(folds[:40])) == 1
    assert np.bincount(folds[40:]).tolist() == [20, 20, 20]


def test_fewer_clusters_than_folds_are_dealt_to_different_folds():
    labels = np.arange(40) % 2
    folds = make_folds(labels, np.arange(40) // 20, 5, seed=0)
    assert folds[0] != folds[39]


@pytest.mark.parametrize(
    "clusters", [alone(200), alone(200) // 2, alone(200) // 4], ids=["1", "2", "4"]
)
def test_the_same_seed_gives_the_same_folds_and_another_seed_others(clusters):
    """New folds every round are what gives each label other teachers; groups are no exception."""
    labels = np.random.default_rng(0).integers(0, 5, 200)
    first, again, other = (make_folds(labels, clusters, 4, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).mean() > 0.3


def test_an_unlabeled_row_does_not_change_the_folds_of_the_others():
    labels = np.append(np.arange(60) % 3, np.full(40, -1))
    folds = make_folds(labels, np.append(alone(60), np.zeros(40, int)), 3, seed=0)
    np.testing.assert_array_equal(folds[:60], make_folds(labels[:60], alone(60), 3, seed=0))


def test_groups_and_duplicates_merge_transitively():
    """0 and 1 share a group, 1 is a copy of 2, and 2 shares another group with 3; 6 and 7 are no rows of these."""
    group = np.array(["g", "g", "h", "h", "", ""], object)
    clusters = find_clusters(group, np.array([[1, 4, 6], [2, 6, 5]]))
    assert len(set(clusters[:4])) == 1
    assert len(set(clusters)) == 3


def test_rows_without_a_group_share_none():
    group = np.array(["", "", "a", "", "b"], object)
    assert len(np.unique(find_clusters(group, np.zeros((2, 0), int)))) == 5
