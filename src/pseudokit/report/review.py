"""review.html: one file in which a person decides on label issues by keyboard and exports corrections.csv."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from ..data.cache import map_images
from ..system.files import atomic_write, hash_of
from . import load_run
from .nearest_examples import nearest_examples
from .report import render
from .review_items import MAX_ITEMS, NO_TEXT, class_names, read_conflicts, read_review_items

EXAMPLE_PIXELS = 96
"""Longer side of an example, and of a sample where there are many: what the page shows in its grid."""
MAX_SAMPLE_PIXELS = 256
"""Longer side of a sample's image where there are few: a larger one shows no more on a laptop."""
MAX_COPIES = 6
"""Copies of an image that fit side by side."""


def write_review(
    run: Path, limit: int = MAX_ITEMS, suggested: pd.DataFrame | None = None
) -> Path | None:
    """Write review.html with the `limit` samples to look at first, and those of audit.csv.

    Args:
        suggested: write suggested.html with these rows to label (id, path, given_label) in place of an audit.

    Returns:
        The page, or None if there is nothing to review.
    """
    rows, content, info = read_review(run, limit, suggested)
    if rows.empty:
        return None
    near, example_paths = nearest_examples(run, info, rows)
    examples = thumbnails(example_paths.values(), EXAMPLE_PIXELS)
    # the fewer samples, the larger, so that the page stays below 30 MB
    pixels = int(EXAMPLE_PIXELS * max(1, MAX_ITEMS / len(rows)) ** 0.5)
    pixels = min(pixels, MAX_SAMPLE_PIXELS)
    images = thumbnails(rows.path, pixels)
    hashes = rows.path.map(load_run.image_hash)
    originals = [
        address(path, run) if known else "" for path, known in zip(rows.path, hashes, strict=True)
    ]
    rows = rows.drop(columns="path").assign(
        image=images, original=originals, sha256=hashes, near=near
    )
    # the browser forgets decisions where what was decided on has changed
    decided_on = rows[["id", "given_label", "predicted", "sha256"]][: content.pop("items") or None]
    content |= {
        "key": hash_of(content["run"], decided_on.to_dict("records")),
        "samples": rows.astype(object).where(rows.notna(), None).to_dict("records"),
        "examples": dict(zip(example_paths, examples, strict=True)),
        "copies": copies_of(run, rows.cluster, pixels),
    }
    page = run / ("review.html" if suggested is None else "suggested.html")
    atomic_write(page, render("review.html", content=content))
    return page


def read_review(
    run: Path, limit: int = MAX_ITEMS, suggested: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, dict, dict]:
    """The samples of a review, what else the page shows but their images, and round.json of the decisive round."""
    items, info = read_review_items(run, limit)
    queue, audit = "to label", suggested
    if suggested is None:
        queue = "audit"
        audit = load_run.read_table(run / "audit.csv", "id path given_label")
    # rows that are only audited come last: whoever draws an audit loses no decision
    rows = pd.concat([items, audit]).drop_duplicates("id", ignore_index=True).fillna(NO_TEXT)
    content = {
        "run": run.resolve().name,
        "classes": class_names(rows, info),
        "queues": review_queues(items, rows, audit, queue),
        "items": len(items),
    }
    return rows, content, info


def thumbnails(paths: Iterable[str], pixels: int) -> list[str]:
    """For each path the image as a `data:` address; "" where it has gone."""
    return list(map_images(partial(load_run.thumbnail, side=pixels), list(paths)))


def address(path: str, folder: Path) -> str:
    """Link to an image file from a page in `folder`: relative, so that both can be moved together."""
    try:
        return quote(Path(os.path.relpath(path, folder)).as_posix())
    except ValueError:  # another drive of Windows
        return Path(path).absolute().as_uri()


def copies_of(run: Path, clusters: pd.Series, pixels: int) -> dict[str, list[dict]]:
    """cluster → its first labeled rows (id, given_label, split, image), where their labels disagree."""
    rows = read_conflicts(run)
    rows = rows[rows.cluster.isin(clusters.unique())].groupby("cluster").head(MAX_COPIES)
    rows = rows.assign(image=thumbnails(rows.path, pixels))
    columns = ["id", "given_label", "split", "image"]
    groups = rows.groupby("cluster")
    return {cluster: group[columns].to_dict("records") for cluster, group in groups}


def review_queues(
    items: pd.DataFrame, rows: pd.DataFrame, audit: pd.DataFrame | None, queue: str
) -> list[dict]:
    """Lists to go through: {"name", "places" in rows}. The page hides in that of the audit what the run thinks."""
    in_conflict = items.duplicates != ""
    is_kept = (items.decision == "keep") & ~in_conflict
    masks = {"to review": ~is_kept, "duplicates disagree": in_conflict, "kept by the run": is_kept}
    queues = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    if audit is not None:
        queues[queue] = pd.Index(rows.id).get_indexer(audit.id)
    return [
        {"name": name, "places": places.tolist()} for name, places in queues.items() if len(places)
    ]
