"""Scores: thin functions over log-probabilities and labels, see data/encoding.py, and the truth where it is known."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy import ndarray

from ..data.encoding import class_scores, counts, is_correct, label_scores

GOALS = ("accuracy", "log_loss", "macro_f1", "auc", "map", "kappa", "top5")
RANKING = ("auc", "map")
"""Scores that sort all rows for every class."""
MAX_RANKED_PROBABILITIES = 50_000_000
"""With more the scores that sort would take minutes, and are left out."""
TOP = 5
JACKKNIFE_PARTS = 20
Z_95 = 1.96

Classes = Sequence[str]


def score(log_probs: ndarray, labels: ndarray, classes: Classes) -> dict[str, float]:
    """n and the scores that these classes have; None where one cannot be told."""
    scores = {"n": len(labels)}
    for metric in known(classes, labels.ndim == 2):
        if metric not in RANKING or log_probs.size <= MAX_RANKED_PROBABILITIES:
            value = measure(metric, log_probs, labels, classes)
            scores[metric] = None if np.isnan(value) else value
    return scores


def known(classes: Classes, multi_label: bool = False) -> list[str]:
    """The scores that these classes have: kappa wants numbers, top5 more than five, both one class an image."""
    metrics = list(GOALS)
    if multi_label or ranks(classes) is None:
        metrics.remove("kappa")
    if multi_label or len(classes) <= TOP:
        metrics.remove("top5")
    return metrics


def measure(
    metric: str,
    log_probs: ndarray,
    labels: ndarray,
    classes: Classes,
) -> float:
    """One score of log-probabilities against labels; higher is better, but for log_loss.

    auc and map: one class against the rest, the mean over the classes that occur (and do not fill all rows).
    Of label sets: accuracy is the share of images of which every answer is right, log_loss the mean over answers.
    """
    if metric in RANKING:
        return float(pd.Series(by_class(metric, log_probs, labels)).mean())
    if metric in PREDICTED:
        return PREDICTED[metric](log_probs.argmax(-1), labels, classes)
    mean = float(_row_scores(metric, log_probs, labels).mean())
    return -mean if metric == "log_loss" else mean


def _row_scores(metric: str, log_probs: ndarray, labels: ndarray) -> ndarray:
    """(N,) what each row adds to a score that is a mean over rows; higher is better."""
    if metric == "accuracy":
        return is_correct(log_probs.argmax(-1), labels).astype(float)
    of_label = label_scores(log_probs, labels).astype(float)
    if metric == "log_loss":
        return of_label if of_label.ndim == 1 else np.nanmean(of_label, 1)
    n_likelier = (log_probs > of_label[:, None]).sum(1)
    return (n_likelier < TOP).astype(float)


def by_class(metric: str, log_probs: ndarray, labels: ndarray) -> ndarray:
    """(K,) area under the ROC curve (auc) or average precision (map) of each class against the rest, else NaN."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    function = roc_auc_score if metric == "auc" else average_precision_score
    scores = class_scores(log_probs)
    values = np.full(scores.shape[1], np.nan)
    for k in range(len(values)):
        is_class = labels == k if labels.ndim == 1 else labels[:, k]
        answered = is_class >= 0
        if len(np.unique(is_class[answered])) == 2:
            values[k] = function(is_class[answered], scores[answered, k])
    return values


def of_classes(log_probs: ndarray, labels: ndarray, classes: Classes) -> dict[str, dict]:
    """class → n, recall, precision, auc, of the classes that occur; None where it cannot be told."""
    counted = _count_by_class(log_probs.argmax(-1), labels, len(classes))
    hits, predicted, n = map(pd.Series, counted)
    table = pd.DataFrame(
        {
            "n": n,
            "recall": hits / n,
            "precision": hits / predicted,
            "auc": by_class("auc", log_probs, labels),
        }
    )
    table.index = classes
    return table[table.n > 0].replace({np.nan: None}).to_dict("index")


def _count_by_class(
    predicted: ndarray, labels: ndarray, k: int
) -> tuple[ndarray, ndarray, ndarray]:
    """(k,) each: rows that have a class and are predicted so, that are predicted so, that have it."""
    hits = counts(np.where(predicted == labels, labels, -1), k)
    n_predicted = counts(np.where(labels >= 0, predicted, -1), k)
    return hits, n_predicted, counts(labels, k)


def macro_f1(predicted: ndarray, labels: ndarray, classes: Classes) -> float:
    """The mean F1 of the classes that are predicted or occur: as scikit-learn's, but fast enough for tuning.

    F1 = 2 · hits / (predicted + labeled), each a count of rows.
    """
    hits, n_predicted, n_labeled = _count_by_class(predicted, labels, len(classes))
    either = n_predicted + n_labeled
    occur = either > 0
    if not occur.any():
        return 0.0
    scores = 2 * hits[occur] / either[occur]
    return float(scores.mean())


def kappa(predicted: ndarray, labels: ndarray, classes: Classes) -> float:
    """Cohen's kappa with quadratic weights, of classes whose names are numbers."""
    from sklearn.metrics import cohen_kappa_score

    rank = ranks(classes)
    every = np.arange(len(rank))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one class alone has no kappa
        value = cohen_kappa_score(rank[predicted], rank[labels], labels=every, weights="quadratic")
    return float(value)


PREDICTED = {"macro_f1": macro_f1, "kappa": kappa}
"""Scores of the predicted classes that have answers of their own, see thresholds.py."""
OF_ANSWERS = ("accuracy", *PREDICTED)
"""Scores of the predicted classes alone; the others are of probabilities."""


