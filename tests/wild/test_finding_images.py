"""The image of a row is found where exactly one fits. If there is none, the cause is named."""

import logging
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Data
from pseudokit.config.types import UserError
from pseudokit.data.images import load_images
from pseudokit.data.tables import read_split
from tests.naming import refused
from tests.wild.common import saved


@pytest.fixture
def data_of(tmp_path, caplog):
    """data_of(files, **columns) → Data: empty image files below images/, and train.csv with these columns."""
    caplog.set_level(logging.INFO, logger="kit")

    def data_of(*files: str, keys: dict | None = None, **columns) -> Data:
        for file in files:
            path = tmp_path / "images" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        table = pd.DataFrame(columns)
        table["label"] = ["cat", "dog", "owl"][: len(table)]
        table.to_csv(tmp_path / "train.csv", index=False)
        return Data(
            train=str(tmp_path / "train.csv"), image_dir=str(tmp_path / "images"), **keys or {}
        )

    return data_of


def found(data: Data) -> list[str]:
    return [str(Path(path).relative_to(data.image_dir)) for path in read_split(data, "train").path]


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
SPELLED = {
    "backslashes": (["x\\a.png", "x\\b.png"], ["x/a.png", "x/b.png"]),
    "backslashes from here": ([".\\a.png", ".\\b"], ["a.png", "b.png"]),
    "suffix in capitals": (["a.jpg", "b.jpg"], ["a.JPG", "b.JPG"]),
    "name in capitals": (["IMG_A", "IMG_B"], ["img_a.png", "img_b.png"]),
    "folder in capitals": (["X/a.png", "X/b.png"], ["x/a.png", "x/b.png"]),
    "composed": ([NFC, NFC + "2.png"], [NFD + ".png", NFD + "2.png"]),
    "decomposed": ([NFD, NFD + "2.png"], [NFC + ".png", NFC + "2.png"]),
    "zeros lost": (["0", "17"], ["000.png", "017.png"]),
    "zeros lost and floats": (["0.0", "17.0"], ["000.png", "017.png"]),
    "zeros lost before a suffix": (["x/0.png", "x/17.png"], ["x/000.png", "x/017.png"]),
    "zeros added": (["007", "008"], ["7.png", "8.png"]),
    "blanks": ([" a", "b.png "], ["a.png", "b.png"]),
    "several at once": (["X\\7.JPG", "X\\8.JPG"], ["x/007.jpg", "x/008.jpg"]),
}


@pytest.mark.parametrize("name", SPELLED)
def test_an_image_that_is_spelled_otherwise_is_found_and_told_once(data_of, caplog, name):
    ids, files = SPELLED[name]
    data = data_of(*files, "other.png", id=ids)
    table = read_split(data, "train")
    assert found(data) == files
    assert table.id.tolist() == ids
    assert "2 images" in table.attrs["taken_for"]
    assert table.attrs["taken_for"] in caplog.text


def test_what_is_spelled_right_is_found_without_a_word(data_of):
    data = data_of("7.png", "007.png", "A.png", "a.png", id=["007", "a", "7"])
    assert found(data) == ["007.png", "a.png", "7.png"]
    assert "spelling" not in read_split(data, "train").attrs["taken_for"]


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (["7", "8"], ["007.png", "07.png", "8.png"]),
        (["B.PNG", "c"], ["x/b.png", "y/b.png", "c.png"]),
        (["A.JPG", "c"], ["a.jpg", "A.jpg", "c.png"]),
    ],
)
def test_a_name_that_several_fit_is_refused(data_of, ids, files):
    refused(lambda: found(data_of(*files, id=ids)), repr(ids[0]), "2")


@pytest.mark.parametrize(
    "ids", [["7", "007"], ["a", "A"], ["x/a", "x\\a"], ["a.png", "a"], ["7", "7.0"]]
)
def test_two_rows_never_share_an_image(data_of, ids):
    message = refused(lambda: found(data_of("007.png", "x/a.png", id=ids)), "train.csv")
    assert all(repr(name) in message for name in ids)


NAMES = st.text(alphabet="aAbB01.é\u0301\\/ _", min_size=1, max_size=5).filter(
    lambda name: (
        not set(name.replace("\\", "/").split("/")) & {"", ".", ".."}
        and not name.startswith((".", " "))
        and "/." not in name.replace("\\", "/")
    )
)


def plain(name: str) -> str:
    """What is left of a name when all that programs change is taken away."""
    letters = unicodedata.normalize("NFC", name.replace("\\", "/")).lower().removesuffix(".png")
    return letters.strip().rpartition("/")[2].removesuffix(".0").lstrip("0")


