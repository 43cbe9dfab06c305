"""P(true class) of every row, computed in blocks when it is needed and never stored whole."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from ..system.distributed import cores
from .annotators import VoteNoise
from .arrays import MAX_FEW_CLASSES, MIN_PROBABILITY, normalize, row_max, row_sums, soften
from .difficulty import DifficultyNoise

BLOCK_PROBABILITIES = 2**19
"""Probabilities in memory at once: 4 MB an array. Ten million rows, or a thousand classes, cost no more."""
SUMMARY_PROBABILITIES = 2**17
"""Those of a thread that sums rows up: its arrays stay in the cache of its core."""
MAX_EXACT_ROWS = 200_000
"""Of more rows, summaries are computed in float32, and the noise is counted on as many, drawn at random. A share then
has a standard error of 0.1 points at most."""
MIN_SAMPLED_A_CLASS = 200
"""Rows a class that are drawn at least, on average."""


@dataclass(frozen=True)
class PosteriorSummary:
    """What is kept of a posterior, one number a row. The last three are NaN where no label is given, None if unused."""

    given_labels: ndarray
    """(N,) class index, -1 = unlabeled."""
    best: ndarray
    """(N,) the likeliest class."""
    confidence: ndarray
    """(N,) its probability."""
    self_confidence: ndarray | None = None
    """(N,) the probability of the given label."""
    p_wrong: ndarray | None = None
    """(N,) the probability of all other classes together."""
    likelihood: ndarray | None = None
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
        for block in _blocks(len(rows), BLOCK_PROBABILITIES // self.log_probs.shape[1]):
            yield rows[block], self(rows[block])

    def total(self, rows: ndarray) -> ndarray:
        """(K,) the probabilities of these row numbers, added up."""
        total = np.zeros(self.log_probs.shape[1])
        for _, probs in self.blocks(rows):
            total += probs.sum(0)
        return total

    def sample(self) -> Posterior:
        """The posterior of labeled rows alone, drawn at random where there are many."""
        k = self.log_probs.shape[1]
        n = max(MAX_EXACT_ROWS, MIN_SAMPLED_A_CLASS * k)
        labeled = self.given_labels >= 0
        n_labeled = np.count_nonzero(labeled)
        if n_labeled <= n:
            return self
        rows = np.unique(np.random.default_rng(0).integers(n_labeled, size=n))
        if n_labeled < len(labeled):
            rows = np.flatnonzero(labeled)[rows]
        return replace(self, log_probs=self.log_probs[rows], given_labels=self.given_labels[rows])

    def summary(self) -> PosteriorSummary:
        """The posterior of all rows, one number each."""
        return self._summaries(["self_confidence", "p_wrong", "likelihood"])[0]

    def summaries(self) -> tuple[PosteriorSummary, PosteriorSummary]:
        """What the images alone say of all rows, and the posterior, read at once.

        The first has no p_wrong, unless the given label is no evidence: then they are the same.
        """
        if self.matrix is self.difficulty is self.votes is None:
            summary = self.summary()
            return summary, summary
        believed, predicted = self._summaries(["p_wrong"], ["self_confidence"])
        return predicted, believed

    def _summaries(self, of_all: list[str], of_images: list[str] | None = None) -> list:
        """The posterior of all rows with these columns, and with others what the images alone say."""
        n, k = self.log_probs.shape
        is_small = n <= MAX_EXACT_ROWS
        dtype, integer = (float, int) if is_small else (np.float32, np.int32)
        posterior = self
        if self.matrix is not None:  # its columns are read, one a row
            posterior = replace(self, matrix=np.asarray(self.matrix, dtype, order="F"))
        summaries = [
            PosteriorSummary(
                self.given_labels,
                np.empty(n, integer),
                np.empty(n, dtype),
                **{name: np.empty(n, dtype) for name in columns},
            )
            for columns in filter(None, (of_all, of_images))
        ]

        def summarize(block: slice) -> None:
            probs = posterior._of_images(block, dtype)
            if of_images:
                _summarize(summaries[1], block, probs)
            _summarize(summaries[0], block, posterior._with_labels(probs, block))

        blocks = _blocks(n, SUMMARY_PROBABILITIES // k)
        if len(blocks) == 1:  # threads would cost more than they save
            summarize(blocks[0])
        else:
            with ThreadPoolExecutor(cores()) as threads:
                list(threads.map(summarize, blocks))
        return summaries

    def _unnormalized(self, rows: ndarray | slice) -> ndarray:
        """(m, K) float64 to which the probabilities are proportional."""
        return self._with_labels(self._of_images(rows), rows)

    def _of_images(self, rows: ndarray | slice, dtype: type = float) -> ndarray:
        """_unnormalized before the given labels count."""
        logs = self.log_probs[rows]
        if dtype == np.float32 or logs.dtype == np.float16:  # whose exponentials have three digits
            columnwise = dtype == np.float32 and logs.shape[1] <= MAX_FEW_CLASSES
            logs = logs.astype(np.float32, order="F" if columnwise else "C")
        probs = np.exp(logs).astype(dtype, copy=False)
        if self.sharpness != 1:
            probs = soften(probs, 1 / self.sharpness)
        if self.prior_ratio is not None:
            probs[self.given_labels[rows] < 0] *= self.prior_ratio
        return probs

    def _with_labels(self, joint: ndarray, rows: ndarray | slice) -> ndarray:
        """_unnormalized, from what the images say; may change it in place."""
        given_labels = self.given_labels[rows]
        labeled = given_labels >= 0
        if labeled.all():
            labeled = slice(None)
        labels = given_labels[labeled]
        if self.difficulty is not None:
            joint[labeled] *= self.difficulty.likelihood(joint[labeled], labels)
        if self.votes is not None:
            row_numbers = np.arange(len(self.given_labels))[rows][labeled]
            joint[labeled] = self.votes.joint(joint[labeled], row_numbers)
        if self.matrix is not None:
            likelihood = self.matrix.T.take(labels, 0)
            if not joint.flags.c_contiguous:
                likelihood = np.asfortranarray(likelihood)
            joint[labeled] = np.maximum(joint[labeled], MIN_PROBABILITY) * likelihood
        return joint


def _summarize(summary: PosteriorSummary, block: slice, joint: ndarray) -> None:
    """In place: the rows of a block, from (m, K) what their probabilities are proportional to."""
    given_labels = summary.given_labels[block]
    at_given = np.arange(len(joint)), given_labels
    unlabeled = given_labels < 0
    total = row_sums(joint)
    summary.best[block], highest = row_max(joint)
    summary.confidence[block] = highest / total
    if summary.self_confidence is not None:
        summary.self_confidence[block] = joint[at_given] / total
        summary.self_confidence[block][unlabeled] = np.nan
    if summary.likelihood is not None:
        summary.likelihood[block] = total
        summary.likelihood[block][unlabeled] = np.nan
    if summary.p_wrong is not None:
        # 1 - self_confidence would round tiny values to 0, and lose their order
        joint[at_given] = 0
        summary.p_wrong[block] = row_sums(joint) / total
        summary.p_wrong[block][unlabeled] = np.nan


def _blocks(n: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def align(posterior: Posterior, prior: ndarray) -> Posterior:
    """Distribution alignment (ReMixMatch, Berthelot et al. 2020): unlabeled rows get the class shares of the labels.

    Their probabilities are multiplied by prior (K,) / mean probability over all unlabeled rows, and normalized.
    """
    unlabeled = np.flatnonzero(posterior.given_labels < 0)
    mean = posterior.total(unlabeled) / max(len(unlabeled), 1)
    return replace(posterior, prior_ratio=prior / np.maximum(mean, 1e-9))
