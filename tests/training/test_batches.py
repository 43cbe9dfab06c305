"""Rows drawn into batches."""

import numpy as np

from pseudokit.config.keys import Train
from pseudokit.training.batches import TrainingSet, labeled_batches


def test_every_row_is_seen_once_a_pass(digits):
    """64 rows, batches of 24: eight batches are three whole passes, though no batch ends where a pass does."""
    pixels = np.arange(64, dtype=np.uint8).reshape(64, 1, 1, 1) * np.ones((1, 16, 16, 1), np.uint8)
    training_set = TrainingSet(pixels, np.arange(64), np.arange(64) % 10, 8, seed=0)
    batches = labeled_batches(training_set, Train(batch_size=24, augment="none"), 16)
    seen = []
    for _ in range(8):
        images, labels = next(batches)
        assert images.shape == (24, 16, 16, 1)
        assert (images[:, 0, 0, 0] % 10 == labels).all(), "an image keeps its label"
        seen += images[:, 0, 0, 0].tolist()
    for start in (0, 64, 128):
        assert sorted(seen[start : start + 64]) == list(range(64))
    assert seen[:64] != seen[64:128]


def given_per_batch(steps=10, **options) -> list[int]:
    """For each of `steps` batches, how many of its rows have a given label; 40 of 400 rows do."""
    pixels = np.zeros((400, 16, 16, 1), np.uint8)
    rows, pseudo = np.arange(400), np.arange(400) >= 40
    training_set = TrainingSet(pixels, rows, np.where(pseudo, 1, 0), steps, 0, pseudo)
    batches = labeled_batches(training_set, Train(batch_size=50, augment="none", **options), 16)
    return [int((next(batches)[1] == 0).sum()) for _ in range(steps)]


def test_given_labels_have_their_share_of_every_batch():
    assert set(given_per_batch(unlabeled_per_batch=4)) == {10}
    assert len(set(given_per_batch())) > 1, "without it as they come"
    assert set(given_per_batch(unlabeled_per_batch=0.25)) == {40}
    assert set(given_per_batch(unlabeled_per_batch=1e9)) == {1}
    assert set(given_per_batch(unlabeled_per_batch=1e-9)) == {49}
