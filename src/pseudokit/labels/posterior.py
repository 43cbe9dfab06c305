"""P(true class) of every row, computed in blocks when it is needed and never stored whole."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from ..system.distributed import cores
from .annotators import VoteNoise
from .arrays import MIN_PROBABILITY, normalize, row_sums, soften
from .difficulty import DifficultyNoise

BLOCK_PROBABILITIES = 2**19
"""Probabilities that a thread holds at once: 4 MB an array. Ten million rows, or a thousand classes, cost no more."""


@dataclass(frozen=True)
class PosteriorSummary:
    """What is kept of a posterior, one number a row. The last three are NaN where no label is given."""

    given_labels: ndarray
    """(N,) class index, -1 = unlabeled."""
    best: ndarray
    """(N,) the likeliest class."""
    confidence: ndarray
    """(N,) its probability."""
    self_confidence: ndarray
    """(N,) the probability of the given label."""
    p_wrong: ndarray
    """(N,) the probability of all other classes together."""
    likelihood: ndarray
    """(N,) P(given label | image) under the model of the noise."""

    @property
    def contradicted(self) -> ndarray:
        """(N,) whether a label is given, and another class is likelier."""
        return (self.given_labels >= 0) & (self.best != self.given_labels)


@dataclass(frozen=True)
class Posterior:
    """P(true class | image, given label) of N rows.

    Without noise model the given label is no evidence, and the out-of-fold probabilities p stand: q ∝ p^sharpness. With
    one, P(true = k | image, given) ∝ q_k · P(given | true = k).
    """

    log_probs: ndarray
    """(N, K) out-of-fold log-probabilities, which may lie in a memory-mapped file."""
    given_labels: ndarray
    """(N,) class index, -1 = unlabeled."""
    matrix: ndarray | None = None
    """T[true, given] (K, K), noise of the class, see noise.py."""
    sharpness: float = 1.0
    difficulty: DifficultyNoise | None = None
    """Noise by difficulty, in place of a matrix."""
    votes: VoteNoise | None = None
    """Noise of several annotators, in place of a matrix."""
    prior_ratio: ndarray | None = None
    """(K,) by which the probabilities of unlabeled rows are multiplied, see align."""

    def __call__(self, rows: ndarray) -> ndarray:
        """(len(rows), K) float64 probabilities of these row numbers."""
        return normalize(self._unnormalized(rows))

    def blocks(self, rows: ndarray) -> Iterator[tuple[ndarray, ndarray]]:
        """(row numbers, their probabilities), a block of the rows at a time."""
        for block in self._blocks(len(rows)):
            yield rows[block], self(rows[block])

    def total(self, rows: ndarray) -> ndarray:
        """(K,) the probabilities of these row numbers, added up."""
        total = np.zeros(self.log_probs.shape[1])
        for _, probs in self.blocks(rows):
            total += probs.sum(0)
        return total

    def summary(self) -> PosteriorSummary:
        """The posterior of all rows, one number each."""
        n = len(self.given_labels)
        summary = PosteriorSummary(self.given_labels, np.empty(n, int), *np.empty((4, n)))

        def summarize(block: slice) -> None:
            joint = self._unnormalized(block)
            total = row_sums(joint)
            rows = np.arange(len(joint))
            given_labels = self.given_labels[block]
            labeled = given_labels >= 0
            best = joint.argmax(1)
            summary.best[block] = best
            summary.confidence[block] = joint[rows, best] / total
            summary.likelihood[block] = np.where(labeled, total, np.nan)
            p_given = joint[rows, given_labels] / total
            summary.self_confidence[block] = np.where(labeled, p_given, np.nan)
            # 1 - self_confidence would round tiny values to 0, and lose their order
            joint[rows, given_labels] = 0
            summary.p_wrong[block] = np.where(labeled, row_sums(joint) / total, np.nan)

        blocks = self._blocks(n)
        if len(blocks) == 1:  # threads would cost more than they save
            summarize(blocks[0])
            return summary
        with ThreadPoolExecutor(cores()) as threads:
            list(threads.map(summarize, blocks))
        return summary

    def _blocks(self, n: int) -> list[slice]:
        step = max(1, BLOCK_PROBABILITIES // self.log_probs.shape[1])
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _unnormalized(self, rows: ndarray | slice) -> ndarray:
        """(m, K) float64 to which the probabilities are proportional."""
        joint = np.exp(self.log_probs[rows]).astype(float)
        given_labels = self.given_labels[rows]
        labeled = np.flatnonzero(given_labels >= 0)
        labels = given_labels[labeled]
        if self.sharpness != 1:
            joint = soften(joint, 1 / self.sharpness)
        if self.prior_ratio is not None:
            joint[given_labels < 0] *= self.prior_ratio
        if self.difficulty is not None:
            joint[labeled] *= self.difficulty.likelihood(joint[labeled], labels)
        if self.votes is not None:
            row_numbers = np.arange(len(self.given_labels))[rows][labeled]
            joint[labeled] = self.votes.joint(joint[labeled], row_numbers)
        if self.matrix is not None:
            joint[labeled] = np.maximum(joint[labeled], MIN_PROBABILITY) * self.matrix.T[labels]
        return joint


def align(posterior: Posterior, prior: ndarray) -> Posterior:
    """Distribution alignment (ReMixMatch, Berthelot et al. 2020): unlabeled rows get the class shares of the labels.

    Their probabilities are multiplied by prior (K,) / mean probability over all unlabeled rows, and normalized.
    """
    unlabeled = np.flatnonzero(posterior.given_labels < 0)
    mean = posterior.total(unlabeled) / max(len(unlabeled), 1)
    return replace(posterior, prior_ratio=prior / np.maximum(mean, 1e-9))
