"""--mode apply: human decisions on top of a finished run, and how they are taken back.

`corrections/NNNN` holds one applied file (corrections.csv) and the student that it replaced. The decisions are in force
as long as corrections.csv is there: one rename puts it there, one unlink takes it away. Then `mend` moves the student,
and the pipeline writes the other files of the run anew. A kill at any moment leaves what the next command ends.
Where the file `labels_only` lies beside corrections.csv, the student stays: it has not learned these decisions.
"""

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
from ..data.spelling import respell
from ..report.label_studio import read_annotations
from ..report.load_run import image_hash, read_dict
from ..self_training import SelfTrainingResult
from ..system.files import atomic_write, log, write_csv
from .folder import Run, run_classes

ACTIONS = ("keep", "relabel", "drop", "ambiguous")
COLUMNS = ["id", "given_label", "action", "label"]
LABELS_ONLY = "labels_only"
"""The file that tells of decisions that the student has not learned."""


def new_decisions(run: Run, file: Path, labels_only: bool = False) -> pd.DataFrame | None:
    """The decisions of a corrections file, checked against the run. Nothing is written.

    Args:
        labels_only: the student need not learn them.

    Returns:
        Columns id, given_label, action, label; None where all of them are in force already.

    Raises:
        UserError: a line does not fit this run, a class would be left without a row, or the run is not complete.
    """
    mend(run.path)
    table = read_corrections(run, file)
    is_new = len(table.merge(decided(run.path))) < len(table)
    if (is_new or labels_only) and not run.is_whole():
        raise UserError(
            f"--run {run.path} was stopped before its end; run its last command again, or --revert"
        )
    if not is_new and (labels_only or not not_learned(run.path)):
        log.info(f"{file}: all of its {len(table):,} decisions are in force already")
        return None
    classes, multi_label = run_classes(run.path), run.config.data.multi_label
    labels = read_csv(run.path / "labels.csv").set_index("id").label
    labels_after = table.set_index("id").label.combine_first(labels)
    emptied = np.setdiff1d(
        classes_of(parse(labels, classes, multi_label)),
        classes_of(parse(labels_after, classes, multi_label)),
    )
    if len(emptied):
        raise UserError(
            f"{file}: nothing was applied; no row of class {classes[emptied[0]]!r} would be left; keep one"
        )
    return table


def read_corrections(run: Run, file: Path) -> pd.DataFrame:
    """A corrections file: CSV (id, given_label, action, label[, image_sha256, run]) or Label Studio's JSON.

    Returns:
        Columns id, given_label, action, label, sorted by id. There is one way to say one thing: label is what is
        learned, empty for drop and ambiguous; relabel to the given label is keep; keep of an unlabeled row is relabel.
    Ids and labels that a spreadsheet has changed (7 for 007, 2.0, TRUE) are those of the run.

    Raises:
        UserError: the file cannot be read, decides nothing, or lines do not fit this run; all of those are named.
    """
    classes = run_classes(run.path)
    table = _read_lines(run.path, file, classes)
    if table.empty:
        raise UserError(f"{file} decides nothing; export it after a decision")
    samples = read_csv(run.path / "samples.csv")
    samples = samples[samples.split.isin(LEARNED_SPLITS)].set_index("id")
    names = ["", run.config.name or "", run.path.resolve().name]
    known = {"id": samples.index, "given_label": classes, "label": classes, "run": names}
    for column, texts in known.items():
        table[column] = respell(table[column], texts)
    sample = samples.reindex(table.id, fill_value="").set_index(table.index)
    is_keep = table.action == "keep"
    is_learned = is_keep | (table.action == "relabel")
    label = table.label.mask(is_keep & (table.label == ""), table.given_label)
    label = label.where(is_learned, "")
    is_given = label == table.given_label
    is_label = label.isin(labels_among(label, classes, run.config.data.multi_label))
    images_now = sample.path.where(table.image_sha256 != "", "").map(image_hash)
    contradicts = is_keep & ~is_given & (table.given_label != "")
    faults = {  # of a line that has several, the first is named
        "it is of run {run!r}": ~table.run.isin(names),
        "id {id!r} is no labeled or unlabeled row of this run": ~table.id.isin(samples.index),
        "given_label is {given_label!r}, but not here": table.given_label != sample.given_label,
        "action {action!r}: keep, relabel, drop or ambiguous": ~table.action.isin(ACTIONS),
        "keep, but label is {label!r} and given_label {given_label!r}; relabel, or leave label empty": contradicts,
        "label {label!r} is no class of this run": is_learned & ~is_label,
        "the image has changed since it was shown": table.image_sha256 != images_now,
        "id {id!r} stands above already": table.id.duplicated(),
    }
    texts = np.select(list(faults.values()), list(faults), "")
    fault = pd.Series(texts, table.index)
    named = [f"{at}: {text.format(**table.loc[at])}" for at, text in fault.items() if text]
    if named:
        raise UserError(f"{file}: nothing was applied; {'; '.join(named)}")
    action = table.action.mask(is_learned, np.where(is_given, "keep", "relabel"))
    return table.assign(action=action, label=label)[COLUMNS].sort_values("id", ignore_index=True)


