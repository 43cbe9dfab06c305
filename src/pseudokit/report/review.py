"""review.html: one file in which a person decides on label_issues by keyboard and exports corrections.csv."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..round_store import RoundStore
from ..system.files import atomic_write
from . import load_run
from .examples import find_examples
from .report import render

FACTS = ["id", "path", "given_label", "predicted", "confidence", "p_wrong", "decision"]


def write_review(run: Path, limit: int = 5000) -> Path | None:
    """Write review.html with the `limit` samples to look at first; returns it, or None if the run has none.

    Reads label_issues.csv (without it, pseudo_labels.csv), duplicates.csv and audit.csv where present, metrics.json,
    the decisive round and the images.
    """
    metrics = load_run.read_dict(run / "metrics.json")
    info = load_run.decisive_round(metrics, RoundStore(run).rounds() or metrics.get("rounds") or [])
    rows = to_review(run, load_run.cutoffs(metrics, info)[1], limit)
    audit = load_run.read_table(run / "audit.csv", "id path given_label")
    if rows is None and audit is None:
        return None
    rows, queues = to_queues(rows, audit)
    if not len(rows):
        return None
    content = page_content(run.resolve().name, rows, load_run.label_names(info)) | {"queues": queues}
    paths, near = find_examples(run, info, rows)
    content["examples"] = [found["image"] for found in read_images(paths, 96)]
    for sample, pair in zip(content["samples"], near, strict=True):
        sample["near"] = pair
    words = {"name": content["run"], "key": content["key"]}
    page = run / "review.html"
    atomic_write(page, render("review.html", words, json=as_json(content)))
    return page


def to_review(run: Path, cutoff: float, limit: int) -> pd.DataFrame | None:
    """Rows (FACTS, duplicates) in the order to look at them; None where the run lists nothing.

    First the labeled rows that have a duplicate with another label, then the label_issues that the run did not keep,
    then the others, by rank; in a run without suspects, the pseudo-labels nearest to the cutoff.
    """
    rows, disagree = listed_rows(run, cutoff, limit), disagreeing_duplicates(run)
    if disagree is None or not len(disagree):
        return None if rows is None else rows.assign(duplicates="")[:limit]
    known = pd.DataFrame(columns=FACTS) if rows is None else rows
    disagree = disagree.merge(known[["id", *FACTS[3:]]], how="left", on="id")
    disagree = disagree.fillna({"predicted": "", "decision": ""})
    others = known[~known["id"].isin(disagree["id"])].assign(duplicates="")
    return (pd.concat([disagree, others]) if len(others) else disagree)[:limit]


def listed_rows(run: Path, cutoff: float, limit: int) -> pd.DataFrame | None:
    """FACTS of all suspects, or else of the `limit` pseudo-labels nearest to the cutoff."""
    label_issues = load_run.read_table(run / "label_issues.csv", " ".join(["rank", *FACTS]))
    if label_issues is not None:
        order = np.lexsort((label_issues["rank"].astype(int), label_issues["decision"] == "keep"))
        return label_issues.iloc[order][FACTS]
    pseudo_labels = load_run.read_table(run / "pseudo_labels.csv", "id path label confidence")
    if pseudo_labels is None:
        return None
    rows = load_run.nearest_cutoff(pseudo_labels, cutoff, limit).rename(columns={"label": "predicted"})
    return rows.assign(given_label="", p_wrong=float("nan"), decision="accept")[FACTS]


def disagreeing_duplicates(run: Path) -> pd.DataFrame | None:
    """id, path, given, duplicates (the labels in its cluster, as text) of the train rows whose duplicates disagree."""
    table = load_run.read_table(run / "duplicates.csv", "cluster id path split given_label conflict")
    if table is None:
        return None
    table = table[table["conflict"] == "True"]
    labeled = table[table["given_label"] != ""]
    words = (labeled["given_label"] + " (" + labeled["split"] + ")").groupby(labeled["cluster"]).agg(" · ".join)
    rows = table[table["split"] == "train"].drop_duplicates("id")
    return rows.assign(duplicates=rows["cluster"].map(words).fillna(""))[["id", "path", "given_label", "duplicates"]]


def to_queues(rows: pd.DataFrame | None, audit: pd.DataFrame | None) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """(rows, and behind them the audited rows that are not among them; queues {name, blind, places in rows})."""
    rows = pd.DataFrame(columns=[*FACTS, "duplicates"]) if rows is None else rows.reset_index(drop=True)
    disagrees = rows["duplicates"] != ""
    kept = (rows["decision"] == "keep") & ~disagrees
    chosen = {"to review": ~kept, "duplicates disagree": disagrees, "kept by the run": kept}
    queues = [{"name": name, "blind": False, "places": np.flatnonzero(mask).tolist()} for name, mask in chosen.items()]
    if audit is not None:
        new = audit[~audit["id"].isin(rows["id"])]
        new = new.assign(predicted="", confidence=np.nan, p_wrong=np.nan, decision="", duplicates="")
        rows = pd.concat([rows, new], ignore_index=True) if len(rows) else new.reset_index(drop=True)
        places = pd.Index(rows["id"]).get_indexer(audit["id"]).tolist()
        queues.append({"name": "audit", "blind": True, "places": places})
    return rows, [queue for queue in queues if queue["places"]]


def page_content(name: str, rows: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """What the page's script reads: run, key (of the browser's memory), classes, samples with images.

    The key does not depend on rows that are only audited: drawing an audit forgets no decision.
    """
    fields = [*(fact for fact in FACTS if fact != "path"), "duplicates"]
    records = rows[fields].astype(object).where(rows[fields].notna(), None).to_dict("records")
    images = read_images(rows["path"], side_of(len(rows)))
    dataset = [record | image for record, image in zip(records, images, strict=True)]
    named = [
        [s["id"], s["given_label"], s["predicted"], s["sha256"]] for s in dataset if s["decision"] or s["duplicates"]
    ]
    key = hashlib.sha256(json.dumps([name, named]).encode()).hexdigest()[:16]
    known = {s["given_label"] for s in dataset} | {s["predicted"] for s in dataset}
    return {"run": name, "key": key, "classes": classes or sorted(known - {""}), "samples": dataset}


def side_of(n: int) -> int:
    """Pixels of a thumbnail's longer side: the fewer the images, the larger, so that the page stays below 30 MB."""
    return int(np.clip((5000 / max(1, n)) ** 0.5 * 96, 96, 256))


def read_images(paths: list[str] | pd.Series, side: int) -> list[dict[str, str]]:
    """For each path the thumbnail as a `data:` address and the hash of the file; both empty where unreadable."""

    def fields(path: str) -> dict[str, str]:
        data = load_run.read_bytes(path) if path else b""
        return {"image": load_run.thumbnail(data, side), "sha256": hashlib.sha256(data).hexdigest() if data else ""}

    with ThreadPoolExecutor() as pool:  # decoding lets go of the interpreter's lock
        return list(pool.map(fields, paths))


def as_json(content: dict[str, Any]) -> str:
    """JSON that may stand inside a <script>: no character in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
