"""Cells that a spreadsheet would run as formulas: written so that it does not, and read back as they were.

In the tables that people open, suspects.csv, duplicates.csv, audit.csv and corrections.csv. Those for programs have
their ids as they are.
"""

from __future__ import annotations

import re

import pandas as pd

FOR_PEOPLE = ("suspects.csv", "duplicates.csv", "audit.csv", "corrections.csv")
FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠].", re.DOTALL)
"""How a formula begins; the quotes before it are those that `inert` may have put there."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells, where they are text that begins like a formula and no number, have a quote before them."""

    def quoted(cell):
        runs = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
        return f"'{cell}" if runs else cell

    return table.assign(**{name: table[name].map(quoted) for name in table.select_dtypes(exclude="number")})


def exact(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to `inert`."""
    return table.map(lambda cell: cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell)
