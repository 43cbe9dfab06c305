"""metrics.jsonl of a finished run in Weights & Biases, with images. Disabled by default; offline needs no network.

The rounds are one job of the type `teacher`, what became of them one of the type `student`; their group is the run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from ..config import Wandb
from ..run import log
from . import read

PATIENCE = 60.0
"""Seconds that a server may take to answer, and again to receive."""
SIDE = 128
"""Longest side of an image in the table, in pixels."""
LATE = ("student", "control")
"""What only the student's job tells; the teacher's job tells all else."""


def track(run: Path, config: Wandb) -> None:
    """Log metrics.jsonl, images and plots. Reads files only, so it can be called again; a failure is only logged."""
    if config.mode == "disabled":
        return
    lines = read.read_lines(run / "metrics.jsonl")
    try:
        _send(run, config, lines)
    except Exception as error:  # wandb raises types of its own, and tracking is not worth a run
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        log.info(f"warning: wandb.mode={config.mode} came to nothing ({what}); metrics.jsonl has the same numbers. "
                 "`wandb login` before the run, or wandb.mode=offline and `wandb sync` after it")  # fmt: skip


def _send(run: Path, config: Wandb, lines: list[dict[str, Any]]) -> None:
    """Raises whatever wandb raises."""
    import wandb
    import yaml

    os.environ |= dict.fromkeys(("WANDB_DATA_DIR", "WANDB_CACHE_DIR"), str(run.resolve() / "wandb"))  # not in ~
    quiet = {"silent": True, "console": "off", "symlink": False, "disable_git": True, "disable_code": True}
    patience = {"init_timeout": PATIENCE, "finish_timeout": PATIENCE, "finish_timeout_raises": True}
    known = {key: value for key, value in (quiet | patience).items() if key in wandb.Settings.model_fields}
    wandb.setup(wandb.Settings(**known))  # silent before it looks for a key: then it does not ask for one
    options = {"project": config.project, "group": run.resolve().name, "mode": config.mode, "dir": str(run.resolve()),
               "config": yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))}  # fmt: skip
    try:
        for job_type, log_to in {"teacher": _log_teacher, "student": _log_student}.items():
            job = wandb.init(**options, job_type=job_type, name=f"{options['group']}-{job_type}")
            log_to(job, run, lines)
            job.finish()
    finally:
        wandb.teardown()


def _log_teacher(job: Any, run: Path, lines: list[dict[str, Any]]) -> None:
    """A step a round; then its scores and the images."""
    import wandb

    for line in lines:
        if "round" in line:
            job.log(line, step=line["round"])
    _log_scores(job, [line for line in lines if line.get("of") not in (None, *LATE)])
    rows = [line for line in lines if "image" in line]
    if rows:
        images = [_image(path) for path in paths_of(run, [row["image"] for row in rows])]
        columns = ["id", "why", "given", "predicted", "confidence", "label", "image"]
        data = [[*row.values(), image] for row, image in zip(rows, images, strict=True)]
        job.log({"images": wandb.Table(columns=columns, data=data)})


def _log_student(job: Any, run: Path, lines: list[dict[str, Any]]) -> None:
    import wandb

    _log_scores(job, [line for line in lines if line.get("of") in LATE])
    job.log({f"plots/{file.stem}": wandb.Image(str(file)) for file in sorted((run / "plots").glob("*.png"))})


def _log_scores(job: Any, lines: list[dict[str, Any]]) -> None:
    job.log({f"{line['of']}/{key}": value for line in lines for key, value in line.items() if key != "of"})


def paths_of(run: Path, ids: list[str]) -> list[str]:
    """Image files by id, empty where samples.csv does not have it."""
    samples = read.read_table(run / "samples.csv", "id path").drop_duplicates("id")
    return pd.Series(samples["path"].to_numpy(), samples["id"]).reindex(ids).fillna("").tolist()


def _image(path: str) -> Any:
    """A small copy for wandb; None where the file cannot be decoded."""
    import wandb
    from PIL import Image

    pixels = read.decode_image(read.read_bytes(path), SIDE)
    return None if pixels is None else wandb.Image(Image.fromarray(pixels.copy()))
