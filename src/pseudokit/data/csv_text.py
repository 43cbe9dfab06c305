"""Tables as text: nothing is guessed when they are read, and a spreadsheet runs nothing when people open them.

Cells that look like formulas get a quote in the tables FOR_PEOPLE, and lose it when they are read. Tables for programs
hold their cells as they are.
"""

import bz2
import codecs
import gzip
import lzma
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import IO

import pandas as pd

from ..config.types import UserError

SEPARATORS = ",;\t"
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


def read_csv(path: Path, **options) -> pd.DataFrame:
    """Read a table as text: `007`, `NA` and the empty label stay what they are.

    Commas, semicolons or tabs separate the columns: what divides the header into most. Cells that a short row lacks
    are empty. The file is UTF-8 or UTF-16, and may be packed as .gz, .bz2, .xz or .zip.

    Args:
        path: the file.
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
    return table


def parse_csv(content: bytes, encoding: str, sign: str, **options) -> pd.DataFrame:
    """The cells between these signs as text. Raises what pandas does, which takes the options."""
    return pd.read_csv(
        BytesIO(content), sep=sign, encoding=encoding, dtype=str, keep_default_na=False, **options
    )


def find_separator(content: bytes, encoding: str) -> tuple[str, pd.Series]:
    """What separates the columns of a table, and their names as they stand in it."""
    # Read as a row of cells: pandas would rename columns that stand twice.
    headers = {
        sign: parse_csv(content, encoding, sign, header=None, nrows=1).iloc[0]
        for sign in SEPARATORS
    }
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
