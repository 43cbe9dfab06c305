"""Which given labels are wrong: noise matrix, deconvolution, posterior. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np

TINY = 1e-9


def noise_matrix(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """T[true, given] (K, K), rows sum to 1: how often each true class was given each label.

    probs: (N, K) probabilities of the true class; given: (N,) class index. Soft counts, so that a row between two
    classes counts for both.
    """
    counts = np.stack([probs[given == k].sum(0) for k in range(probs.shape[1])], axis=1) + TINY
    return counts / counts.sum(1, keepdims=True)


def deconvolve(probs: np.ndarray, matrix: np.ndarray, steps: int = 10) -> np.ndarray:
    """(N, K) probabilities of the given label → (N, K) probabilities q of the true class, with probs ≈ q · T.

    A model that learned noisy labels predicts the noise too. Richardson–Lucy (Richardson 1972, Lucy 1974) undoes it and
    keeps q a distribution.
    """
    q = probs.copy()
    for _ in range(steps):
        q *= (probs / np.maximum(q @ matrix, TINY)) @ matrix.T
        q /= q.sum(1, keepdims=True)
    return q


def true_class_probs(probs: np.ndarray, given: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """(N, K) probabilities of what the models predict → (N, K) probabilities of the true class.

    given: (N,) class index or -1; learned: (N,) labels that the judging models were trained on. Where those are the
    given labels, the models predict the noise too, and it is deconvolved; labels repaired in an earlier round no
    longer carry it.
    """
    q = np.maximum(probs.astype(np.float64), TINY)
    q /= q.sum(1, keepdims=True)
    labelled = given >= 0
    if not np.array_equal(learned[labelled], given[labelled]):
        return q
    hard = np.eye(q.shape[1])[q[labelled].argmax(1)]
    return deconvolve(q, noise_matrix(hard, given[labelled]))


def posterior(true: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(true = k | x, given) ∝ true_k · T[k, given], (N, K), and T (K, K). Both arguments: labelled rows only."""
    matrix = noise_matrix(true, given)
    joint = true * matrix[:, given].T
    return joint / joint.sum(1, keepdims=True), matrix
