"""Tables as spreadsheets, programs and people write them: what a table is taken for is right, or it is refused."""

import csv
import io
import logging
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Data
from pseudokit.config.load import load_config
from pseudokit.data.class_names import refuse_signs_of_no_label
from pseudokit.data.dataset import Dataset, load_dataset
from pseudokit.data.edit_table import edit_table
from pseudokit.data.tables import read_cells, read_split
from tests.conftest import ROOT
from tests.naming import refused

PLAIN = "id,label\n0,cat\n1,dog\n2,cat\n3,dog\n"


@pytest.fixture
def data_of(tmp_path, caplog):
    """data_of(text or bytes, **keys) → Data of a table train.csv."""
    caplog.set_level(logging.INFO, logger="kit")

    def data_of(content: str | bytes, **keys) -> Data:
        file = tmp_path / "train.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return Data(train=str(file), **keys)

    return data_of


def labels_of(dataset: Dataset) -> dict[str, str]:
    table = dataset.table()
    return dict(zip(table.id, table.given_label, strict=True))


def table_of(labels: list[str], head: str = "id,label") -> str:
    return head + "\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels))


# ---- short rows


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (PLAIN + "4\n", 6),
        (PLAIN + "4\n5,cat\n6", 6),
        ("id;label\n0;cat\n1;dog\n2;\n3\n", 5),
        ("id,label\n\n0,cat\n\n1\n", 5),
        ('id,more,label\n0,"a\nb",cat\n1,dog\n', 4),
        ("sep=;\nid;label\n0;cat\n1\n", 4),
        ("\ufeffid\tlabel\r\n0\tcat\r\n1\r\n", 3),
        ("id,label\n0,cat\n1\n".encode("utf-16"), 3),
        ("id,label\n0," + "x" * 200_000 + "\n1\n", 3),
    ],
)
def test_a_row_without_its_separator_is_refused_by_its_line(data_of, content, line):
    refused(lambda: load_dataset(data_of(content)), "train.csv", f"line {line}")


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["", "cat", 'a"b', "c,d", "e\nf"])), min_size=1
    )
)
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_exactly_the_tables_with_a_short_row_are_refused(tmp_path, rows):
    text = io.StringIO("id,note,label\n")
    text.seek(0, io.SEEK_END)
    writer = csv.writer(text, lineterminator="\n")
    for number, (is_short, label) in enumerate(rows):
        writer.writerow([number, "x"] if is_short else [number, "x", label])
    file = tmp_path / "t.csv"
    file.write_text(text.getvalue())
    if any(is_short for is_short, _ in rows):
        refused(lambda: read_cells(file), "t.csv")
    else:
        assert read_cells(file).label.tolist() == [label for _, label in rows]


