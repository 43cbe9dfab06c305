"""Labels as arrays, of both kinds of data, and the only place that knows how they differ.

One class an image: labels (N,) are class indices, -1 = none; log-probabilities are (N, K).
Multi-label: every image asks a question for each of C classes. Labels (N, C) are 1 = yes, 0 = no, -1 = unknown;
log-probabilities are (N, C, 2), of no and yes, so that a question is a problem of two classes.

As text a label set is the names of its classes, `cat dog`; `?cat` where it is unknown; NONE where all answers are no.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
from numpy import ndarray

NONE = "(none)"
UNKNOWN = "?"


def has_label(labels: ndarray) -> ndarray:
    """(N,) which rows have a label, to one question at least."""
    is_known = labels >= 0
    return is_known if labels.ndim == 1 else is_known.any(1)


def differ(
    a: ndarray,
    b: ndarray,
) -> ndarray:
    """(N,) which rows do not have the same label, or label set, in a and in b."""
    is_different = a != b
    return is_different if a.ndim == 1 else is_different.any(1)


def is_correct(
    predicted: ndarray,
    labels: ndarray,
) -> ndarray:
    """(N,) whether a prediction is the label; of a label set whether all answers are, unknown ones aside."""
    if labels.ndim == 1:
        return predicted == labels
    return ((predicted == labels) | (labels < 0)).all(1)


def strata(labels: ndarray) -> ndarray:
    """(N,) what folds are stratified by: the class; of a label set its rarest class, C where it has none; -1: no label.

    The rarest class is the one whose balance is at stake.
    """
    if labels.ndim == 1:
        return labels
    is_in_set = labels == 1
    rarity = np.where(is_in_set, is_in_set.sum(0), len(labels) + 1)
    of_empty_set = np.where(has_label(labels), labels.shape[1], -1)
    return np.where(is_in_set.any(1), rarity.argmin(1), of_empty_set)


def classes_of(labels: ndarray) -> ndarray:
    """(M,) the class indices that labels say, one after the other."""
    if labels.ndim == 1:
        is_known = labels >= 0
        return labels if is_known.all() else labels[is_known]
    return np.nonzero(labels == 1)[1]


def counts(
    labels: ndarray,
    k: int,
) -> ndarray:
    """(k,) how many rows have each class."""
    return np.bincount(classes_of(labels), minlength=k)


def confidence(log_probs: ndarray) -> ndarray:
    """(N,) probability of the likeliest class; of a label set that of its least sure answer."""
    best = np.exp(log_probs.max(-1))
    return best if best.ndim == 1 else best.min(1)


def label_scores(
    scores: ndarray,
    labels: ndarray,
) -> ndarray:
    """Log-probabilities, or probabilities, of the labels, in their shape; NaN where there is no label."""
    indices = np.maximum(labels, 0)[..., None]
    of_labels = np.take_along_axis(scores, indices, -1)[..., 0]
    return np.where(labels >= 0, of_labels, np.nan)


def class_scores(scores: ndarray) -> ndarray:
    """(N, K) of each class: its log-probability, or probability; of label sets that of the answer yes."""
    return scores if scores.ndim == 2 else scores[..., 1]


# ---- labels as text


def separator(classes: Iterable[str]) -> str:
    """What stands between the names of a label set: a blank, unless names have blanks."""
    return "|" if any(" " in name for name in classes) else " "


def names(
    labels: ndarray,
    classes: Sequence[str],
) -> ndarray:
    """(N,) labels as text, empty where there is none."""
    if labels.ndim == 1:
        return np.array([*classes, ""], dtype=object)[labels]
    sets, set_numbers = np.unique(labels, axis=0, return_inverse=True)
    texts = [_write_set(answers, classes) for answers in sets.tolist()]
    return np.array(texts, dtype=object)[set_numbers.ravel()]


def parse(
    texts: Iterable[str],
    classes: Sequence[str],
    multi_label: bool,
) -> ndarray:
    """Labels of texts, see names.

    Raises:
        KeyError: a name is none of the classes.
    """
    if not multi_label:
        index = {"": -1} | {name: k for k, name in enumerate(classes)}
        return np.array([index[text] for text in np.asarray(texts, object)], np.int64)
    rows, different = pd.factorize(np.asarray(texts, object))
    sets = np.array([_read_set(text, classes) for text in different], np.int64)
    return sets.reshape(-1, len(classes))[rows]


def labels_among(
    texts: Iterable[str],
    classes: Sequence[str],
    multi_label: bool,
) -> set[str]:
    """Those of the texts that are a label."""
    different = {*texts} - {""}
    if not multi_label:
        return different & {*classes}
    labels = set()
    for text in different:
        with suppress(KeyError):
            _read_set(text, classes)
            labels.add(text)
    return labels


def _write_set(
    answers: list[int],
    classes: Sequence[str],
) -> str:
    if max(answers) < 0:
        return ""
    signs = {1: "", -1: UNKNOWN}
    parts = []
    for name, answer in zip(classes, answers, strict=True):
        if answer:
            parts.append(signs[answer] + name)
    return separator(classes).join(parts) or NONE


def _read_set(
    text: str,
    classes: Sequence[str],
) -> list[int]:
    """The C answers of one label set."""
    answers = dict.fromkeys(classes, 0 if text else -1)
    if text not in ("", NONE):
        for name in text.split(separator(classes)):
            answers[name.removeprefix(UNKNOWN)] = -1 if name.startswith(UNKNOWN) else 1
    if len(answers) > len(classes):
        raise KeyError(text)
    return list(answers.values())
