"""Several predictions of the same rows → one."""

from __future__ import annotations

import numpy as np

from ..data.encoding import own

STEPS = 500


def mixture(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(M, …) probabilities and (M,) weights that sum to 1 → (…)."""
    return np.tensordot(weights, probs, 1)


def best_weights(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(M,) weights of M arrays of probabilities under whose mixture the labels are most likely; see encoding.py.

    By expectation maximisation of the shares of a mixture (Dempster, Laird & Rubin 1977): the log loss of a mixture is
    convex in them, so that there is one best answer.
    """
    of_labels = np.maximum(np.stack([own(said, labels)[labels >= 0] for said in probs]), 1e-30)
    weights = np.full(len(of_labels), 1 / len(of_labels))
    for _ in range(STEPS):
        part = weights[:, None] * of_labels
        weights = (part / part.sum(0)).mean(1)
    return weights
