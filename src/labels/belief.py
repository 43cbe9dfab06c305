"""What is believed of the true class of each row: made in blocks when it is asked for, never kept whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

TINY = 1e-12
BLOCK = 2**19
"""Probabilities that are held at once: 16 MB. Ten million rows, or a thousand classes, cost no more."""


@dataclass(frozen=True)
class Said:
    """What beliefs come to, (N,) each: the likeliest class, its probability, and those of the given label and of all
    other classes together, NaN where no label is given."""

    best: np.ndarray
    confidence: np.ndarray
    own: np.ndarray
    wrong: np.ndarray

    def take(self, rows: np.ndarray) -> Said:
        return Said(self.best[rows], self.confidence[rows], self.own[rows], self.wrong[rows])


@dataclass(frozen=True)
class Belief:
    """P(true class) of N rows from their held-out log-probabilities, (N, K), which may lie in a memory-mapped file.

    given: (N,) class index, -1 = pool. matrix: T[true, given] (K, K), by which a given label is evidence too; None =
    it is not. tilt: (K,) by which the probabilities of pool rows are multiplied, see align. temperature: of each row,
    (N,), see soften; None = 1.
    """

    log_probs: np.ndarray
    given: np.ndarray
    matrix: np.ndarray | None = None
    tilt: np.ndarray | None = None
    temperature: np.ndarray | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), K) float64 of these row numbers; sums to 1."""
        probs, given = np.exp(self.log_probs[rows]).astype(np.float64), self.given[rows]
        if self.tilt is not None:
            pool = given < 0
            probs[pool] = _normal(probs[pool] * self.tilt)
        if self.matrix is not None:
            known = given >= 0
            probs[known] = posterior(probs[known], given[known], self.matrix)
        if self.temperature is not None:
            cold = self.temperature[rows] != 1
            probs[cold] = soften(probs[cold], self.temperature[rows[cold], None])
        return probs

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row numbers, their beliefs), a part of the rows at a time; default: of all rows."""
        rows = np.arange(len(self.given)) if rows is None else rows
        step = max(1, BLOCK // self.log_probs.shape[1])
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            yield part, self(part)

    def said(self) -> Said:
        """What it comes to, row by row."""
        n = len(self.given)
        said = Said(np.empty(n, np.int64), *(np.full(n, np.nan) for _ in range(3)))
        for rows, probs in self.blocks():
            said.best[rows], said.confidence[rows] = probs.argmax(1), probs.max(1)
            known = np.flatnonzero(self.given[rows] >= 0)
            labels, rows = self.given[rows[known]], rows[known]
            said.own[rows] = probs[known, labels]
            probs[known, labels] = 0  # summed without it, so that tiny values keep their order
            said.wrong[rows] = probs[known].sum(1)
        return said


def posterior(true: np.ndarray, given: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """P(true = k | x, given) ∝ true_k · T[k, given], (N, K)."""
    return _normal(np.maximum(true, TINY) * matrix.T[given])


def align(belief: Belief, prior: np.ndarray) -> Belief:
    """The mean over the pool is moved towards the class shares (K,) of the labels (Berthelot et al. 2020)."""
    pool = np.flatnonzero(belief.given < 0)
    total = sum((probs.sum(0) for _, probs in belief.blocks(pool)), np.zeros(len(prior)))
    return replace(belief, tilt=prior / np.maximum(total / max(len(pool), 1), 1e-9))


def soften(probs: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """(M, K) probabilities as soft targets; a temperature below 1 sharpens them."""
    return _normal(np.maximum(probs, 1e-30) ** (1 / temperature))


def _normal(probs: np.ndarray) -> np.ndarray:
    return probs / probs.sum(1, keepdims=True)


def surest_first(best: np.ndarray, confidence: np.ndarray, k: int) -> list[np.ndarray]:
    """The positions of each of k classes in best (M,), by falling confidence (M,)."""
    order = np.lexsort((-confidence, best))
    return np.split(order, np.cumsum(np.bincount(best, minlength=k))[:-1])
