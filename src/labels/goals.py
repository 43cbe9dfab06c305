"""The scores that people are ranked by, from scikit-learn; and what one prediction gains on another in one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from .sets import likeliest, own, right, yes

GOALS = ("accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5")
TOP = 5
GROUPS = 20
"""Parts of the rows of which each is left out once, see gain."""


def ranks(classes: tuple[str, ...] | list[str]) -> np.ndarray | None:
    """(K,) the place of each class among all by its number, for quadratic kappa; None where a name is no number."""
    try:
        values = np.array([float(name) for name in classes])
    except ValueError:
        return None
    return values.argsort().argsort()


def known(classes: tuple[str, ...] | list[str], multi_label: bool = False) -> list[str]:
    """The scores that these classes have: kappa wants numbers, top5 more than five, both one class an image."""
    left_out = {"kappa": multi_label or ranks(classes) is None, "top5": multi_label or len(classes) <= TOP}
    return [goal for goal in GOALS if not left_out.get(goal)]


def measure(goal: str, log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> float:
    """One score of log-probabilities against labels, see sets.py; higher is better, but for log_loss.

    auc and map: one class against the rest, the mean over the classes that occur (and do not fill all rows).
    Of label sets: accuracy is the share of images of which every answer is right, log_loss the mean over answers.
    """
    if goal in ("auc", "map"):
        of_class = by_class(goal, log_probs, labels)
        return float(np.nanmean(of_class)) if not np.isnan(of_class).all() else float("nan")
    predicted = likeliest(log_probs)
    if goal in PREDICTED:
        return PREDICTED[goal](predicted, labels, classes)
    return float(_each(goal, log_probs, labels).mean()) * (-1 if goal == "log_loss" else 1)


def _each(goal: str, log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) what each row adds to a score that is a mean over rows; higher is better."""
    if goal == "accuracy":
        return right(likeliest(log_probs), labels).astype(np.float64)
    said = own(log_probs, labels).astype(np.float64)
    if goal == "log_loss":
        return said if said.ndim == 1 else np.nanmean(said, 1)
    return ((log_probs > said[:, None]).sum(1) < TOP).astype(np.float64)


def by_class(goal: str, log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) area under the ROC curve (auc) or average precision (map) of each class against the rest, else NaN."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    said, found = yes(log_probs), np.full(log_probs.shape[1], np.nan)
    function = roc_auc_score if goal == "auc" else average_precision_score
    for k in range(len(found)):
        known = slice(None) if labels.ndim == 1 else labels[:, k] >= 0
        is_k = labels == k if labels.ndim == 1 else labels[known, k] == 1
        if is_k.any() and not is_k.all():
            found[k] = function(is_k, said[known, k])
    return found


def macro_f1(predicted: np.ndarray, labels: np.ndarray, classes=()) -> float:
    """The mean F1 of the classes that are predicted or occur. By counting: as scikit-learn's, many times as fast."""
    if labels.ndim == 2:
        hits = ((predicted == 1) & (labels == 1)).sum(0)
        either = ((predicted == 1) & (labels >= 0)).sum(0) + (labels == 1).sum(0)
        return float((2 * hits[either > 0] / either[either > 0]).mean()) if either.any() else 0.0
    k = int(max(predicted.max(initial=0), labels.max(initial=0))) + 1
    hits = np.bincount(labels[predicted == labels], minlength=k)
    either = np.bincount(predicted, minlength=k) + np.bincount(labels, minlength=k)
    return float((2 * hits[either > 0] / either[either > 0]).mean())


def kappa(predicted: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> float:
    """Cohen's kappa with quadratic weights, of classes whose names are numbers."""
    from sklearn.metrics import cohen_kappa_score

    place = ranks(classes)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")  # one class alone has no kappa
        every = np.arange(len(place))
        return float(cohen_kappa_score(place[predicted], place[labels], labels=every, weights="quadratic"))


PREDICTED: dict[str, Callable[..., float]] = {"macro_f1": macro_f1, "kappa": kappa}
"""Scores of the predicted classes alone."""


def gain(
    goal: str, before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]
) -> tuple[float, float]:
    """What log-probabilities `after` gain on `before` on the same rows, and the standard error of it.

    Positive is better, whatever the score. Where a score is a mean over rows the error is that of paired differences,
    else that of a jackknife over GROUPS parts of the rows (Tukey 1958; Kott 2001, "The delete-a-group jackknife").
    """
    if goal not in PREDICTED and goal not in ("auc", "map"):
        change = _each(goal, after, labels) - _each(goal, before, labels)
        return float(change.mean()), float(change.std() / np.sqrt(len(change)))
    part = np.random.default_rng(0).permutation(len(labels)) % min(GROUPS, len(labels))

    def change_on(rows: np.ndarray) -> float:
        return measure(goal, after[rows], labels[rows], classes) - measure(goal, before[rows], labels[rows], classes)

    without = np.array([change_on(part != g) for g in range(part.max() + 1)])
    error = np.sqrt((len(without) - 1) * without.var())
    return change_on(np.ones(len(labels), bool)), float(error)
