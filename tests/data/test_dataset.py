"""From CSV or folder to a dataset: splits, ids, classes and their order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Data
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset, load_dataset
from pseudokit.data.tables import ID_COLUMNS


@pytest.fixture
def files(tmp_path):
    """files(train=…, unlabeled=…, **data) → Data: a mapping becomes a CSV, a string the text of one."""

    def files(**splits) -> Data:
        keys = {}
        for split, content in splits.items():
            keys[split] = content
            if split in ("train", "unlabeled", "val", "trusted", "test") and not isinstance(
                content, Path
            ):
                keys[split] = tmp_path / f"{split}.csv"
                text = (
                    content
                    if isinstance(content, str)
                    else pd.DataFrame(content).to_csv(index=False)
                )
                keys[split].write_text(text, encoding="utf-8")
        return Data(**{key: str(value) for key, value in keys.items()})

    return files


def tree(folder: Path, *names: str) -> Path:
    """Empty image files: what is in them is not asked here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def refusal(data: Data) -> str:
    with pytest.raises(UserError) as caught:
        load_dataset(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rows(dataset: Dataset) -> list[tuple]:
    return dataset.table()[["split", "id", "given_label"]].to_records(index=False).tolist()


PETS = {"id": ["b", "a"], "label": ["dog", "cat"]}


# ---- CSV


def test_every_role_is_read_and_put_in_order_of_role_and_id(files):
    dataset = load_dataset(
        files(
            test={"id": ["t2", "t1"]},
            val={"id": ["v"], "label": ["cat"]},
            trusted={"id": ["h"], "label": ["dog"]},
            unlabeled={"id": ["p2", "p1"]},
            train=PETS,
        )
    )
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset) == [
        ("train", "a", "cat"),
        ("train", "b", "dog"),
        ("unlabeled", "p1", ""),
        ("unlabeled", "p2", ""),
        ("val", "v", "cat"),
        ("trusted", "h", "dog"),
        ("test", "t1", ""),
        ("test", "t2", ""),
    ]
    assert dataset.given_labels.tolist() == [0, 1, -1, -1, 0, 1, -1, -1]


def test_the_image_lies_beside_the_csv_or_in_image_dir(files, tmp_path):
    beside = load_dataset(files(train=PETS, image_suffix=".png"))
    assert beside.path.tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    elsewhere = load_dataset(
        files(train={"id": ["x/1.jpg", "x/2.jpg"], "label": ["p", "q"]}, image_dir="some/images")
    )
    assert elsewhere.path.tolist() == ["some/images/x/1.jpg", "some/images/x/2.jpg"]


@pytest.mark.parametrize("first", range(len(ID_COLUMNS)))
def test_the_id_column_is_the_first_of_the_usual_names_wherever_it_stands(files, first):
    assert ID_COLUMNS == ("id", "image_id", "image", "filename", "path")
    columns = {name: [f"{name}1", f"{name}2"] for name in reversed(ID_COLUMNS[first:])}
    dataset = load_dataset(files(train={"label": ["p", "q"], **columns}))
    assert dataset.id.tolist() == [f"{ID_COLUMNS[first]}1", f"{ID_COLUMNS[first]}2"]


def test_an_id_column_that_is_asked_for_beats_the_usual_names(files):
    table = {"id": ["1", "2"], "photo": ["x", "y"], "label": ["p", "q"]}
    assert load_dataset(files(train=table, id_col="photo")).id.tolist() == ["x", "y"]
    message = refusal(files(train=table, id_col="foto"))
    assert "'foto'" in message
    assert "data.id_col" in message
    assert "'photo'" in message


def test_a_table_without_an_id_column_is_refused(files):
    message = refusal(files(train={"name": ["a", "b"], "label": ["p", "q"]}))
    assert "train.csv" in message
    assert "data.id_col" in message
    assert "'name'" in message


