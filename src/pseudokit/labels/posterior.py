"""What is believed of the true class of each row: made in blocks when it is asked for, never kept whole."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..system.distributed import cores
from .arrays import TINY, normalize, row_sums, soften
from .difficulty import DifficultyNoise

BLOCK = 2**19
"""Probabilities that a thread holds at once: 4 MB an array. Ten million rows, or a thousand classes, cost no more."""


@dataclass(frozen=True)
class PosteriorSummary:
    """What beliefs come to, (N,) each: the likeliest class, its probability, and those of the given label and of all
    other classes together, NaN where no label is given."""

    best: np.ndarray
    confidence: np.ndarray
    own: np.ndarray
    wrong: np.ndarray

    def take(self, rows: np.ndarray) -> PosteriorSummary:
        return PosteriorSummary(self.best[rows], self.confidence[rows], self.own[rows], self.wrong[rows])


@dataclass(frozen=True)
class Posterior:
    """P(true class) of N rows from their held-out log-probabilities, (N, K), which may lie in a memory-mapped file.

    given: (N,) class index, -1 = pool. matrix: T[true, given] (K, K), by which a given label is evidence too; None =
    it is not. sharpness: exponent of the probabilities; difficulty: noise by which a given label is evidence in place
    of a matrix, see difficulty.py. tilt: (K,) by which the probabilities of pool rows are multiplied, see align.
    """

    log_probs: np.ndarray
    given_labels: np.ndarray
    matrix: np.ndarray | None = None
    tilt: np.ndarray | None = None
    sharpness: float = 1.0
    difficulty: DifficultyNoise | None = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(len(rows), K) float64 of these row numbers; sums to 1."""
        return normalize(self._joint(rows))

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row numbers, their beliefs), a part of the rows at a time."""
        for part in self._parts(len(rows)):
            yield rows[part], self(rows[part])

    def said(self) -> PosteriorSummary:
        """What it comes to, row by row."""
        n = len(self.given_labels)
        said = PosteriorSummary(np.empty(n, np.int64), *(np.full(n, np.nan) for _ in range(3)))

        def say(part: slice) -> None:
            joint, given_labels = self._joint(part), self.given_labels[part]
            best, total, each = joint.argmax(1), row_sums(joint), np.arange(len(joint))
            said.best[part], said.confidence[part] = best, joint[each, best] / total
            known = np.flatnonzero(given_labels >= 0)
            labels, rows = given_labels[known], part.start + known
            said.own[rows] = joint[known, labels] / total[known]
            joint[known, labels] = 0  # summed without it, so that tiny values keep their order
            said.wrong[rows] = (row_sums(joint) / total)[known]

        parts = self._parts(n)
        if len(parts) == 1:  # a bootstrap asks of a few rows, some hundred times
            say(parts[0])
            return said
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(say, parts))
        return said

    def _parts(self, n: int) -> list[slice]:
        step = max(1, BLOCK // self.log_probs.shape[1])
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _joint(self, rows: np.ndarray | slice) -> np.ndarray:
        """(m, K) float64 that the beliefs are proportional to."""
        joint, given_labels = np.exp(self.log_probs[rows]).astype(np.float64), self.given_labels[rows]
        if self.sharpness != 1:
            joint = soften(joint, 1 / self.sharpness)
        if self.tilt is not None:
            joint[given_labels < 0] *= self.tilt
        if self.difficulty is not None:
            known = np.flatnonzero(given_labels >= 0)
            joint[known] *= self.difficulty.likelihood(joint[known], given_labels[known])
        if self.matrix is not None:
            known = np.flatnonzero(given_labels >= 0)
            joint[known] = np.maximum(joint[known], TINY) * self._of_given.take(given_labels[known], 0)
        return joint

    @cached_property
    def _of_given(self) -> np.ndarray:
        """T[true, given] with a row for every given class, which are read quickly."""
        return np.ascontiguousarray(self.matrix.T)


def align(posterior: Posterior, prior: np.ndarray) -> Posterior:
    """The mean over the pool is moved towards the class shares (K,) of the labels (Berthelot et al. 2020)."""
    pool = np.flatnonzero(posterior.given_labels < 0)
    total = sum((probs.sum(0) for _, probs in posterior.blocks(pool)), np.zeros(len(prior)))
    return replace(posterior, tilt=prior / np.maximum(total / max(len(pool), 1), 1e-9))
