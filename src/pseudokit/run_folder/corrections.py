"""--mode apply: human decisions on top of a finished run, and how they are taken back.

`corrections/NNNN` holds one applied file (corrections.csv) and the student that it replaced. The decisions are in force
as long as corrections.csv is there: one rename puts it there, one unlink takes it away. Then `mend` moves the student,
and the pipeline writes the other files of the run anew. A kill at any moment leaves what the next command ends.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.types import UserError
from ..data.csv_text import escape_formulas, read_csv, unescape_formulas
from ..data.dataset import LEARNED_SPLITS, Dataset
from ..data.encoding import classes_of, labels_among, parse
from ..report.label_studio import read_annotations
from ..report.load_run import image_hash
from ..self_training import SelfTrainingResult
from ..system.files import log, read_json, write_csv
from .folder import Run

ACTIONS = ("keep", "relabel", "drop", "ambiguous")
COLUMNS = ["id", "given_label", "action", "label"]


def new_decisions(run: Run, file: Path) -> pd.DataFrame | None:
    """The decisions of a corrections file, checked against the run. Nothing is written.

    Returns:
        Columns id, given_label, action, label; None where all of them are in force already.

    Raises:
        UserError: a line does not fit this run, a class would be left without a row, or the run is not complete.
    """
    mend(run.path)
    table = read_corrections(run, file)
    if len(table.merge(decided(run.path))) == len(table):
        log.info(f"{file}: all of its {len(table):,} decisions are in force already")
        return None
    if not (run.path / "student" / "model.json").exists():
        raise UserError(
            f"--run {run.path} was stopped before its end; run its last command again, or --revert"
        )
    if emptied := _emptied_classes(run, table):
        raise UserError(
            f"{file}: nothing was applied; no row of class {emptied[0]!r} would be left; keep one"
        )
    return table


def read_corrections(run: Run, file: Path) -> pd.DataFrame:
    """A corrections file: CSV (id, given_label, action, label[, image_sha256, run]) or Label Studio's JSON.

    Returns:
        Columns id, given_label, action, label, sorted by id. There is one way to say one thing: label is what is
        learned, empty for drop and ambiguous; relabel to the given label is keep; keep of an unlabeled row is relabel.

    Raises:
        UserError: the file cannot be read, or lines do not fit this run; all of those are named.
    """
    classes = _classes(run.path)
    table = _read_lines(run.path, file, classes)
    samples = read_csv(run.path / "samples.csv")
    samples = samples[samples.split.isin(LEARNED_SPLITS)].set_index("id")
    sample = samples.reindex(table.id, fill_value="").set_index(table.index)
    is_learned = table.action.isin(["keep", "relabel"])
    keeps_given = (table.action == "keep") & (table.label == "")
    label = table.label.mask(keeps_given, table.given_label).where(is_learned, "")
    is_given = label == table.given_label
    is_label = label.isin(labels_among(label, classes, run.config.data.multi_label))
    checks = {  # the first that a line fails is told
        "it is of run {run!r}": table.run.isin(["", run.config.name, run.path.resolve().name]),
        "id {id!r} is none of the labeled or unlabeled rows of this run": table.id.isin(
            samples.index
        ),
        "given_label is {given_label!r}, but not in this run": table.given_label
        == sample.given_label,
        "action {action!r} is none of keep, relabel, drop, ambiguous": table.action.isin(ACTIONS),
        "keep, but label is {label!r} and given_label {given_label!r}; relabel it, or leave label empty": (
            table.action != "keep"
        )
        | (table.given_label == "")
        | is_given,
        "label {label!r} is no class of this run": ~is_learned | is_label,
        "the image has changed since it was shown": _are_unchanged(sample.path, table.image_sha256),
        "id {id!r} stands above already": ~table.id.duplicated(),
    }
    fault = np.select([~passed for passed in checks.values()], list(checks), "")
    faults = [
        f"{place}: {fault[i].format(**table.loc[place])}"
        for i, place in enumerate(table.index)
        if fault[i]
    ]
    if len(faults) > len(table) / 2:
        faults.insert(0, "most of its lines do not fit: it seems to be of another run")
    if faults:
        raise UserError(f"{file}: nothing was applied; " + "; ".join(faults))
    action = table.action.mask(is_learned, np.where(is_given, "keep", "relabel"))
    return table.assign(action=action, label=label)[COLUMNS].sort_values("id", ignore_index=True)


def _classes(run: Path) -> list[str]:
    """The classes of the student, also while it is put aside."""
    return read_json(next(run.rglob("student/model.json")), "classes")["classes"]


def _read_lines(run: Path, file: Path, classes: list[str]) -> pd.DataFrame:
    """The lines of a corrections file; the index says where each stands (`line 2`, `task 1`)."""
    if not file.is_file():
        raise UserError(
            f"--corrections {file} does not exist; export it from {run / 'review.html'}"
        )
    if file.suffix.lower() == ".json":
        return read_annotations(file, classes)
    table = unescape_formulas(read_csv(file, skip_blank_lines=False).fillna(""))
    if missing := sorted({*COLUMNS} - {*table}):
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it needs id, given_label, action, label"
        )
    table.index = [f"line {number}" for number in range(2, len(table) + 2)]
    is_blank = (table == "").all(axis=1)
    return table[~is_blank].reindex(columns=[*COLUMNS, "image_sha256", "run"], fill_value="")


def _are_unchanged(paths: pd.Series, hashes: pd.Series) -> pd.Series:
    """Whether the images have these hashes (sha256); an empty one stands for any."""
    return hashes == paths.where(hashes != "", "").map(image_hash)


def _emptied_classes(run: Run, decisions: pd.DataFrame) -> list[str]:
    """The classes that the student has learned and that no row would have with these decisions."""
    classes, multi_label = _classes(run.path), run.config.data.multi_label
    before = read_csv(run.path / "labels.csv").set_index("id").label
    after = decisions.set_index("id").label.combine_first(before)
    classes_before = classes_of(parse(before, classes, multi_label))
    classes_after = classes_of(parse(after, classes, multi_label))
    return [classes[k] for k in np.setdiff1d(classes_before, classes_after)]


def with_corrections(run: Run, dataset: Dataset, result: SelfTrainingResult) -> SelfTrainingResult:
    """What the rounds came to, with the human decisions of this run, if any, on top."""
    mend(run.path)
    table = decided(run.path)
    if table.empty:
        return result
    rows = pd.Index(dataset.id).get_indexer(table.id)
    label = result.label.copy()
    label[rows] = parse(table.label, dataset.classes, multi_label=label.ndim == 2)
    human = np.zeros(len(dataset), bool)
    human[rows] = True
    return replace(result, label=label, human=human)


def applied(run: Path) -> list[Path]:
    """The folders of the applied files, oldest first."""
    return sorted(file.parent for file in run.glob("corrections/*/corrections.csv"))


def decided(run: Path) -> pd.DataFrame:
    """The human decisions in force (id, given_label, action, label), by id; a later file outranks an earlier one."""
    tables = [unescape_formulas(read_csv(step / "corrections.csv")) for step in applied(run)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)


def store_corrections(run: Run, table: pd.DataFrame) -> None:
    """Put decisions in force and the student aside, so that going on with the run trains it again."""
    file = run.path / "corrections" / f"{len(applied(run.path)) + 1:04d}" / "corrections.csv"
    write_csv(file, escape_formulas(table))
    mend(run.path)
    log.info(f"{len(table):,} human decisions in {file}; the student is trained again")


def revert(run: Run) -> None:
    """Take back the last applied file and bring back the student that it replaced; going on writes the other files.

    Where an earlier process began that and was stopped, this takes back no more.

    Raises:
        UserError: there is none.
    """
    steps, file = applied(run.path), run.path / "metrics.json"
    metrics = read_json(file) if file.exists() else {}
    is_begun = metrics.get("human", {}).get("files", 0) > len(steps)
    if not steps and not is_begun:
        raise UserError(f"--revert: no corrections are in force in {run.path}")
    with run.stage("revert"):
        if not is_begun:
            (steps.pop() / "corrections.csv").unlink()
        mend(run.path)
    log.info(f"the last corrections are taken back; {len(steps)} files of them in force")


def mend(run: Path) -> None:
    """End what a kill cut short: the student of a file that was taken back returns, that of the last one goes aside."""
    for step in run.glob("corrections/[0-9]*"):
        if (step / "corrections.csv").exists():
            continue
        if (step / "student").exists():
            shutil.rmtree(run / "student", ignore_errors=True)
            os.replace(step / "student", run / "student")
        shutil.rmtree(step)
    steps = applied(run)
    if steps and not (steps[-1] / "student").exists():
        os.replace(run / "student", steps[-1] / "student")