def test_ids_and_class_names_are_text_and_nothing_is_guessed(files):
    ids, labels = ["007", "7", "1e3", "NA", "0.10"], ["NA", "nan", "null", "None", "01"]
    data = files(train={"id": ids, "label": labels})
    dataset = load_dataset(data.model_copy(update={"unlabeled_values": []}))
    assert dict(zip(dataset.id, dataset.table().given_label, strict=True)) == dict(
        zip(ids, labels, strict=True)
    )
    assert dataset.classes == tuple(sorted(labels))


def test_a_train_row_without_a_label_is_unlabeled(files):
    dataset = load_dataset(files(train="id,label\nc,\na,cat\nb,dog\nd,\n", unlabeled={"id": ["e"]}))
    assert rows(dataset) == [
        ("train", "a", "cat"),
        ("train", "b", "dog"),
        ("unlabeled", "c", ""),
        ("unlabeled", "d", ""),
        ("unlabeled", "e", ""),
    ]


def test_labels_of_unlabeled_images_are_not_read(files):
    dataset = load_dataset(
        files(train=PETS, unlabeled={"id": ["p", "q"], "label": ["cat", "whale"]})
    )
    assert dataset.classes == ("cat", "dog")
    assert rows(dataset)[2:] == [("unlabeled", "p", ""), ("unlabeled", "q", "")]


def test_another_label_column_is_read(files):
    table = {"id": ["a", "b"], "species": ["cat", "dog"]}
    assert load_dataset(files(train=table, label_col="species")).classes == ("cat", "dog")
    message = refusal(files(train=table))
    assert "train.csv" in message
    assert "'label'" in message
    assert "'species'" in message
    assert "data.label_col" in message


def test_groups_are_read_where_there_are_any(files):
    table = {"id": ["a", "b"], "label": ["p", "q"], "patient": ["07", ""]}
    dataset = load_dataset(files(train=table, unlabeled={"id": ["c"]}, group_col="patient"))
    assert dataset.group.tolist() == ["07", "", ""]
    assert "data.group_col" in refusal(files(train=table, group_col="patiens"))


def test_an_id_twice_in_one_file_is_refused_by_its_name(files):
    message = refusal(files(train={"id": ["a", "b", "a"], "label": ["p", "q", "p"]}))
    assert "'a'" in message
    assert "data.train" in message
    assert "'b'" not in message
    assert "'x'" in refusal(files(train=PETS, test={"id": ["x", "x"]}))


def test_an_id_in_train_and_unlabeled_is_refused_by_its_name(files):
    message = refusal(files(train=PETS, unlabeled={"id": ["c", "b"]}))
    assert all(part in message for part in ("'b'", "data.train", "data.unlabeled"))


def test_test_rows_may_have_no_labels_all_labels_or_some(files):
    assert (load_dataset(files(train=PETS, test={"id": ["x", "y"]})).given_labels[2:] == -1).all()
    assert load_dataset(
        files(train=PETS, test={"id": ["x", "y"], "label": ["dog", ""]})
    ).given_labels[2:].tolist() == [
        1,
        -1,
    ]


def test_a_label_that_no_train_row_has_is_refused_with_its_row(files):
    message = refusal(files(train=PETS, val={"id": ["v1", "v2"], "label": ["cat", "whale"]}))
    for part in ("data.val", "v2", "'whale'"):
        assert part in message


def test_a_scored_row_without_a_label_is_refused(files):
    for split in ("val", "trusted"):
        message = refusal(files(train=PETS, **{split: {"id": ["v1", "v2"], "label": ["cat", ""]}}))
        assert f"data.{split}" in message
        assert "v2" in message


def test_a_train_file_without_any_label_is_refused(files):
    assert "data.train" in refusal(files(train={"id": ["a", "b"], "label": ["", ""]}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"id,label\n",
        b"id,label\n1,cat\n2,dog,x,y\n",
        b"id,label\n1,caf\xe9\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
    ],
    ids=["empty", "header", "ragged", "latin-1", "an image"],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, content):
    file = tmp_path / "train.csv"
    file.write_bytes(content)
    assert str(file) in refusal(Data(train=str(file)))


