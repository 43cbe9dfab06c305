"""report.html and plots/*.png: what a finished run says, in one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..run import atomic_write
from . import read, rounds, summary

TEMPLATES = Path(__file__).with_name("templates")


def write_report(run: Path) -> Path:
    """Write plots/*.png and report.html into the run folder; returns the page.

    Reads the run folder and the images it names, nothing else. A picture whose data the run does not have is
    left out, and its PNG of an earlier report is removed.
    """
    from . import pictures, plots

    data = read.read_run(run)
    shown = []
    for name, caption, figure in pictures.pictures(data):
        image = plots.png(figure)
        atomic_write(run / "plots" / f"{name}.png", image)
        shown.append({"name": name, "caption": caption, "image": read.data_address(image)})
    for name in set(pictures.NAMES) - {picture["name"] for picture in shown}:
        (run / "plots" / f"{name}.png").unlink(missing_ok=True)
    page = run / "report.html"
    atomic_write(page, render("report.html", page_words(run, data), pictures=shown))
    return page


def render(template: str, words: dict[str, Any], **more: Any) -> str:
    """Fill a template. Everything is escaped: text from the data is never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), **options)
    return environment.get_template(template).render(**words, **more)


def page_words(run: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Every text of report.html but the pictures."""
    metrics = data["metrics"]
    return {
        "name": data["name"],
        "headline": summary.headline(data),
        "facts": summary.facts(data),
        "warning": summary.warning(data["status"]),
        "disagreeing": [_with_images(cluster) for cluster in summary.disagreeing(data["duplicates"])],
        "tables": summary.tables(data) + rounds.tables(data["facts"], data["decisive"].get("round")),
        "costs": summary.costs(metrics.get("seconds") or {}),
        "command": summary.command(run, metrics.get("mode", "")),
        "config": data["config"],
        "env": summary.facts_table("", data["env"])["rows"],
        "review": any((run / name).exists() for name in ("suspects.csv", "pseudo_labels.csv")),
    }


def _with_images(cluster: dict[str, Any]) -> dict[str, Any]:
    """A cluster of duplicates whose rows have a thumbnail as well."""
    images = [read.thumbnail(read.read_bytes(row["path"])) for row in cluster["rows"]]
    return cluster | {"rows": [row | {"image": image} for row, image in zip(cluster["rows"], images, strict=True)]}
