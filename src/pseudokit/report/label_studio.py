"""Label Studio: tasks with predictions out, its annotations back in (docs/review.md)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from ..config.types import UserError
from ..round_store import RoundStore
from ..system.files import atomic_write, write_json
from . import load_run
from .review import to_review

ACTIONS = {"(drop)": "drop", "(ambiguous)": "ambiguous"}
"""Choices that are no class."""


def write_label_studio(run: Path, limit: int = 5000) -> None:
    """Write label_studio.json (tasks: the rows of review.html) and label_studio.xml (labeling interface).

    A run that has nothing to review writes neither.
    """
    metrics = load_run.read_dict(run / "metrics.json")
    info = load_run.decisive_round(metrics, RoundStore(run).rounds() or metrics.get("rounds") or [])
    rows = to_review(run, load_run.cutoffs(metrics, info)[1], limit)
    if rows is None or not len(rows):
        return
    classes = load_run.label_names(info) or sorted({*rows["given_label"], *rows["predicted"]} - {""})
    paths = load_run.read_table(run / "samples.csv", "path")["path"]
    write_json(run / "label_studio.json", tasks(run.resolve().name, rows, document_root(paths)))
    atomic_write(run / "label_studio.xml", interface(classes))


def document_root(paths: pd.Series) -> str:
    """The folder above the one that holds all images: Label Studio serves folders inside of its root only."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return os.path.dirname(folder)


def tasks(name: str, rows: pd.DataFrame, root: str) -> list[dict[str, Any]]:
    """A task a row, with the image's address below `root` and the predicted class as prediction.

    rows: id, path, given, predicted, confidence, …, as to_review gives them.
    """
    made = []
    for row in rows.to_dict("records"):
        content = load_run.read_bytes(row["path"])
        given_labels = f"given {row['given_label']}, " if row["given_label"] else ""
        data = {
            "id": row["id"],
            "given_label": row["given_label"],
            "image": "/data/local-files/?d=" + quote(os.path.relpath(row["path"], root)),
            "image_sha256": hashlib.sha256(content).hexdigest() if content else "",
            "run": name,
            "note": f"{row['id']}: {given_labels}predicted {row['predicted']} ({row['confidence']:.2f})",
        }
        prediction = {"model_version": name, "score": row["confidence"], "result": [choice(row["predicted"])]}
        made.append({"data": data, "predictions": [prediction]})
    return made


def choice(name: str) -> dict[str, Any]:
    """One choice in a prediction or an annotation."""
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]}}


def interface(classes: list[str]) -> str:
    """The labeling interface: the image, what is known of it, and the classes and actions to choose from."""
    choices = [*classes, *_actions(classes)]
    lines = ["<View>", '  <Image name="image" value="$image"/>', '  <Text name="note" value="$note"/>']
    lines += ['  <Choices name="label" toName="image" choice="single" required="true">']
    lines += [f"    <Choice value={quoteattr(name)}/>" for name in choices]
    return "\n".join([*lines, "  </Choices>", "</View>"]) + "\n"


def _actions(classes: list[str]) -> dict[str, str]:
    """ACTIONS, but for a choice that is a class of this run."""
    return {name: action for name, action in ACTIONS.items() if name not in classes}


def read_annotations(file: Path, classes: list[str]) -> pd.DataFrame:
    """Label Studio's JSON export as the lines of a corrections file; the index says where each stands (`task 1`).

    Tasks without an annotation, and canceled or empty annotations, are passed over; of several, the last one counts.

    Raises:
        UserError: the file is no such export.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also a wrong encoding
        raise UserError(f"{file} cannot be read as JSON: {' '.join(str(error).split())}") from None
    lines = {}
    for number, task in enumerate(found if isinstance(found, list) else [found], start=1):
        try:
            lines[f"task {number}"] = _line(task, _actions(classes))
        except (AttributeError, KeyError, TypeError) as error:
            what = f"task {number} is not as Label Studio exports it ({type(error).__name__}: {error})"
            raise UserError(f"{file}: {what}; export the project as JSON") from None
    lines = {place: line for place, line in lines.items() if line}
    columns = ["id", "given_label", "action", "label", "image_sha256", "run"]
    return pd.DataFrame(list(lines.values()), index=list(lines), columns=columns)


def _line(task: dict[str, Any], actions: dict[str, str]) -> dict[str, str] | None:
    """What the last annotation of a task decides; None where it decides nothing."""
    data = {key: str(task["data"][key]) for key in ("id", "given_label", "image_sha256", "run")}
    made = [a for a in task["annotations"] if not a.get("was_canceled") and _choices(a)]
    if not made:
        return None
    chosen = " and ".join(_choices(sorted(made, key=lambda a: a.get("updated_at") or a.get("created_at") or "")[-1]))
    action = actions.get(chosen, "keep" if chosen == data["given_label"] else "relabel")
    return data | {"action": action, "label": "" if chosen in actions else chosen}


def _choices(annotation: dict[str, Any]) -> list[str]:
    marks = [mark for mark in annotation["result"] if mark["from_name"] == "label"]
    return [name for mark in marks for name in mark["value"]["choices"]]
