"""Small real data for the tests: 8×8 digits of scikit-learn as image files."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# Of every child.
os.environ["PYTHONPATH"] = os.path.join(os.path.dirname(os.path.dirname(__file__)), "src")

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.browser import missing_browser, open_browser
from tests.warm import ROOT, Script

QUICK = ["train.epochs=1", "train.min_steps=80", "train.batch_size=32", "train.amp_dtype=fp32"]
"""A recipe that learns 16×16 digits in a second or two."""


SLOWEST = (
    "test_scripts.py",
    "test_distributed.py",
    "test_kill.py",
    "test_loop.py",
    "test_review_loop.py",
    "test_notebook.py",
    "test_competition.py",
    "test_multi_label.py",
    "test_tracking.py",
    "test_wild.py",
    "test_review_page.py",
    "test_checkpoint.py",
    "test_package.py",
    "test_council.py",
    "test_serve.py",
    "test_bad_input.py",
    "test_linear_probe.py",
)
"""By seconds, from 60 to 10."""


def pytest_collection_modifyitems(items):
    """The slowest files first, so that no core waits for them at the end."""
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish(session):
    """What is there now stays: the garbage collector need not look through a million objects again and again."""
    gc.collect()
    gc.freeze()


def run_script(*args, **kwargs) -> subprocess.CompletedProcess:
    """`python ARGS` in a process of its own, as a user runs it; a script of the kit finds the packages loaded."""
    return Script(*args).wait() if str(args[0]).endswith(".py") else run_cold(*args, **kwargs)


def run_cold(*args, **kwargs) -> subprocess.CompletedProcess:
    """The same from the first import on."""
    command = [sys.executable, *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **kwargs
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """600 real digits as 16×16 PNG files: a table of the columns id, label, path."""
    # here, as the process that hands out the tests reads this file before it starts the others
    import cv2
    import pandas as pd
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    rows = []
    for i in range(600):
        name = f"{i:04d}"
        image = cv2.resize(
            (data.images[i] * 15.9).astype("uint8"), (16, 16), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(folder / f"{name}.png"), image)
        rows.append((name, f"d{data.target[i]}", str(folder / f"{name}.png")))
    return pd.DataFrame(rows, columns=["id", "label", "path"])


@pytest.fixture
def csv_data(digits, tmp_path):
    """train.csv (300 rows), unlabeled.csv (200, no label) and test.csv (100) with their data.* arguments."""
    return write_csv_data(digits, tmp_path)


def write_csv_data(digits, folder: Path) -> tuple[Path, list[str]]:
    """The tables of `csv_data` in this folder, and their arguments."""
    parts = {"train": digits[:300], "unlabeled": digits[300:500], "test": digits[500:]}
    args = [
        f"data.image_dir={Path(digits.path[0]).parent}",
        "data.image_suffix=.png",
        f"out={folder / 'runs'}",
    ]
    for split, part in parts.items():
        columns = ["id"] if split == "unlabeled" else ["id", "label"]
        part[columns].to_csv(folder / f"{split}.csv", index=False)
        args.append(f"data.{split}={folder / f'{split}.csv'}")
    return folder, args


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one its tests are skipped, but in CI they fail."""
    missing = missing_browser()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    assert not missing, missing
    with open_browser() as browser:
        yield browser
