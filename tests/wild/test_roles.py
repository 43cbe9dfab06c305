"""A file has one role, a sample submission is no truth, and a run predicts with all that it was finished with."""

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Config, Data
from pseudokit.config.load import dump_config, load_config
from pseudokit.config.types import UserError
from pseudokit.data.dataset import load_dataset
from pseudokit.data.encoding import names
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.predict_runs import (
    FinishedRun,
    open_finished,
    predicting_models,
    read_targets,
)
from pseudokit.run_folder.submission import check_submission
from pseudokit.system.files import write_json
from tests.naming import is_one_line
from tests.naming import names as named

IDS = [f"{i:04d}" for i in range(24)]
MEANT = ["malignant" if i % 3 else "normal" for i in range(24)]
"""Of train; in test the other class has the same file names."""
OTHER = {"malignant": "normal", "normal": "malignant"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """train/0000.png … and test/0000.png …: bright is malignant."""
    folder, rng = tmp_path_factory.mktemp("layout"), np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir()
        for name, label in zip(IDS, MEANT, strict=True):
            is_bright = (label == "malignant") == (split == "train")
            pixels = rng.integers(0, 90, (16, 16), np.uint8) + 150 * np.uint8(is_bright)
            cv2.imwrite(str(folder / split / f"{name}.png"), pixels)
    (folder / "linked").symlink_to(folder / "train")
    write(folder, "train.csv", label=MEANT)
    write(folder, "ids.csv")
    write(folder, "sample.csv", label=["normal"] * 24)
    return folder


def write(folder, name, ids=IDS, **columns):
    pd.DataFrame({"id": ids} | columns).to_csv(folder / name, index=False)
    return str(folder / name)


def load(folder, train="train.csv", **keys):
    """The dataset of tables in this folder."""
    tables = {
        key: str(folder / value) if str(value).endswith(".csv") else value
        for key, value in keys.items()
    }
    return load_dataset(Data(train=str(folder / train), **tables))


def labels_of(dataset, split):
    rows = dataset.split == split
    texts = names(dataset.given_labels, dataset.classes)[rows]
    return dict(zip(dataset.id[rows], texts, strict=True))


def refusal(read, *parts):
    with pytest.raises(UserError) as caught:
        read()
    line = str(caught.value)
    assert is_one_line(line)
    assert named(line, *parts), line


# ---- one file, one role


@pytest.mark.parametrize(
    ("split", "again"),
    [
        ("test", "train"),
        ("test", "linked"),
        ("val", "./train/"),
        ("trusted", "train"),
        ("unlabeled", "linked"),
    ],
)
def test_a_row_that_resolves_to_a_file_of_train_is_refused(files, split, again):
    table = write(files, "other.csv", [f"{name}.png" for name in IDS], label=MEANT[::-1])
    folders = {"train": str(files / "train"), split: str(files / again)}
    keys = {split: table, "image_dir": folders}
    refusal(lambda: load(files, **keys), f"data.{split}", "data.image_dir", "data.train", 24)


def test_one_row_in_two_roles_is_enough(files):
    table = write(files, "partly.csv", ["0003"])
    keys = {"test": table, "image_dir": str(files / "train")}
    refusal(lambda: load(files, **keys), "0003", "data.test")
    assert len(load(files, **keys, learn_from_test="copies")) == 25


def test_an_unlabeled_file_is_not_scored(files):
    some = write(files, "some.csv", IDS[:4], label=MEANT[:4])
    unlabeled = write(files, "unlabeled.csv", IDS[4:])
    val = write(files, "val.csv", [f"{IDS[9]}.png"], label=["normal"])
    keys = {"train": some, "unlabeled": unlabeled, "val": val, "image_dir": str(files / "train")}
    refusal(lambda: load(files, **keys), "data.val", "data.unlabeled")
    del keys["val"]
    dataset = load(files, test=unlabeled, **keys)
    assert (dataset.split == "test").sum() == 20, "data.learn_from_test allows that"


def test_each_role_has_its_own_folder(files):
    folders = {"train": str(files / "train"), "test": [str(files / "test")]}
    dataset = load(files, test="ids.csv", image_dir=folders)
    for split in ("train", "test"):
        rows = dataset.split == split
        assert list(dataset.path[rows]) == [f"{files / split}/{name}.png" for name in IDS]
    assert labels_of(dataset, "train") == dict(zip(IDS, MEANT, strict=True))
    val = write(files, "val.csv", IDS[-2:], label=MEANT[-2:])
    train = write(files, "first.csv", IDS[:-2], label=MEANT[:-2])
    dataset = load(files, train, val=val, test="ids.csv", image_dir=folders)
    assert {*dataset.path[dataset.split == "val"]} == {f"{files}/train/{i}.png" for i in IDS[-2:]}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("{train: a, test: [b, c]}", {"train": "a", "test": ["b", "c"]}),
        ("a", "a"),
        ("[a, b]", ["a", "b"]),
    ],
)
def test_folders_of_roles_can_be_typed(tmp_path, typed, meant):
    (tmp_path / "c.yaml").write_text("")
    assert load_config(tmp_path / "c.yaml", [f"data.image_dir={typed}"]).data.image_dir == meant


