"""What is typed wrong is called what was typed; a single image can be predicted."""

import numpy as np
import pytest
from PIL import Image

from pseudokit.config.keys import Data
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError, check_all
from pseudokit.data.tables import read_split
from tests.naming import names, refused


@pytest.fixture
def told(tmp_path):
    """told(text of the file, *typed) → the message."""

    def told(text: str, *typed: str) -> str:
        (tmp_path / "some.yaml").write_text(text)
        return refused(lambda: load_config(tmp_path / "some.yaml", list(typed)))

    return told


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("trian.lr=1", ["trian.lr", "train.lr"]),
        ("lr=1", ["lr", "train.lr"]),
        ("metric=f1", ["metric", "macro_f1"]),
        ("train.lr=fast", ["train.lr", "fast"]),
        ("nonsense", ["'nonsense'"]),
        ("pseudo.power=2", ["pseudo.power", "pseudo.targets"]),
    ],
)
def test_what_is_typed_wrong_is_not_blamed_on_a_file(told, typed, parts):
    for text in ("", "seed: 3"):
        message = told(text, typed)
        assert names(message, *parts)
        assert "some.yaml" not in message
        assert "inject" not in message


def test_a_fault_of_the_file_is_still_its_own_beside_one_that_is_typed(told):
    message = told("train: {ema_decay: 2}\nsed: 1", "metric=f1", "data.size=x")
    typed, _, of_file = message.partition("some.yaml")
    assert names(typed, "metric", "data.size")
    assert names(of_file, "train.ema_decay", "sed")


def test_a_fault_of_the_file_that_a_typed_value_mends_is_none(tmp_path):
    (tmp_path / "some.yaml").write_text("train: {ema_decay: 2}")
    assert load_config(tmp_path / "some.yaml", ["train.ema_decay=0.5"]).train.ema_decay == 0.5


@pytest.mark.parametrize("name", ["one.png", "one.JPG"])
@pytest.mark.parametrize("split", ["test", "unlabeled"])
def test_a_single_image_is_a_table_of_one_row(tmp_path, name, split):
    file = tmp_path / name
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(file)
    table = read_split(Data(), split, str(file))
    assert table[["id", "path", "label"]].to_numpy().tolist() == [[name, str(file), ""]]
    refused(lambda: read_split(Data(), "train", str(file)), name)


def test_all_checks_are_told_at_once():
    def fail(message):
        raise UserError(message)

    refused(
        lambda: check_all(lambda: fail("a.csv is gone"), lambda: 1, lambda: fail("b.csv is gone")),
        "a.csv",
        "b.csv",
    )
    assert check_all(lambda: 1, lambda: 2) == [1, 2]
