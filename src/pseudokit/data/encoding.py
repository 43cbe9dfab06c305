"""Labels as arrays, of both kinds of data, and the only place that knows how they differ.

One class an image: labels (N,) are class indices, -1 = none; log-probabilities are (N, K).
Multi-label: every image asks a question for each of C classes. Labels (N, C) are 1 = yes, 0 = no, -1 = unknown;
log-probabilities are (N, C, 2), of no and yes, so that a question is a problem of two classes.

As text a label set is the names of its classes, `cat dog`; `?cat` where it is unknown; NONE where all answers are no.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

NONE = "(none)"
UNKNOWN = "?"


def has_label(labels: np.ndarray) -> np.ndarray:
    """(N,) which rows have a label, to one question at least."""
    return labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1)


def differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) which rows do not have the same label, or label set, in a and in b."""
    return a != b if a.ndim == 1 else (a != b).any(1)


def strata(labels: np.ndarray) -> np.ndarray:
    """(N,) what folds are stratified by: the class; of a label set its rarest class, C where it has none; -1: no label.

    The rarest class is the one whose balance is at stake.
    """
    if labels.ndim == 1:
        return labels
    yes = labels == 1
    rarity = np.where(yes, yes.sum(0), len(labels) + 1)
    return np.where(yes.any(1), rarity.argmin(1), np.where(has_label(labels), labels.shape[1], -1))


def counts(labels: np.ndarray, k: int) -> np.ndarray:
    """(k,) how many rows have each class."""
    return np.bincount(classes_of(labels), minlength=k)


def classes_of(labels: np.ndarray) -> np.ndarray:
    """(M,) the class indices that labels say, one after the other."""
    return members(labels)[1]


def members(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) row numbers and (M,) class indices: which row has which class."""
    if labels.ndim == 2:
        return np.nonzero(labels == 1)
    rows = np.flatnonzero(labels >= 0)
    return rows, labels[rows]


def likeliest(log_probs: np.ndarray) -> np.ndarray:
    """Labels of these log-probabilities."""
    return log_probs.argmax(-1)


def confidence(log_probs: np.ndarray) -> np.ndarray:
    """(N,) probability of the likeliest class; of a label set that of its least sure answer."""
    best = np.exp(log_probs.max(-1))
    return best if best.ndim == 1 else best.min(1)


def own(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probabilities of the labels, in their shape; NaN where there is no label."""
    said = np.take_along_axis(log_probs, np.maximum(labels, 0)[..., None], -1)[..., 0]
    return np.where(labels >= 0, said, np.nan)


def right(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) whether a prediction is the label; of a label set whether all answers are, unknown ones aside."""
    return (
        predicted == labels if labels.ndim == 1 else ((predicted == labels) | (labels < 0)).all(1)
    )


def yes(log_probs: np.ndarray) -> np.ndarray:
    """(N, K) of each class: its log-probability, or that of the answer yes."""
    return log_probs if log_probs.ndim == 2 else log_probs[..., 1]


def separator(classes: Iterable[str]) -> str:
    """What stands between the names of a label set: a blank, unless names have blanks."""
    return "|" if any(" " in name for name in classes) else " "


def names(labels: np.ndarray, classes: tuple[str, ...] | list[str]) -> np.ndarray:
    """(N,) labels as text, empty where there is none."""
    if labels.ndim == 1:
        return np.array([*classes, ""], dtype=object)[labels]
    different, at = np.unique(labels, axis=0, return_inverse=True)
    return np.array([_name(row, classes) for row in different.tolist()], dtype=object)[at.ravel()]


def _name(row: list[int], classes: tuple[str, ...] | list[str]) -> str:
    if max(row) < 0:
        return ""
    said = [
        UNKNOWN * (answer < 0) + name for name, answer in zip(classes, row, strict=True) if answer
    ]
    return separator(classes).join(said) or NONE


def parse(
    texts: Iterable[str], classes: tuple[str, ...] | list[str], multi_label: bool
) -> np.ndarray:
    """Labels of texts, see names.

    Raises:
        KeyError: a name is none of the classes.
    """
    index = {name: k for k, name in enumerate(classes)}
    if not multi_label:
        index[""] = -1
        return np.array([index[text] for text in texts], np.int64)
    sep = separator(classes)
    known = {text: _row(text, index, sep) for text in set(texts)}
    return np.array([known[text] for text in texts], np.int64).reshape(-1, len(classes))


def _row(text: str, index: dict[str, int], sep: str) -> np.ndarray:
    row = np.full(len(index), 0 if text else -1)
    for name in text.split(sep) if text not in ("", NONE) else ():
        unknown = name.startswith(UNKNOWN)
        row[index[name[len(UNKNOWN) :] if unknown else name]] = -1 if unknown else 1
    return row


def labels_among(
    texts: Iterable[str], classes: tuple[str, ...] | list[str], multi_label: bool
) -> set[str]:
    """Those of the texts that are a label."""
    if not multi_label:
        return {*texts} & {*classes}
    index, sep, found = {name: k for k, name in enumerate(classes)}, separator(classes), set()
    for text in {*texts} - {""}:
        with suppress(KeyError):
            _row(text, index, sep)
            found.add(text)
    return found


def is_label(text: str, classes: tuple[str, ...] | list[str], multi_label: bool) -> bool:
    """Whether a text is a label."""
    return bool(labels_among([text], classes, multi_label))
