"""Whether out-of-fold predictions know anything of the labels. Arrays in, a reason out."""

from numpy import ndarray

from ..data.encoding import counts

MIN_ROWS = 30
"""With fewer rows, chance alone may look like ignorance."""
MAX_P_VALUE = 0.01
"""One-sided: predictions that know nothing agree as often as these do in more than one of a hundred cases."""


def learned_nothing(predicted: ndarray, given_labels: ndarray, k: int) -> str:
    """Why these predictions say nothing about any label; "" where they can.

    They cannot where they agree with the given labels no better than chance would, with the same number of rows in
    every class (binomial test). Predictions that all fall on one class never do better. A class with a single labeled
    row is left out: its row was predicted by models that have never seen the class.

    predicted: (N,) class index; given_labels: (N,) class index, -1 = none; k: number of classes.
    """
    from scipy.stats import binom

    several = counts(given_labels, k)[given_labels] > 1
    rows = several & (given_labels >= 0)
    predicted = predicted[rows]
    given_labels = given_labels[rows]
    n = len(given_labels)
    if n < MIN_ROWS:
        return ""
    predicted_shares = counts(predicted, k) / n
    given_shares = counts(given_labels, k) / n
    by_chance = float((predicted_shares * given_shares).sum())
    hits = int((predicted == given_labels).sum())
    if by_chance > 1 - 1 / n or binom.sf(hits - 1, n, by_chance) <= MAX_P_VALUE:
        return ""
    expected = round(n * by_chance)
    return f"held-out predictions agree with {hits:,} of {n:,} labels, and chance alone would with {expected:,}"