def _read_lines(run: Path, file: Path, classes: list[str]) -> pd.DataFrame:
    """The lines of a corrections file; the index says where each stands (`line 2`, `task 1`)."""
    if not file.is_file():
        raise UserError(
            f"--corrections {file} does not exist; export it from {run / 'review.html'}"
        )
    if file.suffix.lower() == ".json":
        return read_annotations(file, classes)
    table = unescape_formulas(read_csv(file, skip_blank_lines=False).fillna(""))
    if missing := sorted(set(COLUMNS).difference(table)):
        raise UserError(
            f"{file} has no column {', '.join(missing)}; it needs id, given_label, action, label"
        )
    table.index = "line " + (table.index + 2).astype(str)
    is_blank = (table == "").all(axis=1)
    return table[~is_blank].reindex(columns=[*COLUMNS, "image_sha256", "run"], fill_value="")


def with_corrections(
    run: Run, dataset: Dataset, result: SelfTrainingResult, steps: list[Path] | None = None
) -> SelfTrainingResult:
    """What the rounds came to, with human decisions on top.

    Args:
        steps: the applied files that count; default: all.
    """
    mend(run.path)
    table = decided(run.path, steps)
    ids = pd.Index(dataset.id)
    label = result.label.copy()
    rows = ids.get_indexer(table.id)
    label[rows] = parse(table.label, dataset.classes, label.ndim == 2)
    return replace(result, label=label, human=ids.isin(table.id))


def applied(run: Path) -> list[Path]:
    """The folders of the applied files, oldest first."""
    return sorted(file.parent for file in run.glob("corrections/*/corrections.csv"))


def learned(run: Path) -> list[Path]:
    """Those of the applied files that the student has learned, or will learn."""
    steps = applied(run)
    while steps and (steps[-1] / LABELS_ONLY).exists():
        steps.pop()
    return steps


def not_learned(run: Path) -> int:
    """How many rows the decisions in force are about that the student has not learned."""
    return len(decided(run, applied(run)[len(learned(run)) :]))


def decided(run: Path, steps: list[Path] | None = None) -> pd.DataFrame:
    """The human decisions in force (id, given_label, action, label), by id; a later file outranks an earlier one.

    Args:
        steps: the applied files that count; default: all.
    """
    steps = applied(run) if steps is None else steps
    tables = [unescape_formulas(read_csv(step / "corrections.csv")) for step in steps]
    table = pd.concat([pd.DataFrame(columns=COLUMNS, dtype=str), *tables])
    return table.drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)


def store_corrections(run: Run, table: pd.DataFrame, labels_only: bool = False) -> None:
    """Put decisions in force and the student aside, so that going on with the run trains it again.

    Args:
        labels_only: the student stays.
    """
    file = run.path / "corrections" / f"{len(applied(run.path)) + 1:04d}" / "corrections.csv"
    if labels_only:
        atomic_write(file.with_name(LABELS_ONLY), "")
    write_csv(file, escape_formulas(table))
    mend(run.path)
    again = "; the student is trained again" if run.trains and not labels_only else ""
    log.info(f"{len(table):,} human decisions in {file}{again}")


def revert(run: Run) -> None:
    """Take back the last applied file and bring back the student that it replaced; going on writes the other files.

    Where an earlier process began that and was stopped, this takes back no more.

    Raises:
        UserError: there is none.
    """
    steps = applied(run.path)
    n_reported = read_dict(run.path / "metrics.json").get("human", {}).get("files", 0)
    is_begun = n_reported > len(steps)
    if not steps and not is_begun:
        raise UserError(f"--revert: no corrections are in force in {run.path}")
    with run.stage("revert"):
        if not is_begun:
            (steps.pop() / "corrections.csv").unlink()
        mend(run.path)
    log.info(f"the last corrections are taken back; {len(steps)} files of them in force")


def mend(run: Path) -> None:
    """End what a kill cut short: the student of a file that was taken back returns, that of the last one goes aside.

    The last one that is to be learned, that is.
    """
    student = run / "student"
    for step in run.glob("corrections/[0-9]*"):
        if (step / "corrections.csv").exists():
            continue
        if (step / "student").exists():
            shutil.rmtree(student, ignore_errors=True)
            os.replace(step / "student", student)
        shutil.rmtree(step)
    for step in learned(run)[-1:]:
        replaced = step / "student"
        if student.exists() and not replaced.exists():
            os.replace(student, replaced)
