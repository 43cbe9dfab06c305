"""report.html and plots/*.png: what a finished run says, in one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..system.files import atomic_write
from . import change_tables, gallery, load_run, round_tables, sentences, summary

TEMPLATES = Path(__file__).with_name("templates")
CURVES = ("losses", "rounds")
"""Pictures that stand in a section of their own."""


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
    curves = [picture for picture in pictures if picture.name in CURVES]
    others = [picture for picture in pictures if picture.name not in CURVES]
    page = run / "report.html"
    atomic_write(page, render("report.html", page_words(run, data), curves=curves, pictures=others))
    return page


def render(template: str, words: dict[str, Any], **more: Any) -> str:
    """Fill a template. Everything is escaped: text from the data is never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), **options)
    return environment.get_template(template).render(**words, **more)


def page_words(run: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Every text of report.html and its thumbnails."""
    metrics, tables = data["metrics"], summary.tables(data)
    mode = metrics.get("mode", "")
    return {
        "name": data["name"],
        "headline": sentences.headline(data),
        "gauge": sentences.gauge(data),
        "facts": sentences.facts(data),
        "warning": sentences.warning(data["status"]),
        "disagreeing": [_with_images(cluster) for cluster in summary.disagreeing(data["duplicates"])],
        "scores": [table for table in tables if table["title"] == "Scores"],
        "folds": summary.folds_table(data["folds"], data["rounds"]),
        "changes": change_tables.changes(data),
        "gallery": [_with_images(group) for group in gallery.gallery(data)],
        "tables": details(data, tables) + round_tables.tables(data["facts"], data["decisive"].get("round")),
        "command": summary.command(run / "config.yaml", data["name"], mode),
        "elsewhere": summary.command(Path("config.yaml"), data["name"], mode),
        "config": data["config"],
        "env": summary.facts_table("", data["env"])["rows"],
        "review": any((run / name).exists() for name in ("label_issues.csv", "pseudo_labels.csv")),
    }


def details(data: dict[str, Any], tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Costs and all tables that have no section of their own, the narrow ones first: they stand side by side."""
    costs = summary.costs(data["metrics"].get("seconds") or {})
    others = [table for table in tables if table["title"] != "Scores"]
    return [*([costs] if costs["rows"] else []), *sorted(others, key=lambda table: len(table["header"]))]


def _with_images(group: dict[str, Any]) -> dict[str, Any]:
    """A group of rows with a path whose rows have a thumbnail as well."""
    images = [load_run.thumbnail(load_run.read_bytes(row["path"])) for row in group["rows"]]
    return group | {"rows": [row | {"image": image} for row, image in zip(group["rows"], images, strict=True)]}
