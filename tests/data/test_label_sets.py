"""Multi-labels as tables have them: names with signs between them, one-hot columns, unknown answers; folds of them."""

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Config, Data, Simulate
from pseudokit.config.types import UserError
from pseudokit.data.dataset import load_dataset
from pseudokit.data.encoding import strata
from pseudokit.data.folds import fold_table, make_folds
from pseudokit.data.simulate import hide_labels, inject_noise
from pseudokit.run_folder.prepare import check_dataset


def read(tmp_path, text, **keys):
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    return load_dataset(Data(train=str(tmp_path / "train.csv"), multi_label=True, **keys))


def test_names_with_a_sign_between_them(tmp_path):
    dataset = read(
        tmp_path, "id,label\n1,cat dog\n2,dog\n3,(none)\n4,\n5,owl ?cat\n6,cat dog owl\n"
    )
    assert dataset.classes == ("cat", "dog", "owl")
    given_labels = dict(zip(dataset.id, dataset.given_labels.tolist(), strict=True))
    assert given_labels == {
        "1": [1, 1, 0],
        "2": [0, 1, 0],
        "3": [0, 0, 0],
        "4": [-1, -1, -1],
        "5": [-1, 0, 1],
        "6": [1, 1, 1],
    }
    assert dataset.split[list(dataset.id).index("4")] == "unlabeled"


def test_names_with_blanks_want_another_sign(tmp_path):
    dataset = read(tmp_path, "id,label\n1,Mass|Pleural Effusion\n2,Mass\n", label_sep="|")
    assert dataset.classes == ("Mass", "Pleural Effusion")
    assert dataset.table().given_label.tolist() == ["Mass|Pleural Effusion", "Mass"]


def test_one_hot_columns_are_the_classes_and_an_empty_cell_is_not_known(tmp_path):
    text = "id,dog,cat,owl\n1,1,1,0\n2,0,,1.0\n3,0,0,0\n4,,,\n"
    dataset = read(tmp_path, text, label_col=["dog", "cat", "owl"])
    assert dataset.classes == ("cat", "dog", "owl")
    given_labels = dict(zip(dataset.id, dataset.given_labels.tolist(), strict=True))
    assert given_labels == {"1": [1, 1, 0], "2": [-1, 0, 1], "3": [0, 0, 0], "4": [-1, -1, -1]}


def test_a_one_hot_column_whose_name_has_a_blank_is_one_class(tmp_path):
    dataset = read(tmp_path, "id,big cat,dog\n1,1,1\n2,0,1\n", label_col=["big cat", "dog"])
    assert dataset.classes == ("big cat", "dog")
    assert dataset.given_labels.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("name", ["a|b", "?", "?cat dog|"])
def test_a_class_that_could_be_another_sign_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"data\.train=.*train\.csv"):
        read(tmp_path, f"id,x,{name}\n1,1,1\n", label_col=["x", name])


def test_a_name_that_no_train_row_has_is_refused(tmp_path):
    (tmp_path / "test.csv").write_text("id,label\n9,cat cow\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.test.*9.*'cat cow'"):
        read(tmp_path, "id,label\n1,cat\n2,dog\n", test=str(tmp_path / "test.csv"))


def test_every_class_needs_rows_with_it_and_without_it(tmp_path):
    dataset = read(tmp_path, "id,label\n1,cat dog\n2,cat dog\n3,cat\n")
    with pytest.raises(UserError, match=r"'cat'.*data\.train.*pseudo\.folds=2"):
        check_dataset(dataset, Config(), "train")
    with pytest.raises(UserError, match="metric=kappa"):
        check_dataset(
            read(tmp_path, "id,label\n1,a\n2,a\n3,b\n4,b\n"), Config(metric="kappa"), "train"
        )


@pytest.fixture
def many(tmp_path):
    answers = (np.random.default_rng(0).random((600, 4)) < (0.05, 0.2, 0.5, 0.8)).astype(int)
    table = pd.DataFrame(answers, columns=["a", "b", "c", "d"]).assign(
        id=[f"{i:03d}" for i in range(600)]
    )
    return read(tmp_path, table.to_csv(index=False), label_col=["a", "b", "c", "d"])


@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_spread_evenly_over_folds_the_rarest_best(many, seed):
    folds = make_folds(many.given_labels, np.arange(600), 5, seed)
    table = fold_table(many.given_labels, folds, many.classes)
    assert table.sum(axis=1).tolist() == many.given_labels.sum(0).tolist()
    assert np.ptp(table.loc["a"]) <= 1
    assert (table.max(axis=1) < 1.5 * table.min(axis=1).clip(lower=4)).all()


def test_a_flip_turns_one_answer_and_the_truth_is_on_file(many):
    noisy, truth = inject_noise(many, Simulate(noise="symmetric", noise_rate=0.1), 1)
    assert (noisy.given_labels != many.given_labels).sum() == 240
    assert set(np.unique(noisy.given_labels)) == {0, 1}
    changed = (noisy.given_labels != many.given_labels).any(1)
    assert (truth.clean != truth.given_label).tolist() == changed.tolist()


def test_labels_that_are_kept_are_of_every_class(many):
    few, truth = hide_labels(many, Simulate(keep_labels=50), 0)
    labeled = few.given_labels[few.split == "train"]
    assert len(labeled) == 50
    assert len(truth) == 550
    assert (
        np.ptp(
            np.bincount(
                strata(many.given_labels[np.isin(many.id, few.id[few.split == "train"])]),
                minlength=5,
            )
        )
        <= 12
    )
    assert (labeled.sum(0) >= 5).all()
