"""Scores: thin functions over probabilities, labels and, where it is known, the truth."""

from __future__ import annotations

import numpy as np

PRECISION_AT = (100, 500, 1000, 5000)


def score(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """n, accuracy, log loss and macro F1 of (N, K) log-probabilities against (N,) labels."""
    from sklearn.metrics import f1_score

    predicted = log_probs.argmax(1)
    return {
        "n": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "log_loss": float(-log_probs[np.arange(len(labels)), labels].mean()),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }


def noise_scores(p_wrong: np.ndarray, given: np.ndarray, label: np.ndarray, clean: np.ndarray | None) -> dict:
    """How well wrong labels were found and repaired; against the truth only where it is known.

    All (N,) over the labelled set: p_wrong, the given label, the label after decisions (-1 = dropped), the clean one.
    residual_rate: labels that are still wrong, as a share of the labelled set.
    """
    scores = {
        "n": len(given),
        "estimated_rate": float(p_wrong.mean()),
        "relabelled": int(((label != given) & (label >= 0)).sum()),
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
    """Coverage of the pool by pseudo-labels, and their accuracy where the truth is known. All (N,) over the pool."""
    taken = label >= 0
    scores = {"n": len(label), "pseudo_labels": int(taken.sum()), "coverage": float(taken.mean())}
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


def confirmed(trusted: list[np.ndarray], out_of_fold: list[np.ndarray]) -> dict:
    """The gain on trusted samples, that in out-of-fold agreement, and whether the second warns of the first.

    Each argument: hits of the first and of the last round, (n,) on the same rows. The warning is given when agreement
    rose beyond chance and accuracy on trusted samples did not rise at all.
    """
    gain, rise = paired_gain(*trusted), paired_gain(*out_of_fold)
    return gain | {"out_of_fold": rise, "warning": bool(rise["low"] > 0 and gain["gain"] <= 0)}
