"""Tables and folders in the layouts that competitions have."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from pseudokit.config.keys import Data
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.data.csv_text import find_separator
from pseudokit.data.dataset import load_dataset
from pseudokit.data.tables import read_split
from tests.conftest import ROOT


@pytest.fixture
def competition(tmp_path):
    """competition(files, **columns) → (folder, Data): empty image files, and train.csv beside them."""

    def make(*files: str, **columns) -> tuple[Path, Data]:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        pd.DataFrame(columns).to_csv(tmp_path / "train.csv", index=False)
        return tmp_path, Data(train=str(tmp_path / "train.csv"), image_dir=str(tmp_path / "images"))

    return make


def below(data: Data, folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in read_split(data, "train").path]


def refusal(data: Data, load=load_dataset) -> str:
    with pytest.raises(UserError) as caught:
        load(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


LABELS = {"label": ["cat", "dog"]}


def test_ids_without_a_suffix_find_their_images(competition):
    folder, data = competition("images/a.jpg", "images/b.png", id=["b", "a"], **LABELS)
    assert below(data, folder) == ["images/b.png", "images/a.jpg"]


def test_images_in_nested_folders_are_found_by_name(competition):
    folder, data = competition("images/x/1/a.jpg", "images/y/b.jpg", id=["a", "b.jpg"], **LABELS)
    assert below(data, folder) == ["images/x/1/a.jpg", "images/y/b.jpg"]


def test_images_in_several_folders_are_found_in_any_of_them(competition):
    folder, data = competition("left/a.jpg", "right/b.jpg", id=["a.jpg", "b.jpg"], **LABELS)
    both = data.model_copy(update={"image_dir": [str(folder / "left"), str(folder / "right")]})
    assert below(both, folder) == ["left/a.jpg", "right/b.jpg"]


def test_the_path_that_the_id_names_beats_the_same_name_elsewhere(competition):
    folder, data = competition("images/x/a.jpg", "images/y/a.jpg", id=["y/a", "x/a.jpg"], **LABELS)
    assert below(data, folder) == ["images/y/a.jpg", "images/x/a.jpg"]


@pytest.mark.parametrize("folders", [1, 2])
def test_the_whole_name_beats_the_same_name_before_a_suffix(competition, folders):
    folder, data = competition("images/s/a.png", "images/s/a.png.jpg", id=["a.png"], label=["cat"])
    (folder / "more").mkdir()
    image_dir = [data.image_dir, str(folder / "more")][:folders]
    assert below(data.model_copy(update={"image_dir": image_dir}), folder) == ["images/s/a.png"]


def test_a_sign_within_a_quoted_name_of_the_header_separates_nothing(tmp_path):
    (tmp_path / "train.csv").write_text('id,label,"t;x;y;z"\na,cat,1\nb,dog,2\n')
    table = read_split(Data(train=str(tmp_path / "train.csv")), "train")
    assert list(table.label) == ["cat", "dog"]


def test_the_names_of_a_long_header_are_all_read():
    names = [f"a column with a long name, number {i}" for i in range(40_000)]
    header = ";".join(f'"{name}"' for name in names)
    assert find_separator("", f"\r\n{header}\r\n{';' * 39_999}\r\n") == (";", names)


def test_an_id_that_names_two_images_is_refused(competition):
    _, data = competition(
        "images/x/a.jpg", "images/y/a.jpg", "images/b.jpg", id=["a", "b"], **LABELS
    )
    message = refusal(data)
    assert "'a'" in message
    assert "x/a.jpg" in message
    assert "y/a.jpg" in message


def test_one_hot_columns_name_the_class_and_rows_without_a_one_are_unlabeled(competition):
    columns = {"cat": ["1", "0", "0"], "dog": ["0", "1.0", ""]}
    _, data = competition(id=["a", "b", "c"], **columns)
    dataset = load_dataset(data.model_copy(update={"label_col": ["cat", "dog"]}))
    assert dataset.table()[["id", "split", "given_label"]].to_numpy().tolist() == [
        ["a", "train", "cat"],
        ["b", "train", "dog"],
        ["c", "unlabeled", ""],
    ]


@pytest.mark.parametrize("row", [("1", "1"), ("0.5", "0.5"), ("yes", "0")])
def test_a_row_that_is_not_one_hot_is_refused_with_its_line(competition, row):
    _, data = competition(id=["a", "b"], cat=["1", row[0]], dog=["0", row[1]])
    message = refusal(data.model_copy(update={"label_col": ["cat", "dog"]}))
    assert "line 3" in message
    assert "cat, dog" in message


def test_a_missing_one_hot_column_is_named(competition):
    _, data = competition(id=["a"], cat=["1"])
    assert "'dog'" in refusal(data.model_copy(update={"label_col": ["cat", "dog"]}))


def test_a_parquet_file_reads_as_the_csv_of_the_same_table(tmp_path):
    table = pd.DataFrame({"id": ["007", "b", "c"], "label": [3, 1, None], "group": [1.5, 2.0, 3.0]})
    table.to_parquet(tmp_path / "train.parquet")
    pd.DataFrame({"id": ["007", "b", "c"], "label": ["3", "1", ""]}).to_csv(
        tmp_path / "train.csv", index=False
    )
    tables = [
        read_split(Data(train=str(tmp_path / f"train.{kind}")), "train")
        for kind in ("parquet", "csv")
    ]
    columns = ["id", "label", "path"]
    assert tables[0][columns].to_numpy().tolist() == tables[1][columns].to_numpy().tolist()


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "train.parquet").write_text("id,label\na,b\n")
    assert "train.parquet" in refusal(Data(train=str(tmp_path / "train.parquet")))


def test_the_target_of_a_regression_is_refused_and_classes_that_are_numbers_are_not(competition):
    n = 60
    ids = [str(i) for i in range(n)]
    message = refusal(competition(id=ids, label=[i / 7 for i in range(n)])[1])
    assert "train.csv" in message
    assert "'label'" in message
    assert len(load_dataset(competition(id=ids, label=[i % 30 for i in range(n)])[1]).classes) == 30
    assert (
        len(load_dataset(competition(id=ids, label=[(i % 3) / 2 for i in range(n)])[1]).classes)
        == 3
    )


@pytest.mark.parametrize(
    ("typed", "value"), [("007", "007"), ("[cat, dog]", ["cat", "dog"]), ("a b", "a b")]
)
def test_a_text_key_that_may_be_a_list_is_taken_as_typed_or_read_as_one(typed, value):
    config = load_config(
        ROOT / "configs" / "default.yaml", [f"data.label_col={typed}", f"data.image_dir={typed}"]
    )
    assert (config.data.label_col, config.data.image_dir) == (value, value)


def test_a_file_without_suffix_that_the_id_names_beats_the_same_name_elsewhere(competition):
    made = competition(
        "images/7", "images/thumbs/7.png", "images/thumbs/6.png", id=["6", "7"], label=["x", "y"]
    )
    assert below(made[1], made[0]) == ["images/thumbs/6.png", "images/7"]


@pytest.mark.parametrize("order", [["900", "000"], ["000", "900"]])
def test_images_are_found_whichever_row_stands_first(competition, order):
    folder, data = competition("images/000.png", "images/sub/900.png", id=order, label=["x", "y"])
    data = data.model_copy(update={"image_suffix": ".png"})
    assert sorted(below(data, folder)) == ["images/000.png", "images/sub/900.png"]


def test_rows_that_an_open_quote_takes_in_are_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="kit")
    table = tmp_path / "train.csv"
    table.write_text('id,label,by\n000,cat,"p1\n001,dog,p2\n002,cat,p"\n003,dog,p4\n')
    assert list(read_split(Data(train=str(table)), "train").id) == ["000", "003"]
    warnings = [line for line in caplog.messages if line.startswith("warning")]
    assert sum("train.csv" in line for line in warnings) == 1
    assert "'by'" in caplog.text


def test_files_that_are_no_images_are_told_and_a_class_of_them_is_refused(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="kit")
    for name in ("set/cat/0.png", "set/cat/notes.txt", "set/dog/0.JFIF", "set/about.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data = Data(train=str(tmp_path / "set"))
    assert set(read_split(data, "train").label) == {"cat", "dog"}
    assert str(tmp_path / "set") in caplog.text
    assert "about.md" in caplog.text
    (tmp_path / "set" / "owl").mkdir()
    (tmp_path / "set" / "owl" / "0.heic").touch()
    assert str(tmp_path / "set" / "owl") in refusal(data)


def test_a_parquet_file_has_no_columns_of_lists_or_bytes(tmp_path):
    table = pd.DataFrame(
        {"id": [1, 2], "label": ["x", "y"], "box": [[1], [2]], "raw": [b"a", b"b"]}
    )
    table.to_parquet(tmp_path / "train.parquet")
    data = Data(train=str(tmp_path / "train.parquet"))
    assert read_split(data, "train").id.tolist() == ["1", "2"]
    for name in ("box", "raw"):
        message = refusal(data.model_copy(update={"label_col": name}))
        assert repr(name) in message
        assert "data.label_col" in message
