"""What several people say of an image: a vote each, counts of votes, or shares. labels/annotators.py judges them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.sparse import csr_array

from ..config.types import UserError
from ..system.files import atomic_write

NO_VOTE = ("", "-1", "-1.0")
"""Cells of somebody who did not vote."""
MAX_SHARES_SUM_ERROR = 0.01
"""By which the shares of votes of a row may miss 1: tables round them."""


@dataclass(frozen=True)
class Votes:
    """The votes on N images for K classes by A annotators; A = 1 without a name where only counts are known."""

    counts: csr_array
    """(N, A · K) how often each annotator said each class; column a · K + k."""
    annotators: tuple[str, ...] = ()
    """Their names, sorted; empty where nobody knows who voted."""

    @property
    def k(self) -> int:
        """Number of classes."""
        return self.counts.shape[1] // max(len(self.annotators), 1)

    def take(self, rows: ndarray | slice) -> Votes:
        """Those on the images at these positions (a mask or indices)."""
        return replace(self, counts=self.counts[rows])

    def totals(self) -> ndarray:
        """(N, K) how many votes each class has."""
        n_annotators = self.counts.shape[1] // self.k
        return self.counts @ np.tile(np.eye(self.k), (n_annotators, 1))

    @property
    def are_shares(self) -> bool:
        """Whether they are shares of votes, and nobody knows of how many."""
        return bool((self.counts.data % 1).any())


def class_of_column(column: str) -> str:
    """The class whose votes a column counts: `votes_cat`, `cat_vote`, `cat_votes` and `cat` count those for cat."""
    return column.removeprefix("votes_").removesuffix("_votes").removesuffix("_vote")


def read_votes(cells: pd.DataFrame, labels_are: str, file: Path) -> list[tuple]:
    """For each row its votes, each as (annotator, class name, how often). An empty cell: nobody voted.

    Args:
        cells: text; a column for each annotator (votes), or for each class (counts, probabilities).

    Raises:
        UserError: a count is not a whole number from 0 on, or probabilities do not sum to 1.
    """
    if labels_are == "votes":
        return [
            tuple((who, vote, 1.0) for who, vote in row.items() if vote not in NO_VOTE)
            for row in cells.to_dict("records")
        ]
    numbers = cells.replace("", "0").apply(pd.to_numeric, errors="coerce").to_numpy(float)
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    sums = numbers.sum(1)
    is_right = (numbers >= 0).all(1)
    if labels_are == "counts":
        is_right &= (numbers % 1 == 0).all(1)
        rule = "hold whole numbers from 0 on (shares: data.labels_are=probabilities)"
    else:
        is_right &= (sums == 0) | (abs(sums - 1) <= MAX_SHARES_SUM_ERROR)
        rule = "hold probabilities that sum to 1 (numbers of votes: data.labels_are=counts)"
        numbers = numbers / np.where(sums > 0, sums, 1)[:, None]
    if not is_right.all():
        columns = ", ".join(cells)
        raise UserError(
            f"{file} line {np.argmin(is_right) + 2}: the columns {columns} must {rule}; mend the row or data.label_col"
        )
    classes = [class_of_column(name) for name in cells]
    rows = []
    for row in numbers.tolist():
        counted = zip(classes, row, strict=True)
        rows.append(tuple(("", name, number) for name, number in counted if number))
    return rows


def most_voted(votes: tuple) -> str:
    """The class name with most votes, of several the first by name; "" without a vote."""
    totals = Counter()
    for _, name, times in votes:
        totals[name] += times
    return min(totals, key=lambda name: (-totals[name], name), default="")


def collect_votes(rows: Sequence[tuple], classes: Sequence[str]) -> Votes | None:
    """The votes of all rows as read_votes returns them.

    None where one annotator, at most once an image, named one class: then votes are labels like all others.

    Raises:
        KeyError: a vote is none of the classes.
    """
    names = sorted({who for votes in rows for who, _, _ in votes}) or [""]
    column_of = {pair: column for column, pair in enumerate(product(names, classes))}
    cells = [
        (row, column_of[who, name], times)
        for row, votes in enumerate(rows)
        for who, name, times in votes
    ]
    row, column, times = np.array(cells, float).reshape(-1, 3).T
    places = row.astype(int), column.astype(int)
    counts = csr_array((times, places), shape=(len(rows), len(column_of)))
    votes = Votes(counts, tuple(filter(None, names)))
    is_one_label = len(names) == 1 and counts.sum(1).max() <= 1 and not votes.are_shares
    return None if is_one_label else votes


def write_votes(file: Path, votes: Votes) -> None:
    """Write the votes into a run folder, from where read_votes_file brings them back."""
    counts = votes.counts
    arrays = {name: getattr(counts, name) for name in ("data", "indices", "indptr", "shape")}
    buffer = BytesIO()
    np.savez(buffer, **arrays, annotators=np.array(votes.annotators, str))
    atomic_write(file, buffer.getvalue())


def read_votes_file(file: Path) -> Votes | None:
    """The votes of a run; None where it has none."""
    if not file.exists():
        return None
    with np.load(file) as arrays:
        parts = arrays["data"], arrays["indices"], arrays["indptr"]
        counts = csr_array(parts, shape=arrays["shape"])
        return Votes(counts, tuple(arrays["annotators"].tolist()))
