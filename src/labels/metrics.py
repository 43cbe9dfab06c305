"""Scores: thin functions over probabilities, labels and, where it is known, the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .goals import by_class, known, measure
from .sets import classes_of, likeliest

MOST = 50_000_000
PRECISION_AT = (100, 500, 1000, 5000)


def score(log_probs: np.ndarray, labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> dict[str, float]:
    """n and the scores that these classes have, of log-probabilities against labels; see goals.py.

    Without auc and map, which sort all rows for every class, where that would take minutes.
    """
    goals = known(classes, labels.ndim == 2)
    names = [goal for goal in goals if goal not in ("auc", "map") or log_probs.size <= MOST]
    scores = {goal: measure(goal, log_probs, labels, classes) for goal in names}
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
        found[classes[k]] = {"n": int(own.sum()), "recall": float(hits / own.sum()),
                             "precision": float(hits / said.sum()) if said.any() else None,
                             "auc": None if np.isnan(area[k]) else float(area[k])}  # fmt: skip
    return found


def share_interval(share: float, n: float) -> dict[str, float]:
    """Standard error and 95 % interval (Wilson 1927) of a share of n rows: se, low, high."""
    z, variance = 1.96, share * (1 - share) / n
    centre, half = share + z**2 / (2 * n), z * float(np.sqrt(variance + (z / (2 * n)) ** 2))
    low, high = ((centre + side) / (1 + z**2 / n) for side in (-half, half))
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
    p_wrong: np.ndarray, given: np.ndarray, label: np.ndarray, clean: np.ndarray | None, soft: np.ndarray | bool = False
) -> dict:
    """How well wrong labels were found and repaired; against the truth only where it is known.

    All (N,) over the labelled set, of label sets over their answers: p_wrong, the given label, the label after
    decisions (-1 = dropped), the clean one, and whether probabilities are learned in place of the label.
    residual_rate: labels that are still wrong, as a share of the labelled set.
    """
    scores = {
        "n": len(given),
        "estimated_rate": float(p_wrong.mean()),
        "relabelled": int(((label != given) & (label >= 0) & ~np.asarray(soft)).sum()),
        "softened": int(np.sum(soft)),
        "dropped": int((label < 0).sum()),
    }
    if clean is None:
        return scores
    from sklearn.metrics import average_precision_score

    flipped = clean != given
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


def paired_arms(scored: pd.DataFrame, roles: tuple[str, ...], base: str) -> dict[str, float] | None:
    """What the student gains on the arm `base` on the rows of these roles that both judged; None where there is none.

    scored: table of scored.csv. Returns paired_gain with n, and on how many rows one of them alone was right.
    """
    rows = scored[scored["role"].isin(roles) & (scored["label"] != "")]
    keys = pd.MultiIndex.from_frame(rows[["role", "id"]])
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
