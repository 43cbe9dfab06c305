"""`run` with tables and a dict is what the scripts are with files and `key=value`."""

from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest

import pseudokit
from pseudokit.cli import pseudo_command
from tests.conftest import write_csv_data
from tests.naming import refused

SHORT = {
    "train.min_steps": 3,
    "train.epochs": 0.1,
    "train.batch_size": 32,
    "train.amp_dtype": "fp32",
    "pseudo.rounds": 1,
    "pseudo.train_baseline": False,
}
"""The same networks are trained, however little they learn."""
MADE = (
    "student/model.safetensors",
    "round_1/log_probs.npy",
    "round_1/decisions.csv",
    "labels.csv",
    "pseudo_labels.csv",
    "scored.csv",
)


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The three tables as a notebook has them: ids are text, a label that is missing is NaN."""
    return {
        split: pd.read_csv(folder / f"{split}.csv", dtype=str)
        for split in ("train", "unlabeled", "test")
    }


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    """A run of tables and a dict, the call that made it, and the run of the same files on the command line.

    The images of the former do not fit into its data.memory.
    """
    folder, args = write_csv_data(digits, tmp_path_factory.mktemp("runs"))
    keys = [f"{key}={value}" for key, value in SHORT.items()]
    pseudo_command(["--mode", "augment", "name=files", *args, *keys])
    config = SHORT | {
        "name": "tables",
        "out": folder / "runs",
        "data.image_dir": str(Path(digits.path[0]).parent),
        "data.image_suffix": ".png",
        "data.memory": "100m",
    }

    def call(**changes):
        with chdir(folder):
            return pseudokit.run("augment", **tables(folder), config=config | changes)

    run = call(**{"data.memory": 600 * 16 * 16 - 1})
    assert list((folder / "data" / "cache").glob("*.npy")), "images lie in a file"
    return run, call, folder / "runs" / "files"


def test_tables_and_images_in_a_file_give_the_bytes_of_files_and_images_in_memory(runs):
    path, _, of_files = runs
    for name in MADE:
        assert (path / name).read_bytes() == (of_files / name).read_bytes(), name


def test_a_second_call_trains_nothing_and_changes_no_result(runs):
    path, call, _ = runs
    before = {name: (path / name).stat().st_mtime_ns for name in MADE}
    assert call() == path
    assert {name: (path / name).stat().st_mtime_ns for name in MADE} == before


def test_what_is_wrong_is_one_line_before_anything_is_made(runs):
    path, call, _ = runs
    refused(lambda: call(**{"train.lrr": 1}), "train.lrr", "train.lr")
    refused(lambda: call(**{"train.lr": "fast"}), "train.lr", "fast")
    refused(lambda: call(**{"train.lr": 0.5}), path.name, "train.lr")  # another config, same name
    refused(lambda: pseudokit.run("denoize"), "denoize")
    refused(lambda: pseudokit.run("augment", train=path / "no.csv"), "data.train", "no.csv")
