"""What Python code hands over (lists, Series, DataFrames, tensors, memory maps) as the arrays of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.types import UserError
from .arrays import MIN_PROBABILITY, each_block, normalize_log, number_format

MAX_SUM_ERROR = 0.05
"""By which the probabilities of a row may miss 1: those of a file may be rounded to two digits."""
NO_LABEL = ("", "-1")
"""What says that a row has no label: as text, and among numbers."""
NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "empty")
"""What pandas calls Python objects that are numbers, or all missing."""


@dataclass(frozen=True)
class GivenLabels:
    """Labels of any form as class indices."""

    indices: ndarray
    """(N,) class index, -1 = none; several labels a row: (N, C) of yes = 1, no = 0 and unknown = -1."""
    classes: ndarray
    """(K,) what each index stands for, as the labels write it: names, or whole numbers."""
    names: list[str]
    """The classes as text, by which columns are matched."""
    ids: pd.Index | None
    """The index of the labels, where they are a pandas object."""


def read_array(values: Any, name: str) -> ndarray:
    """What NumPy makes of the values, without a copy where it can. name: of the argument.

    Raises:
        UserError: NumPy cannot read them.
    """
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # of a tensor on a GPU or with gradients
        raise UserError(
            f"{name} is no array ({error}); of a tensor give tensor.detach().cpu().float()"
        ) from None


def read_table(predictions: Any, name: str, label_sets: bool = True) -> ndarray:
    """(N, K) numbers as NumPy reads them; of label sets also (N, C, 2), as a run stores them.

    Raises:
        UserError: they have another shape, or are no numbers.
    """
    array = read_array(predictions, name)
    has_shape = array.ndim == 2 or (label_sets and array.shape[2:] == (2,))
    if not has_shape or len(array) == 0 or array.shape[1] < 2:
        raise UserError(
            f"{name} has the shape {array.shape}; give a row an image, a column a class"
        )
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"{name} holds {array.dtype}, not numbers; give its columns of probabilities"
        )
    return array


# ---- labels


def read_labels(
    labels: Any,
    classes: Sequence | None = None,
    n_classes: int | None = None,
) -> GivenLabels:
    """Labels of any form as class indices.

    Args:
        labels: N class names or whole numbers; None, NaN, an empty text and -1 are no label. Or (N, C) of 1, 0 and no
            answer, for rows with several labels.
        classes: the classes in the order of the columns of predictions. Numbers are their positions, unless the classes
            are numbers themselves. Default: 0 … n_classes - 1 for numbers, else the sorted labels.
        n_classes: how many columns predictions have, where there are any.

    Raises:
        UserError: a label is none of the classes, or there are more or fewer classes than columns.
    """
    ids = labels.index if isinstance(labels, pd.Series | pd.DataFrame) else None
    array = _label_array(labels)
    if array.ndim == 2:
        if classes is None:
            classes = column_names(labels)
        return _read_label_sets(array, classes, n_classes, ids)

    is_number = pd.api.types.infer_dtype(array, skipna=True) in NUMBERS
    codes, different = pd.factorize(array)  # -1 = missing
    texts = [_as_text(value) for value in different]
    if classes is None:
        classes = sorted({*texts} - {NO_LABEL[is_number]}, key=float if is_number else None)
        if is_number and n_classes is not None:
            classes = range(n_classes)
        elif n_classes is not None and is_ambiguous(classes):
            raise UserError(
                "labels are numbers as text, of which 10 stands before 2; say the order of the columns with classes="
            )
    names = [_as_text(name) for name in classes]
    _check_classes(names, n_classes, "predictions")
    written = np.array(names, dtype=object)
    if is_number:
        written = np.array(names if all(map(_is_whole, names)) else range(len(names)), dtype=int)

    index_of = {NO_LABEL[is_number]: -1} | {str(key): k for k, key in enumerate(written)}
    of_texts = [index_of.get(text, -2) for text in texts]
    indices = np.array([*of_texts, -1])[codes]
    row = int(indices.argmin())
    if indices[row] == -2:
        raise UserError(
            f"labels: {texts[codes[row]]!r} of {_place(row, ids)} is none of the {len(names)} classes "
            f"({_shortened(written)}); correct it, or give classes="
        )
    return GivenLabels(indices, written, names, ids)


def _label_array(labels: Any) -> ndarray:
    """(N,) or (N, C) labels as they are."""
    array = read_array(labels, "labels")
    if isinstance(labels, list | tuple):
        array = np.array(labels, dtype=object)  # as text, NumPy takes a missing name for "nan"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or len(array) == 0:
        raise UserError(f"labels have the shape {array.shape}; give (N,), or (N, C) of 0 and 1")
    return array


def _read_label_sets(
    array: ndarray, classes: Sequence | None, n_classes: int | None, ids: pd.Index | None
) -> GivenLabels:
    """read_labels for (N, C) answers."""
    has_names = classes is not None
    names = [_as_text(name) for name in (classes if has_names else range(array.shape[1]))]
    _check_classes(names, array.shape[1], "labels")
    _check_classes(names, n_classes, "predictions")
    answers = np.where(pd.isna(array), -1, array)
    is_wrong = ~np.isin(answers, (-1, 0, 1)).all(1)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise UserError(
            f"labels: {_place(row, ids)} has {_shortened(array[row])}; of several labels a row each is 1 or 0, "
            "or NaN where it is not known"
        )
    written = np.array(names, dtype=object if has_names else int)
    return GivenLabels(answers.astype(int), written, names, ids)


def is_ambiguous(names: Sequence[str]) -> bool:
    """Whether sorted names stand in another order as numbers, so that columns may be in either."""
    return all(map(_is_whole, names)) and sorted(names, key=int) != list(names)


def _check_classes(names: list[str], n_classes: int | None, owner: str) -> None:
    if len({*names}) < len(names):
        raise UserError(f"classes hold a name twice: {_shortened(names)}")
    if n_classes is not None and len(names) != n_classes:
        raise UserError(
            f"there are {len(names)} classes ({_shortened(names)}), and the {owner} have {n_classes} columns; "
            "name the columns in their order with classes="
        )


def _as_text(value: Any) -> str:
    """A class as text, the same for 3, 3.0 and "3"."""
    if isinstance(value, Real | np.bool_) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


# ---- probabilities


def read_log_probs(
    predictions: Any,
    *,
    logits: bool = False,
    multi_label: bool = False,
    rows: ndarray | None = None,
    name: str = "pred_probs",
    ids: pd.Index | None = None,
) -> ndarray:
    """Predictions of any form as log-probabilities. They are read in blocks, so that a memory map stays on disk.

    Args:
        predictions: (N, K) probabilities; with multi_label (N, C) of yes, or (N, C, 2) of no and yes. Those of all
            answers, which sum to 1, may be log-probabilities too: the first row tells.
        logits: they are logits instead: of a softmax, with multi_label of a sigmoid.
        rows: (M,) which rows to read. Default: all.
        name: of the argument; ids: of the rows; both for messages.

    Returns:
        (M, K) float32; with multi_label (M, C, 2) of no and yes.

    Raises:
        UserError: the shape is another one, or a row holds no probabilities.
    """
    array = read_table(predictions, name, label_sets=multi_label and not logits)
    of_yes = multi_label and array.ndim == 2
    are_logs = not (logits or of_yes) and (array[0] < 0).any()
    shape = (len(array) if rows is None else len(rows), *array.shape[1:])
    log_probs = np.empty((*shape, 2) if of_yes else shape, np.float32)
    dtype, order = number_format(len(log_probs), array.shape[1])

    def read(block: slice) -> None:
        values = array[block if rows is None else rows[block]].astype(dtype, order=order)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            logs = _to_log_probs(np.exp(values) if are_logs else values, logits, of_yes)
            is_bad = np.isnan(logs.reshape(len(logs), -1).sum(1))
        if is_bad.any():
            row = int(is_bad.argmax())
            place = _place(block.start + row if rows is None else rows[block][row], ids)
            values = _shortened(values[row].round(4))
            raise UserError(
                f"{name}: {place} has {values}, which are no probabilities (0 to 1, with the sum 1 unless there are "
                "several labels a row) and no logarithms of such; mend it, or leave the row out. In Python logits= "
                "takes raw outputs, and files hold their softmax"
            )
        log_probs[block] = np.maximum(logs, np.log(MIN_PROBABILITY))

    each_block(read, len(log_probs), prod(log_probs.shape[1:]))
    return log_probs


def _to_log_probs(values: ndarray, logits: bool, of_yes: bool) -> ndarray:
    """Log-probabilities of a block of rows, NaN where they are none. of_yes: (m, C) become (m, C, 2)."""
    if of_yes:
        of_no = np.zeros_like(values) if logits else 1 - values
        values = np.stack([of_no, values], -1)
    if logits:
        return normalize_log(values)
    total = values.sum(-1, keepdims=True)
    is_whole = np.abs(total - 1) <= MAX_SUM_ERROR
    is_good = (values >= 0).all(-1, keepdims=True) & is_whole
    return np.where(is_good, np.log(values / total), np.nan)


def read_weights(given: Sequence | None, n: int, key: str, owners: str) -> ndarray:
    """(n,) weights; all alike where none are given.

    Raises:
        UserError: they are not a number above 0 for each of the n owners; it names the key.
    """
    alike = ["1"] * n
    weights = pd.to_numeric(pd.Series(given or alike), errors="coerce").to_numpy(float)
    if len(weights) != n or not ((weights > 0) & (weights < np.inf)).all():
        raise UserError(
            f"{key}={','.join(map(str, given))} must be a number above 0 for each of the {n} {owners}, as "
            f"{','.join(alike)}"
        )
    return weights


# ---- tables


def column_names(table: Any) -> list | None:
    """The columns of a DataFrame; None of anything else, and of columns that are only numbered."""
    if not isinstance(table, pd.DataFrame):
        return None
    columns = list(table.columns)
    return None if columns == list(range(len(columns))) else columns


def order_columns(table: Any, classes: Sequence) -> Any:
    """The columns of a DataFrame that are named as the classes, or p_<class>, in their order; all else as it is."""
    if not isinstance(table, pd.DataFrame):
        return table
    columns = [_as_text(column) for column in table.columns]
    for prefix in ("p_", ""):
        names = [prefix + _as_text(name) for name in classes]
        if {*names} <= {*columns}:
            return table.iloc[:, [columns.index(name) for name in names]]
    return table


def match_table(values: Any, given: GivenLabels, name: str) -> Any:
    """A DataFrame with the columns in the order of the classes, and it or a Series with the rows in that of the labels.

    Columns with other names than the classes, and all that has no index, are taken to be in order.

    Raises:
        UserError: labels and values have different ids, or an id twice.
    """
    values = order_columns(values, given.names)
    ids = given.ids
    if ids is None or not isinstance(values, pd.Series | pd.DataFrame) or values.index.equals(ids):
        return values
    for index, owner in ((ids, "labels"), (values.index, name)):
        if index.has_duplicates:
            twice = index[index.duplicated()][0]
            raise UserError(f"the index of {owner} has {twice!r} twice; give each id once")
    different = ids.symmetric_difference(values.index, sort=False)
    if len(different):
        raise UserError(
            f"labels and {name} differ in {len(different):,} ids of their index, such as {different[0]!r}; give both "
            "the same ids, or arrays in the same order (.to_numpy())"
        )
    return values.iloc[values.index.get_indexer(ids)]


def _place(row: int, ids: pd.Index | None) -> str:
    return f"row {row}" if ids is None else f"row {row} (id {ids[row]!r})"


def _shortened(values: Sequence) -> str:
    """The first few of them as text."""
    shown = ", ".join(str(value) for value in values[:5])
    return shown + ", …" if len(values) > 5 else shown
