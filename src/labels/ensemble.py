"""Several predictions of the same rows → one."""

from __future__ import annotations

import numpy as np

STEPS = 500


def mixture(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(M, N, K) probabilities and (M,) weights that sum to 1 → (N, K)."""
    return np.einsum("mnk,m->nk", probs, weights)


def best_weights(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(M,) weights of (M, N, K) probabilities under whose mixture the labels (N,) are most likely.

    By expectation maximisation of the shares of a mixture (Dempster, Laird & Rubin 1977): the log loss of a mixture is
    convex in them, so that there is one best answer.
    """
    own = np.maximum(probs[:, np.arange(len(labels)), labels], 1e-30)
    weights = np.full(len(own), 1 / len(own))
    for _ in range(STEPS):
        part = weights[:, None] * own
        weights = (part / part.sum(0)).mean(1)
    return weights
