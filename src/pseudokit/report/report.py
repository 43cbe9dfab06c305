"""report.html and plots/*.png: what a finished run says, in one file that opens offline."""

from pathlib import Path
from typing import Any

import pandas as pd

from ..system.files import atomic_write, read_json, write_json
from . import gallery, load_run, report_tables, sentences
from .next_commands import next_commands, shell_command

TEMPLATES = Path(__file__).with_name("templates")
MAX_CLUSTERS = 20
"""Clusters of copies that the page shows: all are in duplicates.csv."""
IMAGES_PER_CLUSTER = 6
"""What fits side by side."""


def write_report(run: Path, redraw: bool = True) -> Path:
    """Write plots/*.png and report.html into the run folder; returns the page.

    Args:
        run: the run folder.
        redraw: else the pictures that are there stay. They cost seconds, and show nothing of a person's decisions.

    Reads the run folder and the images it names, nothing else. A picture whose data the run does not have is
    left out, and its PNG of an earlier report is removed.
    """
    data = load_run.read_run(run)
    captions = run / "plots" / "captions.json"
    if redraw or not captions.exists():
        _draw(data, captions)
    pictures = {
        name: (caption, captions.with_name(f"{name}.png").read_bytes())
        for name, caption in read_json(captions).items()
    }
    metrics, odd = data["metrics"], data["odd"]
    tables = page_tables(data)
    content = render(
        "report.html",
        data=data,
        headline=sentences.headline(metrics),
        gain=sentences.result_sentence(metrics),
        next_commands=next_commands(run),
        facts=sentences.run_facts(metrics),
        conflicts=[with_images(cluster) for cluster in conflicts(data["duplicates"])],
        tables={title: report_tables.page_table(table) for title, table in tables.items()},
        notes=report_tables.NOTES,
        gallery=[(title, about, with_images(rows)) for title, about, rows in gallery.gallery(data)],
        odd=[]
        if odd is None
        else with_images(odd.groupby("reason").head(gallery.IMAGES_PER_GROUP)),
        pictures=pictures,
        address=load_run.data_address,
        command=command(run, metrics["mode"]),
        has_review=(run / "review.html").exists(),
    )
    page = run / "report.html"
    atomic_write(page, content)
    return page


def _draw(data: dict, captions: Path) -> None:
    """Write the pictures of a run, and beside them captions.json: name → caption."""
    from .pictures import PICTURES, draw_pictures

    pictures = draw_pictures(data)
    for name in PICTURES:
        captions.with_name(f"{name}.png").unlink(missing_ok=True)
    for name, (_, png) in pictures.items():
        atomic_write(captions.with_name(f"{name}.png"), png)
    write_json(captions, {name: caption for name, (caption, _) in pictures.items()})


def render(template: str, **content: Any) -> str:
    """Fill a template. Everything is escaped: text from the data is never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(content)


def page_tables(data: dict) -> dict[str, pd.DataFrame]:
    """Title → table, in the order of the page. data: from `read_run`."""
    from ..data.duplicates import count_duplicates  # brings OpenCV

    metrics = data["metrics"]
    tables = report_tables.report_tables(metrics, data["facts"])
    if data["decisions"] is not None and metrics["mode"] != "train":
        tables |= report_tables.decision_tables(data["decisions"])
    if len(data["duplicates"]):
        counts = count_duplicates(data["duplicates"])
        tables["Duplicates"] = pd.DataFrame(counts.items(), columns=["copies", "n"])
    if plan := metrics.get("time_budget", {}).get("plan"):
        seconds = plan | {"total": sum(plan.values())}
        tables["Plan of the time budget"] = report_tables.time_table(seconds)
    tables["Time"] = report_tables.time_table(metrics["seconds"], metrics.get("peak_mib"))
    return tables


def conflicts(duplicates: pd.DataFrame) -> list[pd.DataFrame]:
    """The first clusters of copies whose labels differ, one row for each label."""
    rows = duplicates[(duplicates.conflict == "True") & (duplicates.given_label != "")]
    clusters = rows.drop_duplicates(["cluster", "given_label"]).groupby("cluster", sort=False)
    return [cluster[:IMAGES_PER_CLUSTER] for _, cluster in clusters][:MAX_CLUSTERS]


def with_images(rows: pd.DataFrame) -> list[dict]:
    """Rows with a path as dicts that have a thumbnail as well."""
    images = [load_run.thumbnail(path) for path in rows.path]
    return rows.assign(image=images).to_dict("records")


def command(run: Path, mode: str) -> str:
    """The command that does this run again under another name."""
    script = ["train.py"] if mode == "train" else ["pseudo.py", "--mode", mode]
    name = f"name={run.resolve().name}-again"
    return shell_command(*script, "--config", run / "config.yaml", name)
