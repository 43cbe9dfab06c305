"""Scores: thin functions over probabilities, labels and, where it is known, the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..data.encoding import classes_of, likeliest, own, right, yes

MOST = 50_000_000
PRECISION_AT = (100, 500, 1000, 5000)


def score(log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> dict[str, float]:
    """n and the scores that these classes have, of log-probabilities against labels; see goals.py.

    Without auc and map, which sort all rows for every class, where that would take minutes.
    """
    goals = known(classes, labels.ndim == 2)
    names = [metric for metric in goals if metric not in ("auc", "map") or log_probs.size <= MOST]
    scores = {metric: measure(metric, log_probs, labels, classes) for metric in names}
    return {"n": len(labels)} | {name: None if np.isnan(value) else value for name, value in scores.items()}


def of_classes(log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> dict[str, dict]:
    """class → n, recall, precision, auc, of the classes that occur; None where it cannot be told."""
    predicted, area = likeliest(log_probs), by_class("auc", log_probs, labels)
    found = {}
    for k in np.unique(classes_of(labels)):
        if labels.ndim == 1:
            own, said = labels == k, predicted == k
        else:
            own, said = labels[:, k] == 1, (predicted[:, k] == 1) & (labels[:, k] >= 0)
        hits = (own & said).sum()
        found[classes[k]] = {
            "n": int(own.sum()),
            "recall": float(hits / own.sum()),
            "precision": float(hits / said.sum()) if said.any() else None,
            "auc": None if np.isnan(area[k]) else float(area[k]),
        }
    return found


def share_interval(share: float, n: float) -> dict[str, float]:
    """Standard error and 95 % interval (Wilson 1927) of a share of n rows: se, low, high."""
    z, variance = 1.96, share * (1 - share) / n
    center, half = share + z**2 / (2 * n), z * float(np.sqrt(variance + (z / (2 * n)) ** 2))
    low, high = ((center + side) / (1 + z**2 / n) for side in (-half, half))
    return {"se": float(np.sqrt(variance)), "low": low, "high": high}


def expected(accuracy: float, n: int, m: int) -> dict[str, float]:
    """The 95 % interval of an accuracy of n rows, and that in which the accuracy of m others is to be expected.

    Those have chance of their own: the difference varies as if there were n m / (n + m) rows.
    """
    found = share_interval(accuracy, n)
    of_others = share_interval(accuracy, n * m / (n + m)) if m else {}
    others = {"test_n": m, "test_low": of_others["low"], "test_high": of_others["high"]} if m else {}
    return {"low": found["low"], "high": found["high"]} | others


def noise_scores(
    p_wrong: np.ndarray,
    given_labels: np.ndarray,
    label: np.ndarray,
    clean: np.ndarray | None,
    soft: np.ndarray | bool = False,
) -> dict:
    """How well wrong labels were found and repaired; against the truth only where it is known.

    All (N,) over the labeled set, of label sets over their answers: p_wrong, the given label, the label after
    decisions (-1 = dropped), the clean one, and whether probabilities are learned in place of the label.
    residual_rate: labels that are still wrong, as a share of the labeled set.
    """
    scores = {
        "n": len(given_labels),
        "estimated_rate": float(p_wrong.mean()),
        "relabeled": int(((label != given_labels) & (label >= 0) & ~np.asarray(soft)).sum()),
        "softened": int(np.sum(soft)),
        "dropped": int((label < 0).sum()),
    }
    if clean is None:
        return scores
    from sklearn.metrics import average_precision_score

    flipped = clean != given_labels
    ranked = flipped[np.argsort(-p_wrong, kind="stable")]
    wrong = (label != clean) & (label >= 0)
    return scores | {
        "injected_rate": float(flipped.mean()),
        "residual_rate": float(wrong.mean()),
        "broken_rate": float((wrong & ~flipped).mean()),
        "average_precision": float(average_precision_score(flipped, p_wrong)) if flipped.any() else None,
        "precision_at": {str(n): float(ranked[:n].mean()) for n in PRECISION_AT if n <= len(ranked)},
    }


def pool_scores(label: np.ndarray, clean: np.ndarray | None) -> dict:
    """Coverage of the pool by pseudo-labels, and their accuracy where the truth is known. All over the pool, or its
    answers."""
    taken = label >= 0
    scores = {"n": label.size, "pseudo_labels": int(taken.sum()), "coverage": float(taken.mean())}
    if clean is not None and taken.any():
        scores["accuracy"] = float((label[taken] == clean[taken]).mean())
    return scores


def paired_gain(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Accuracy before and after, the gain and its 95 % interval (normal, paired), from hits (n,) on the same rows."""
    change = after.astype(float) - before
    half = 1.96 * change.std() / np.sqrt(len(change))
    gain = float(change.mean())
    interval = {"gain": gain, "low": float(gain - half), "high": float(gain + half)}
    return {"before": float(before.mean()), "after": float(after.mean())} | interval


