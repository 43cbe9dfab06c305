"""Tables as text: nothing guessed when they are read, nothing that a spreadsheet would run when people open them.

Cells that look like formulas are marked in suspects.csv, duplicates.csv, audit.csv and corrections.csv, and read back
as they were. Tables for programs have their ids as they are.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pandas as pd

from .values import UserError

PACKED = {".gz", ".bz2", ".zip", ".xz", ".zst", ".tar"}
"""Suffixes by which pandas knows a compressed table."""
FOR_PEOPLE = ("suspects.csv", "duplicates.csv", "audit.csv", "corrections.csv")
FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠].", re.DOTALL)
"""How a formula begins; the quotes before it are those that `inert` may have put there."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_csv(path: Path, **kwargs) -> pd.DataFrame:
    """A table as strings, nothing guessed: `007`, `NA` and the empty label stay what they are; what a short row lacks
    is empty. Columns are divided by commas, or by what the header has in place of any. UTF-8, or UTF-16.

    Raises:
        UserError: it cannot be read, a column stands twice, or rows have more fields than the header.
    """
    try:
        options = {"dtype": str, "keep_default_na": False, "encoding": _encoding(path)}
        head = pd.read_csv(path, header=None, nrows=1, **options).iloc[0]
        if len(head) == 1 and (sep := next((sign for sign in ";\t" if sign in head[0]), "")):
            options |= {"sep": sep}
            head = pd.read_csv(path, header=None, nrows=1, **options).iloc[0]
        table = pd.read_csv(path, **options, **kwargs)
    except Exception as error:  # each compression and encoding raises its own types
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as CSV ({why}); save it as CSV in UTF-8") from None
    if len(twice := head[head.duplicated() & (head != "")]):
        raise UserError(f"{path} has two columns {twice.iloc[0]!r}; leave one of them out")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: its rows have more fields than its header; remove the comma at their end")
    return table


def _encoding(path: Path) -> str:
    """utf-16 or utf-8. Raises ValueError where a text holds a NUL, at which some versions of pandas end a cell."""
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    if Path(path).suffix.lower() not in PACKED:
        with open(path, encoding=encoding, errors="replace") as file:
            if any("\0" in part for part in iter(partial(file.read, 1 << 20), "")):
                raise ValueError("it holds a control character, NUL")
    return encoding


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells, where they are text that begins like a formula and no number, have a quote before them."""

    def quoted(cell):
        runs = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
        return f"'{cell}" if runs else cell

    return table.assign(**{name: table[name].map(quoted) for name in table.select_dtypes(exclude="number")})


def exact(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to `inert`."""
    return table.map(lambda cell: cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell)
