"""review.html: one file in which a person decides on label issues by keyboard and exports corrections.csv."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..system.files import atomic_write, hash_of
from . import load_run
from .nearest_examples import nearest_examples
from .report import render
from .review_items import class_names, read_review_items

EXAMPLE_PIXELS = 96
"""Longer side of an example, and the least of a sample: what the page shows in its grid."""
MAX_SAMPLE_PIXELS = 256
"""Longer side of a sample's image where there are few: a larger one shows no more on a laptop."""


def write_review(run: Path, limit: int = 5000) -> Path | None:
    """Write review.html with the `limit` samples to look at first, and those of audit.csv.

    Returns:
        The page, or None if there is nothing to review.
    """
    items, info = read_review_items(run, limit)
    audit = load_run.read_table(run / "audit.csv", "id path given_label")
    rows = items
    if audit is not None:
        # rows that are only audited come last: whoever draws an audit loses no decision
        is_listed = audit["id"].isin(items["id"])
        only_audited = audit[~is_listed].reindex(columns=items.columns)
        only_audited[["predicted", "decision", "duplicates"]] = ""
        rows = pd.concat([items, only_audited], ignore_index=True) if len(items) else only_audited
    if rows.empty:
        return None
    images = read_images(rows["path"], sample_pixels(len(rows)))
    near, example_paths = nearest_examples(run, info, rows)
    examples = {}
    for row, example in zip(
        example_paths, read_images(example_paths.values(), EXAMPLE_PIXELS), strict=True
    ):
        examples[row] = example["image"]
    facts = rows.drop(columns="path").astype(object)
    facts = facts.where(facts.notna(), None)  # JSON has no NaN
    samples = facts.to_dict("records")
    for sample, image, pair in zip(samples, images, near, strict=True):
        sample |= image | {"near": pair}
    name = run.resolve().name
    key = review_key(name, samples[: len(items)])
    content = {
        "run": name,
        "key": key,
        "classes": class_names(rows, info),
        "samples": samples,
        "queues": review_queues(items, rows, audit),
        "examples": examples,
    }
    page = run / "review.html"
    words = {"name": name, "key": key}
    atomic_write(page, render("review.html", words, json=as_json(content)))
    return page


def sample_pixels(n: int) -> int:
    """Longer side of a sample's image: the fewer samples, the larger, so that the page stays below 30 MB."""
    pixels = EXAMPLE_PIXELS * (5000 / n) ** 0.5
    return int(np.clip(pixels, EXAMPLE_PIXELS, MAX_SAMPLE_PIXELS))


def read_images(paths: Iterable[str], pixels: int) -> list[dict[str, str]]:
    """For each path the thumbnail as a `data:` address and the hash of the file. Both are "" where it has gone."""

    def read_image(path: str) -> dict[str, str]:
        return {"image": load_run.thumbnail(path, pixels), "sha256": load_run.image_hash(path)}

    with ThreadPoolExecutor() as threads:  # OpenCV releases the interpreter's lock
        return list(threads.map(read_image, paths))


def review_key(run: str, samples: list[dict[str, Any]]) -> str:
    """Under which the browser remembers decisions: they are forgotten where what was decided on has changed."""
    facts = pd.DataFrame(samples, columns=["id", "given_label", "predicted", "sha256"])
    return hash_of(run, facts.to_dict("records"))


def review_queues(
    items: pd.DataFrame, rows: pd.DataFrame, audit: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Lists to go through: {"name", "blind": whether what the run thinks is hidden, "places" in rows}."""
    in_conflict = items["duplicates"] != ""
    is_kept = (items["decision"] == "keep") & ~in_conflict
    masks = {"to review": ~is_kept, "duplicates disagree": in_conflict, "kept by the run": is_kept}
    queues = []
    for name, mask in masks.items():
        places = np.flatnonzero(mask)
        queues.append({"name": name, "blind": False, "places": places.tolist()})
    if audit is not None:
        places = pd.Index(rows["id"]).get_indexer(audit["id"])
        queues.append({"name": "audit", "blind": True, "places": places.tolist()})
    return [queue for queue in queues if queue["places"]]


def as_json(content: dict[str, Any]) -> str:
    """JSON that may stand inside a <script>: no character in it can end the element or begin another."""
    text = json.dumps(
        content,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
