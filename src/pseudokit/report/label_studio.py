"""Label Studio: tasks with predictions out, its annotations back in (docs/review.md)."""

import os
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..config.types import UserError
from ..system.files import atomic_write, write_json
from . import load_run
from .report import render
from .review_items import class_names, read_review_items

ACTIONS = {"(drop)": "drop", "(ambiguous)": "ambiguous"}
"""Choices that are no class."""
BLOCK = "label"
"""Name of the choices in our interface, see the template label_studio.xml."""


def write_label_studio(run: Path) -> None:
    """Write label_studio.json (tasks: the rows of review.html) and label_studio.xml (labeling interface).

    A run that has nothing to review writes neither.
    """
    items, info = read_review_items(run)
    if items.empty:
        return
    root = document_root(load_run.read_table(run / "samples.csv", "path").path)
    tasks = [make_task(run.resolve().name, item, root) for item in items.itertuples()]
    write_json(run / "label_studio.json", tasks)
    atomic_write(run / "label_studio.xml", interface(class_names(items, info)))


def document_root(paths: pd.Series) -> str:
    """The folder above the one that holds all images: Label Studio serves folders inside of its root only."""
    folders = paths.str.replace("[^/]*$", "", regex=True).unique()  # few, unlike the images
    return os.path.dirname(os.path.commonpath([*map(os.path.abspath, folders)]))


def make_task(run: str, item: NamedTuple, root: str) -> dict:
    """A task for one row of the review, with the predicted class as prediction and the image's address below `root`."""
    note = f"{item.id}: given {item.given_label or 'no label'}"
    predictions = []
    if item.predicted:
        note += f", predicted {item.predicted} ({item.confidence:.2f})"
        value = {"choices": [item.predicted]}
        result = [{"from_name": BLOCK, "to_name": "image", "type": "choices", "value": value}]
        predictions = [{"model_version": run, "score": item.confidence, "result": result}]
    data = {
        "id": item.id,
        "given_label": item.given_label,
        "image": "/data/local-files/?d=" + quote(os.path.relpath(item.path, root)),
        "image_sha256": load_run.image_hash(item.path),
        "run": run,
        "note": note,
    }
    return {"data": data, "predictions": predictions}


def interface(classes: list[str]) -> str:
    """The labeling interface: the image, what is known of it, and the classes and actions to choose from."""
    return render("label_studio.xml", choices=[*classes, *_actions(classes)])


def _actions(classes: list[str]) -> dict[str, str]:
    """ACTIONS without a choice that is a class of this run."""
    return {name: action for name, action in ACTIONS.items() if name not in classes}


class Mark(BaseModel):
    """One mark of a person: here, what was chosen."""

    from_name: str = ""
    value: dict = {}


class Annotation(BaseModel):
    """All marks that a person made in one go."""

    result: list[Mark]
    was_canceled: bool = False
    updated_at: str = ""

    def choice(self, blocks: set[str]) -> str:
        """The choice in these blocks of the interface; "" where nothing was chosen."""
        if self.was_canceled:
            return ""
        chosen = []
        for mark in self.result:
            if mark.from_name in blocks:
                chosen += mark.value.get("choices", [])
        return " and ".join(chosen)


class TaskData(BaseModel):
    """What a task of ours says of its image."""

    id: str
    given_label: str
    image_sha256: str
    run: str


class AnnotatedTask(BaseModel):
    """A task of Label Studio's JSON export."""

    data: TaskData
    annotations: list[Annotation]


def read_annotations(file: Path, classes: list[str]) -> pd.DataFrame:
    """Label Studio's JSON export as the lines of a corrections file; the index says where each stands (`task 1`).

    Tasks without an annotation, and canceled or empty annotations, are passed over; of several, the last one counts.
    The choices are those of our own block, else of the only one that the project has, whatever it is called.

    Raises:
        UserError: the file is no such export, or has several blocks of choices.
    """
    try:
        tasks = TypeAdapter(list[AnnotatedTask]).validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        keys = " ".join(str(key) for key in first["loc"][1:])
        place = f"task {first['loc'][0] + 1} {keys}: " if first["loc"] else ""
        raise UserError(
            f"{file}: {place}{first['msg']}; export the project of Label Studio as JSON"
        ) from None
    blocks = {
        mark.from_name
        for task in tasks
        for annotation in task.annotations
        for mark in annotation.result
        if "choices" in mark.value
    }
    if BLOCK in blocks:
        blocks = {BLOCK}
    if len(blocks) > 1:
        raise UserError(
            f"{file} has choices in {', '.join(sorted(blocks))}; name the one with the classes {BLOCK!r} in the export"
        )
    actions = _actions(classes)
    lines = {}
    for number, task in enumerate(tasks, start=1):
        for annotation in sorted(task.annotations, key=attrgetter("updated_at")):
            if choice := annotation.choice(blocks):
                action = actions.get(choice, "relabel")
                label = choice if action == "relabel" else ""
                decision = {"action": action, "label": label}
                lines[f"task {number}"] = task.data.model_dump() | decision
    columns = [*TaskData.model_fields, "action", "label"]
    return pd.DataFrame.from_dict(lines, "index", columns=columns)
