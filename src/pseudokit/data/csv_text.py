"""Tables as text: nothing is guessed when they are read, and a spreadsheet runs nothing when people open them.

Cells that look like formulas get a quote in the tables FOR_PEOPLE, and lose it when they are read. Tables for programs
hold their cells as they are.
"""

import bz2
import codecs
import csv
import gzip
import lzma
import re
import zipfile
from collections.abc import Callable
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import IO

import pandas as pd

from ..config.types import UserError

SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(rf'("?sep=[{SEPARATORS}]"?(\r\n?|\n))?', re.IGNORECASE)
"""The first line of tables for Excel: it names the separator, and is no row."""
ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""By the byte order mark with which a file begins."""
LINE = re.compile(r"[^\r\n]*(\r\n?|\n|\Z)")
"""With its end, as csv.reader takes lines."""
MAX_UNPACKED_BYTES = 1 << 28
"""Of a compressed table: some ten million rows. A small archive can unpack to more than the memory holds."""
csv.field_size_limit(MAX_UNPACKED_BYTES)
FOR_PEOPLE = (
    "label_issues.csv",
    "duplicates.csv",
    "audit.csv",
    "odd_images.csv",
    "annotators.csv",
    "corrections.csv",
    "suggested.csv",
)
FORMULA_SIGNS = "=+-@\t\r＝＋－＠"
FORMULA = f"'*[{re.escape(FORMULA_SIGNS)}]."
"""How a formula begins; the quotes before it may be those of `escape_formulas`."""
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
BEFORE_FORMULA = re.compile(rf"(?!{NUMBER}\Z){FORMULA}", re.DOTALL)
QUOTE_BEFORE_FORMULA = re.compile(rf"'{FORMULA}", re.DOTALL)


def read_csv(path: Path, whole_rows: bool = False, **options) -> pd.DataFrame:
    """Read a table as text: `007`, `NA` and the empty label stay what they are.

    Commas, semicolons, tabs or bars separate the columns: what a line `sep=;` at the top names, else what divides the
    header into most. `attrs["form"]` says which. Cells that a short row lacks are empty. The file is UTF-8 or
    UTF-16, and may be packed as .gz, .bz2, .xz or .zip.

    Args:
        path: the file.
        whole_rows: refuse a row with fewer cells than the header.
        options: further arguments of pandas.read_csv.

    Raises:
        UserError: it cannot be read, two columns have one name, or rows have more cells than the header.
    """
    try:
        _, head, body = read_text(Path(path))
        sign, names = find_separator(head, body)
        table = parse_csv(body, sign, **options)
    except Exception as error:  # each kind of file raises errors of its own
        raise UserError(
            f"{path} cannot be read as CSV ({' '.join(str(error).split())}); mend it, or save it as CSV in UTF-8"
        ) from None
    columns = pd.Index(filter(None, names))
    for name in columns[columns.duplicated()]:
        raise UserError(f"{path} has two columns {name!r}; leave one of them out")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(
            f"{path}: its rows have more cells than its first line; remove the comma at their end, or the lines above "
            "the header"
        )
    # Only a row that ends with an empty cell can be short, and few tables have one.
    if whole_rows and (table.iloc[:, -1] == "").any():
        _refuse_short_row(path, head, body, sign, len(names))
    table.attrs["form"] = f"separated by {sign!r}"
    return table


def _refuse_short_row(path: Path, head: str, body: str, sign: str, n_columns: int) -> None:
    """A row without its last separator may lack any of its cells, so none of them can be trusted."""
    rows = csv.reader(StringIO(body, newline=""), delimiter=sign)
    for row in rows:
        if len(row) < n_columns and _has_text(row):
            raise UserError(
                f"{path} line {rows.line_num + bool(head)}: the row has {len(row)} cells and the header {n_columns}; "
                f"write every {sign!r}, also before an empty cell"
            )


def parse_csv(body: str, sign: str, **options) -> pd.DataFrame:
    """The cells between these signs as text. Raises what pandas does, which takes the options."""
    return pd.read_csv(StringIO(body), sep=sign, dtype=str, keep_default_na=False, **options)


def find_separator(head: str, body: str) -> tuple[str, list[str]]:
    """What separates the columns of a table, and their names as they stand in it; the texts are those of read_text."""
    headers = {}
    for sign in SEPARATORS:
        if sign in (head or SEPARATORS):
            lines = map(itemgetter(0), LINE.finditer(body))  # a StringIO would copy all rows
            rows = csv.reader(lines, delimiter=sign)
            headers[sign] = next(filter(_has_text, rows), [])
    ranks = {}
    for sign, names in headers.items():
        # A quote that is left in a cell was cut open: then the sign stands inside a name.
        is_whole = '"' not in "".join(names)
        ranks[sign] = is_whole, len(names)
    sign = max(ranks, key=ranks.get)
    return sign, headers[sign]


def _has_text(row: list[str]) -> bool:
    return bool("".join(row).strip())


def read_text(path: Path) -> tuple[bytes, str, str]:
    """A table as text: its byte order mark, the line `sep=;` with its end, and all else; what it lacks is empty.

    Raises:
        ValueError: it is no text in UTF-8, or in UTF-16 with its mark; or it holds NUL, where some versions of pandas
            end a cell.
    """
    content = read_bytes(path)
    mark = next(filter(content.startswith, ENCODINGS), b"")
    text = content.removeprefix(mark).decode(ENCODINGS.get(mark, "utf-8"))
    if "\0" in text:
        raise ValueError("it holds a control character, NUL")
    head = SEPARATOR_LINE.match(text)[0]
    return mark, head, text[len(head) :]


def read_bytes(path: Path) -> bytes:
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


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a quote before each cell that a spreadsheet would run; numbers stay."""

    def escape(cell: object) -> object:
        return f"'{cell}" if isinstance(cell, str) and BEFORE_FORMULA.match(cell) else cell

    return _map_texts(table, escape)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to escape_formulas."""
    return _map_texts(table, lambda cell: cell[1:] if QUOTE_BEFORE_FORMULA.match(cell) else cell)


def _map_texts(table: pd.DataFrame, change: Callable) -> pd.DataFrame:
    """The table with its texts changed. Columns where none begins like a formula are not gone through."""
    changed = {}
    for name, column in table.select_dtypes(exclude=["number", "bool"]).items():
        if column.astype(str).str[:1].isin([*FORMULA_SIGNS, "'"]).any():
            changed[name] = column.map(change)
    return table.assign(**changed)
