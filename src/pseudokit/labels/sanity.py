"""Whether out-of-fold predictions know anything of the labels, or too much. Arrays in, a reason out."""

from numpy import ndarray

from ..data.encoding import counts
from .pseudo_labels import lower_bound

MIN_ROWS = 30
"""With fewer rows, chance alone may look like ignorance."""
MAX_P_VALUE = 0.01
"""One-sided: predictions that know nothing agree as often as these do in more than one of a hundred cases."""

MIN_LEARNED_AGREEMENT = 0.995
"""Agreement with given labels, as its lower 95 % bound, from which predictions may be those of learned rows."""
MAX_MISSED_SHARE = 0.01
"""Of the rows on which a model says of itself that it errs, the share that it does miss at most where it learned them.
Held-out models missed 3 % at least, those that had learned 0.5 % at most (benchmarks/outside_predictions.py)."""


def learned_nothing(predicted: ndarray, given_labels: ndarray, k: int) -> str:
    """Why these predictions say nothing about any label; "" where they can.

    They cannot where they agree with the given labels no better than chance would, with the same number of rows in
    every class (binomial test). Predictions that all fall on one class never do better. A class with a single labeled
    row is left out: its row was predicted by models that have never seen the class.

    predicted: (N,) class index; given_labels: (N,) class index, -1 = none; k: number of classes.
    """
    from scipy.special import bdtrc  # the tail of the binomial distribution

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
    if by_chance > 1 - 1 / n or bdtrc(hits - 1, n, by_chance) <= MAX_P_VALUE:
        return ""
    expected = round(n * by_chance)
    return f"held-out predictions agree with {hits:,} of {n:,} labels, and chance alone would with {expected:,}"


def learned_these_rows(predicted: ndarray, confidence: ndarray, given_labels: ndarray) -> str:
    """Why these predictions look like those of rows whose labels the model learned; "" where they do not.

    A model that has not seen a label is wrong about as often as its confidences say, and wrong labels add to that. One
    that has learned all rows contradicts next to no label, however unsure it is: a random forest gives a noisy label 60
    or 70 %, but never less than any other class. Perfect models of trivial problems look the same, and nothing but the
    folds could tell.

    predicted, given_labels: (N,) class index; confidence: (N,) probability of the predicted class.
    """
    n = len(given_labels)
    missed = int((predicted != given_labels).sum())
    expected = float((1 - confidence).sum())
    agrees = lower_bound(n - missed, n) >= MIN_LEARNED_AGREEMENT
    if not agrees or missed > MAX_MISSED_SHARE * expected:
        return ""
    return f"they contradict {missed:,} of {n:,} given labels, and their own confidences expect {expected:,.0f}"
