"""P(true class) of every row, computed in blocks when it is needed and never stored whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy import ndarray

from .annotators import VoteNoise
from .arrays import MAX_EXACT_ROWS, MIN_PROBABILITY, each_block, normalize, row_sums, soften
from .difficulty import DifficultyNoise

BLOCK_PROBABILITIES = 2**19
"""Probabilities in memory at once: 4 MB an array. Ten million rows, or a thousand classes, cost no more."""
MAX_EXACT_PROBABILITIES = 10_000_000
"""Up to so many are summed up in float64 by NumPy; more of them in float32 by loops of compiled.py."""
MIN_SAMPLED_A_CLASS = 200
"""Rows a class, on average, that a sample has at least. A share of 200,000 has a standard error of 0.1 points."""


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
    p_wrong: ndarray | None = None
    """(N,) the probability of all other classes together."""
    likelihood: ndarray | None = None
    """(N,) P(given label | image) under the model of the noise."""

    def parts(self, block: slice) -> tuple[ndarray, ...]:
        """All that there is of a block, but the given labels; written to, they are written to this."""
        names = ("best", "confidence", "self_confidence", "p_wrong", "likelihood")
        arrays = (getattr(self, name) for name in names)
        return tuple(array[block] for array in arrays if array is not None)

    @cached_property
    def labeled(self) -> ndarray:
        """(N,) whether a label is given."""
        return self.given_labels >= 0

    @cached_property
    def contradicted(self) -> ndarray:
        """(N,) whether a label is given, and another class is likelier."""
        return self.labeled & (self.best != self.given_labels)


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
        step = max(1, BLOCK_PROBABILITIES // self.log_probs.shape[1])
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            yield block, self(block)

    def total(self, rows: ndarray) -> ndarray:
        """(K,) the probabilities of these row numbers, added up."""
        total = np.zeros(self.log_probs.shape[1])
        for _, probs in self.blocks(rows):
            total += probs.sum(0)
        return total

    def sample_rows(self) -> ndarray | slice:
        """Rows that stand for all: all of them, unless so many are labeled that a part drawn at random will do."""
        n, k = self.log_probs.shape
        n_labeled = np.count_nonzero(self.given_labels >= 0)
        most = max(MAX_EXACT_ROWS, MIN_SAMPLED_A_CLASS * k)
        if n_labeled <= most:
            return slice(None)
        return np.sort(np.random.default_rng(0).integers(n, size=most * n // n_labeled))

    def sample(self) -> Posterior:
        """The posterior of sample_rows."""
        rows = self.sample_rows()
        return replace(self, log_probs=self.log_probs[rows], given_labels=self.given_labels[rows])

    def sample_summary(self) -> PosteriorSummary:
        """The summary of sample_rows."""
        return self.summaries(self.sample_rows())[1]

    def summary(self) -> PosteriorSummary:
        """The posterior of all rows, one number each."""
        return self.summaries()[1]

    def summaries(
        self, rows: ndarray | slice = slice(None)
    ) -> tuple[PosteriorSummary, PosteriorSummary]:
        """What the images alone say, and the posterior, read at once; rows: all, or row numbers, as of sample_rows.

        The first has no p_wrong, unless the given label is no evidence: then they are the same.
        """
        given_labels = self.given_labels[rows]
        n, k = len(given_labels), self.log_probs.shape[1]
        is_large = n * k > MAX_EXACT_PROBABILITIES

        def empty(columns: int) -> PosteriorSummary:
            values = np.empty((columns, n), np.float32 if is_large else float)
            return PosteriorSummary(given_labels, np.empty(n, np.int32), *values)

        predicted = believed = empty(4)
        if self.matrix is not None or self.difficulty is not None or self.votes is not None:
            predicted = empty(2)

        def fill(block: slice) -> None:
            of_block = block if isinstance(rows, slice) else rows[block]
            joint = self._of_images(of_block)
            if predicted is not believed:
                _summarize(predicted, block, joint)
            _summarize(believed, block, self._with_labels(joint, of_block))

        if is_large and self.difficulty is None and self.votes is None:
            fill = self._compiled(predicted, believed, rows)
        each_block(fill, n, k)
        return predicted, believed

    def _compiled(
        self, predicted: PosteriorSummary, believed: PosteriorSummary, rows: ndarray | slice
    ) -> Callable[[slice], None]:
        """What fills a block of both summaries in float32 where noise is of the class, or there is none."""
        from .compiled import exponentials_of_half, summarize

        by_given = None
        if self.matrix is not None:
            of_no_label = np.ones((1, len(self.matrix)))
            by_given = np.vstack([self.matrix.T, of_no_label]).astype(np.float32, order="C")
        is_plain = self.sharpness == 1 and self.prior_ratio is None

        has_table = is_plain and self.log_probs.dtype == np.float16

        def fill(block: slice) -> None:
            of_block = block if isinstance(rows, slice) else rows[block]
            if has_table:
                logs = np.asarray(self.log_probs[of_block])
                values, table = logs.view(np.uint16), exponentials_of_half()
            else:
                probs = self._of_images(of_block, np.float32)
                values, table = probs.astype(np.float32, order="C", copy=False), None
            values.flags.writeable = False  # as of a file: numba compiles either anew
            given_labels = believed.given_labels[block]
            of_images, of_labels = predicted.parts(block)[:3], believed.parts(block)
            summarize(values, table, by_given, given_labels, of_images, of_labels)

        return fill

    def _unnormalized(self, rows: ndarray | slice) -> ndarray:
        """(m, K) float64 to which the probabilities are proportional."""
        return self._with_labels(self._of_images(rows), rows)

    def _of_images(self, rows: ndarray | slice, dtype: type = float) -> ndarray:
        """_unnormalized before the given labels count."""
        logs = self.log_probs[rows]
        precise = np.result_type(logs, np.float32)  # exponentials in float16 have three digits
        probs = np.exp(logs, dtype=precise).astype(dtype, copy=False)
        if self.sharpness != 1:
            probs = soften(probs, 1 / self.sharpness)
        if self.prior_ratio is not None:
            probs[self.given_labels[rows] < 0] *= self.prior_ratio
        return probs

    def _with_labels(self, joint: ndarray, rows: ndarray | slice) -> ndarray:
        """_unnormalized, from what the images say; may change it in place."""
        given_labels = self.given_labels[rows]
        labeled = given_labels >= 0
        is_whole = labeled.all()
        probs = joint if is_whole else joint[labeled]
        labels = given_labels[labeled]
        if self.difficulty is not None:
            probs *= self.difficulty.likelihood(probs, labels)
        if self.votes is not None:
            row_numbers = np.arange(len(self.given_labels))[rows][labeled]
            probs = self.votes.joint(probs, row_numbers)
        if self.matrix is not None:
            probs = np.maximum(probs, MIN_PROBABILITY) * self.matrix.T[labels]
        if is_whole:
            return probs
        joint[labeled] = probs
        return joint


def _summarize(summary: PosteriorSummary, block: slice, joint: ndarray) -> None:
    """In place: the rows of a block, from (m, K) what their probabilities are proportional to."""
    given_labels = summary.given_labels[block]
    at_given = np.arange(len(joint)), given_labels
    unlabeled = given_labels < 0
    total = row_sums(joint)
    best = joint.argmax(1)
    summary.best[block] = best
    summary.confidence[block] = joint[np.arange(len(joint)), best] / total
    p_given = joint[at_given] / total
    p_given[unlabeled] = np.nan
    summary.self_confidence[block] = p_given
    if summary.p_wrong is not None:
        total[unlabeled] = np.nan
        summary.likelihood[block] = total
        # 1 - self_confidence would round tiny values to 0, and lose their order
        joint[at_given] = 0
        summary.p_wrong[block] = row_sums(joint) / total


def align(posterior: Posterior, prior: ndarray) -> Posterior:
    """Distribution alignment (ReMixMatch, Berthelot et al. 2020): unlabeled rows get the class shares of the labels.

    Their probabilities are multiplied by prior (K,) / mean probability over all unlabeled rows, and normalized.
    """
    unlabeled = np.flatnonzero(posterior.given_labels < 0)
    mean = posterior.total(unlabeled) / max(len(unlabeled), 1)
    return replace(posterior, prior_ratio=prior / np.maximum(mean, 1e-9))
