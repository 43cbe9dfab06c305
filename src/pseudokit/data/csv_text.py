"""Tables as text: nothing is guessed when they are read, and a spreadsheet runs nothing when people open them.

Cells that look like formulas get a quote in the tables FOR_PEOPLE, and lose it when they are read. Tables for programs
hold their cells as they are.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO

import pandas as pd

from ..config.types import UserError

MAX_UNPACKED_BYTES = 1 << 28
"""Of a compressed table: some ten million rows. A small archive can unpack to more than the memory holds."""
FOR_PEOPLE = ("label_issues.csv", "duplicates.csv", "audit.csv", "corrections.csv")
FORMULA = re.compile(r"'*[=+\-@\t\r＝＋－＠].", re.DOTALL)
"""How a formula begins; the quotes before it may be those of `escape_formulas`."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_csv(path: Path, **options) -> pd.DataFrame:
    """Read a table as text: `007`, `NA` and the empty label stay what they are.

    Columns are separated by commas, or by the semicolons or tabs of a header without commas. Cells that a short row
    lacks are empty. The file is UTF-8 or UTF-16, and may be packed as .gz, .bz2, .xz or .zip.

    Args:
        path: the file.
        options: further arguments of pandas.read_csv.

    Raises:
        UserError: it cannot be read, two columns have one name, or rows have more cells than the header.
    """
    try:
        content = _read_bytes(Path(path))
        options |= {"dtype": str, "keep_default_na": False, "encoding": _check_encoding(content)}
        header = _read_header(content, options["encoding"], ",")
        if len(header) == 1:  # no comma: the one cell is the whole line
            options["sep"] = next((sign for sign in ";\t" if sign in header[0]), ",")
            header = _read_header(content, options["encoding"], options["sep"])
        table = pd.read_csv(BytesIO(content), **options)
    except Exception as error:  # each kind of file raises errors of its own
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} cannot be read as CSV ({reason}); save it as CSV in UTF-8"
        ) from None
    repeated = header[header.duplicated() & (header != "")]
    if len(repeated):
        raise UserError(f"{path} has two columns {repeated.iloc[0]!r}; leave one of them out")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(
            f"{path}: its rows have more fields than its header; remove the comma at their end"
        )
    return table


def _read_header(content: bytes, encoding: str, separator: str) -> pd.Series:
    """The first line as pandas divides it, before it renames columns that stand twice."""
    options = {"header": None, "nrows": 1, "dtype": str, "keep_default_na": False}
    return pd.read_csv(BytesIO(content), sep=separator, encoding=encoding, **options).iloc[0]


def _read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked.

    Raises:
        ValueError: that is more than MAX_UNPACKED_BYTES.
    """
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}
    if path.suffix.lower() not in openers:
        return path.read_bytes()
    with openers[path.suffix.lower()](path) as file:
        content = file.read(MAX_UNPACKED_BYTES + 1)
    if len(content) > MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    return content


def _open_zip(path: Path) -> IO[bytes]:
    archive = zipfile.ZipFile(path)
    files = archive.namelist()
    if len(files) != 1:
        raise ValueError(f"it packs {len(files)} files, not one")
    return archive.open(files[0])


def _check_encoding(content: bytes) -> str:
    """utf-16 or utf-8. A NUL is refused, as some versions of pandas end a cell there."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, has_nul = "utf-16", "\0" in content.decode("utf-16", "replace")
    else:
        encoding, has_nul = "utf-8", b"\0" in content
    if has_nul:
        raise ValueError("it holds a control character, NUL")
    return encoding


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a quote before each cell that a spreadsheet would run; numbers stay."""

    def escape(cell):
        is_formula = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
        return f"'{cell}" if is_formula else cell

    return table.assign(
        **{name: table[name].map(escape) for name in table.select_dtypes(exclude="number")}
    )


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to escape_formulas."""
    return table.map(
        lambda cell: cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
    )
