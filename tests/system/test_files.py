"""Files are whole or not at all, tables and seeds are what they were."""

import contextlib
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.types import UserError
from pseudokit.data.csv_text import read_csv
from pseudokit.system import files
from pseudokit.system.files import (
    atomic_write,
    read_json,
    seed_of,
    write_csv,
    write_json,
    write_npy,
)
from tests.conftest import run_script

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


def test_a_failing_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "labels.csv"
    atomic_write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    for broken in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError, match="No space"):
                atomic_write(file, "new and longer")
        assert file.read_text() == "old"
        assert os.listdir(tmp_path) == ["labels.csv"]


def test_a_write_makes_the_folders_and_replaces_what_was_there(tmp_path):
    file = tmp_path / "a" / "b.bin"
    atomic_write(file, "a long text")
    atomic_write(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert os.listdir(file.parent) == ["b.bin"]


def test_json_and_arrays_read_back(tmp_path):
    value = {"Größe": [1, 2.5, None], "x": {"y": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    write_npy(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_a_table_is_read_as_it_stands(tmp_path):
    (tmp_path / "a.csv").write_text(
        '\ufeffid,label\n007,NA\n1e3,\nnull,None\n"a,b","say ""hi"""\n1.0,nan\n', "utf-8"
    )
    table = read_csv(tmp_path / "a.csv")
    assert list(table) == ["id", "label"]
    assert list(table.id) == ["007", "1e3", "null", "a,b", "1.0"]
    assert list(table.label) == ["NA", "", "None", 'say "hi"', "nan"]


def test_a_row_that_ends_early_has_empty_fields(tmp_path):
    (tmp_path / "a.csv").write_text("id,label,group\n1,cat,g\n2\n3,dog\n")
    assert read_csv(tmp_path / "a.csv").to_numpy().tolist() == [
        ["1", "cat", "g"],
        ["2", "", ""],
        ["3", "dog", ""],
    ]


@pytest.mark.parametrize("more", ["", "x"])
def test_a_field_more_than_the_header_has_never_shifts_the_columns(tmp_path, more):
    """pandas takes the first column for an index where every row has one field more than the header."""
    file = tmp_path / "a.csv"
    file.write_text(f"id,label\n1,cat,{more}\n2,dog,{more}\n")
    with contextlib.suppress(UserError):  # to refuse it is right as well
        table = read_csv(file)
        assert list(table.id) == ["1", "2"]
        assert list(table.label) == ["cat", "dog"]


def test_a_table_is_written_as_pandas_does_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 4)
    columns = {
        "float": [1.0, np.nan, 1e-9, 123456789.0, np.inf, -0.0],
        "float32": np.float32([0.1, 2, 3, 1e30, 0, np.nan]),
        "whole": pd.array([1, None, 3, 4, 5, 6], "Int64"),
        "share": pd.array([0.1, None, 3, 4, 5, 6], "Float64"),
        "yes": [True, False] * 3,
        "text, quoted": ["a", None, np.nan, 'q"x', "a,b", "l\nm"],
        "mixed": [1, 2.5, "x", None, np.nan, True],
        "é": pd.Categorical(["", "é", "\r", " x", "'", "="]),
    }
    for table in (pd.DataFrame(columns), pd.DataFrame(columns)[:0], pd.DataFrame({"a": ["", 0]})):
        expected = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_csv(tmp_path / "a.csv", table)
        assert (tmp_path / "a.csv").read_bytes().decode() == expected


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text("0123456789", min_size=1), names, names), min_size=1, max_size=6
    )
)
def test_any_text_in_a_table_reads_back(tmp_path_factory, rows):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame(rows, columns=["id", "a", "b"])
    write_csv(file, table)
    assert read_csv(file).to_numpy().tolist() == table.to_numpy().tolist()


def test_a_seed_depends_on_its_parts_and_on_nothing_else():
    parts = [
        (0, "student"),
        (1, "student"),
        (0, "round_1/fold_0"),
        (0, 1, "folds"),
        (0, "1", "folds"),
        ("01", "folds"),
    ]
    seeds = [seed_of(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**31 for seed in seeds)
    printed = [
        run_script(
            "-c",
            f"from pseudokit.system.files import seed_of; print([seed_of(*p) for p in {parts}])",
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed == [f"{seeds}\n"] * 2
