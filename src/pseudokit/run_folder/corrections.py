"""Human decisions: checked against the run, outranking automatic ones, taken back by --revert."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.types import UserError
from ..data.csv_text import escape_formulas, read_csv, unescape_formulas
from ..data.dataset import Dataset
from ..data.encoding import counts, is_label, parse
from ..report.label_studio import read_annotations
from ..self_training import SelfTrainingResult
from ..system.files import atomic_write, log, read_json, write_csv
from .folder import Run, read_status, write_status

ACTIONS = ("keep", "relabel", "drop", "ambiguous")


def new_decisions(run: Run, file: Path) -> pd.DataFrame | None:
    """The decisions of a corrections file: CSV (id, given, action, label[, image_sha256, run]) or Label Studio's JSON.

    None where they are in force already. Nothing is written.

    Raises:
        UserError: any line does not fit this run (all of them are named), or the run is not complete.
    """
    mend(run.path)
    table = _read(run.path, file)
    faults = _faults(table, run)
    if faults:
        raise UserError(f"{file}: nothing was applied; " + "; ".join(faults))
    table, before = _normal(table), decided(run.path)
    after = pd.concat([before, table]).drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)
    if after.to_numpy().tolist() == before.to_numpy().tolist():
        log.info(f"{file}: all of its {len(table):,} decisions are in force already")
        return None
    _refuse_incomplete(run.path)
    if lost := _emptied(run.path, after):
        raise UserError(f"{file}: nothing was applied; no row of class {lost[0]!r} would be left; keep one")
    return table


def store_corrections(run: Run, table: pd.DataFrame) -> None:
    """Put decisions in force and the student aside, so that going on with the run trains it again."""
    step = put_aside(run.path, table)
    log.info(f"{len(table):,} human decisions in {step / 'corrections.csv'}; the student is trained again")


def revert(run: Run) -> None:
    """Take back the last applied file: student and published files are again what they were before, byte for byte.

    Where an earlier process began that and was stopped, this ends what it began, and no more.

    Raises:
        UserError: there is none.
    """
    about = read_status(run.path)
    mend(run.path)
    begun = re.fullmatch(r"revert to (\d+) files", about["stage"])
    if not begun and not applied(run.path):
        raise UserError(f"--revert: no corrections are in force in {run.path}")
    left = int(begun[1]) if begun else len(applied(run.path)) - 1
    with run.stage(f"revert to {left} files"):
        if len(applied(run.path)) > left:
            take_back(run.path)
    write_status(run.path, "done", "done", read_json(run.path / "metrics.json")["reason"], run.mode)
    log.info(f"the last corrections are taken back; {left} files of them in force")


def _emptied(run: Path, decisions: pd.DataFrame) -> list[str]:
    """The classes of what the student learned that none of it would have with these decisions."""
    form, learned = _format(run), read_csv(run / "labels.csv").set_index("id").label
    before = parse(learned, form["classes"], form.get("multi_label", False))
    after = pd.concat([learned, decisions.set_index("id").label])
    after = parse(after[~after.index.duplicated(keep="last")], form["classes"], form.get("multi_label", False))
    k = len(form["classes"])
    return [form["classes"][c] for c in np.flatnonzero((counts(before, k) > 0) & (counts(after, k) == 0))]


def _refuse_incomplete(run: Path) -> None:
    """What is put aside must be the whole of an earlier state."""
    metrics = read_json(run / "metrics.json") if (run / "metrics.json").exists() else None
    steps, published = applied(run), (metrics or {}).get("human", {}).get("files", 0)
    if metrics is not None and published == len(steps) and (run / "student" / "model.json").exists():
        return
    remedy = f"apply {steps[-1] / 'corrections.csv'} again, or --revert" if steps else "run its command again"
    raise UserError(f"--run {run} was stopped before its end; to go on, {remedy}")


def _read(run: Path, file: Path) -> pd.DataFrame:
    """The lines of a corrections file; the index says where each stands (`line 2`, `task 1`)."""
    if not file.is_file():
        raise UserError(f"--corrections {file} does not exist; export it from {run / 'review.html'}")
    if file.suffix.lower() == ".json":
        return read_annotations(file, _format(run)["classes"])
    table = unescape_formulas(read_csv(file, skip_blank_lines=False).fillna(""))
    missing = set(COLUMNS) - set(table)
    if missing:
        raise UserError(f"{file} has no column {', '.join(sorted(missing))}; it needs id, given, action, label")
    table.index = [f"line {number}" for number in range(2, len(table) + 2)]
    return table[(table != "").any(axis=1)]


def _format(run: Path) -> dict:
    """model.json of the student, also while it is put aside."""
    files = [run / "student" / "model.json", *run.glob("corrections/*/before/student/model.json")]
    return read_json(next(file for file in files if file.exists()), "classes")


def _faults(table: pd.DataFrame, run: Run) -> list[str]:
    """`line 3: what is wrong` for every line that does not fit the judged samples of the run."""
    dataset, form = read_csv(run.path / "samples.csv"), _format(run.path)
    fits = partial(is_label, classes=form["classes"], multi_label=form.get("multi_label", False))
    known = (
        dataset[dataset.split.isin(["train", "unlabeled"])].set_index("id")[["given_label", "path"]].to_dict("index")
    )
    names = {run.path.resolve().name, run.config.name}
    first: dict[str, str] = {}
    faults, foreign = [], 0
    for place, row in zip(table.index, table.to_dict("records"), strict=True):
        fault = _misfit(row, known.get(row["id"]), names)
        foreign += fault is not None
        fault = fault or _wrong(row, known[row["id"]]["path"], fits)
        if row["id"] in first:
            fault = f"id {row['id']!r} stands in {first[row['id']]} already" + (f"; {fault}" if fault else "")
        first.setdefault(row["id"], place)
        faults += [f"{place}: {fault}"] if fault else []
    if foreign > len(table) / 2:
        faults.insert(0, f"{foreign:,} of its {len(table):,} lines do not fit: it seems to be of another run")
    return faults


def _misfit(row: dict, sample: dict | None, names: set) -> str | None:
    """Why a line is not about this run."""
    if row.get("run") and row["run"] not in names:
        return f"it is of run {row['run']!r}"
    if sample is None:
        return f"id {row['id']!r} is none of the labeled or pool rows of this run"
    if sample["given_label"] != row["given_label"]:
        return f"given is {row['given_label']!r}, but {sample['given_label']!r} in this run"
    return None


def _wrong(row: dict, path: str, fits: Callable[[str], bool]) -> str | None:
    """What is wrong with a line that is about this run; fits: whether a text is a label of it."""
    action, label, given_labels = row["action"], row["label"], row["given_label"]
    if action not in ACTIONS:
        return f"action {action!r} is none of {', '.join(ACTIONS)}"
    if action == "keep" and not given_labels and not label:
        return "keep, but the row has no given label; relabel it, or name the label to keep"
    if action == "keep" and given_labels and label not in ("", given_labels):
        return f"keep, but label is {label!r} and given {given_labels!r}"
    if (action == "relabel" or (action == "keep" and label)) and not fits(label):
        return f"label {label!r} is no class of this run"
    if row.get("image_sha256") and row["image_sha256"] != _sha256(path):
        return f"the image {path} has changed"
    return None


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else "missing"


def _normal(table: pd.DataFrame) -> pd.DataFrame:
    """One way to say one thing (id, given, action, label): label is what is learned, empty for drop and ambiguous.

    relabel to the given label is keep; keep of a pool row, which names its label, is relabel.
    """
    taken = table.action.isin(["keep", "relabel"])
    label = table.label.where(table.label != "", table.given_label).where(taken, "")
    action = table.action.where(~taken, np.where(label == table.given_label, "keep", "relabel"))
    return table.assign(action=action, label=label)[COLUMNS].sort_values("id", ignore_index=True)


def with_corrections(run: Run, dataset: Dataset, result: SelfTrainingResult) -> SelfTrainingResult:
    """The outcome of the rounds with the human decisions of this run, if any, on top.

    keep, relabel: the label is learned. drop, ambiguous: none is.
    """
    mend(run.path)
    table = decided(run.path)
    if table.empty:
        return result
    labels = parse(table.label, dataset.classes, dataset.given_labels.ndim == 2)
    says = dict(zip(table.id, labels, strict=True))
    human = np.isin(dataset.id, table.id)
    label = result.label.copy()
    label[human] = [says[name] for name in dataset.id[human]]
    return replace(result, label=label, human=human)


COLUMNS = ["id", "given_label", "action", "label"]
PUBLISHED = (
    "samples.csv",
    "scored.csv",
    "labels.csv",
    "label_issues.csv",
    "pseudo_labels.csv",
    "audit.csv",
    "oof.csv",
    "oof_log_probs.npy",
    "thresholds.json",
    "predictions.csv",
    "submission.csv",
    "metrics.json",
    "metrics.jsonl",
    "label_studio.json",
    "label_studio.xml",
    "report.html",
    "review.html",
)
"""What a run writes after its student, plots/ aside."""


def applied(run: Path) -> list[Path]:
    """The folders of the applied files, oldest first."""
    return sorted(run.glob("corrections/[0-9][0-9][0-9][0-9]"))


def decided(run: Path) -> pd.DataFrame:
    """The human decisions in force (id, given, action, label), by id; a later file outranks an earlier one."""
    tables = [unescape_formulas(read_csv(step / "corrections.csv")) for step in applied(run)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)


def put_aside(run: Path, table: pd.DataFrame) -> Path:
    """Begin corrections/NNNN with these decisions and a copy of what they will replace; returns that folder.

    The rename puts the decisions in force. The student goes last: as long as it is not in before/, it is the old one.
    """
    step = run / "corrections" / f"{len(applied(run)) + 1:04d}"
    part = step.with_suffix(".part")
    try:
        write_csv(part / "corrections.csv", escape_formulas(table))
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
