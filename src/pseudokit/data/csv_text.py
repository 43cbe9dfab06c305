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
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO

import pandas as pd

from ..config.types import UserError

SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(rf'\ufeff?"?sep=([{SEPARATORS}])"?(\r\n?|\n)', re.IGNORECASE)
"""The first line of tables for Excel: it names the separator, and is no row."""
MAX_UNPACKED_BYTES = 1 << 28
"""Of a compressed table: some ten million rows. A small archive can unpack to more than the memory holds."""
FOR_PEOPLE = (
    "label_issues.csv",
    "duplicates.csv",
    "audit.csv",
    "annotators.csv",
    "corrections.csv",
)
FORMULA = r"'*[=+\-@\t\r＝＋－＠]."
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
        content = read_bytes(Path(path))
        encoding = encoding_of(content)
        sign, names = find_separator(content, encoding)
        table = parse_csv(content, encoding, sign, **options)
    except Exception as error:  # each kind of file raises errors of its own
        raise UserError(
            f"{path} cannot be read as CSV ({' '.join(str(error).split())}); save it as CSV in UTF-8"
        ) from None
    repeated = names[names.duplicated() & (names != "")]
    if len(repeated):
        raise UserError(f"{path} has two columns {repeated.iloc[0]!r}; leave one of them out")
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(
            f"{path}: its rows have more fields than its header; remove the comma at their end"
        )
    # Only a row that ends with an empty cell can be short, and few tables have one.
    if whole_rows and (table.iloc[:, -1] == "").any():
        _refuse_short_row(path, content, encoding, sign, len(names))
    table.attrs["form"] = f"separated by {sign!r}"
    return table


def _refuse_short_row(path: Path, content: bytes, encoding: str, sign: str, n_columns: int) -> None:
    """A row without its last separator may lack any of its cells, so none of them can be trusted."""
    csv.field_size_limit(MAX_UNPACKED_BYTES)
    rows = csv.reader(TextIOWrapper(BytesIO(content), encoding, newline=""), delimiter=sign)
    next(rows)  # the header, or what is before it
    for row in rows:
        if len(row) < n_columns and "".join(row).strip():
            raise UserError(
                f"{path} line {rows.line_num}: the row has {len(row)} cells and the header {n_columns}; write every "
                f"{sign!r}, also before an empty cell"
            )


def parse_csv(content: bytes, encoding: str, sign: str, **options) -> pd.DataFrame:
    """The cells between these signs as text. Raises what pandas does, which takes the options."""
    return pd.read_csv(
        BytesIO(content),
        sep=sign,
        encoding=encoding,
        dtype=str,
        keep_default_na=False,
        skiprows=1 if separator_line(content, encoding) else 0,
        **options,
    )


def separator_line(content: bytes, encoding: str) -> str:
    """The line `sep=;` with its end, with which a table may begin; "" where it does not."""
    match = SEPARATOR_LINE.match(content[:64].decode(encoding, "ignore"))
    return match[0] if match else ""


def find_separator(content: bytes, encoding: str) -> tuple[str, pd.Series]:
    """What separates the columns of a table, and their names as they stand in it."""
    # Read as a row of cells: pandas would rename columns that stand twice.
    line = separator_line(content, encoding)
    headers = {}
    for sign in filter((line or SEPARATORS).__contains__, SEPARATORS):
        try:
            headers[sign] = parse_csv(content, encoding, sign, header=None, nrows=1).iloc[0]
        except (
            pd.errors.ParserError
        ):  # the sign cuts a name open, and nothing closes its last quote
            headers[sign] = pd.Series(['"'])
    # A quote that is left in a cell was cut open: then the sign stands inside a name.
    is_cut = {sign: header.str.contains('"').any() for sign, header in headers.items()}
    sign = max(headers, key=lambda sign: (not is_cut[sign], len(headers[sign])))
    return sign, headers[sign]


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


def encoding_of(content: bytes) -> str:
    """utf-16 or utf-8. A NUL is refused, as some versions of pandas end a cell there."""
    has_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if has_mark else "utf-8"
    if "\0" in content.decode(encoding, "replace"):
        raise ValueError("it holds a control character, NUL")
    return encoding


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a quote before each cell that a spreadsheet would run; numbers stay."""

    def escape(cell: object) -> object:
        return f"'{cell}" if isinstance(cell, str) and BEFORE_FORMULA.match(cell) else cell

    return table.map(escape)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table of text that was given to escape_formulas."""
    return table.map(lambda cell: cell[1:] if QUOTE_BEFORE_FORMULA.match(cell) else cell)
