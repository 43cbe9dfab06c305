"""review.html: one file in which a person decides on suspects by keyboard and exports corrections.csv."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..run import atomic_write
from . import read
from .report import render


def write_review(run: Path, limit: int = 500) -> Path | None:
    """Write review.html with the `limit` samples to look at first; returns it, or None if the run has none.

    Reads suspects.csv (without it, pseudo_labels.csv), metrics.json, round.json and the images.
    """
    metrics = read.read_dict(run / "metrics.json")
    info = read.decisive_round(metrics, read.read_rounds(run) or metrics.get("rounds") or [])
    rows = to_review(run, read.cutoffs(metrics, info)[1], limit)
    if rows is None or not len(rows):
        return None
    content = page_content(run.resolve().name, rows, info.get("classes") or [])
    words = {"name": content["run"], "key": content["key"]}
    page = run / "review.html"
    atomic_write(page, render("review.html", words, json=as_json(content)))
    return page


def to_review(run: Path, cutoff: float, limit: int) -> pd.DataFrame | None:
    """Rows (id, path, given, predicted, confidence, p_wrong, decision) in the order to look at them.

    Suspects that the run did not keep come first, then the others, by rank; in a run without suspects, the
    pseudo-labels nearest to the cutoff.
    """
    columns = "rank id path given predicted confidence p_wrong decision"
    suspects = read.read_table(run / "suspects.csv", columns)
    if suspects is not None:
        order = np.lexsort((suspects["rank"].astype(int), suspects["decision"] == "keep"))
        return suspects.iloc[order[:limit]]
    pseudo_labels = read.read_table(run / "pseudo_labels.csv", "id path label confidence")
    if pseudo_labels is None:
        return None
    rows = read.nearest_cutoff(pseudo_labels, cutoff, limit).rename(columns={"label": "predicted"})
    return rows.assign(given="", p_wrong=float("nan"), decision="accept")


def page_content(name: str, rows: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """What the page's script reads: run, key (of the browser's memory), classes, samples with images."""
    with ThreadPoolExecutor() as pool:  # decoding lets go of the interpreter's lock
        images = list(pool.map(image_fields, rows["path"]))
    fields = ["id", "given", "predicted", "confidence", "p_wrong", "decision"]
    records = rows[fields].astype(object).where(rows[fields].notna(), None).to_dict("records")
    samples = [record | image for record, image in zip(records, images, strict=True)]
    named = [[s["id"], s["given"], s["predicted"], s["sha256"]] for s in samples]
    key = hashlib.sha256(json.dumps([name, named]).encode()).hexdigest()[:16]
    known = {s["given"] for s in samples} | {s["predicted"] for s in samples}
    return {"run": name, "key": key, "classes": classes or sorted(known - {""}), "samples": samples}


def image_fields(path: str) -> dict[str, str]:
    """Thumbnail as a `data:` address and the hash of the file's bytes; both empty where it cannot be read."""
    data = read.read_bytes(path)
    return {"image": read.thumbnail(data), "sha256": hashlib.sha256(data).hexdigest() if data else ""}


def as_json(content: dict[str, Any]) -> str:
    """JSON that may stand inside a <script>: no character in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