@given(
    files=st.lists(
        st.text(alphabet="aAbB01é", min_size=1, max_size=3), min_size=1, max_size=6, unique=True
    ),
    ids=st.lists(NAMES, min_size=1, max_size=4, unique=True),
)
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_image_is_another_spelling_of_its_id_or_there_is_none(tmp_path_factory, files, ids):
    folder = tmp_path_factory.mktemp("found")
    for name in files:
        (folder / f"{name}.png").touch()
    table = pd.DataFrame({"id": ids, "label": "x"})
    table.to_csv(folder / "t.csv", index=False)
    try:
        paths = read_split(Data(train=str(folder / "t.csv")), "train").path.tolist()
    except UserError:
        return
    assert len({*paths}) == len(paths)
    for name, path in zip(ids, paths, strict=True):
        if Path(path).is_file():
            assert plain(Path(path).name) == plain(name)
        else:
            assert not (folder / f"{name}.png").is_file()


# ---- several columns that may be the id


def test_a_column_of_file_names_finds_the_images_and_the_ids_stay(data_of):
    for column in ("filename", "image", "picture"):
        names = {column: ["x/a.png", "b.png"]}
        data = data_of("x/a.png", "b.png", id=["1", "2"], **names)
        assert found(data) == ["x/a.png", "b.png"]
        table = read_split(data, "train")
        assert table.id.tolist() == ["1", "2"]
        assert table.label.tolist() == ["cat", "dog"]
        assert repr(column) in table.attrs["taken_for"]
        assert found(data_of(keys={"id_col": "id"}, id=["1", "2"], **names)) == ["x/a.png", "b.png"]


def test_a_column_of_file_names_may_have_gaps(data_of):
    data = data_of("a.png", "b.png", id=["1", "2", "3"], filename=["", "a.png", "b.png"])
    assert found(data)[1:] == ["a.png", "b.png"]


def test_an_image_that_is_missing_is_looked_for_where_the_others_are(data_of):
    data = data_of("a.png", id=["1", "2"], filename=["a.png", "b.png"])
    assert found(data) == ["a.png", "b.png"]


def test_two_columns_that_name_different_images_are_refused_until_one_is_chosen(data_of):
    columns = {"id": ["0", "1"], "filename": ["1.png", "0.png"]}
    refused(
        lambda: found(data_of("0.png", "1.png", **columns)),
        "train.csv",
        "'filename'",
        "data.id_col",
    )
    for chosen, files in {"id": ["0.png", "1.png"], "filename": ["1.png", "0.png"]}.items():
        assert found(data_of(keys={"id_col": chosen}, **columns)) == files


def test_columns_that_name_the_same_images_and_other_numbers_are_no_question(data_of):
    files = ["0.png", "1.png"]
    assert found(data_of(*files, id=["0", "1"], filename=files)) == files
    assert found(data_of(*files, id=["0", "1"], age=["1", "0"])) == files
    assert found(data_of(*files, id=["0", "1"], image_id=["patient 7", "patient 9"])) == files


# ---- why there is no image


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("https://example.org/a.png", None, "address"),
        ("s3://bucket/a.png", None, "address"),
        ("gone/a.png", None, "data.image_dir"),
        ("a.jpg", None, "a.png"),
        ("nowhere.png", None, "missing"),
        ("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        ("page.png", b"\n<!doctype html>", "web page"),
        ("empty.png", b"", "empty"),
        ("photo.png", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        ("torn.png", saved("PNG")[:60], "damaged"),
        ("text.png", b"no image at all", "not an image"),
    ],
)
@pytest.mark.parametrize("some_are_there", [True, False])
def test_the_cause_is_named(data_of, tmp_path, name, content, cause, some_are_there):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(saved("PNG"))
    if content is not None:
        (tmp_path / "images" / name).write_bytes(content)
    paths = read_split(data_of(id=[name, "a"]), "train").path.to_numpy(object)
    used = paths if some_are_there else paths[:1]
    message = refused(lambda: load_images(used, Data()), name)
    assert cause in message


# ---- a folder of splits


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Valid"),
        ("training", "validation"),
        ("train", "test", "notes"),
        ("train_images", "test_images"),
        ("val", "test"),
        ("train",),
        ("train", "unlabeled"),
        ("train", "eval"),
        ("archive/train", "archive/test"),
    ],
)
def test_a_folder_of_splits_is_refused_with_the_keys(tmp_path, names):
    for name in names:
        for label in ("cat", "dog"):
            (tmp_path / "set" / name / label).mkdir(parents=True)
            (tmp_path / "set" / name / label / "0.png").touch()
    data = Data(train=str(tmp_path / "set"))
    refused(lambda: read_split(data, "train"), "data.train", "data.val", "data.test")
    below = data.model_copy(update={"train": str(tmp_path / "set" / names[0])})
    assert set(read_split(below, "train").label) == {"cat", "dog"}


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus", "car"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.png").touch()
    assert set(read_split(Data(train=str(tmp_path / "set")), "train").label) == {
        "train",
        "bus",
        "car",
    }
