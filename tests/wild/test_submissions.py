"""What a sample submission asks for: which class, probabilities or answers, and in whose spelling."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Config, Data
from pseudokit.config.types import UserError
from pseudokit.run_folder.submission import fill_submission, predictions_table
from tests.naming import is_one_line
from tests.naming import names as named

PROBS = np.array([[0.9, 0.1], [0.3, 0.7]])
TRUE_OF_SECOND = [0.1, 0.7]
TRUE_OF_FIRST = [0.9, 0.3]


def filled(folder, text, classes, probs=PROBS, metric=None, ids=("007", "012"), **data):
    """The cells of the submission, column by column; two rows, those of 007 and 012."""
    (folder / "sample.csv").write_text(text)
    targets = pd.DataFrame({"id": list(ids), "path": ""}, dtype=object)
    answers = probs.argmax(1)
    if data.get("multi_label"):
        answers = (probs > 0.5).astype(int)
        probs = np.stack([1 - probs, probs], -1)
    table = predictions_table(targets, probs, answers, classes)
    config = Config(metric=metric, data=Data(**data))
    return fill_submission(folder / "sample.csv", table, config).to_dict("list")


def one(column, cell):
    return f"id,{column}\n007,{cell}\n012,{cell}\n"


def refusal(folder, *args, parts, **keys):
    with pytest.raises(UserError) as caught:
        filled(folder, *args, **keys)
    line = str(caught.value)
    assert is_one_line(line)
    assert named(line, *parts), line


COLUMNS = {
    "{}": None,
    "p_{}": None,
    "P({})": None,
    "is_{}": None,
    "target_{}": None,
    "prob_{}": None,
    "{} probability": None,
    "Has {}": str.title,
    "PROB {}": str.upper,
    " {} ": str.upper,
    "is{}": str.title,
}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_named_by_a_class_gets_that_class(tmp_path, column):
    for cell, *classes in (
        ("0", "malignant", "normal"),
        ("0.5", "a b", "c"),
        ("", "cat", "no_cat"),
    ):
        for name, probs in zip(classes, (TRUE_OF_FIRST, TRUE_OF_SECOND), strict=True):
            asked = column.format((COLUMNS[column] or str)(name))
            assert filled(tmp_path, one(asked, cell), classes)[asked] == probs


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (["malignant", "normal"], 0),
        (["benign", "malignant"], 1),
        (["abnormal", "normal"], 0),
        (["no", "yes"], 1),
        (["negative", "positive"], 1),
        (["pos", "neg"], 0),
        (["tumor", "no tumor"], 0),
        (["non-smoker", "smoker"], 1),
        (["defect", "not_defect"], 0),
        (["Parasitized", "Uninfected"], 0),
        (["with_mask", "without_mask"], 0),
        (["healthy", "unhealthy"], 1),
        (["False", "True"], 1),
        (["0.0", "1.0"], 1),
        (["-1", "1"], 1),
        (["cat", "dog"], 1),
        (["north", "south"], 1),
    ],
)
def test_a_column_that_is_named_by_none_gets_the_positive_class(tmp_path, classes, positive):
    expected = (TRUE_OF_FIRST, TRUE_OF_SECOND)
    for column in ("target", "Label"):
        assert filled(tmp_path, one(column, 0.5), classes)[column] == expected[positive]
    keys = {"submission_positive": classes[1 - positive]}
    got = filled(tmp_path, one("target", 0.5), classes, **keys)
    assert got["target"] == expected[1 - positive]


@pytest.mark.parametrize("column", ["not_malignant", "malignant or normal", "p_normal_malignant"])
def test_a_column_that_may_mean_either_class_is_refused(tmp_path, column):
    classes = ["malignant", "normal"]
    parts = ("sample.csv", repr(column), "data.submission_positive")
    refusal(tmp_path, one(column, 0.5), classes, parts=parts)
    keys = {"submission_positive": "normal"}
    assert filled(tmp_path, one(column, 0.5), classes, **keys)[column] == TRUE_OF_SECOND


def test_the_positive_class_is_one_of_the_classes(tmp_path):
    parts = ("data.submission_positive=owl", "cat")
    refusal(tmp_path, one("x", 0.5), ["cat", "dog"], parts=parts, submission_positive="owl")


@pytest.mark.parametrize(
    ("classes", "metric", "column", "cell", "expected"),
    [
        (["0", "1"], "auc", "target", "0", TRUE_OF_SECOND),
        (["0", "1"], "log_loss", "target", "0", TRUE_OF_SECOND),
        (["0", "1"], "map", "p_0", "0", TRUE_OF_FIRST),
        (["False", "True"], "auc", "target", "False", TRUE_OF_SECOND),
        (["cat", "dog"], "auc", "label", "cat", TRUE_OF_SECOND),
        (["0", "1"], "accuracy", "target", "0", ["0", "1"]),
        (["0", "1"], "macro_f1", "target", "0.0", ["0.0", "1.0"]),
        (["0", "1"], "accuracy", "target", "0.5", ["0", "1"]),
        (["0", "1"], "accuracy", "p_0", "0", ["1", "0"]),
        (["1", "2"], "accuracy", "label", "0", ["1", "2"]),
        (["1", "2"], "kappa", "label", "0.0", ["1.0", "2.0"]),
        (["malignant", "normal"], "accuracy", "malignant", "0", ["1", "0"]),
        (["malignant", "normal"], "accuracy", "is_normal", "False", ["False", "True"]),
        (["malignant", "normal"], "accuracy", "target", "0", ["1", "0"]),
        (["malignant", "normal"], "accuracy", "target", "normal", ["malignant", "normal"]),
        (["malignant", "normal"], None, "target", "normal", ["malignant", "normal"]),
        (["malignant", "normal"], None, "malignant", "normal", ["malignant", "normal"]),
        (["malignant", "normal"], None, "target", "?", ["malignant", "normal"]),
        (["0", "1"], None, "target", "0", ["0", "1"]),
        (["0", "1"], None, "target", "0.0", TRUE_OF_SECOND),
        (["0", "1"], None, "class_0", "0", TRUE_OF_FIRST),
        (["0.0", "1.0"], None, "label", "0", ["0", "1"]),
        (["0.0", "1.0"], None, "label", "0.0", ["0.0", "1.0"]),
        (["False", "True"], None, "label", "FALSE", ["FALSE", "TRUE"]),
        (["False", "True"], None, "label", "false", ["false", "true"]),
        (["False", "True"], None, "label", "0", ["0", "1"]),
        (["0", "1"], None, "label", "True", ["False", "True"]),
        (["1", "2"], None, "label", "01", ["01", "02"]),
        (["01", "02"], None, "label", "01", ["01", "02"]),
        (["01", "02"], None, "label", "1", ["1", "2"]),
        (["3.0", "5.0"], "accuracy", "label", "0", ["3", "5"]),
    ],
)
def test_the_metric_decides_then_the_sample_and_labels_are_spelled_as_there(
    tmp_path, classes, metric, column, cell, expected
):
    assert filled(tmp_path, one(column, cell), classes, metric=metric)[column] == expected


def test_decimal_commas_are_numbers(tmp_path):
    text = "id;target\n007;0,5\n012;0,5\n"
    assert filled(tmp_path, text, ["benign", "malignant"])["target"] == TRUE_OF_SECOND


THREE = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])


@pytest.mark.parametrize(
    ("classes", "metric", "column", "cell", "expected"),
    [
        (["0.0", "1.0", "2.0"], None, "label", "0", ["0", "2"]),
        (["0.0", "1.0", "2.0"], "auc", "label", "0", ["0", "2"]),
        (["1.0", "2.0", "3.0"], None, "label", "0", ["1", "3"]),
        (["1", "2", "3"], None, "label", "1.0", ["1.0", "3.0"]),
        (["001", "002", "010"], None, "label", "001", ["001", "010"]),
        (["1", "2", "10"], None, "label", "001", ["001", "010"]),
        (["a", "b", "c"], None, "label", "0", ["a", "c"]),
        (["a", "b", "c"], "log_loss", "p_c", "0", [0.1, 0.5]),
        (["a", "b", "c"], "accuracy", "is_c", "0", ["0", "1"]),
    ],
)
def test_so_it_is_with_three_classes(tmp_path, classes, metric, column, cell, expected):
    assert filled(tmp_path, one(column, cell), classes, THREE, metric)[column] == expected


@pytest.mark.parametrize(
    ("columns", "cell", "metric", "first", "second"),
    [
        ("cat,dog", "0.5", None, TRUE_OF_FIRST, TRUE_OF_SECOND),
        ("cat,dog", "0", "log_loss", TRUE_OF_FIRST, TRUE_OF_SECOND),
        ("p_dog,Is Cat", "0", None, TRUE_OF_SECOND, TRUE_OF_FIRST),
        ("cat,dog", "False", None, ["True", "False"], ["False", "True"]),
        ("target_dog,target_cat", "FALSE", "accuracy", ["FALSE", "TRUE"], ["TRUE", "FALSE"]),
        ("cat,dog", "0", "macro_f1", ["1", "0"], ["0", "1"]),
        ("cat,dog", "0.5", "macro_f1", TRUE_OF_FIRST, TRUE_OF_SECOND),
        ("cat,dog", "False", "auc", TRUE_OF_FIRST, TRUE_OF_SECOND),
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_column_a_class_is_matched_by_name(
    tmp_path, columns, cell, metric, first, second, multi_label
):
    text = f"id,{columns}\n007,{cell},{cell}\n012,{cell},{cell}\n"
    got = filled(tmp_path, text, ["cat", "dog"], metric=metric, multi_label=multi_label)
    assert list(got) == ["id", *columns.split(",")]
    got_first, got_second = (got[column] for column in columns.split(","))
    assert got_first == pytest.approx(first) if isinstance(first[0], float) else got_first == first
    assert got_second == (pytest.approx(second) if isinstance(second[0], float) else second)


def test_one_class_of_a_multi_label_is_a_question(tmp_path):
    probs = np.array([[0.2], [0.8]])
    for column in ("sick", "target"):
        got = filled(tmp_path, one(column, 0.5), ["sick"], probs, multi_label=True)
        assert got[column] == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(
    ("classes", "sign", "both"), [(["a", "b"], ",", "a,b"), (["a x", "b"], "; ", "a x; b")]
)
def test_a_label_set_is_written_as_its_table_has_it(tmp_path, classes, sign, both):
    probs = np.array([[0.9, 0.8], [0.2, 0.7]])
    keys = {"multi_label": True, "label_sep": sign}
    assert filled(tmp_path, one("label", ""), classes, probs, **keys)["label"] == [both, "b"]


@pytest.mark.parametrize(
    "text",
    [
        "label,id\ncat,012\ncat,007\n",
        "label,id\ncat,12\ncat,7\n",
        "label,id\ncat,12.0\ncat,7.0\n",
        "label;id\ncat;12,0\ncat;7,0\n",
        "label,image\ncat,x/012.png\ncat,x/007.png\n",
    ],
)
def test_ids_stand_in_any_column_with_or_without_zeros(tmp_path, text):
    ids = ["x/007.png", "x/012.png"] if "x/" in text else ("007", "012")
    got = filled(tmp_path, text, ["cat", "dog"], ids=ids)
    assert list(got) == text.split()[0].replace(";", ",").split(",")
    assert got["label"] == ["dog", "cat"]


def test_labels_that_look_like_ids_are_none(tmp_path):
    for name in ("id", "image", "File"):
        got = filled(tmp_path, f"label,{name}\n1,0\n0,1\n", ["0", "1"], ids=["0", "1"])
        assert got == {"label": ["0", "1"], name: ["0", "1"]}


def test_ids_that_fit_several_rows_are_not_guessed(tmp_path):
    parts = ("sample.csv", "'7'")
    refusal(tmp_path, "id,label\n7,a\n", ["a", "b"], ids=["07", "007"], parts=parts)
    refusal(tmp_path, "id,label\n007,a\n7,a\n", ["a", "b"], parts=parts)


SPELLINGS = {
    "text": (["ant", "bee", "cow"], str),
    "int": (["0", "1", "2"], str),
    "float": (["0", "1", "2"], "{}.0".format),
    "padded": (["0", "1", "2"], "{:0>3}".format),
    "bool": (["0", "1"], lambda name: str(name == "1")),
    "BOOL": (["0", "1"], lambda name: str(name == "1").upper()),
}


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_round_trip_says_of_each_id_the_class_that_the_table_says(tmp_path_factory, data):
    """Any kind of names in the table and in the sample, ids with and without zeros, in any order of columns."""
    draw = data.draw
    in_table = draw(st.sampled_from([*SPELLINGS]))
    same = [kind for kind in SPELLINGS if SPELLINGS[kind][0][0] == SPELLINGS[in_table][0][0]]
    in_sample = draw(st.sampled_from(same))
    k = min(len(SPELLINGS[in_table][0]), len(SPELLINGS[in_sample][0]))
    plain, write = SPELLINGS[in_table]
    _, write_sample = SPELLINGS[in_sample]
    classes = sorted(write(name) for name in plain[:k])
    meant = {write(name): write_sample(name) for name in plain[:k]}
    n = draw(st.integers(3, 9))
    numbers = draw(st.lists(st.integers(0, 99), min_size=n, max_size=n, unique=True))
    probs = np.random.default_rng(n).dirichlet(np.ones(k), n)
    labels = [meant[classes[row]] for row in probs.argmax(1)]
    write_id = draw(st.sampled_from(["{}", "{:04d}", "{}.0"]))
    sample = pd.DataFrame({"id": [write_id.format(number) for number in numbers]})
    shown = draw(st.lists(st.sampled_from(sorted(meant.values())), min_size=n, max_size=n))
    sample["label"] = shown
    columns = draw(st.permutations(["id", "label"]))
    text = sample[columns].to_csv(index=False)
    folder = tmp_path_factory.mktemp("trip")
    ids = [f"{number:04d}" for number in numbers]
    got = filled(folder, text, classes, probs, "accuracy", ids)
    assert list(got) == columns
    assert got["id"] == list(sample.id)
    assert got["label"] == labels
