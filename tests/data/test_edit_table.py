"""A table with some cells changed: everything else is as it was, byte by byte."""

import bz2
import codecs
import gzip
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pseudokit.data.edit_table import edit_table
from pseudokit.data.tables import read_cells
from tests.naming import refused

CELLS = st.text(alphabet="ab0é \"',;\t\r\n\ufeff", max_size=4)


def quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


@st.composite
def tables(draw):
    """A CSV as anyone may write it: sign, line end, byte order mark, rows of raw cells, blank lines before each row."""
    sign = draw(st.sampled_from(",;\t"))
    n_columns = draw(st.integers(2, 3))

    def raw(text):
        must = not text or text.startswith('"') or any(letter in text for letter in sign + "\r\n")
        return quoted(text) if must or draw(st.booleans()) else text

    # The first cell is a name: no blank line, and no mark that begins the file.
    first = st.sampled_from(["a", "0017", "NA", "=1"])
    rows = []
    for _ in range(draw(st.integers(2, 5))):
        cells = [draw(first), *(draw(CELLS) for _ in range(n_columns - 1))]
        rows.append([raw(cell) for cell in cells])
    header = [raw(name) for name in ("id", "label", "more;,")[:n_columns]]
    blank_lines = [draw(st.sampled_from(["", "", "\n", "  \r\n"])) for _ in range(len(rows) + 1)]
    mark = draw(st.sampled_from(sorted(MARKS)))
    return sign, draw(st.sampled_from(["\n", "\r\n"])), mark, [header, *rows], blank_lines


MARKS = {
    b"": "utf-8",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def content(sign, end, mark, rows, blank_lines, left_out=()) -> bytes:
    lines = [
        blank + ("" if number in left_out else sign.join(cells) + end)
        for number, (blank, cells) in enumerate(zip(blank_lines, rows, strict=True))
    ]
    return mark + "".join(lines).encode(MARKS[mark])


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables") / "table.csv"


@settings(max_examples=40, deadline=None)
@given(table=tables(), data=st.data())
def test_any_cell_can_change_and_any_row_go_and_no_other_byte_differs(file, table, data):
    sign, end, mark, rows, blank_lines = table
    file.write_bytes(content(*table))
    cells = read_cells(file)
    assert len(cells) == len(rows) - 1
    row = data.draw(st.integers(0, len(cells) - 1))
    column = data.draw(st.integers(1, cells.shape[1] - 1))
    text = data.draw(CELLS)
    left_out = data.draw(st.sets(st.integers(0, len(cells) - 1)).map(lambda rows: rows - {row}))
    edited = cells.copy()
    edited.iloc[row, column] = text
    edited = edited.drop(index=list(left_out))

    result = edit_table(file, edited, file)

    possible = []
    for form in (rows[row + 1][column], text, quoted(text)):
        new_rows = [list(cells) for cells in rows]
        new_rows[row + 1][column] = form
        gone = {number + 1 for number in left_out}
        possible.append(content(sign, end, mark, new_rows, blank_lines, gone))
    is_same = cells.iloc[row, column] == text
    assert result in (possible[:1] if is_same else possible[1:])
    file.write_bytes(result)
    assert read_cells(file).to_numpy().tolist() == edited.to_numpy().tolist()


def test_a_table_as_spreadsheets_and_people_write_it(file):
    before = (
        '\ufeff"Bild";"Klasse";Notiz\r\n0001;"NA";"ein ""Zitat"""\r\n\r\n0002;True;\n'
        '0003;\'x\';"a;b\nc"\r\n0004;;\r\n0005;"NA";=1'
    )
    file.write_bytes(before.encode())
    cells = read_cells(file)
    assert list(cells.Klasse) == ["NA", "True", "'x'", "", "NA"]
    cells["Klasse"] = ["True", "NA", 'say "x"', "a;b", "NA"]
    after = (
        '\ufeff"Bild";"Klasse";Notiz\r\n0001;"True";"ein ""Zitat"""\r\n\r\n0002;NA;\n'
        '0003;"say ""x""";"a;b\nc"\r\n0004;"a;b";\r\n0005;"NA";=1'
    )
    assert edit_table(file, cells, file).decode() == after


@pytest.mark.parametrize("sign", ["\t", ";"])
def test_a_quoted_name_may_end_with_a_sign_that_separates_other_tables(file, sign):
    before = sign.join(["id", "label", '"more;,"']) + f"\n1{sign}a{sign}x\n"
    file.write_text(before)
    cells = read_cells(file)
    assert list(cells) == ["id", "label", "more;,"]
    cells.label = "b"
    assert edit_table(file, cells, file).decode() == before.replace(
        "a" + sign + "x", "b" + sign + "x"
    )


def test_a_packed_table_stays_packed_as_the_new_name_says(tmp_path):
    unpack = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(b"id,label\n1,a\n2,b\n"))
    cells = read_cells(file)
    cells.loc[1, "label"] = "c"
    for suffix in ("gz", "bz2", "xz", "zip", "csv"):
        out = tmp_path / f"out.csv.{suffix}"
        packed = edit_table(file, cells, out)
        assert packed == edit_table(file, cells, out), "the same bytes at any time"
        out.write_bytes(packed)
        assert read_cells(out).equals(cells)
        if suffix in unpack:
            with unpack[suffix](out) as unpacked:
                assert unpacked.read() == b"id,label\n1,a\n2,c\n"
    assert zipfile.ZipFile(tmp_path / "out.csv.zip").namelist() == ["out.csv"]


@pytest.mark.parametrize(
    ("labels", "new"),
    [
        (pa.array(["a", "b", None]), "b"),
        (pa.array([1, 7, None]), "7"),
        (pa.array([1.0, 7.0, None], pa.float32()), "7"),
        (pa.array([True, False, None]), "False"),
        (pa.array(["a", "b", None]).dictionary_encode(), "b"),
    ],
    ids=["text", "int", "float", "bool", "category"],
)
def test_parquet_keeps_its_types_and_its_other_columns(tmp_path, labels, new):
    file = tmp_path / "table.parquet"
    boxes = pa.array([[1, 2], [], None])
    before = pa.table({"id": ["0", "1", "2"], "box": boxes, "label": labels, "x": [0.5, None, 2.5]})
    parquet.write_table(before, file, compression="zstd")
    cells = read_cells(file)
    cells.loc[[0, 2], "label"] = new
    file.write_bytes(edit_table(file, cells.drop(index=1), file))
    after = parquet.read_table(file)
    assert after.schema == before.schema
    wanted = labels[1].as_py()
    assert after["label"].to_pylist() == [wanted, wanted]
    rest = ["id", "box", "x"]
    assert after.select(rest).equals(before.select(rest).take(pa.array([0, 2])))
    assert parquet.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_kind_that_would_change_and_a_label_that_has_no_place_are_refused(tmp_path):
    file = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"id": ["0"], "label": [1]}), file)
    cells = read_cells(file)
    refused(lambda: edit_table(file, cells, tmp_path / "out.csv"), "--out", "out.csv")
    cells["label"] = "cat"
    refused(lambda: edit_table(file, cells, file), file.name, "'label'", "int64")