def test_a_role_that_is_none_is_refused(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {image_dir: {tset: a}}")
    refusal(lambda: load_config(tmp_path / "c.yaml", []), "data.image_dir")


def test_predict_refuses_a_table_that_leads_to_the_learned_images(files, tmp_path):
    data = Data(train=str(files / "train.csv"), image_dir=str(files / "train"), image_suffix=".png")
    run = FinishedRun(tmp_path, Config(data=data), [])
    load_dataset(data).table().to_csv(tmp_path / "samples.csv", index=False)
    ids, all_ids = str(files / "ids.csv"), write(files, "more.csv", [*IDS, "new"])
    refusal(lambda: read_targets(run, ids), "--data", "data.train")
    meant = (str(files / "train.csv"), str(files / "train"), str(files / "test"), all_ids)
    assert [len(read_targets(run, source)) for source in meant] == [24, 24, 24, 25]
    own = data.model_copy(
        update={"image_dir": {"train": str(files / "train"), "test": str(files / "test")}}
    )
    targets = read_targets(run._replace(config=Config(data=own)), ids)
    assert list(targets.path) == [f"{files}/test/{name}.png" for name in IDS]


# ---- a sample submission is no truth; one class in several spellings


@pytest.mark.parametrize("value", ["malignant", "0.5", ""])
def test_a_label_that_is_the_same_in_all_rows_of_test_is_no_truth(files, value):
    sample = write(files, "constant.csv", label=[value] * 24)
    folders = {"train": str(files / "train"), "test": str(files / "test")}
    assert {*labels_of(load(files, test=sample, image_dir=folders), "test").values()} == {""}


@pytest.mark.parametrize(
    ("cells", "multi_label"),
    [
        ((0.5, 0.5), False),
        ((0.5, 0.5), True),
        ((0, 0), True),
        ((False, False), False),
        ((1, 0), False),
    ],
)
def test_so_it_is_with_a_column_a_class(files, cells, multi_label):
    keys = {
        "train": write(files, "hot.csv", cat=[1, 0] * 12, dog=[0, 1] * 12),
        "test": write(files, "constant.csv", cat=[cells[0]] * 24, dog=[cells[1]] * 24),
        "image_dir": {"train": str(files / "train"), "test": str(files / "test")},
    }
    dataset = load(files, **keys, label_col=["cat", "dog"], multi_label=multi_label)
    assert {*labels_of(dataset, "test").values()} == {""}


def test_other_labels_of_test_are_truth(files):
    truth = [OTHER[label] for label in MEANT]
    test = write(files, "truth.csv", label=truth)
    folders = {"train": str(files / "train"), "test": str(files / "test")}
    dataset = load(files, test=test, image_dir=folders)
    assert labels_of(dataset, "test") == dict(zip(IDS, truth, strict=True))
    one_row = write(files, "truth.csv", IDS[:1], label=truth[:1])
    assert labels_of(load(files, test=one_row, image_dir=folders), "test") == {IDS[0]: truth[0]}


@pytest.mark.parametrize(
    ("classes", "spelled"),
    [
        (["0.0", "1.0"], ["0", "1"]),
        (["0", "1"], ["0.0", "1.0"]),
        (["False", "True"], ["FALSE", "TRUE"]),
        (["False", "True"], ["0", "1"]),
        (["01", "02"], ["1", "2"]),
        (["-1", "1"], ["-1.0", "1.0"]),
        (["a", "b"], ["a ", " b"]),
    ],
)
def test_scored_labels_are_those_of_train_in_another_spelling(files, classes, spelled):
    keys = {
        "train": write(files, "t.csv", IDS[:20], label=classes * 10),
        "val": write(files, "v.csv", IDS[20:], label=spelled * 2),
        "image_dir": str(files / "train"),
    }
    assert list(labels_of(load(files, **keys), "val").values()) == classes * 2


@pytest.mark.parametrize(
    ("classes", "label"),
    [(["01", "1"], "001"), (["a", "b"], "A"), (["1", "2"], "1,000"), (["1", "2"], "3.0")],
)
def test_a_label_that_fits_no_class_or_several_is_refused(files, classes, label):
    keys = {
        "train": write(files, "t.csv", IDS[:20], label=classes * 10),
        "val": write(files, "v.csv", IDS[20:], label=[label, *classes, label]),
        "image_dir": str(files / "train"),
    }
    refusal(lambda: load(files, **keys), "data.val", repr(label))


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "false"), ("1.0", "0.0")])
def test_one_hot_columns_may_hold_truth_values(files, words):
    yes, no = words
    train = write(files, "hot.csv", cat=[yes, no] * 12, dog=[no, yes] * 12)
    dataset = load(files, train, label_col=["cat", "dog"], image_dir=str(files / "train"))
    assert list(labels_of(dataset, "train").values()) == ["cat", "dog"] * 12


# ---- before and after a run


@pytest.mark.parametrize(
    ("keys", "named_parts"),
    [
        ({}, ()),
        ({"submission_positive": "benign"}, ("data.submission_positive=benign",)),
        ({"test": None}, ("data.submission", "data.test")),
    ],
)
def test_a_submission_is_checked_before_training(files, keys, named_parts):
    data = {
        "train": str(files / "train.csv"),
        "test": str(files / "sample.csv"),
        "submission": write(files, "asked.csv", Malignant=[0] * 24),
        "image_dir": {"train": str(files / "train"), "test": str(files / "test")},
    }
    config = Config(name="x", data=data | keys)
    dataset = load_dataset(config.data)
    if named_parts:
        refusal(lambda: check_submission(dataset, config), *named_parts)
    else:
        check_submission(dataset, config)


def test_a_run_that_lost_a_model_does_not_predict(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(Config()))
    Run(tmp_path, "train", Config()).write_status("done", "done")
    for name in ("student", "round_1/fold_0", "round_1/fold_1"):
        write_json(tmp_path / name / "model.json", {})
    models = predicting_models(tmp_path)
    assert len(models) == 3
    write_json(tmp_path / "metrics.json", {"models": models})
    for name in models:
        (tmp_path / name).rename(tmp_path / "away")
        refusal(lambda: open_finished(tmp_path), f"--run {tmp_path}", name)
        (tmp_path / "away").rename(tmp_path / name)
