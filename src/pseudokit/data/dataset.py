"""All tables and folders of a run → one `Dataset`: plain arrays, sorted once, matched by id and never by position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Data
from ..config.types import UserError, check_all
from ..system.files import log
from .class_names import refuse_confusable, refuse_regression, refuse_signs_of_no_label
from .encoding import NONE, UNKNOWN, labels_among, names, parse, separator
from .spelling import respell
from .tables import read_split
from .votes import Votes, collect_votes

LEARNED_SPLITS = ("train", "unlabeled")
SCORED_SPLITS = ("val", "trusted", "test")
SPLITS = LEARNED_SPLITS + SCORED_SPLITS
TEXT_COLUMNS = ("id", "path", "split", "group")


@dataclass(frozen=True)
class Dataset:
    """N images sorted by split, then by id, so that the order of the input changes nothing.

    id, path, split, group: (N,) text. given_labels: (N,) class indices or (N, C) answers, -1 = none, see encoding.py.
    classes: the K class names, sorted.
    votes: what the given labels come from; None where they were read. soft_labels: (N, K) their probabilities, learned
    in place of given labels that stand. weight: (N,) how much each row counts, at most 1; None = all alike.
    taken_for: what each table and folder was taken for, a sentence each.
    """

    id: ndarray
    path: ndarray
    split: ndarray
    given_labels: ndarray
    group: ndarray
    classes: tuple[str, ...]
    votes: Votes | None = None
    soft_labels: ndarray | None = None
    weight: ndarray | None = None
    taken_for: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: ndarray) -> Dataset:
        """The rows at these positions (a mask or indices)."""
        taken = {}
        for name, value in vars(self).items():
            if isinstance(value, ndarray):
                taken[name] = value[rows]
        if self.votes is not None:
            taken["votes"] = self.votes.take(rows)
        return replace(self, **taken)

    @property
    def given_targets(self) -> ndarray:
        """What plain training learns: given_labels; with votes or weights (N, K) float32, a row sums to its weight."""
        if self.soft_labels is None and self.weight is None:
            return self.given_labels
        targets = self.soft_labels
        if targets is None:
            targets = np.eye(len(self.classes))[self.given_labels]
        return self.weighted(targets)

    def weighted(self, targets: ndarray) -> ndarray:
        """(N, K) targets times the weight of each row."""
        if self.weight is not None:
            targets = targets * self.weight[:, None]
        return targets.astype(np.float32)

    def table(self) -> pd.DataFrame:
        """The table samples.csv: class names, empty where there is no label; the weight of each row if they differ."""
        table = pd.DataFrame({name: getattr(self, name) for name in TEXT_COLUMNS})
        table.insert(3, "given_label", names(self.given_labels, self.classes))
        if self.weight is not None:
            table["weight"] = self.weight
        return table

    @classmethod
    def from_table(
        cls, table: pd.DataFrame, classes: tuple[str, ...], multi_label: bool
    ) -> Dataset:
        """The dataset of a table as `table` returns it, in any order.

        Raises:
            KeyError: a label is none of the classes.
        """
        table = table.assign(order=table.split.map(SPLITS.index))
        table = table.sort_values(["order", "id"])
        columns = {name: table[name].to_numpy(object) for name in TEXT_COLUMNS}
        given_labels = parse(table.given_label, classes, multi_label)
        if "votes" in table:
            columns["votes"] = collect_votes(table.votes.tolist(), classes)
        if "weight" in table:
            weight = table.weight.astype(float)
            weight = weight.fillna(weight.max()).to_numpy()
            if weight.min() < weight.max():
                columns["weight"] = weight / weight.max()
        return cls(given_labels=given_labels, classes=classes, **columns)


def load_dataset(data: Data) -> Dataset:
    """Read and check every split that the config names.

    Raises:
        UserError: see read_split; or an id stands twice, or a label is no class of data.train.
    """
    splits = [partial(read_split, data, split) for split in SPLITS if getattr(data, split)]
    tables = check_all(*splits)
    table = pd.concat(tables, ignore_index=True)
    table.loc[(table.split == "train") & (table.label == ""), "split"] = "unlabeled"
    if data.labels_are != "one_hot":
        _fill_votes(table, data)
    _refuse_repeats(table)
    _refuse_two_roles(table, data)
    labels = _named_labels(table[table.split == "train"])
    classes = _find_classes(labels, data)
    # In a label set (none) is an answer.
    refuse_signs_of_no_label(labels[labels != NONE] if data.multi_label else labels, data)
    refuse_confusable(classes, data)
    refuse_regression(labels, classes, data)
    table["label"] = own_form(table.label, classes, data)
    if not data.multi_label:
        table["label"] = respell(table.label, classes)
    _check_labels(table, classes, data)
    table = table.rename(columns={"label": "given_label"})
    dataset = Dataset.from_table(table, classes, data.multi_label)
    return replace(dataset, taken_for=tuple(one.attrs["taken_for"] for one in tables))


def _refuse_repeats(table: pd.DataFrame) -> None:
    """An id may stand once in what is learned, and once in each split that is only scored; see read_split."""
    learned = table.id[table.split.isin(LEARNED_SPLITS)]
    for name in learned[learned.duplicated()][:1]:
        raise UserError(
            f"id {name!r} stands in data.train and data.unlabeled; keep one row per id, and write their folder into "
            "the ids of different images"
        )


def _refuse_two_roles(table: pd.DataFrame, data: Data) -> None:
    """A labeled file may have no other role, and one that is only scored may not be learned.

    A score on images that were learned is no score. And where data sets have folders of their own and the same file
    names, the images of the wrong folder would be predicted. data.learn_from_test allows both for the test set.
    """
    others = SPLITS[1:-1] if data.learn_from_test == "copies" else SPLITS[1:]
    shared = table[table.real_path.duplicated(keep=False)]
    for role, exclusive in (("train", others), ("unlabeled", ("val", "trusted"))):
        learned = shared.real_path[shared.split == role]
        rows = shared[shared.split.isin(exclusive) & shared.real_path.isin(learned)]
        for row in rows[:1].itertuples():
            raise UserError(
                f"{len(rows):,} rows of data.{row.split} are files of data.{role}, for example {row.id} ({row.path}); "
                "remove them, or if other images are meant, name the folder of each: "
                f"data.image_dir={{{role}: FOLDER, {row.split}: FOLDER}}"
            )


def _fill_votes(table: pd.DataFrame, data: Data) -> None:
    """In place: rows of a table without votes have none, but data.train needs the columns."""
    if "votes" not in table:
        raise UserError(
            f"data.train={data.train}: data.labels_are={data.labels_are} needs a table with the columns of "
            "data.label_col, and not a folder"
        )
    table["votes"] = [row if isinstance(row, tuple) else () for row in table.votes]


def _named_labels(table: pd.DataFrame) -> pd.Series:
    """The labels; or the class of each vote, also where it wins in no row."""
    return table.votes.explode().str[1].dropna() if "votes" in table else table.label


def _find_classes(labels: pd.Series, data: Data) -> tuple[str, ...]:
    """The class names in the labels of data.train, sorted.

    Raises:
        UserError: there is none, or one could be taken for a sign of a multi-label.
    """
    classes = {*labels}
    if data.multi_label:
        columns = [] if isinstance(data.label_col, str) else data.label_col
        parts = [_split_label(text, data) for text in classes - {NONE}]
        classes = {*columns, *(name.removeprefix(UNKNOWN) for part in parts for name in part)}
        for name in classes:
            if name.startswith(UNKNOWN) or name == NONE or "|" in name:
                raise UserError(
                    f"data.train={data.train}: class {name!r} cannot be told from other signs in a multi-label; "
                    "rename it, or set data.label_sep= to what stands between two names"
                )
    classes -= {""}
    if not classes:
        raise UserError(f"data.train={data.train} holds no label; fill column {data.label_col!r}")
    return tuple(sorted(classes))


def _split_label(text: str, data: Data) -> list[str]:
    """The names in a label set as its table has them; one-hot columns were joined by our own separator."""
    sep = data.label_sep if isinstance(data.label_col, str) else separator(data.label_col)
    return [name for name in text.split(sep) if name]


def own_form(labels: Iterable[str], classes: Sequence[str], data: Data) -> Iterable[str]:
    """Labels as their table has them → as this kit writes them, see encoding.py."""
    if not data.multi_label:
        return labels
    sign = separator(classes)
    return [sign.join(_split_label(text, data)) for text in labels]


def _check_labels(table: pd.DataFrame, classes: tuple[str, ...], data: Data) -> None:
    """Refuse labels and votes that data.train does not have; in a test folder drop them, as its folders need not be
    classes."""
    named = pd.concat([table.label, _named_labels(table)])
    unknown = named[~named.isin({"", *labels_among(named, classes, data.multi_label)})]
    is_test_folder = table.split.eq("test") & Path(data.test or "").is_dir()
    refused = unknown[~is_test_folder[unknown.index]]
    for row, label in refused[:1].items():
        raise UserError(
            f"data.{table.split[row]}: {table.id[row]} has label {label!r}, which no row of data.train has; mend or "
            "remove it, or if it means that there is none, name it in data.unlabeled_values"
        )
    if len(unknown):
        log.info(
            f"data.test={data.test}: its folders are not used as labels, as {unknown.min()!r} is no class of data.train"
        )
        table.loc[is_test_folder, "label"] = ""
