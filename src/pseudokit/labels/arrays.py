"""Small operations on arrays of probabilities and of classes that several files share.

Docstrings in this folder say shapes: N rows, K classes, (N, C, 2) for label sets, see data/encoding.py.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

MIN_PROBABILITY = 1e-12
"""Keeps logarithms and divisions finite; far below any probability that a model can tell from zero."""
MAX_BLOCK_VALUES = 2**22
"""Values that are changed at once where all of them need not be in memory: 32 MB an array."""
MAX_FEW_CLASSES = 64
"""Up to which a maximum is found column by column, ten times as fast as argmax row by row at ten classes."""


def row_sums(values: ndarray) -> ndarray:
    """(M, K) → (M,). Row by row, einsum is several times as fast as sum where K is small."""
    return np.einsum("ij->i", values) if values.flags.c_contiguous else values.sum(1)


def row_max(values: ndarray) -> tuple[ndarray, ndarray]:
    """(M, K) → the column of the maximum of each row (M,), the first of equal ones, and the maximum (M,)."""
    k = values.shape[1]
    if k > MAX_FEW_CLASSES:
        best = values.argmax(1)
        return best, values[np.arange(len(values)), best]
    columns = np.ascontiguousarray(values.T)
    highest = columns.max(0)
    from_end = np.arange(k, 0, -1, dtype=np.uint8)[:, None]
    place = ((columns == highest) * from_end).max(0)
    return (k - place) * (place > 0), highest  # a row of NaN has 0


def normalize(probs: ndarray) -> ndarray:
    """(M, K) with rows that sum to 1."""
    return probs / row_sums(probs)[:, None]


def normalize_log(logs: ndarray) -> ndarray:
    """(…, K) logs as log-probabilities, log softmax; NaN stays NaN."""
    return logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)


def soften(probs: ndarray, temperature: float) -> ndarray:
    """(M, K) probabilities p → p^(1 / temperature), normalized; a temperature below 1 sharpens them."""
    return normalize(np.maximum(probs, 1e-30) ** (1 / temperature))


def row_blocks(values: ndarray) -> Iterator[slice]:
    """Slices of the rows of values (N, …), at most MAX_BLOCK_VALUES values at a time."""
    n = len(values)
    step = max(1, MAX_BLOCK_VALUES * n // max(values.size, 1))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


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


def words(which: ndarray, *names: str) -> ndarray:
    """(N,) names[which] as objects. Rows of one word share its string, so that memory does not grow with its length."""
    return np.array(names, object).take(which)