# ---- separators


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("head", ["", "sep={}\n", '"sep={}"\r\n', "\ufeffSEP={}\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_of_any_separator_is_read_and_edited_with_or_without_its_line(
    data_of, tmp_path, sign, head, encoding
):
    text = head.format(sign).removeprefix("\ufeff" if encoding == "utf-16" else "")
    data = data_of((text + PLAIN.replace(",", sign)).encode(encoding))
    assert labels_of(load_dataset(data)) == {"0": "cat", "1": "dog", "2": "cat", "3": "dog"}
    file = Path(data.train)
    cells = read_cells(file)
    cells.loc[1, "label"] = "owl"
    before = file.read_bytes().decode(encoding)
    assert edit_table(file, cells, file).decode(encoding) == before.replace("dog", "owl", 1)


def test_the_line_names_the_separator_where_the_header_has_more_of_another(data_of):
    dataset = load_dataset(data_of("sep=;\nid;label;a,b,c,d\n0;x,y;1\n1;z;2\n"))
    assert labels_of(dataset) == {"0": "x,y", "1": "z"}


def test_a_sign_within_a_quoted_name_of_the_header_opens_no_quote(data_of):
    dataset = load_dataset(data_of('id;label;"more;,"\n0;cat;""\n1;dog;x\n'))
    assert labels_of(dataset) == {"0": "cat", "1": "dog"}


def test_lines_above_the_header_are_refused(data_of):
    refused(lambda: load_dataset(data_of("# exported\n" + PLAIN)), "train.csv", "header")


# ---- quantities


@pytest.mark.parametrize(
    ("labels", "is_told"),
    [
        ([str(i // 2) for i in range(200)], True),
        ([str(18 + i * 7 % 61) for i in range(180)], True),
        ([f"{i // 3}.0" for i in range(90)], True),
        ([str(i % 100) for i in range(2_000)], False),
        ([str(i % 10) for i in range(20)], False),
        ([f"c{i // 2}" for i in range(200)], False),
    ],
    ids=["two rows each", "ages", "whole floats", "class ids", "few labels", "names"],
)
def test_many_numbers_with_few_rows_each_are_told_and_class_ids_are_not(
    data_of, caplog, labels, is_told
):
    dataset = load_dataset(data_of(table_of(labels)))
    assert ("warning" in caplog.text) == is_told
    assert labels_of(dataset) == {str(i): label for i, label in enumerate(labels)}


@pytest.mark.parametrize("sign", [".", ","])
def test_numbers_with_decimals_are_refused(data_of, sign):
    content = "id;label\n" + "".join(f"{i};{i}{sign}5\n" for i in range(30))
    refused(lambda: load_dataset(data_of(content)), "'label'")


# ---- signs of no label

SIGNS = [
    "-1", "-1.0", "-999", "?", "-", "NA", "n/a", "#N/A", "nan", "NaN", "null", "None", "unknown", "Missing", "TODO",
    "N.A.", "(blank)", "unk", "—", "not_annotated", "not available", "to do",
    "unlabeled", "Unlabelled", "un-labeled", "no_label", "no label", "not labeled",
]  # fmt: skip


@pytest.mark.parametrize("sign", SIGNS)
def test_every_sign_of_no_label_is_asked_for(sign):
    labels = pd.Series([sign, "cat", "dog", sign])
    data = Data(train="train.csv")
    refused(lambda: refuse_signs_of_no_label(labels, data), "train.csv", "2 rows")
    for values in ([], ["x"], [sign]):
        refuse_signs_of_no_label(labels, data.model_copy(update={"unlabeled_values": values}))


@pytest.mark.parametrize("sign", ["-1", "Unknown", "n/a"])
def test_a_sign_of_no_label_is_asked_for_and_taken_as_the_key_says(data_of, sign):
    content = table_of([sign, "cat", "dog", sign])
    refused(lambda: load_dataset(data_of(content)), "train.csv", "2 rows", "data.unlabeled_values")
    taken = load_dataset(data_of(content, unlabeled_values=[sign]))
    assert labels_of(taken) == {"0": "", "1": "cat", "2": "dog", "3": ""}
    assert taken.split.tolist() == ["train", "train", "unlabeled", "unlabeled"]
    kept = load_dataset(data_of(content, unlabeled_values=[]))
    assert labels_of(kept) == {"0": sign, "1": "cat", "2": "dog", "3": sign}


def test_what_the_message_says_to_set_can_be_typed(data_of):
    signs = ["-1", "?", "no label"]
    message = refused(lambda: load_dataset(data_of(table_of(["cat", *signs]))))
    (typed,) = shlex.split(re.search(r"'data\.unlabeled_values=.*?'", message)[0])
    config = load_config(ROOT / "configs" / "default.yaml", [typed])
    assert sorted(config.data.unlabeled_values) == sorted(signs)
    none = load_config(ROOT / "configs" / "default.yaml", ["data.unlabeled_values=[]"])
    assert none.data.unlabeled_values == []


@pytest.mark.parametrize(
    "labels", [["-1", "1", "-1"], ["-1", "+1", "-1"], ["nano", "unknowns", "no"], ["0", "1", "2"]]
)
def test_what_is_no_sign_is_a_class(data_of, labels):
    assert labels_of(load_dataset(data_of(table_of(labels)))) == dict(
        zip("012", labels, strict=True)
    )


def test_the_key_holds_for_every_kind_of_label_and_in_any_spelling(data_of, tmp_path):
    content = table_of(["Unlabeled ", "a", "b", "unlabeled"])
    assert set(load_dataset(data_of(content, unlabeled_values=["UNLABELED"])).classes) == {"a", "b"}
    one_hot = data_of(
        "id,cat,dog\n0,1,0\n1,0,1\n2,-1,0\n",
        label_col=["cat", "dog"],
        unlabeled_values=["-1"],
        multi_label=True,
    )
    assert load_dataset(one_hot).given_labels.tolist() == [[1, 0], [0, 1], [-1, 0]]
    for name in ("cat", "dog", "unlabeled"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").touch()
    folder = Data(train=str(tmp_path / "set"))
    refused(lambda: load_dataset(folder), "'unlabeled'", "data.unlabeled_values")
    dataset = load_dataset(folder.model_copy(update={"unlabeled_values": ["unlabeled"]}))
    assert dataset.classes == ("cat", "dog")
    assert dataset.split.tolist() == ["train", "train", "unlabeled"]


# ---- class names


@pytest.mark.parametrize(
    "other",
    ["Cat", "CAT", " cat", "cat ", "ca\u200bt"],
    ids=["case", "caps", "before", "after", "unseen"],
)
def test_names_that_differ_by_case_or_blanks_alone_are_refused(data_of, other):
    refused(lambda: load_dataset(data_of(table_of(["cat", "dog", other]))), "'cat'", repr(other))


def test_letters_in_both_cases_are_classes(data_of):
    assert load_dataset(data_of(table_of(["a", "A", "b", "B"]))).classes == ("A", "B", "a", "b")


# ---- what a table is taken for


def test_what_a_table_is_taken_for_is_told(data_of, caplog):
    table = read_split(
        data_of("bild;art\n0;cat\n1;\n2;dog\n3;cat\n", id_col="bild", label_col="art"), "train"
    )
    told = table.attrs["taken_for"]
    assert told in caplog.text
    for part in ("4 rows", "';'", "'bild'", "'art'", "'cat': 2", "'dog': 1", "1 rows"):
        assert part in told
