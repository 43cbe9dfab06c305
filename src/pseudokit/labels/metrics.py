"""Scores: thin functions over log-probabilities and labels, see data/encoding.py, and the truth where it is known."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from ..data.encoding import class_scores, classes_of, counts, is_correct, label_scores
from .arrays import Array

GOALS = ("accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5")
RANKING = ("auc", "map")
"""Scores that sort all rows for every class."""
MAX_RANKED_PROBABILITIES = 50_000_000
"""With more the scores that sort would take minutes, and are left out."""
TOP = 5
JACKKNIFE_PARTS = 20
Z_95 = 1.96

Classes = tuple[str, ...] | list[str]


def score(log_probs: Array, labels: Array, classes: Classes) -> dict[str, float]:
    """n and the scores that these classes have; None where one cannot be told."""
    scores = {"n": len(labels)}
    for metric in known(classes, labels.ndim == 2):
        if metric not in RANKING or log_probs.size <= MAX_RANKED_PROBABILITIES:
            value = measure(metric, log_probs, labels, classes)
            scores[metric] = None if np.isnan(value) else value
    return scores


def known(classes: Classes, multi_label: bool = False) -> list[str]:
    """The scores that these classes have: kappa wants numbers, top5 more than five, both one class an image."""
    left_out = {
        "kappa": multi_label or ranks(classes) is None,
        "top5": multi_label or len(classes) <= TOP,
    }
    return [metric for metric in GOALS if not left_out.get(metric)]


def measure(metric: str, log_probs: Array, labels: Array, classes: Classes) -> float:
    """One score of log-probabilities against labels; higher is better, but for log_loss.

    auc and map: one class against the rest, the mean over the classes that occur (and do not fill all rows).
    Of label sets: accuracy is the share of images of which every answer is right, log_loss the mean over answers.
    """
    if metric in RANKING:
        of_classes = by_class(metric, log_probs, labels)
        return float("nan") if np.isnan(of_classes).all() else float(np.nanmean(of_classes))
    if metric in PREDICTED:
        return PREDICTED[metric](log_probs.argmax(-1), labels, classes)
    sign = -1 if metric == "log_loss" else 1
    return sign * float(_row_scores(metric, log_probs, labels).mean())


def _row_scores(metric: str, log_probs: Array, labels: Array) -> Array:
    """(N,) what each row adds to a score that is a mean over rows; higher is better."""
    if metric == "accuracy":
        return is_correct(log_probs.argmax(-1), labels).astype(np.float64)
    of_label = label_scores(log_probs, labels).astype(np.float64)
    if metric == "log_loss":
        return of_label if of_label.ndim == 1 else np.nanmean(of_label, 1)
    return ((log_probs > of_label[:, None]).sum(1) < TOP).astype(np.float64)


def by_class(metric: str, log_probs: Array, labels: Array) -> Array:
    """(K,) area under the ROC curve (auc) or average precision (map) of each class against the rest, else NaN."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    function = roc_auc_score if metric == "auc" else average_precision_score
    scores = class_scores(log_probs)
    values = np.full(scores.shape[1], np.nan)
    for k in range(len(values)):
        rows, is_class = _one_vs_rest(labels, k)
        if is_class.any() and not is_class.all():
            values[k] = function(is_class, scores[rows, k])
    return values


def _one_vs_rest(labels: Array, k: int) -> tuple[Array, Array]:
    """The rows (M,) of which it is known whether they have class k, and whether they have it (M,)."""
    if labels.ndim == 1:
        return np.arange(len(labels)), labels == k
    rows = np.flatnonzero(labels[:, k] >= 0)
    return rows, labels[rows, k] == 1


def of_classes(log_probs: Array, labels: Array, classes: Classes) -> dict[str, dict]:
    """class → n, recall, precision, auc, of the classes that occur; None where it cannot be told."""
    from sklearn.metrics import precision_score, recall_score

    predicted = log_probs.argmax(-1)
    areas = by_class("auc", log_probs, labels)
    scores = {}
    for k in np.unique(classes_of(labels)):
        rows, is_class = _one_vs_rest(labels, k)
        _, is_predicted = _one_vs_rest(predicted[rows], k)
        scores[classes[k]] = {
            "n": int(is_class.sum()),
            "recall": float(recall_score(is_class, is_predicted)),
            "precision": float(precision_score(is_class, is_predicted))
            if is_predicted.any()
            else None,
            "auc": None if np.isnan(areas[k]) else float(areas[k]),
        }
    return scores


def macro_f1(predicted: Array, labels: Array, classes: Classes) -> float:
    """The mean F1 of the classes that are predicted or occur: as scikit-learn's, but fast enough for tuning.

    F1 = 2 · hits / (predicted + labeled), each a count of rows.
    """
    k = len(classes)
    hits = counts(np.where(predicted == labels, labels, -1), k)
    either = counts(np.where(labels >= 0, predicted, -1), k) + counts(labels, k)
    occur = either > 0
    return float((2 * hits[occur] / either[occur]).mean()) if occur.any() else 0.0


def kappa(predicted: Array, labels: Array, classes: Classes) -> float:
    """Cohen's kappa with quadratic weights, of classes whose names are numbers."""
    from sklearn.metrics import cohen_kappa_score

    rank = ranks(classes)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore")  # one class alone has no kappa
        every = np.arange(len(rank))
        return float(
            cohen_kappa_score(rank[predicted], rank[labels], labels=every, weights="quadratic")
        )


PREDICTED = {"macro_f1": macro_f1, "kappa": kappa}
"""Scores of the predicted classes alone."""


def ranks(classes: Classes) -> Array | None:
    """(K,) the place of each class among all by its number, for quadratic kappa; None where a name is no number."""
    try:
        values = np.array([float(name) for name in classes])
    except ValueError:
        return None
    return values.argsort().argsort()


