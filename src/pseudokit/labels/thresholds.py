"""Which class to answer, where the likeliest is not the best answer: tuned on out-of-fold rows for F1 and kappa."""

from __future__ import annotations

import numpy as np

from ..data.encoding import likeliest
from .metrics import PREDICTED, ranks

STEPS = 21
"""Values that are tried for one number."""
SWEEPS = 3
WIDEST = 2.0
"""Largest offset of a log-probability."""
MOST_CLASSES = 100
PARTS = 5


def tune(metric: str, log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> list[float] | None:
    """The numbers by which `answer` scores best on log-probabilities and labels, see encoding.py, one after the other.

    macro_f1: an offset a class, of label sets of its yes. kappa: the K - 1 cuts between neighboring classes on the
    expected class (as is usual for ordered classes). None where nothing is to be tuned: another metric, or
    too many classes.
    """
    if metric not in PREDICTED or len(classes) > MOST_CLASSES:
        return None
    numbers = np.zeros(len(classes)) if metric == "macro_f1" else np.arange(len(classes) - 1) + 0.5
    best = PREDICTED[metric](answer(metric, numbers, log_probs, classes), labels, classes)
    for _ in range(SWEEPS):
        before = best
        for at in range(len(numbers)):
            for value, answers in list(_trials(metric, numbers, at, log_probs, classes)):
                score = PREDICTED[metric](answers, labels, classes)
                if score > best:
                    numbers[at], best = value, score
        if best == before:
            break
    return numbers.tolist()


def _trials(metric: str, numbers: np.ndarray, at: int, log_probs: np.ndarray, classes: tuple[str, ...]):
    """(value, answers) for values of one of the numbers, the others as they are."""
    if log_probs.ndim == 3:
        answers, least = answer(metric, numbers, log_probs, classes), log_probs[:, at, 0] - log_probs[:, at, 1]
        for value in np.linspace(-WIDEST, WIDEST, STEPS):
            answers[:, at] = least < value
            yield value, answers.copy()
        return
    if metric == "macro_f1":
        others = log_probs + numbers
        others[:, at] = -np.inf
        second, least = others.argmax(1), others.max(1) - log_probs[:, at]
        for value in np.linspace(-WIDEST, WIDEST, STEPS):
            yield value, np.where(least < value, at, second)
        return
    low = numbers[at - 1] if at else -0.5  # cuts stay in order
    high = numbers[at + 1] if at + 1 < len(numbers) else len(numbers) + 0.5
    for value in np.linspace(low, high, STEPS):
        yield value, answer(metric, np.r_[numbers[:at], value, numbers[at + 1 :]], log_probs, classes)


def answer(
    metric: str, numbers: list[float] | np.ndarray, log_probs: np.ndarray, classes: tuple[str, ...]
) -> np.ndarray:
    """Labels."""
    if log_probs.ndim == 3:
        return (log_probs[..., 0] - log_probs[..., 1] < np.asarray(numbers)).astype(int)
    if metric == "macro_f1":
        return (log_probs + np.asarray(numbers)).argmax(1)
    place = ranks(classes)
    return place.argsort()[np.digitize(np.exp(log_probs) @ place, numbers)]


def tuned(
    metric: str, log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], seed: int = 0
) -> dict | None:
    """{"metric", "numbers", "before", "after"}, see tune; None where there is nothing to tune.

    after: what rows score by numbers that were tuned on the other four fifths of the rows, which is honest. numbers is
    None where that is not better than before.
    """
    if metric not in PREDICTED or len(classes) > MOST_CLASSES or len(labels) < PARTS:
        return None
    part = np.random.default_rng(seed).permutation(len(labels)) % PARTS
    answers = likeliest(log_probs)
    before = PREDICTED[metric](answers, labels, classes)
    for g in range(PARTS):
        rows = part == g
        numbers = tune(metric, log_probs[~rows], labels[~rows], classes)
        answers[rows] = answer(metric, numbers, log_probs[rows], classes)
    after = PREDICTED[metric](answers, labels, classes)
    numbers = tune(metric, log_probs, labels, classes) if after > before else None
    return {"metric": metric, "numbers": numbers, "before": before, "after": after}
