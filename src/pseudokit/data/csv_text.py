"""Tables as text: nothing guessed when they are read, nothing that a spreadsheet would run when people open them.

Cells that look like formulas are marked in label_issues.csv, duplicates.csv, audit.csv and corrections.csv, and read
back as they were. Tables for programs have their ids as they are.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
from io import BytesIO
from pathlib import Path

import pandas as pd

from ..config.types import UserError

UNPACKED = 1 << 28
"""Bytes that a compressed table may unpack to: some ten million rows."""
FOR_PEOPLE = ("label_issues.csv", "duplicates.csv", "audit.csv", "corrections.csv")
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
        text = _text(Path(path))
        options = {"dtype": str, "keep_default_na": False, "encoding": _encoding(text)}
        head = pd.read_csv(BytesIO(text), header=None, nrows=1, **options).iloc[0]
        if len(head) == 1 and (sep := next((sign for sign in ";\t" if sign in head[0]), "")):
            options |= {"sep": sep}
            head = pd.read_csv(BytesIO(text), header=None, nrows=1, **options).iloc[0]
        table = pd.read_csv(BytesIO(text), **options, **kwargs)
    except Exception as error:  # each compression and encoding raises its own types
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as CSV ({why}); save it as CSV in UTF-8") from None
    if len(twice := head[head.duplicated() & (head != "")]):
        raise UserError(f"{path} has two columns {twice.iloc[0]!r}; leave one of them out")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{path}: its rows have more fields than its header; remove the comma at their end")
    return table


def _text(path: Path) -> bytes:
    """What is in a file, or in the one that is packed there.

    Raises:
        ValueError: that is more than UNPACKED, which is found out before it takes memory.
    """
    unpack = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _of_zip}.get(path.suffix.lower())
    if not unpack:
        return path.read_bytes()
    with unpack(path) as file:
        text = file.read(UNPACKED + 1)
    if len(text) > UNPACKED:
        raise ValueError(f"it unpacks to more than {UNPACKED:,} bytes")
    return text


def _of_zip(path: Path):
    archive = zipfile.ZipFile(path)
    if len(names := archive.namelist()) != 1:
        raise ValueError(f"it packs {len(names)} files, not one")
    return archive.open(names[0])


def _encoding(text: bytes) -> str:
    """utf-16 or utf-8. Raises ValueError where a text holds a NUL, at which some versions of pandas end a cell."""
    encoding = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    if "\0" in text.decode(encoding, "replace") if encoding == "utf-16" else b"\0" in text:
        raise ValueError("it holds a control character, NUL")
    return encoding


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells, where they are text that begins like a formula and no number, have a quote before them."""

    def quoted(cell):
        runs = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
        return f"'{cell}" if runs else cell

    return table.assign(**{name: table[name].map(quoted) for name in table.select_dtypes(exclude="number")})


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to `inert`."""
    return table.map(lambda cell: cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell)
