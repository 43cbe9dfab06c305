"""The notebooks, as people run them: on digits that stand in for a competition's files, and on data in packages."""

import os
import re

import nbformat
import pandas as pd
from nbclient import NotebookClient

from tests.conftest import QUICK, ROOT
from tests.naming import lines_naming

NOTEBOOK = ROOT / "notebooks" / "competition.ipynb"


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def stdout(notebook) -> str:
    return "".join(output.text for output in outputs(notebook) if output.get("name") == "stdout")


def test_the_notebook_goes_through_to_a_submission(tmp_path, monkeypatch):
    quick = [
        *QUICK,
        "train.min_steps=30",
        "train.epochs=0.1",
        "pseudo.rounds=1",
        "pseudo.train_baseline=false",
    ]
    settings = {
        "KIT": str(ROOT),
        "OUT": str(tmp_path),
        "OVERRIDES": " ".join(quick),
        "INPUT_FOLDER": "nowhere",
    }
    for name, value in settings.items():
        monkeypatch.setitem(os.environ, name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = outputs(notebook)
    assert not [output for output in shown if output.output_type == "error"]
    printed = stdout(notebook)
    assert lines_naming(printed, "--check")
    assert lines_naming(printed, "accuracy")
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 4, (
        "plots are shown inline"
    )
    submitted, sample = (
        pd.read_csv(file, dtype=str)
        for file in (tmp_path / "submission.csv", tmp_path / "digits" / "sample_submission.csv")
    )
    assert list(submitted.id) == list(sample.id)
    truth = {
        file.stem: file.parent.name for file in (tmp_path / "digits").glob("digits/testing/*/*.png")
    }
    assert (submitted.label == submitted.id.map(truth)).mean() > 0.5


def test_the_notebook_of_any_model_repairs_labels_of_numbers_and_texts(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "KIT", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "any_model.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    shares = re.findall(r"wrong labels: ([\d.]+) → ([\d.]+)", stdout(notebook))
    assert len(shares) == 2
    for before, after in shares:
        assert float(after) < 0.5 * float(before)