def gain(
    metric: str, before: Array, after: Array, labels: Array, classes: Classes
) -> tuple[float, float]:
    """What log-probabilities `after` gain on `before` on the same rows, and the standard error of it.

    Positive is better, whatever the score. Where a score is a mean over rows the error is that of paired differences,
    else that of a jackknife over parts of the rows (Tukey 1958; Kott 2001, "The delete-a-group jackknife").
    """
    if metric not in PREDICTED and metric not in RANKING:
        change = _row_scores(metric, after, labels) - _row_scores(metric, before, labels)
        return float(change.mean()), float(change.std() / np.sqrt(len(change)))

    def change_on(rows: Array) -> float:
        of_after = measure(metric, after[rows], labels[rows], classes)
        return of_after - measure(metric, before[rows], labels[rows], classes)

    parts = min(JACKKNIFE_PARTS, len(labels))
    part = np.random.default_rng(0).permutation(len(labels)) % parts
    without = np.array([change_on(part != p) for p in range(parts)])
    error = np.sqrt((parts - 1) * without.var())
    return change_on(np.ones(len(labels), bool)), float(error)


def share_interval(share: float, n: float) -> dict[str, float]:
    """Standard error and 95 % interval (Wilson 1927) of a share of n rows: se, low, high."""
    variance = share * (1 - share) / n
    center = share + Z_95**2 / (2 * n)
    half = Z_95 * float(np.sqrt(variance + (Z_95 / (2 * n)) ** 2))
    whole = 1 + Z_95**2 / n
    return {
        "se": float(np.sqrt(variance)),
        "low": (center - half) / whole,
        "high": (center + half) / whole,
    }


def expected(accuracy: float, n: int, m: int) -> dict[str, float]:
    """The 95 % interval of an accuracy of n rows, and that in which the accuracy of m others is to be expected.

    Those have chance of their own: the difference varies as if there were n m / (n + m) rows.
    """
    _, low, high = share_interval(accuracy, n).values()
    expected = {"low": low, "high": high}
    if m:
        _, low, high = share_interval(accuracy, n * m / (n + m)).values()
        expected |= {"test_n": m, "test_low": low, "test_high": high}
    return expected


def noise_scores(
    p_wrong: Array,
    given_labels: Array,
    label: Array,
    clean: Array | None,
    soft: Array | bool = False,
) -> dict:
    """How well wrong labels were found and repaired; against the truth only where it is known.

    All (N,) over the labeled set, of label sets over their answers: p_wrong, the given label, the label after
    decisions (-1 = dropped), the clean one, and whether probabilities are learned in place of the label.
    residual_rate: labels that are still wrong, as a share of the labeled set.
    """
    learned = label >= 0
    scores = {
        "n": len(given_labels),
        "estimated_rate": float(p_wrong.mean()),
        "relabeled": int((learned & (label != given_labels) & ~np.asarray(soft)).sum()),
        "softened": int(np.sum(soft)),
        "dropped": int((~learned).sum()),
    }
    if clean is None:
        return scores
    from sklearn.metrics import average_precision_score

    flipped = clean != given_labels
    return scores | {
        "injected_rate": float(flipped.mean()),
        "residual_rate": float((learned & (label != clean)).mean()),
        "average_precision": float(average_precision_score(flipped, p_wrong))
        if flipped.any()
        else None,
    }


def pool_scores(label: Array, clean: Array | None) -> dict:
    """How many unlabeled rows (or answers) have a pseudo-label, and how many of those are right where it is known."""
    has_one = label >= 0
    scores = {
        "n": label.size,
        "pseudo_labels": int(has_one.sum()),
        "coverage": float(has_one.mean()),
    }
    if clean is not None and has_one.any():
        scores["accuracy"] = float((label == clean)[has_one].mean())
    return scores


def paired_gain(before: Array, after: Array) -> dict[str, float]:
    """Accuracy before and after, the gain and its 95 % interval (normal, paired), from hits (n,) on the same rows."""
    change = after.astype(float) - before
    gain = float(change.mean())
    half = float(Z_95 * change.std() / np.sqrt(len(change)))
    accuracy = {"before": float(before.mean()), "after": float(after.mean())}
    return accuracy | {"gain": gain, "low": gain - half, "high": gain + half}


def paired_arms(
    scored: pd.DataFrame, splits: tuple[str, ...], base: str
) -> dict[str, float] | None:
    """What the student gains on the arm `base` on the rows of these splits that both predict; None where there is none.

    scored: table of scored.csv. Returns paired_gain with n, and on how many rows one of them alone was right.
    """
    rows = scored[scored["split"].isin(splits) & (scored["label"] != "")]
    rows = rows.assign(hit=(rows["label"] == rows["predicted"]).astype(float))
    hits = rows.pivot(index=["split", "id"], columns="arm", values="hit")
    hits = hits.reindex(columns=[base, "student"]).dropna().to_numpy()
    if not len(hits):
        return None
    before, after = hits.T
    counts = {
        "n": len(hits),
        "won": int((after > before).sum()),
        "lost": int((after < before).sum()),
    }
    return paired_gain(before, after) | counts


def confirmed(trusted: list[Array], out_of_fold: list[Array]) -> dict:
    """The gain on trusted samples, that in out-of-fold agreement, and whether the second warns of the first.

    Each argument: hits of the first and of the last round, (n,) on the same rows. The warning is given when agreement
    rose beyond chance and accuracy on trusted samples did not rise at all.
    """
    gain, rise = paired_gain(*trusted), paired_gain(*out_of_fold)
    return gain | {"out_of_fold": rise, "warning": rise["low"] > 0 and gain["gain"] <= 0}
