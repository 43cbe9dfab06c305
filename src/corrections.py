"""Human decisions: checked against the run, kept in its corrections.csv, outranking automatic ones."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from .config import UserError
from .data.samples import Samples
from .run import Run, log, read_csv, read_json, write_csv
from .selftrain import Outcome

ACTIONS = ("keep", "relabel", "drop", "ambiguous")


def store_corrections(run: Run, file: Path) -> None:
    """Add the lines of a corrections file (id, given, action, label[, image_sha256]) to those of the run.

    The student is removed, so that going on with the run trains it again. A later line outranks an earlier one.

    Raises:
        UserError: any line does not fit this run; all of them are named, and nothing is stored.
    """
    if not file.is_file():
        raise UserError(f"--corrections {file} does not exist; export it from {run.path / 'review.html'}")
    table = read_csv(file)
    missing = {"id", "given", "action", "label"} - set(table)
    if missing:
        raise UserError(f"{file} has no column {', '.join(sorted(missing))}; it needs id, given, action, label")
    faults = _faults(
        table, read_csv(run.path / "samples.csv"), read_json(run.path / "student" / "model.json")["classes"]
    )
    if faults:
        raise UserError(f"{file}: nothing was applied; " + "; ".join(faults))
    stored = run.path / "corrections.csv"
    if stored.exists():
        table = pd.concat([read_csv(stored), table]).drop_duplicates("id", keep="last")
    write_csv(stored, table[["id", "given", "action", "label"]].sort_values("id"))
    shutil.rmtree(run.path / "student")
    log.info(f"{len(table):,} human decisions in {stored}; the student is trained again")


def _faults(table: pd.DataFrame, samples: pd.DataFrame, classes: list[str]) -> list[str]:
    """`line 3: what is wrong` for every line that does not fit the judged samples of the run."""
    known = samples[samples.role.isin(["train", "pool"])].set_index("id")
    faults = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        if row["id"] not in known.index:
            fault = f"id {row['id']!r} is not in this run"
        elif known.given[row["id"]] != row["given"]:
            fault = f"given is {row['given']!r}, but {known.given[row['id']]!r} in this run"
        elif row["action"] not in ACTIONS:
            fault = f"action {row['action']!r} is none of {', '.join(ACTIONS)}"
        elif row["action"] == "relabel" and row["label"] not in classes:
            fault = f"label {row['label']!r} is no class of this run"
        elif row.get("image_sha256") and row["image_sha256"] != _sha256(known.path[row["id"]]):
            fault = f"the image of {row['id']!r} has changed"
        else:
            continue
        faults.append(f"line {number}: {fault}")
    doubled = table.id[table.id.duplicated()].unique()
    return faults + [f"id {name!r} stands more than once" for name in doubled]


def _sha256(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else "missing"


def with_corrections(run: Run, samples: Samples, outcome: Outcome) -> Outcome:
    """The outcome of the rounds with the human decisions of this run, if any, on top.

    keep, relabel: the label is learned. drop, ambiguous: none is.
    """
    stored = run.path / "corrections.csv"
    if not stored.exists():
        return outcome
    table = read_csv(stored).set_index("id")
    index = {name: k for k, name in enumerate(samples.classes)}
    label, human = outcome.label.copy(), np.isin(samples.id, table.index)
    for row in np.flatnonzero(human):
        action, name = table.loc[samples.id[row], ["action", "label"]]
        label[row] = {"keep": samples.given[row], "relabel": index.get(name, -1)}.get(action, -1)
    return replace(outcome, label=label, human=human)
