"""Files of other people's probabilities: rows by id, columns by class, and every fault in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Data, Predictions
from pseudokit.config.types import UserError
from pseudokit.run_folder.prediction_files import read_prediction_files

CLASSES = ("ant", "bee", "cat")
IDS = ["007", "8", "nine", "x y"]
PROBS = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0, 0, 1], [0.25, 0.5, 0.25]])


@pytest.fixture
def table() -> pd.DataFrame:
    table = pd.DataFrame(PROBS, columns=list(CLASSES))
    table.insert(0, "id", IDS)
    return table.assign(fold=["a", "b", "a", "b"])


def read(folder: Path, name: str, classes=CLASSES, **keys):
    [file], _ = read_prediction_files(
        Predictions(labeled=str(folder / name), **keys), Data(), classes
    )
    return file


def by_id(file) -> np.ndarray:
    return np.asarray(file.values)[file.ids.get_indexer(np.array(IDS, object))]


@pytest.mark.parametrize("kind", ["csv", "parquet", "prefixed", "shuffled"])
def test_a_table_is_read_by_the_names_of_its_rows_and_columns(tmp_path, table, kind):
    if kind == "prefixed":
        table = table.rename(columns={name: f"p_{name}" for name in CLASSES}).assign(ant="noise")
    if kind == "shuffled":
        table = table.sample(frac=1, random_state=3)[["cat", "fold", "ant", "id", "bee"]]
    if kind == "parquet":
        table.to_parquet(tmp_path / "oof.parquet")
        file = read(tmp_path, "oof.parquet", fold_col="fold")
    else:
        table.to_csv(tmp_path / "oof.csv", index=False)
        file = read(tmp_path, "oof.csv", fold_col="fold")
    assert (by_id(file) == PROBS).all()
    assert file.folds[file.ids.get_indexer(np.array(IDS, object))].tolist() == ["a", "b", "a", "b"]
    assert file.ids.get_indexer(np.array(["nobody"], object)).tolist() == [-1]


@pytest.mark.parametrize("ids", ["ids.txt", "ids.csv"])
def test_an_array_has_its_ids_beside_it(tmp_path, table, ids):
    order = [2, 0, 3, 1]
    np.save(tmp_path / "oof.npy", PROBS[order])
    table = table.iloc[order]
    table[["id", "fold"]].to_csv(tmp_path / "ids.csv", index=False)
    (tmp_path / "ids.txt").write_text("\n".join(table.id) + "\n")
    file = read(tmp_path, "oof.npy", ids=str(tmp_path / ids))
    assert (by_id(file) == PROBS).all()


def test_each_array_has_its_own_ids(tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", PROBS)
        (tmp_path / f"{name}.txt").write_text("\n".join(name + row for row in IDS))
    keys = {
        key: [str(tmp_path / f"{name}.{suffix}") for name in names]
        for key, suffix, names in (
            ("labeled", "npy", "a"),
            ("unlabeled", "npy", "b"),
            ("ids", "txt", "ab"),
        )
    }
    [labeled], [unlabeled] = read_prediction_files(Predictions(**keys), Data(), CLASSES)
    assert labeled.ids[0] == "a007"
    assert unlabeled.ids[0] == "b007"


NOT_NUMBERED = ("1", "10", "2")
FAULTY_TABLES = {
    "twice": lambda table: table.assign(id=["007", "8", "8", "x y"]),
    "class": lambda table: table.drop(columns="bee"),
    "fold": lambda table: table.assign(fold=["a", "", "a", "b"]),
    "fold_col": lambda table: table.drop(columns="fold"),
    "folds": lambda table: pd.concat([table] * 50).assign(id=range(200), fold=range(200)),
}
FAULTY_ARRAYS = {
    "columns": (PROBS[:, :2], IDS, {}),
    "vector": (PROBS[0], IDS, {}),
    "rows": (PROBS, IDS[:3], {}),
    "no ids": (PROBS, IDS, {"ids": None}),
    "objects": (PROBS.astype(object), IDS, {}),
    "order": (PROBS, IDS, {"classes": NOT_NUMBERED}),
}


@pytest.mark.parametrize("fault", FAULTY_TABLES)
def test_a_table_that_cannot_be_matched_is_refused_with_its_name(tmp_path, table, fault):
    FAULTY_TABLES[fault](table).to_csv(tmp_path / "oof.csv", index=False)
    with pytest.raises(UserError, match=str(tmp_path / "oof.csv")):
        read(tmp_path, "oof.csv", fold_col="fold")


@pytest.mark.parametrize("fault", FAULTY_ARRAYS)
def test_an_array_that_cannot_be_matched_is_refused_with_its_name(tmp_path, fault):
    probs, ids, keys = FAULTY_ARRAYS[fault]
    np.save(tmp_path / "oof.npy", probs)
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    with pytest.raises(UserError, match=str(tmp_path / "oof.npy")):
        read(tmp_path, "oof.npy", **{"ids": str(tmp_path / "ids.txt"), **keys})


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv"):
        read(tmp_path, "gone.csv")
