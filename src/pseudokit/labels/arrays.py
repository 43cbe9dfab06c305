"""Small operations on arrays of probabilities and of classes that several files share.

Docstrings in this folder say shapes: N rows, K classes, (N, C, 2) for label sets, see data/encoding.py.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy import ndarray

from ..system.distributed import cores

MIN_PROBABILITY = 1e-12
"""Keeps logarithms and divisions finite; far below any probability that a model can tell from zero."""
MAX_BLOCK_VALUES = 2**17
"""Values that are changed at once: arrays of 1 MB stay in the cache of a core."""
MAX_EXACT_ROWS = 200_000
"""Up to so many rows all is computed in float64 and estimated on all rows."""
MAX_FEW_CLASSES = 64
"""Up to which operations on columns are faster than on rows: ten times at ten classes."""


def number_format(n: int, k: int) -> tuple[type, str]:
    """In which dtype and memory order (N, K) probabilities are computed: float32 where there are many rows."""
    if n <= MAX_EXACT_ROWS:
        return float, "C"
    return np.float32, "F" if k <= MAX_FEW_CLASSES else "C"


def row_sums(values: ndarray) -> ndarray:
    """(M, K) → (M,). Row by row, einsum is several times as fast as sum where K is small."""
    return np.einsum("ij->i", values) if values.flags.c_contiguous else values.sum(1)


def normalize(probs: ndarray) -> ndarray:
    """(M, K) with rows that sum to 1."""
    return probs / row_sums(probs)[:, None]


def normalize_log(logs: ndarray) -> ndarray:
    """(…, K) logs as log-probabilities, log softmax; NaN stays NaN."""
    if not logs.flags.c_contiguous:  # logaddexp is slow
        logs = logs - logs.max(-1, keepdims=True)
        return logs - np.log(np.exp(logs).sum(-1, keepdims=True))
    return logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)


def soften(probs: ndarray, temperature: float) -> ndarray:
    """(M, K) probabilities p → p^(1 / temperature), normalized; a temperature below 1 sharpens them."""
    return normalize(np.maximum(probs, 1e-30) ** (1 / temperature))


def row_blocks(n: int, width: int = 1) -> Iterator[slice]:
    """Slices of n rows of `width` values, at most MAX_BLOCK_VALUES values at a time."""
    step = max(1, MAX_BLOCK_VALUES // width)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def each_block(function: Callable[[slice], None], n: int, width: int) -> None:
    """function(rows) for each of row_blocks(n, width), on all cores."""
    blocks = list(row_blocks(n, width))
    if len(blocks) == 1:  # threads would cost more than they save
        return function(blocks[0])
    n_threads = cores()

    def work(first: int) -> None:
        for block in blocks[first::n_threads]:
            function(block)

    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(work, range(n_threads)))


def by_class(classes: ndarray, k: int) -> list[ndarray]:
    """For each of k classes its positions in classes (M,), in order."""
    order = np.argsort(classes.astype(np.min_scalar_type(k)), kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=k))
    return np.split(order, ends[:-1])


def most_confident(confidence: ndarray, n: int) -> ndarray:
    """The positions of the n highest values of confidence (M,), highest first; of equal ones the first."""
    return np.argsort(-confidence, kind="stable")[: max(n, 0)]


def last_where(values: ndarray, holds: ndarray) -> float:
    """The last of the values (M,) for which `holds` (M,) is true; infinity where it never is."""
    return values[holds][-1] if holds.any() else np.inf
