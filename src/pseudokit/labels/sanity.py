"""Whether held-out predictions know anything of the labels. Arrays in, a reason out."""

from __future__ import annotations

import numpy as np

MIN_ROWS = 30
"""With fewer rows to ask, chance alone may look like ignorance."""
MAX_P_VALUE = 0.01
"""One-sided: predictions that know nothing agree as often as these do in more than one of a hundred cases."""


def learned_nothing(predicted: np.ndarray, given_labels: np.ndarray, k: int) -> str:
    """Why these predictions cannot judge any label; "" where they can.

    They cannot where they agree with the given labels no better than chance would, with the same number of rows in
    every class. Predictions that all fall on one class never do better.

    predicted: (N,) class index; given: (N,) class index, -1 = none. A class with a single labeled row is not asked: its
    row was judged by models that have never seen the class.
    """
    from scipy.stats import binom

    labeled = given_labels >= 0
    counts = np.bincount(given_labels[labeled], minlength=k)
    asked = np.flatnonzero(labeled)[counts[given_labels[labeled]] > 1]
    n = len(asked)
    if n < MIN_ROWS:
        return ""
    shares = [np.bincount(classes[asked], minlength=k) / n for classes in (predicted, given_labels)]
    by_chance = float((shares[0] * shares[1]).sum())
    hits = int((predicted[asked] == given_labels[asked]).sum())
    if by_chance > 1 - 1 / n or binom.sf(hits - 1, n, by_chance) <= MAX_P_VALUE:
        return ""
    if (shares[0] > 0).sum() == 1:
        return "all held-out predictions fall on one class"
    return (
        f"held-out predictions agree with {hits:,} of {n:,} labels, and chance alone would with "
        f"{round(n * by_chance):,}"
    )
