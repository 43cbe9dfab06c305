"""report.html and plots/*.png: what a finished run says, in one file that opens offline."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from ..system.files import atomic_write
from . import gallery, load_run, report_tables, sentences

TEMPLATES = Path(__file__).with_name("templates")
MAX_CLUSTERS = 20
"""Clusters of copies that the page shows: all are in duplicates.csv."""
IMAGES_PER_CLUSTER = 6
"""What fits side by side."""


def write_report(run: Path) -> Path:
    """Write plots/*.png and report.html into the run folder; returns the page.

    Reads the run folder and the images it names, nothing else. A picture whose data the run does not have is
    left out, and its PNG of an earlier report is removed.
    """
    from .pictures import PICTURES, draw_pictures

    data = load_run.read_run(run)
    pictures = draw_pictures(data)
    for name in PICTURES:
        (run / "plots" / f"{name}.png").unlink(missing_ok=True)
    for picture in pictures:
        atomic_write(run / "plots" / f"{picture.name}.png", picture.png)
    page = run / "report.html"
    atomic_write(page, render("report.html", page_content(run, data), pictures=pictures))
    return page


def render(template: str, words: dict[str, Any], **more: Any) -> str:
    """Fill a template. Everything is escaped: text from the data is never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**words, **more)


def page_content(run: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Every text, table and thumbnail of report.html."""
    metrics = data["metrics"]
    tables = page_tables(data)
    return {
        "name": data["name"],
        "headline": sentences.headline(metrics),
        "difference": metrics.get("difference"),
        "facts": sentences.run_facts(metrics, data["status"]),
        "warning": sentences.warning(data["status"]),
        "conflicts": [_with_images(cluster) for cluster in conflicts(data["duplicates"])],
        "tables": {title: report_tables.as_html(table) for title, table in tables.items()},
        "notes": report_tables.NOTES,
        "gallery": [_with_images(group) for group in gallery.gallery(data)],
        "command": command(run / "config.yaml", data["name"], metrics.get("mode", "denoise")),
        "config": data["config"],
        "env": json.dumps(data["env"], indent=1, ensure_ascii=False) if data["env"] else "",
        "review": any((run / name).exists() for name in ("label_issues.csv", "pseudo_labels.csv")),
    }


def page_tables(data: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Title → table, in the order of the page. data: from `read_run`."""
    from ..data.duplicates import count_duplicates  # brings OpenCV

    tables = report_tables.report_tables(data["metrics"], data["facts"])
    if data["decisions"] is not None and data["metrics"].get("mode") != "train":
        tables |= report_tables.decision_tables(data["decisions"])
    duplicates = data["duplicates"]
    if duplicates is not None and len(duplicates):
        tables["Duplicates"] = pd.DataFrame(
            count_duplicates(duplicates).items(), columns=["copies", "n"]
        )
    if data["metrics"].get("seconds"):
        tables["Time"] = report_tables.time_table(data["metrics"]["seconds"])
    return tables


def conflicts(duplicates: pd.DataFrame | None) -> list[dict[str, Any]]:
    """The first clusters of copies whose labels differ: {"labels", "kind", "rows"}, one row for each label."""
    if duplicates is None:
        return []
    rows = duplicates[(duplicates.conflict == "True") & (duplicates.given_label != "")]
    clusters = rows.drop_duplicates(["cluster", "given_label"]).groupby("cluster", sort=False)
    shown = []
    for _, cluster in list(clusters)[:MAX_CLUSTERS]:
        cluster = cluster.head(IMAGES_PER_CLUSTER)
        labels = " | ".join(cluster.given_label)
        shown.append(
            {"labels": labels, "kind": cluster.kind.iloc[0], "rows": cluster.to_dict("records")}
        )
    return shown


def command(config: Path, name: str, mode: str) -> str:
    """The command that does this run again under another name."""
    script = "train.py" if mode == "train" else f"pseudo.py --mode {mode}"
    return (
        f"python {script} --config {shlex.quote(str(config))} {shlex.quote(f'name={name}-again')}"
    )


def _with_images(group: dict[str, Any]) -> dict[str, Any]:
    """A group of rows with a path whose rows have a thumbnail as well."""
    rows = [row | {"image": load_run.thumbnail(row["path"])} for row in group["rows"]]
    return group | {"rows": rows}
