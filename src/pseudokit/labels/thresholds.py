"""Which class to answer, where the likeliest is not the best answer: tuned on out-of-fold rows for F1 and kappa."""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from .metrics import PREDICTED, Classes, ranks

TRIALS = 21
"""Values that are tried for one number."""
SWEEPS = 3
"""How often all numbers are tried; most rules stand after two."""
MAX_OFFSET = 2.0
"""Largest offset of a log-probability."""
MAX_CLASSES = 100
"""With more, tuning takes minutes."""
PARTS = 5
"""Each fifth of the rows is scored by numbers that were tuned on the others."""


def tuned(
    metric: str,
    log_probs: ndarray,
    labels: ndarray,
    classes: Classes,
) -> dict | None:
    """{"metric", "numbers", "before", "after"}, see tune; None where there is nothing to tune.

    after: what rows score by numbers that were tuned on the other rows, which is honest. numbers is None where that is
    not better than before.
    """
    if metric not in PREDICTED or len(classes) > MAX_CLASSES or len(labels) < PARTS:
        return None
    score = PREDICTED[metric]
    answers = log_probs.argmax(-1)
    before = score(answers, labels, classes)
    part = np.random.default_rng(0).permutation(len(labels)) % PARTS
    for p in range(PARTS):
        rows = part == p
        numbers = tune(metric, log_probs[~rows], labels[~rows], classes)
        answers[rows] = answer(metric, numbers, log_probs[rows], classes)
    after = score(answers, labels, classes)
    numbers = tune(metric, log_probs, labels, classes) if after > before else None
    return {
        "metric": metric,
        "numbers": numbers,
        "before": before,
        "after": after,
    }


def tune(
    metric: str,
    log_probs: ndarray,
    labels: ndarray,
    classes: Classes,
) -> list[float]:
    """The numbers by which `answer` scores best on log-probabilities and labels, one after the other.

    macro_f1: an offset a class, of label sets of its yes. kappa: the K - 1 cuts between neighboring classes on the
    expected class (as is usual for ordered classes).
    """
    score = PREDICTED[metric]
    numbers = np.zeros(len(classes))
    if metric == "kappa":
        numbers = np.arange(len(classes) - 1) + 0.5
    best = score(answer(metric, numbers, log_probs, classes), labels, classes)
    for _ in range(SWEEPS):
        before = best
        for i in range(len(numbers)):
            for value, answers in _trials(metric, numbers, i, log_probs, classes):
                if (trial := score(answers, labels, classes)) > best:
                    numbers[i] = value
                    best = trial
        if best == before:
            break
    return numbers.tolist()


def answer(
    metric: str,
    numbers: list[float] | ndarray,
    log_probs: ndarray,
    classes: Classes,
) -> ndarray:
    """Labels by tuned numbers."""
    numbers = np.asarray(numbers)
    if log_probs.ndim == 3:
        margins = log_probs[..., 0] - log_probs[..., 1]
        return (margins < numbers).astype(int)
    if metric == "macro_f1":
        return (log_probs + numbers).argmax(1)
    rank = ranks(classes)
    expected_rank = np.exp(log_probs) @ rank
    return rank.argsort()[np.digitize(expected_rank, numbers)]


def _trials(
    metric: str,
    numbers: ndarray,
    i: int,
    log_probs: ndarray,
    classes: Classes,
) -> Iterator[tuple[float, ndarray]]:
    """(value, answers) for values of numbers[i], the others as they are.

    For F1 in a few operations a value: an offset decides between the class and the best of the others alone.
    """
    low = -MAX_OFFSET
    high = MAX_OFFSET
    if metric == "kappa":  # cuts stay in order
        cuts = np.r_[-0.5, numbers, len(numbers) + 0.5]
        low, _, high = cuts[i : i + 3]
    elif log_probs.ndim == 2:
        others = log_probs + numbers
        others[:, i] = -np.inf
        best_other = others.argmax(1)
        margin = others.max(1) - log_probs[:, i]
    trial = numbers.copy()
    for value in np.linspace(low, high, TRIALS):
        if metric == "macro_f1" and log_probs.ndim == 2:
            yield value, np.where(margin < value, i, best_other)
        else:
            trial[i] = value
            yield value, answer(metric, trial, log_probs, classes)
