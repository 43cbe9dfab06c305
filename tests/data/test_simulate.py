"""Labels that are hidden or flipped on purpose, and the truth that is kept of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Simulate
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset
from pseudokit.data.simulate import hide_labels, inject_noise


def rows(dataset: Dataset) -> list[tuple]:
    return dataset.table()[["split", "id", "given_label"]].to_records(index=False).tolist()


# ---- labels that are hidden


def labeled(counts, extra=0) -> Dataset:
    """Samples with so many labels of each class, then `extra` test rows of the first class."""
    given_ = np.repeat(np.arange(len(counts)), counts)
    n = len(given_)
    ids = np.array([f"{i:05d}" for i in range(n + extra)], object)
    split = np.array(["train"] * n + ["test"] * extra, object)
    empty = np.full(n + extra, "", object)
    classes = tuple(f"c{k}" for k in range(len(counts)))
    return Dataset(ids, ids, split, np.append(given_, np.zeros(extra, int)), empty, classes)


def test_hidden_labels_move_to_the_unlabeled_rows_and_their_truth_is_returned():
    dataset = labeled([30, 30, 30], extra=5)
    kept, truth = hide_labels(dataset, Simulate(keep_labels=12), 0)
    assert np.bincount(kept.given_labels[kept.split == "train"]).tolist() == [4, 4, 4]
    assert (kept.given_labels[kept.split == "unlabeled"] == -1).all()
    assert sorted(truth.id) == sorted(kept.id[kept.split == "unlabeled"])
    clean = dict(zip(dataset.id, dataset.table().given_label, strict=True))
    assert [clean[i] for i in truth.id] == truth.clean.tolist()
    assert (kept.given_labels[kept.split == "test"] == 0).all()
    assert rows(kept) == sorted(
        rows(kept), key=lambda row: (["train", "unlabeled", "test"].index(row[0]), row[1])
    )


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    keep=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_kept_labels_are_as_equal_per_class_as_the_classes_allow(counts, keep, seed):
    kept, truth = hide_labels(labeled(counts), Simulate(keep_labels=keep), seed)
    left = np.bincount(kept.given_labels[kept.given_labels >= 0], minlength=len(counts))
    assert left.sum() == min(keep, sum(counts))
    assert len(truth) == sum(counts) - left.sum()
    for k, n in enumerate(counts):
        assert left[k] == n or left[k] >= left.max() - 1


def test_another_seed_keeps_other_labels():
    first, again, other = (
        set(kept.id[kept.split == "train"])
        for kept in (
            hide_labels(labeled([50, 50]), Simulate(keep_labels=10), seed)[0] for seed in (0, 0, 1)
        )
    )
    assert first == again != other


# ---- labels that are flipped


counts_of = st.lists(st.integers(1, 40), min_size=2, max_size=5)


@settings(max_examples=80, deadline=None)
@given(
    counts=counts_of,
    kind=st.sampled_from(["symmetric", "pairflip"]),
    rate=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_share_of_the_labels_is_flipped_and_a_flip_always_differs(counts, kind, rate, seed):
    dataset = labeled(counts, extra=7)
    noisy, truth = inject_noise(dataset, Simulate(noise=kind, noise_rate=rate), seed)
    n, k = sum(counts), len(counts)
    flipped = np.flatnonzero(noisy.given_labels != dataset.given_labels)
    assert len(flipped) == round(rate * n)
    assert (flipped < n).all(), "only the labeled set is flipped"
    assert ((noisy.given_labels >= 0) & (noisy.given_labels < k)).all()
    if kind == "pairflip":
        assert (noisy.given_labels[flipped] == (dataset.given_labels[flipped] + 1) % k).all()
    assert truth.id.tolist() == dataset.id[:n].tolist()
    assert truth.clean.tolist() == dataset.table().given_label[:n].tolist()
    assert truth.given_label.tolist() == noisy.table().given_label[:n].tolist()


def test_uniform_flips_reach_every_other_class_alike():
    dataset = labeled([3000, 3000, 3000, 3000])
    noisy, _ = inject_noise(dataset, Simulate(noise="symmetric", noise_rate=0.5), 0)
    for k in range(4):
        to = (
            np.bincount(
                noisy.given_labels[(dataset.given_labels == k) & (noisy.given_labels != k)],
                minlength=4,
            )
            / 1500
        )
        np.testing.assert_allclose(np.delete(to, k), 1 / 3, atol=0.05)


@pytest.mark.parametrize("kind", ["symmetric", "pairflip", [[0.8, 0.1, 0.1]] * 3])
def test_the_same_seed_flips_the_same_labels(kind):
    dataset = labeled([100, 100, 100])
    first, again, other = (
        inject_noise(dataset, Simulate(noise=kind, noise_rate=0.2), s)[0].given_labels
        for s in (3, 3, 4)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_a_matrix_that_is_given_is_respected():
    matrix = [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]
    dataset = labeled([4000, 4000, 4000])
    noisy, _ = inject_noise(dataset, Simulate(noise=matrix), 0)
    shares = [
        np.bincount(noisy.given_labels[dataset.given_labels == k], minlength=3) / 4000
        for k in range(3)
    ]
    np.testing.assert_allclose(shares, matrix, atol=0.03)
    assert (np.array(shares)[np.array(matrix) == 0] == 0).all()


@pytest.mark.parametrize(
    "matrix", [[[1, 0], [0, 1]], [[1, 0, 0], [0, 1], [0, 0, 1]], [[0.5, 0.2, 0.2]] * 3, [], [[]]]
)
def test_a_matrix_that_does_not_fit_is_refused(matrix):
    with pytest.raises(UserError, match=r"simulate\.noise"):
        inject_noise(labeled([5, 5, 5]), Simulate(noise=matrix), 0)


def test_one_class_cannot_be_flipped():
    with pytest.raises(UserError, match=r"simulate\.noise"):
        inject_noise(labeled([5]), Simulate(noise="pairflip"), 0)