def test_an_empty_id_is_refused_with_its_line(files):
    message = refusal(files(train="id,label\n1,cat\n,dog\n"))
    assert "train.csv" in message
    assert "line 3" in message


def test_a_missing_file_or_folder_is_refused_by_name(tmp_path):
    message = refusal(Data(train=str(tmp_path / "nowhere.csv")))
    assert f"data.train={tmp_path / 'nowhere.csv'}" in message


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30))
def test_the_order_of_the_rows_in_a_file_changes_nothing(tmp_path_factory, seed, n):
    folder = tmp_path_factory.mktemp("order")
    rng = np.random.default_rng(seed)
    labels = [*"ab", *rng.choice(["a", "b", "", "Na+"], n)]
    table = pd.DataFrame({"id": [f"{i}" for i in range(n + 2)], "label": labels, "g": labels})
    seen = []
    for shuffled in (table, table.sample(frac=1, random_state=seed)):
        shuffled.to_csv(folder / "train.csv", index=False)
        shuffled.assign(id="x" + shuffled.id).to_csv(folder / "test.csv", index=False)
        seen.append(
            load_dataset(
                Data(train=str(folder / "train.csv"), test=str(folder / "test.csv"), group_col="g")
            )
        )
    pd.testing.assert_frame_equal(seen[0].table(), seen[1].table())


# ---- folders


def test_a_labeled_folder_has_a_folder_for_each_class(tmp_path):
    folder = tree(
        tmp_path / "train",
        "cat/1.png",
        "dog/1.png",
        "cat/deeper/2.JPG",
        "dog/notes.txt",
        "dog/.hidden.png",
    )
    dataset = load_dataset(Data(train=str(folder)))
    assert rows(dataset) == [
        ("train", "train/cat/1.png", "cat"),
        ("train", "train/cat/deeper/2.JPG", "cat"),
        ("train", "train/dog/1.png", "dog"),
    ]
    assert dataset.path.tolist() == [
        str(folder / name) for name in ("cat/1.png", "cat/deeper/2.JPG", "dog/1.png")
    ]


def test_an_image_outside_the_class_folders_is_refused_by_name(tmp_path):
    message = refusal(Data(train=str(tree(tmp_path / "train", "cat/1.png", "stray.png"))))
    assert "stray.png" in message
    assert "<class>/<file>" in message


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    assert str(tmp_path / "train") in refusal(
        Data(train=str(tree(tmp_path / "train", "cat/1.txt")))
    )


@pytest.mark.parametrize(
    "names",
    [("1.png", "cat/1.png", "x/y/z/1.webp"), ("cat/1.png", "dog/1.png", "whale/1.png")],
    ids=["deep", "classes"],
)
def test_an_unlabeled_folder_has_any_nesting_and_no_labels(files, tmp_path, names):
    dataset = load_dataset(files(train=PETS, unlabeled=tree(tmp_path / "unlabeled", *names)))
    assert rows(dataset)[2:] == [("unlabeled", f"unlabeled/{name}", "") for name in names]


def test_equal_file_names_in_two_folders_are_two_samples(tmp_path):
    train, unlabeled = (
        tree(tmp_path / "train", "a/1.png", "b/1.png"),
        tree(tmp_path / "unlabeled", "a/1.png"),
    )
    assert len(load_dataset(Data(train=str(train), unlabeled=str(unlabeled)))) == 3


@pytest.mark.parametrize("names", [("cat/1.png", "dog/2.png"), ("cat/1.png", "dog/a/2.png")])
def test_a_test_folder_of_classes_carries_labels(files, tmp_path, names):
    dataset = load_dataset(files(train=PETS, test=tree(tmp_path / "test", *names)))
    assert [row[2] for row in rows(dataset)[2:]] == ["cat", "dog"]


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("images/1.png", "images/2.png"), ("a/b/1.png", "a/2.png")]
)
def test_a_test_folder_of_any_other_nesting_carries_none(files, tmp_path, names):
    dataset = load_dataset(files(train=PETS, test=tree(tmp_path / "test", *names)))
    assert (dataset.given_labels[2:] == -1).all()
    assert len(dataset) == 4
