"""submission.csv: in the columns and the row order of the sample, each row with its own prediction."""

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.types import UserError
from pseudokit.run_folder.submission import fill_submission, predictions_table
from tests.naming import names

CLASSES = ["1", "2", "NA"]
PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]])


def predictions(*ids: str) -> pd.DataFrame:
    targets = pd.DataFrame({"id": ids, "path": [f"images/{i}" for i in ids]}, dtype=object)
    return predictions_table(targets, PROBS[: len(ids)], PROBS[: len(ids)].argmax(1), CLASSES)


@pytest.fixture
def sample(tmp_path):
    """sample(text) → path of a sample_submission.csv."""

    def write(text: str):
        (tmp_path / "sample_submission.csv").write_text(text)
        return tmp_path / "sample_submission.csv"

    return write


def refusal(file, table) -> str:
    with pytest.raises(UserError) as caught:
        fill_submission(file, table)
    message = str(caught.value)
    assert "\n" not in message
    assert file.name in message
    return message


def test_predictions_have_label_confidence_and_a_column_for_each_class():
    table = predictions("a", "b", "c")
    assert list(table) == ["id", "path", "label", "confidence", "p_1", "p_2", "p_NA"]
    assert table.label.tolist() == ["1", "2", "NA"]
    assert table.confidence.tolist() == [0.7, 0.8, 0.6]
    assert table.p_NA.tolist() == [0.1, 0.1, 0.6]


def test_a_label_column_is_filled_in_the_order_of_the_sample(sample):
    filled = fill_submission(sample("image,target\nc,0\na,0\nb,0\n"), predictions("a", "b", "c"))
    assert filled.to_dict("list") == {"image": ["c", "a", "b"], "target": ["NA", "1", "2"]}


def test_class_columns_are_filled_in_any_order_of_rows_and_columns(sample):
    filled = fill_submission(
        sample("id,NA,1,2\nb,0,0,0\nc,0,0,0\na,0,0,0\n"), predictions("a", "b", "c")
    )
    assert list(filled) == ["id", "NA", "1", "2"]
    assert filled.id.tolist() == ["b", "c", "a"]
    np.testing.assert_array_equal(filled[["1", "2", "NA"]].to_numpy(float), PROBS[[1, 2, 0]])


@pytest.mark.parametrize(
    ("predicted", "wanted", "labels"),
    [
        (["test/a.png", "test/b.png"], ["a", "b"], ["1", "2"]),
        (["test/a.png", "test/b.png"], ["b.png", "a.png"], ["2", "1"]),
        (["test/x/a.png", "test/y/b.png"], ["b", "a"], ["2", "1"]),
        (["a.b.jpg", "c.d.jpg"], ["c.d", "a.b"], ["2", "1"]),
        (["007", "7"], ["7", "007"], ["2", "1"]),
    ],
)
def test_ids_are_matched_with_or_without_folder_and_suffix(sample, predicted, wanted, labels):
    filled = fill_submission(
        sample("id,label\n" + "".join(f"{i},x\n" for i in wanted)), predictions(*predicted)
    )
    assert filled.to_dict("list") == {"id": wanted, "label": labels}


def test_predictions_that_the_sample_does_not_want_are_left_out(sample):
    assert fill_submission(
        sample("id,label\nb,x\n"), predictions("a", "b", "c")
    ).label.tolist() == ["2"]


def test_an_id_without_a_prediction_is_refused_by_name(sample):
    message = refusal(sample("id,label\na,x\nzz,x\nyy,x\n"), predictions("a", "b"))
    assert names(message, 2, "'zz'", "--data")


def test_file_names_that_stand_for_two_images_are_not_guessed(sample):
    assert "'a'" in refusal(sample("id,label\na,x\n"), predictions("x/a.png", "y/a.png"))


def test_an_id_twice_in_the_sample_is_refused_by_name(sample):
    message = refusal(sample("id,label\na,x\nb,x\na,x\n"), predictions("a", "b"))
    assert "'a'" in message


@pytest.mark.parametrize("columns", ["1,2", "1,2,NA,3", "1,2,three"])
def test_columns_that_are_neither_a_label_nor_the_classes_are_refused(sample, columns):
    zeros = ",0" * len(columns.split(","))
    message = refusal(sample(f"id,{columns}\na{zeros}\n"), predictions("a"))
    assert columns.split(",")[-1] in message
    assert "NA" in message


@pytest.mark.parametrize(
    "content", [b"", b"id\na\n", b"\xff\xfe\x00\x01\x80", b"id,label\na,x\nb,x,y,z\n"]
)
def test_a_sample_that_is_no_such_table_is_refused(tmp_path, content):
    (tmp_path / "sample.csv").write_bytes(content)
    refusal(tmp_path / "sample.csv", predictions("a", "b"))


def test_a_missing_sample_is_refused(tmp_path):
    assert "--submission" in refusal(tmp_path / "sample.csv", predictions("a"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_refused_with_its_id(bad):
    targets, probs = pd.DataFrame({"id": ["a", "b"], "path": ["", ""]}), PROBS[:2].copy()
    probs[1, 2] = bad
    with pytest.raises(UserError, match=r"\bb\b"):
        predictions_table(targets, probs, np.zeros(2, int), CLASSES)


def test_of_two_classes_a_column_of_numbers_asks_for_the_probability_of_the_second(sample):
    targets, probs = (
        pd.DataFrame({"id": ["a", "b"], "path": ["", ""]}),
        np.array([[0.9, 0.1], [0.3, 0.7]]),
    )
    table = predictions_table(targets, probs, probs.argmax(1), ["no", "yes"])
    asked = sample("id,target\nb,0.5\na,0.5\n")
    assert fill_submission(asked, table).target.tolist() == [0.7, 0.1]
    named = sample("id,target\nb,no\na,no\n")
    assert fill_submission(named, table).target.tolist() == ["yes", "no"]
    numbered = predictions_table(targets, probs, probs.argmax(1), ["0", "1"])
    assert fill_submission(sample("id,target\nb,0\na,0\n"), numbered).target.tolist() == ["1", "0"]
    assert fill_submission(sample("id,target\nb,0.5\na,0.5\n"), numbered).target.tolist() == [
        0.7,
        0.1,
    ]