def ranks(classes: Classes) -> ndarray | None:
    """(K,) the place of each class among all by its number, for quadratic kappa; None where a name is no number."""
    try:
        return np.array(classes, float).argsort().argsort()
    except ValueError:
        return None


def gain(
    metric: str,
    before: ndarray,
    after: ndarray,
    labels: ndarray,
    classes: Classes,
) -> tuple[float, float]:
    """What log-probabilities `after` gain on `before` on the same rows, and the standard error of it.

    Positive is better, whatever the score. Where a score is a mean over rows the error is that of paired differences,
    else that of a jackknife over parts of the rows (Tukey 1958; Kott 2001, "The delete-a-group jackknife").
    """
    if metric not in (*PREDICTED, *RANKING):
        change = _row_scores(metric, after, labels) - _row_scores(metric, before, labels)
        error = change.std() / np.sqrt(len(change))
        return float(change.mean()), float(error)

    def change_on(rows: ndarray) -> float:
        of_after = measure(metric, after[rows], labels[rows], classes)
        return of_after - measure(metric, before[rows], labels[rows], classes)

    parts = min(JACKKNIFE_PARTS, len(labels))
    part = np.random.default_rng(0).permutation(len(labels)) % parts
    without = np.array([change_on(part != p) for p in range(parts)])
    error = np.sqrt((parts - 1) * without.var())
    return change_on(part >= 0), float(error)


def share_interval(share: float, n: float) -> dict[str, float]:
    """Standard error and 95 % interval (Wilson 1927) of a share of n rows: se, low, high."""
    variance = share * (1 - share) / n
    center = share + Z_95**2 / (2 * n)
    half = Z_95 * float(np.sqrt(variance + (Z_95 / (2 * n)) ** 2))
    whole = 1 + Z_95**2 / n
    return {
        "se": float(np.sqrt(variance)),
        "low": max(0.0, (center - half) / whole),  # without an error rounding gives -1e-17
        "high": (center + half) / whole,
    }


def expected(accuracy: float, n: int, m: int) -> dict[str, float]:
    """The 95 % interval of an accuracy of n rows, and that in which the accuracy of m others is to be expected.

    Those have chance of their own: the difference varies as if there were n m / (n + m) rows.
    """
    of_rows = share_interval(accuracy, n)
    interval = {"low": of_rows["low"], "high": of_rows["high"]}
    if m:
        of_others = share_interval(accuracy, n * m / (n + m))
        interval |= {
            "test_n": m,
            "test_low": of_others["low"],
            "test_high": of_others["high"],
        }
    return interval


def noise_scores(
    p_wrong: ndarray,
    given_labels: ndarray,
    label: ndarray,
    clean: ndarray | None,
) -> dict:
    """How well wrong labels were found and repaired; against the truth only where it is known.

    All (N,) over the labeled set, of label sets over their answers: p_wrong, the given label, the label after
    decisions (-1 = dropped), and the clean one.
    residual_rate: labels that are still wrong, as a share of the labeled set.
    """
    learned = label >= 0
    scores = {"n": len(given_labels), "estimated_rate": float(p_wrong.mean())}
    if clean is not None:
        from sklearn.metrics import average_precision_score

        flipped = clean != given_labels
        precision = float(average_precision_score(flipped, p_wrong)) if flipped.any() else None
        scores["injected_rate"] = float(flipped.mean())
        scores["residual_rate"] = float((learned & (label != clean)).mean())
        scores["average_precision"] = precision
    return scores


def unlabeled_scores(label: ndarray, clean: ndarray | None) -> dict:
    """How many unlabeled rows (or answers) have a pseudo-label, and how many of those are right where it is known."""
    has_one = label >= 0
    scores = {
        "n": label.size,
        "pseudo_labels": int(has_one.sum()),
        "coverage": float(has_one.mean()),
    }
    if clean is not None and (is_known := has_one & (clean >= 0)).any():
        scores["accuracy"] = float((label == clean)[is_known].mean())
    return scores


def paired_gain(before: ndarray, after: ndarray) -> dict[str, float]:
    """Accuracy before and after, the gain and its 95 % interval (normal, paired), from hits (n,) on the same rows."""
    change = after.astype(float) - before
    gain = float(change.mean())
    half = float(Z_95 * change.std() / np.sqrt(len(change)))
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "gain": gain,
        "low": gain - half,
        "high": gain + half,
    }


def paired_arms(scored: pd.DataFrame, splits: tuple[str, ...]) -> dict[str, float] | None:
    """What the student gains on the baseline on the rows of these splits that both predict; None where there is none.

    scored: table of scored.csv. Returns paired_gain with n, the number of rows.
    """
    rows = scored[scored["split"].isin(splits) & (scored["label"] != "")]
    rows = rows.assign(hit=(rows["label"] == rows["predicted"]).astype(float))
    hits = rows.pivot(index=["split", "id"], columns="arm", values="hit")
    hits = hits.reindex(columns=["baseline", "student"]).dropna().to_numpy()
    return paired_gain(*hits.T) | {"n": len(hits)} if len(hits) else None


def confirmed(trusted: list[ndarray], out_of_fold: list[ndarray]) -> dict:
    """The gain on trusted samples, that in out-of-fold agreement, and whether the second warns of the first.

    Each argument: hits of the first and of the last round, (n,) on the same rows. The warning is given when agreement
    rose beyond chance and accuracy on trusted samples did not rise at all.
    """
    gain = paired_gain(*trusted)
    rise = paired_gain(*out_of_fold)
    return gain | {"out_of_fold": rise, "warning": rise["low"] > 0 and gain["gain"] <= 0}
