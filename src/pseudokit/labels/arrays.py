"""Small operations on arrays of probabilities and of classes that several files share."""

from __future__ import annotations

import numpy as np

TINY = 1e-12
"""Least probability that is told from none."""


def normalize(probs: np.ndarray) -> np.ndarray:
    """(M, K) with rows that sum to 1."""
    return probs / row_sums(probs)[:, None]


def row_sums(probs: np.ndarray) -> np.ndarray:
    """(M, K) → (M,); einsum is several times as fast as sum where K is small."""
    return np.einsum("ij->i", probs)


def soften(probs: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """(M, K) probabilities as soft targets; a temperature below 1 sharpens them."""
    return normalize(np.maximum(probs, 1e-30) ** (1 / temperature))


def by_class(classes: np.ndarray, k: int) -> list[np.ndarray]:
    """The positions of each of k classes in classes (M,), in order."""
    order = np.argsort(classes.astype(np.int16 if k < 2**15 else np.int64), kind="stable")
    return np.split(order, np.cumsum(np.bincount(classes, minlength=k))[:-1])


def most_confident(confidence: np.ndarray, n: int) -> np.ndarray:
    """The positions of the n highest in confidence (M,), highest first; of equal ones the first."""
    n = min(n, len(confidence))
    if n <= 0:
        return np.empty(0, np.int64)
    least = np.partition(confidence, len(confidence) - n)[len(confidence) - n]
    rows = np.flatnonzero(confidence >= least)
    return rows[np.argsort(-confidence[rows], kind="stable")[:n]]
