"""audit.html: the page of review.html for the sampled rows of audit.csv, without what the models think of them."""

from __future__ import annotations

from pathlib import Path

from ..run import atomic_write
from . import read
from .report import render
from .review import as_json, page_content


def write_audit(run: Path) -> Path | None:
    """Write audit.html; returns it, or None if the run drew no sample.

    The suggestion is the given label throughout: a person who knows the prediction tends to agree with it.
    """
    rows = read.read_table(run / "audit.csv", "id path given")
    if rows is None:
        return None
    blind = rows.assign(predicted=rows["given"], confidence=float("nan"), p_wrong=float("nan"), decision="audit")
    metrics = read.read_dict(run / "metrics.json")
    classes = read.decisive_round(metrics, metrics.get("rounds") or []).get("classes") or []
    content = page_content(run.resolve().name, blind, classes)
    page = run / "audit.html"
    atomic_write(page, render("review.html", {"name": content["run"], "key": content["key"]}, json=as_json(content)))
    return page
