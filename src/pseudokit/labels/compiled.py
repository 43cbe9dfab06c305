"""The loop over the rows of a large table, compiled by numba: what NumPy says in posterior.py, several times as fast.

It runs without the GIL, so that each_block has it on all cores. numba takes a second to compile it, and keeps the
result beside this file where it may write. Up to posterior.MAX_EXACT_PROBABILITIES NumPy is faster.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
from numba import njit
from numpy import ndarray

from .arrays import MIN_PROBABILITY

compiled = njit(
    nogil=True,
    # a sum may be taken in any order, so that the processor adds several numbers at once
    fastmath={"reassoc", "contract", "nsz"},
    cache=os.access(Path(__file__).parent, os.W_OK),
)
SMALLEST = np.float32(MIN_PROBABILITY)
ZERO = np.float32(0)
FIRST_CLASS = np.int64(0xFFFFFFFF)
"""What _with_place makes of class 0 with probability 0: a row of NaN is predicted as it, as by argmax."""


@cache
def exponentials_of_half() -> ndarray:
    """(65536,) exp of every float16 by its bits: faster than to convert it."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(every, dtype=np.float32)


@compiled
def summarize(
    values: ndarray,
    table: ndarray | None,
    by_given: ndarray | None,
    given_labels: ndarray,
    predicted: tuple[ndarray, ndarray, ndarray] | None,
    believed: tuple[ndarray, ndarray, ndarray, ndarray, ndarray],
) -> None:
    """Fill the summaries of M rows, see Posterior.summaries.

    Args:
        values: (M, K) float32 to which the probabilities of the images are proportional, or uint16 that find them in
            the table.
        by_given: (K + 1, K) P(given label | true class) as [given, true]; the last row, of ones, is that of -1.
        given_labels: (M,) class index, -1 = none.
        predicted: best, confidence and self_confidence, (M,) each. believed: these, p_wrong and likelihood. Without
            by_given they are the same, and only `believed` is filled.
    """
    k = values.shape[1]
    for row in range(values.shape[0]):
        given = given_labels[row]
        total = others = ZERO
        highest = highest_of_image = FIRST_CLASS
        for true in range(k):
            p = values[row, true] if table is None else table[values[row, true]]
            if by_given is not None:
                total += p
                highest_of_image = max(highest_of_image, _with_place(p, true))
                p = (SMALLEST if p < SMALLEST else p) * by_given[given, true]  # NaN stays
            # 1 - self_confidence would round tiny values to 0, and lose their order
            others += ZERO if true == given else p
            highest = max(highest, _with_place(p, true))
        own = ZERO
        if given >= 0:
            own = values[row, given] if table is None else table[values[row, given]]
        if by_given is not None:
            predicted[0][row] = _place(highest_of_image)
            predicted[1][row] = _value(highest_of_image) / total
            predicted[2][row] = own / total if given >= 0 else np.nan
            if given >= 0:
                own = max(own, SMALLEST) * by_given[given, given]
        total = others + own
        believed[0][row] = _place(highest)
        believed[1][row] = _value(highest) / total
        believed[2][row] = own / total if given >= 0 else np.nan
        believed[3][row] = others / total if given >= 0 else np.nan
        believed[4][row] = total if given >= 0 else np.nan


@compiled
def _with_place(p: float, k: int) -> int:
    """A number whose maximum is that of p, of equal ones the first k.

    Floats that are not negative have the order of their bits; below them stands the place from the end. The processor
    takes the maximum of several whole numbers at once, which it cannot of floats and their places.
    """
    return (np.int64(np.float32(p).view(np.int32)) << 32) | (0xFFFFFFFF - k)


@compiled
def _place(number: int) -> int:
    return 0xFFFFFFFF - (number & 0xFFFFFFFF)


@compiled
def _value(number: int) -> float:
    return np.int32(number >> 32).view(np.float32)
