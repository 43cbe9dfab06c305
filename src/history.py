"""What an apply replaces is put aside in the run folder, so that --revert brings it back byte for byte.

    corrections/0001/corrections.csv   the decisions of the first applied file
    corrections/0001/before/           the student and the published files that they replaced

The student could be trained again to the same bytes, but only on the same hardware and from data that is still there;
the bytes themselves need neither. Every step is one rename, and `mend` ends what a kill cut short.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pandas as pd

from .cells import exact, inert, read_csv
from .run import atomic_write, write_csv

COLUMNS = ["id", "given", "action", "label"]
PUBLISHED = (
    "samples.csv", "scored.csv", "labels.csv", "suspects.csv", "pseudo_labels.csv", "audit.csv", "oof.csv", "oof.npy",
    "thresholds.json", "predictions.csv", "submission.csv", "metrics.json", "metrics.jsonl", "label_studio.json",
    "label_studio.xml", "report.html", "review.html",
)  # fmt: skip
"""What a run writes after its student, plots/ aside."""


def applied(run: Path) -> list[Path]:
    """The folders of the applied files, oldest first."""
    return sorted(run.glob("corrections/[0-9][0-9][0-9][0-9]"))


def decided(run: Path) -> pd.DataFrame:
    """The human decisions in force (id, given, action, label), by id; a later file outranks an earlier one."""
    tables = [exact(read_csv(step / "corrections.csv")) for step in applied(run)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)


def put_aside(run: Path, table: pd.DataFrame) -> Path:
    """Begin corrections/NNNN with these decisions and a copy of what they will replace; returns that folder.

    The rename puts the decisions in force. The student goes last: as long as it is not in before/, it is the old one.
    """
    step = run / "corrections" / f"{len(applied(run)) + 1:04d}"
    part = step.with_suffix(".part")
    try:
        write_csv(part / "corrections.csv", inert(table))
        (part / "before").mkdir()
        for file in (run / name for name in PUBLISHED):
            if file.exists():
                shutil.copy2(file, part / "before")
        if (run / "plots").exists():
            shutil.copytree(run / "plots", part / "before" / "plots")
        part.rename(step)
    except OSError:  # a full disk is not to hold what is of no use
        shutil.rmtree(part, ignore_errors=True)
        raise
    mend(run)
    return step


def take_back(run: Path) -> None:
    """Undo the last put_aside. The rename ends the force of its decisions, before anything is brought back."""
    last = applied(run)[-1]
    last.rename(last.with_suffix(".undo"))
    mend(run)


def mend(run: Path) -> None:
    """End what a kill cut short: a copy that was not put in force, a revert, a student not yet put aside."""
    for part in run.glob("corrections/*.part"):
        shutil.rmtree(part)
    for undo in run.glob("corrections/*.undo"):
        _bring_back(run, undo / "before")
        undo.rename(undo.with_suffix(".part"))  # half deleted, it must not be brought back once more
        shutil.rmtree(undo.with_suffix(".part"))
    steps = applied(run)
    if steps and not (steps[-1] / "before" / "student").exists():
        os.replace(run / "student", steps[-1] / "before" / "student")
    if not steps:
        with suppress(OSError):  # it is not there, or holds what somebody has put there
            (run / "corrections").rmdir()


def _bring_back(run: Path, before: Path) -> None:
    """Copies, so that it can be done again after a kill; only the student is moved, and is there or not."""
    if (before / "student").exists():
        shutil.rmtree(run / "student", ignore_errors=True)
        os.replace(before / "student", run / "student")
    for name in PUBLISHED:
        if (before / name).exists():
            atomic_write(run / name, (before / name).read_bytes())
        else:
            (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "plots", ignore_errors=True)
    if (before / "plots").exists():
        shutil.copytree(before / "plots", run / "plots")
