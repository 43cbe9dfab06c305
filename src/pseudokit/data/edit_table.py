"""A table file with some cells changed and some rows left out, in which everything else stays as it is.

To write a table anew would lose what pandas does not keep: of a CSV quotes, line ends, blank lines and the byte order
mark; of parquet the types of the columns.
"""

import bz2
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.types import UserError
from .csv_text import ENCODINGS, find_separator, parse_csv, read_text
from .tables import PARQUET_SUFFIXES, read_cells


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
    all_changed = read_cells(file).loc[edited.index] != edited
    for name in all_changed.columns[all_changed.any()]:
        is_changed = all_changed[name].to_numpy()
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
    compression = source.metadata.row_group(0).column(0).compression
    parquet.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


# ---- CSV


def _edit_csv(file: Path, edited: pd.DataFrame) -> bytes:
    mark, head, body = read_text(file)
    sign, _ = find_separator(head, body)
    before = parse_csv(body, sign).loc[edited.index]
    cell = _cell_pattern(sign)
    lines = re.findall(rf"{cell}(?:{re.escape(sign)}{cell})*(?:\r\n?|\n|\Z)", body)
    blanks = " \t\r\n".replace(sign, "")
    is_row = [bool(line.strip(blanks)) for line in lines]
    rows = np.flatnonzero(is_row)[1:]  # without the header
    for place in np.delete(rows, edited.index):
        lines[place] = ""
    for i, column in np.argwhere((before != edited).to_numpy()):
        place = rows[edited.index[i]]
        text = edited.iat[i, column]
        lines[place] = _with_cell(lines[place], column, text, sign)
    new_body = "".join(lines)
    if not np.array_equal(parse_csv(new_body, sign), edited):
        raise UserError(f"{file}: its cells cannot be changed one by one; save it anew as CSV")
    return mark + (head + new_body).encode(ENCODINGS.get(mark, "utf-8"))


def _cell_pattern(sign: str) -> str:
    """One cell as pandas reads it: a quote at its beginning holds until the next single one; others are text.

    Cells in quotes may hold line breaks.
    """
    return rf'(?:"[^"]*(?:""[^"]*)*"?)?[^{sign}\r\n]*'


def _with_cell(line: str, column: int, text: str, sign: str) -> str:
    """A row with this text as one of its cells, in quotes where the cell was or has to be."""
    pattern = rf"({_cell_pattern(sign)})(?:{re.escape(sign)}|\r|\n|\Z)"
    cell = [*re.finditer(pattern, line)][column]
    if cell[1].startswith('"') or re.search(rf'[{sign}"\r\n]', text):
        text = '"{}"'.format(text.replace('"', '""'))
    return line[: cell.start(1)] + text + line[cell.end(1) :]


def _pack(content: bytes, out: Path) -> bytes:
    """As the suffix says. The same content gives the same bytes: no archive holds the time."""
    packers = {
        ".gz": lambda content: gzip.compress(content, mtime=0),
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zip": lambda content: _zip(content, out.stem),
    }
    return packers.get(out.suffix.lower(), bytes)(content)


def _zip(content: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
