"""Several predictions of the same rows → one."""

import numpy as np

from ..data.encoding import label_scores
from .arrays import Array

EM_STEPS = 500
"""More than enough: the weights of two models stand after some fifty."""


def mixture(probs: Array, weights: Array) -> Array:
    """(M, …) probabilities and (M,) weights that sum to 1 → (…)."""
    return np.tensordot(weights, probs, 1)


def best_weights(probs: Array, labels: Array) -> Array:
    """(M,) weights of M arrays of probabilities under whose mixture the labels are most likely; see encoding.py.

    By expectation maximization of the shares of a mixture (Dempster, Laird & Rubin 1977): the log loss of a mixture is
    convex in them, so that there is one best answer.
    """
    of_labels = np.stack([label_scores(model, labels)[labels >= 0] for model in probs])
    of_labels = np.maximum(of_labels, 1e-30)
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(EM_STEPS):
        joint = weights[:, None] * of_labels
        weights = (joint / joint.sum(0)).mean(1)
    return weights
