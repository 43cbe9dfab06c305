"""What Python code hands over becomes the arrays of the package, or one line says what is wrong with it."""

import numpy as np
import pandas as pd
import pytest
import torch

from pseudokit.config.types import UserError
from pseudokit.labels import arrays
from pseudokit.labels.inputs import match_table, read_labels, read_log_probs

NAMES = ["cat", "dog", "owl"]
SAME_LABELS = {
    "names": ["dog", None, "cat", "owl", np.nan],
    "an empty name": ["dog", "", "cat", "owl", ""],
    "Series of names": pd.Series(["dog", None, "cat", "owl", None]),
    "categories": pd.Series(["dog", None, "cat", "owl", None], dtype="category"),
    "indices": [1, -1, 0, 2, -1],
    "whole floats": np.array([1, np.nan, 0, 2, -1]),
    "nullable": pd.Series([1, None, 0, 2, None], dtype="Int64"),
    "objects": np.array([1, None, 0.0, 2, None], dtype=object),
    "tensor": torch.tensor([1, -1, 0, 2, -1]),
    "a column": np.array([[1], [-1], [0], [2], [-1]]),
}


@pytest.mark.parametrize("form", SAME_LABELS)
def test_labels_of_any_form_are_class_indices(form):
    for classes in (None, NAMES):
        given = read_labels(SAME_LABELS[form], classes, 3)
        assert given.indices.tolist() == [1, -1, 0, 2, -1]
        written = pd.Series(SAME_LABELS[form] if form != "a column" else [1, 0]).dropna()
        assert {*given.classes} >= {*written} - {"", -1}  # as they were written


def test_numbers_are_names_where_the_classes_are_numbers():
    assert read_labels([7, 3, 7], [7.0, 3]).indices.tolist() == [0, 1, 0]
    assert read_labels(["7", "3"], [7, 3]).indices.tolist() == [0, 1]
    assert read_labels([10, 2, -1]).classes.tolist() == [2, 10]


def test_label_sets_are_answers():
    given = read_labels(pd.DataFrame({"cat": [1, 0], "dog": [np.nan, 1]}))
    assert given.indices.tolist() == [[1, -1], [0, 1]]
    assert given.names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("labels", "classes", "n_classes"),
    [
        (["cat", "cow"], NAMES, 3),  # no class
        ([0, 3], None, 3),
        (["cat", "dog"], None, 3),  # which column is which?
        (["2", "10"], None, 2),
        (NAMES, ["cat", "dog", "cat"], 3),
        (NAMES, NAMES, 4),
        ([0.5, 1], None, None),
        ([[1, 2], [0, 1]], None, 2),
        ([[1, 0], [0, 1]], NAMES, 3),
        ([[1], [0, 1]], None, 2),
        ([], None, 2),
    ],
)
def test_wrong_labels_are_refused(labels, classes, n_classes):
    with pytest.raises(UserError):
        read_labels(labels, classes, n_classes)


def test_probabilities_of_any_form_are_the_same(tmp_path, monkeypatch):
    probs = np.random.default_rng(0).dirichlet([0.3] * 4, 50)
    np.save(tmp_path / "probs.npy", probs)
    forms = [
        probs,
        probs.tolist(),
        pd.DataFrame(probs),
        torch.tensor(probs),
        np.load(tmp_path / "probs.npy", mmap_mode="r"),
        np.load(tmp_path / "probs.npy").astype(np.float32),
        1.02 * probs,
    ]
    monkeypatch.setattr(arrays, "MAX_BLOCK_VALUES", 28)
    for form in forms:
        assert np.exp(read_log_probs(form)) == pytest.approx(probs, abs=1e-6)
    for logs in (np.log(probs), np.log(probs).astype(np.float32).tolist()):
        assert np.exp(read_log_probs(logs)) == pytest.approx(probs, abs=1e-6)
    assert np.exp(read_log_probs(probs, rows=np.array([7, 3]))) == pytest.approx(probs[[7, 3]])
    logits = np.log(probs) + 7
    assert np.exp(read_log_probs(logits, logits=True)) == pytest.approx(probs, abs=1e-6)
    half = np.exp(read_log_probs(probs.astype(np.float16)))
    assert half == pytest.approx(probs, abs=1e-3)


def test_answers_of_label_sets_are_no_and_yes():
    yes = np.array([[0.2, 0.9], [0.0, 1.0]])
    assert np.exp(read_log_probs(yes, multi_label=True)) == pytest.approx(
        np.stack([1 - yes, yes], -1), abs=1e-6
    )
    stored = np.stack([1 - yes, yes], -1)
    for form in (stored, np.log(np.maximum(stored, 1e-30))):  # as oof_log_probs.npy holds them
        assert np.exp(read_log_probs(form, multi_label=True)) == pytest.approx(stored, abs=1e-6)
    logits = np.log(yes[:1] / (1 - yes[:1]))
    assert np.exp(read_log_probs(logits, multi_label=True, logits=True))[..., 1] == pytest.approx(
        yes[:1]
    )


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize(
    "row", [[-0.2, 1.2], [0.7, 0.7], [np.nan, 1], [np.inf, 0], [0, 0], [3, -1]], ids=str
)
def test_a_row_of_no_probabilities_is_named(row, logits):
    table = [[0.5, 0.5]] * 5 + [row] + [[1, 0]]
    if logits and np.isfinite(row).all():
        read_log_probs(table, logits=True)
        return
    with pytest.raises(UserError, match="row 5"):
        read_log_probs(table, logits=logits)


@pytest.mark.parametrize("multi_label", [False, True])
def test_logits_are_not_taken_for_log_probabilities(multi_label):
    logits = np.array([[-0.5, -1.2, -4.0], [-0.9, -1.2, -1.4], [-3, -2, -1]])
    sums = np.exp(logits).sum(1)
    assert 0.9 < sums[0] < 0.95
    logits[:2] -= np.log(sums[:2, None])
    with pytest.raises(UserError, match="row 0" if multi_label else "row 2"):
        read_log_probs(logits, multi_label=multi_label)
    stored = np.log([[[0.5, 0.5], [0.4, 0.6]]])
    with pytest.raises(UserError):
        read_log_probs(stored + (0.1 if multi_label else 0), multi_label=multi_label)


@pytest.mark.parametrize(
    "table",
    [
        [0.5, 0.5],
        [[1.0], [1.0]],
        np.empty((0, 2)),
        [["a", "b"]],
        [[0.5, 0.5], [1.0]],
        torch.ones(2, 2, requires_grad=True),
    ],
    ids=str,
)
def test_what_is_no_table_of_numbers_is_refused(table):
    with pytest.raises(UserError):
        read_log_probs(table)


def test_tables_are_matched_by_ids_and_names():
    labels = pd.Series(["cat", "dog", "owl"], index=["a", "b", "c"])
    given = read_labels(labels, NAMES)
    table = pd.DataFrame(np.eye(3), index=labels.index, columns=NAMES)
    mixed = table.loc[["c", "a", "b"], ["owl", "cat", "dog"]]
    assert np.array_equal(match_table(mixed, given, "pred_probs"), table)
    for wrong in (table.iloc[:2], table.rename({"a": "d"}), table.iloc[[0, 1, 1]]):
        with pytest.raises(UserError):
            match_table(wrong, given, "pred_probs")
    with pytest.raises(UserError, match="'d'"):
        match_table(pd.concat([table, table.iloc[:1].rename({"a": "d"})]), given, "pred_probs")
