"""Tables and folders → `Samples`: plain arrays, sorted once, matched by id and never by position."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Data
from ..config.types import UNSEEN, UserError
from ..system.files import log
from .encoding import NONE, UNKNOWN, labels_among, names, parse, separator
from .tables import read_split

USES_POOL = ("augment", "joint")
"""Modes in which rows without a label may receive one."""
SPLITS = ("train", "unlabeled", "val", "trusted", "test")
SCORED_SPLITS = ("val", "trusted", "test")
EMPTY = "\u034f\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0"
"""Letters and marks by their category that show nothing."""
NUMBERS = 20
"""More distinct labels than this that are numbers with decimals are no classes."""


@dataclass(frozen=True)
class Dataset:
    """N samples in canonical order (role, then id), so that the order of the input changes nothing.

    id, path, role, group: (N,) str; given: labels as encoding.py has them, (N,) or (N, C); classes: K names, sorted.
    """

    id: np.ndarray
    path: np.ndarray
    split: np.ndarray
    given_labels: np.ndarray
    group: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.id)

    def take(self, rows: np.ndarray) -> Dataset:
        """The samples at these positions (a mask or indices)."""
        return replace(self, **{k: getattr(self, k)[rows] for k in ("id", "path", "split", "given_labels", "group")})

    def table(self) -> pd.DataFrame:
        """As samples.csv holds them: class names, empty where there is no label."""
        given_labels = names(self.given_labels, self.classes)
        return pd.DataFrame(
            {"id": self.id, "path": self.path, "split": self.split, "given_label": given_labels, "group": self.group}
        )


def load_dataset(data: Data) -> Dataset:
    """Read every role that the config names.

    Raises:
        UserError: a file or column is missing, an id stands twice, a label is not a class of the labeled set.
    """
    frames = [read_split(data, split) for split in SPLITS if getattr(data, split)]
    table = pd.concat(frames, ignore_index=True)
    table.loc[(table.split == "train") & (table.label == ""), "split"] = "unlabeled"
    _refuse_doubles(table)
    _refuse_learned(table)
    classes = _classes(table.label[table.split == "train"], data)
    if not classes:
        raise UserError(f"data.train={data.train} holds no label; fill column {data.label_col!r}")
    _refuse_numbers(classes, data)
    _refuse_alike(classes, data)
    if data.multi_label:
        table["label"] = _in_own_words(table.label, data.label_sep, classes)
    from_folder = table.split.eq("test") & Path(data.test or "").is_dir()
    legal = {"", *labels_among(table.label, classes, data.multi_label)}
    if other := set(table.label[from_folder]) - legal:
        log.info(
            f"data.test={data.test}: its folders are not taken for labels, as {min(other)!r} is no class of data.train"
        )
        table.loc[from_folder, "label"] = ""  # folders that are no classes
    alien = table[~table.label.isin(legal)]
    if len(alien):
        row = alien.iloc[0]
        raise UserError(
            f"data.{row.split}: {row.id} has label {row.label!r}, which no row of data.train has; remove it"
        )
    table["order"] = table.split.map(SPLITS.index)
    table = table.sort_values(["order", "id"], kind="stable")
    given_labels = parse(table.label, classes, data.multi_label)
    columns = {name: table[name].to_numpy(object) for name in ("id", "path", "split", "group")}
    return Dataset(given_labels=given_labels, classes=classes, **columns)


def _classes(labels: pd.Series, data: Data) -> tuple[str, ...]:
    """The names that the labels of data.train consist of, sorted.

    Raises:
        UserError: a name could be taken for something else.
    """
    if not data.multi_label:
        return tuple(sorted(set(labels) - {""}))
    columns = [] if isinstance(data.label_col, str) else data.label_col
    said = {name.removeprefix(UNKNOWN) for text in set(labels) - {"", NONE} for name in text.split(data.label_sep)}
    found = {*columns, *said} - {""}
    if odd := [name for name in found if name.startswith(UNKNOWN) or name == NONE or "|" in name]:
        raise UserError(
            f"data.train={data.train}: class {odd[0]!r} cannot be told from other signs in a multi-label; "
            "rename it" + (", or set data.label_sep='|'" if "|" in odd[0] else "")
        )
    return tuple(sorted(found))


def _in_own_words(labels: pd.Series, sep: str, classes: tuple[str, ...]) -> pd.Series:
    """Label sets with the separator that this kit writes."""
    own = {text: separator(classes).join(filter(None, text.split(sep))) for text in set(labels)}
    return labels.map(own)


def _refuse_doubles(table: pd.DataFrame) -> None:
    """An id may stand once among the rows that are judged, and once in every other role."""
    scope = table.split.where(~table.split.isin(["train", "unlabeled"]), "train or pool")
    doubled = table[pd.DataFrame({"id": table.id, "scope": scope}).duplicated(keep=False)]
    if len(doubled):
        name = doubled.id.iloc[0]
        splits = " and ".join(f"data.{r}" for r in dict.fromkeys(doubled.split[doubled.id == name]))
        raise UserError(f"id {name!r} stands {sum(doubled.id == name)} times in {splits}; keep one row per id")


def _refuse_learned(table: pd.DataFrame) -> None:
    """What is only scored may not be learned as well: a score on learned rows is no score."""
    learned = set(table.path[table.split.isin(["train", "unlabeled"])])
    both = table[table.split.isin(["val", "trusted"]) & table.path.isin(learned)]
    if len(both):
        row = both.iloc[0]
        raise UserError(
            f"{len(both)} rows of data.{row.split} are learned too, for example {row.id}; "
            "remove them from data.train and data.unlabeled"
        )


def _refuse_numbers(classes: tuple[str, ...], data: Data) -> None:
    """A target of a regression is not a class, and would be cut into as many classes as it has values."""

    def has_decimals(name: str) -> bool | None:
        try:
            return not float(name).is_integer()
        except ValueError:  # a word
            return None

    kinds = [has_decimals(name) for name in classes]
    if not data.multi_label and len(classes) > NUMBERS and None not in kinds and any(kinds):
        raise UserError(
            f"data.train={data.train}: {data.label_col!r} holds {len(classes):,} numbers such as "
            f"{classes[0]}, a target of a regression; this kit learns classes: put them into bins, and "
            "write the bin's name"
        )


def _refuse_alike(classes: tuple[str, ...], data: Data) -> None:
    """Names that a person cannot tell apart are one class in truth; a line break in one is a quote left open."""
    known: dict[str, str] = {}
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFC", "".join(filter(_is_seen, name))).split())
        if not plain or UNSEEN.search(name):
            raise UserError(
                f"data.train={data.train}: label {name!r} holds a line break or nothing that can be seen; "
                "mend it (a quote that is not closed?)"
            )
        other = known.setdefault(re.sub(r"(?<=\d)\.0+$", "", plain), name)
        if other != name:
            raise UserError(
                f"data.train={data.train}: labels {other!r} and {name!r} differ by blanks, by how an "
                "accent is coded, by what cannot be seen, or by .0 alone; write them alike"
            )


def _is_seen(letter: str) -> bool:
    return unicodedata.category(letter) != "Cf" and letter not in EMPTY
