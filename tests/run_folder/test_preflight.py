"""--check: what a run would find and cost, without a run."""

import logging
from pathlib import Path

import cv2
import pandas as pd
import pytest

from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import DEFAULT_CONFIG
from pseudokit.run_folder.preflight import check
from pseudokit.run_folder.time_budget import PROBE_IMAGES, PROBE_STEPS
from tests.conftest import QUICK
from tests.naming import lines_naming


def test_a_check_says_what_a_run_would_find_and_keeps_no_model(csv_data, caplog):
    folder, args = csv_data
    caplog.set_level(logging.INFO, logger="kit")
    pd.DataFrame({"id": [f"{i:04d}" for i in range(500, 600)], "label": "d0"}).to_csv(
        folder / "sample.csv", index=False
    )
    keys = [*args, *QUICK, f"data.submission={folder}/sample.csv", "name=x", "pseudo.folds=3"]
    check(DEFAULT_CONFIG, keys, "augment")
    for parts in (
        (300, "train"),
        (200, "unlabeled"),
        (10, "classes"),
        ("fold 2",),
        ("duplicates", 0),
        ("submission", 100),
        ("model", "test_resnet"),
        (folder / "runs" / "x", "GB"),
        (PROBE_STEPS, PROBE_IMAGES),
        ("minutes",),
        ("--check",),
    ):
        assert lines_naming(caplog.text, *parts), parts
    assert not (folder / "runs" / "x").exists()
    assert not list((folder / "runs").rglob("*.safetensors"))


def test_the_duplicates_that_a_check_finds_are_on_file_afterwards(csv_data, digits, caplog):
    folder, args = csv_data
    caplog.set_level(logging.INFO, logger="kit")
    image = cv2.imread(digits.path[7], 0)
    cv2.imwrite(str(folder / "copy.png"), image)
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table.loc[len(table)] = ["copy", "d0" if digits.label[7] != "d0" else "d1"]
    table.to_csv(folder / "train.csv", index=False)
    folders = f"data.image_dir=[{Path(digits.path[0]).parent}, {folder}]"
    check(DEFAULT_CONFIG, [*args, *QUICK, folders, "name=x"], "denoise")
    file = folder / "runs" / "x-check" / "duplicates.csv"
    assert f"see {file}" in caplog.text
    duplicates = pd.read_csv(file, dtype=str)
    assert set(duplicates.id) == {"0007", "copy"}
    assert set(duplicates.conflict) == {"True"}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.checkpoint=nowhere.safetensors", "nowhere.safetensors"),
        ("model.name=resnet17", "resnet17"),
        ("data.train=nowhere.csv", "nowhere.csv"),
        ("data.submission=nowhere.csv", "nowhere.csv"),
        ("out=/proc/runs", "out="),
    ],
)
def test_a_check_refuses_what_a_run_would_stumble_over(csv_data, override, named):
    with pytest.raises(UserError, match=named):
        check(DEFAULT_CONFIG, [*csv_data[1], *QUICK, override], "train")