def paired_arms(scored: pd.DataFrame, splits: tuple[str, ...], base: str) -> dict[str, float] | None:
    """What the student gains on the arm `base` on the rows of these roles that both judged; None where there is none.

    scored: table of scored.csv. Returns paired_gain with n, and on how many rows one of them alone was right.
    """
    rows = scored[scored["split"].isin(splits) & (scored["label"] != "")]
    keys = pd.MultiIndex.from_frame(rows[["split", "id"]])
    hits = (rows["label"] == rows["predicted"]).astype(float).set_axis(keys)
    student, other = (hits[(rows["arm"] == arm).to_numpy()] for arm in ("student", base))
    both = student.index.intersection(other.index)
    if not len(both):
        return None
    before, after = other[both].to_numpy(), student[both].to_numpy()
    counts = {"n": len(both), "won": int((after > before).sum()), "lost": int((after < before).sum())}
    return paired_gain(before, after) | counts


def confirmed(trusted: list[np.ndarray], out_of_fold: list[np.ndarray]) -> dict:
    """The gain on trusted samples, that in out-of-fold agreement, and whether the second warns of the first.

    Each argument: hits of the first and of the last round, (n,) on the same rows. The warning is given when agreement
    rose beyond chance and accuracy on trusted samples did not rise at all.
    """
    gain, rise = paired_gain(*trusted), paired_gain(*out_of_fold)
    return gain | {"out_of_fold": rise, "warning": bool(rise["low"] > 0 and gain["gain"] <= 0)}


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
    return [metric for metric in GOALS if not left_out.get(metric)]


def measure(metric: str, log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> float:
    """One score of log-probabilities against labels, see encoding.py; higher is better, but for log_loss.

    auc and map: one class against the rest, the mean over the classes that occur (and do not fill all rows).
    Of label sets: accuracy is the share of images of which every answer is right, log_loss the mean over answers.
    """
    if metric in ("auc", "map"):
        of_class = by_class(metric, log_probs, labels)
        return float(np.nanmean(of_class)) if not np.isnan(of_class).all() else float("nan")
    predicted = likeliest(log_probs)
    if metric in PREDICTED:
        return PREDICTED[metric](predicted, labels, classes)
    return float(_each(metric, log_probs, labels).mean()) * (-1 if metric == "log_loss" else 1)


def _each(metric: str, log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) what each row adds to a score that is a mean over rows; higher is better."""
    if metric == "accuracy":
        return right(likeliest(log_probs), labels).astype(np.float64)
    said = own(log_probs, labels).astype(np.float64)
    if metric == "log_loss":
        return said if said.ndim == 1 else np.nanmean(said, 1)
    return ((log_probs > said[:, None]).sum(1) < TOP).astype(np.float64)


def by_class(metric: str, log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) area under the ROC curve (auc) or average precision (map) of each class against the rest, else NaN."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    said, found = yes(log_probs), np.full(log_probs.shape[1], np.nan)
    function = roc_auc_score if metric == "auc" else average_precision_score
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
    metric: str, before: np.ndarray, after: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]
) -> tuple[float, float]:
    """What log-probabilities `after` gain on `before` on the same rows, and the standard error of it.

    Positive is better, whatever the score. Where a score is a mean over rows the error is that of paired differences,
    else that of a jackknife over GROUPS parts of the rows (Tukey 1958; Kott 2001, "The delete-a-group jackknife").
    """
    if metric not in PREDICTED and metric not in ("auc", "map"):
        change = _each(metric, after, labels) - _each(metric, before, labels)
        return float(change.mean()), float(change.std() / np.sqrt(len(change)))
    part = np.random.default_rng(0).permutation(len(labels)) % min(GROUPS, len(labels))

    def change_on(rows: np.ndarray) -> float:
        return measure(metric, after[rows], labels[rows], classes) - measure(
            metric, before[rows], labels[rows], classes
        )

    without = np.array([change_on(part != g) for g in range(part.max() + 1)])
    error = np.sqrt((len(without) - 1) * without.var())
    return change_on(np.ones(len(labels), bool)), float(error)
