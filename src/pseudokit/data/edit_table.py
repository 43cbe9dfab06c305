"""A table file with some cells changed and some rows left out, in which everything else stays as it is.

To write a table anew would lose what pandas does not keep: of a CSV quotes, line ends, blank lines and the byte order
mark; of parquet the types of the columns.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.types import UserError
from .csv_text import encoding_of, find_separator, parse_csv, read_bytes, separator_line
from .tables import PARQUET_SUFFIXES, read_cells

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""By the byte order mark with which a file begins."""


def edit_table(file: Path, edited: pd.DataFrame, out: Path) -> bytes:
    """The content of a table file with other text in some cells, and without some rows.

    Args:
        file: CSV or parquet.
        edited: its cells as read_cells reads them, some of them changed. Rows that its index lacks are left out.
        out: where the content is to be written. The suffix says how a CSV is packed.

    Raises:
        UserError: out is of another kind, or a cell cannot be changed alone.
    """
    is_parquet = file.suffix.lower() in PARQUET_SUFFIXES
    if is_parquet != (out.suffix.lower() in PARQUET_SUFFIXES):
        raise UserError(f"--out {out}: {file.name} keeps its kind; give --out the same suffix")
    return _edit_parquet(file, edited) if is_parquet else _pack(_edit_csv(file, edited), out)


# ---- parquet


def _edit_parquet(file: Path, edited: pd.DataFrame) -> bytes:
    import pyarrow as pa
    from pyarrow import compute, parquet

    source = parquet.ParquetFile(file)
    table = source.read().take(pa.array(edited.index))
    before = read_cells(file).loc[edited.index]
    for name in edited:
        is_changed = (before[name] != edited[name]).to_numpy()
        if not is_changed.any():
            continue
        place = table.column_names.index(name)
        column = table.column(place).combine_chunks()
        texts = edited[name].where(is_changed & (edited[name] != ""), None)
        try:
            new = pa.array(texts, pa.string()).cast(column.type)
            column = compute.if_else(pa.array(is_changed), new, column)
        except pa.ArrowException as error:
            raise UserError(
                f"{file}: column {name!r} of {column.type} takes no new label ({error}); save it as text"
            ) from None
        table = table.set_column(place, table.field(place), column)
    buffer = io.BytesIO()
    parquet.write_table(
        table, buffer, compression=source.metadata.row_group(0).column(0).compression
    )
    return buffer.getvalue()


# ---- CSV


def _edit_csv(file: Path, edited: pd.DataFrame) -> bytes:
    content = read_bytes(file)
    encoding = encoding_of(content)
    sign, _ = find_separator(content, encoding)
    before = parse_csv(content, encoding, sign).loc[edited.index]
    changes: dict[int, dict[int, str]] = {}
    for i, place in np.argwhere((before != edited).to_numpy()):
        changes.setdefault(edited.index[i], {})[place] = edited.iat[i, place]

    mark = next((mark for mark in ENCODINGS if content.startswith(mark)), b"")
    encoding_after_mark = ENCODINGS.get(mark, "utf-8")
    text = content.removeprefix(mark).decode(encoding_after_mark)
    kept = {-1, *edited.index}
    blanks = " \t\r\n".replace(sign, "")
    head = separator_line(content, encoding).removeprefix("\ufeff")
    parts = [head]
    row = -2  # the header is row -1
    for line in re.findall(_line_pattern(sign), text[len(head) :]):
        if not line.strip(blanks):
            parts.append(line)
            continue
        row += 1
        if row in kept:
            parts.append(_with_cells(line, changes.get(row, {}), sign))
    result = mark + "".join(parts).encode(encoding_after_mark)
    if not np.array_equal(parse_csv(result, encoding, sign), edited):
        raise UserError(f"{file}: its cells cannot be changed one by one; save it anew as CSV")
    return result


def _cell_pattern(sign: str) -> str:
    """One cell as pandas reads it: a quote at its beginning holds until the next single one; others are text."""
    return rf'(?:"[^"]*(?:""[^"]*)*"?)?[^{sign}\r\n]*'


def _line_pattern(sign: str) -> str:
    """One row with its end; cells in quotes may hold line breaks."""
    cell = _cell_pattern(sign)
    return rf"{cell}(?:{re.escape(sign)}{cell})*(?:\r\n?|\n|\Z)"


def _with_cells(line: str, texts: dict[int, str], sign: str) -> str:
    """A row with these texts at these places, in quotes where the cell was or has to be."""
    if not texts:
        return line
    row = line.rstrip("\r\n")
    cells = [cell[1:] for cell in re.findall(re.escape(sign) + _cell_pattern(sign), sign + row)]
    for place, text in texts.items():
        if cells[place].startswith('"') or re.search(rf'[{sign}"\r\n]', text):
            text = '"{}"'.format(text.replace('"', '""'))
        cells[place] = text
    return sign.join(cells) + line[len(row) :]


def _pack(content: bytes, out: Path) -> bytes:
    """As the suffix says. The same content gives the same bytes: no archive holds the time."""
    if out.suffix.lower() != ".zip":
        packers = {".gz": _gzip, ".bz2": bz2.compress, ".xz": lzma.compress}
        return packers.get(out.suffix.lower(), bytes)(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(out.stem), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)
