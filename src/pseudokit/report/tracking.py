"""metrics.jsonl of a finished run in Weights & Biases, with images. Disabled by default; offline needs no network.

The rounds are one job of the type `teacher`, what became of them one of the type `student`; their group is the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from ..config.keys import Wandb
from ..system.environment import PACKAGE
from ..system.files import hash_of, log
from . import load_run

PATIENCE = 60.0
"""Seconds that a server may take to answer, and again to receive."""
LIMIT = 6
"""Times PATIENCE that all of it may take: two jobs that begin and end, and what wandb does besides."""
SIDE = 128
"""Longest side of an image in the table, in pixels."""
LATE = ("student", "baseline")
"""What only the student's job tells; the teacher's job tells all else."""


def track(run: Path, config: Wandb) -> None:
    """Log metrics.jsonl, images and plots. Reads files only, so it can be called again; a failure is only logged.

    In a process of its own: some versions of wandb wait without end for a server that says nothing.
    """
    if config.mode == "disabled":
        return
    command = [sys.executable, "-m", __name__, str(run.resolve()), config.model_dump_json(), str(PATIENCE)]
    try:
        done = subprocess.run(
            command,
            cwd=PACKAGE.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT * PATIENCE,
        )
        what = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        what = f"no answer for {LIMIT * PATIENCE:.0f} s"
    if what:
        log.info(
            f"warning: wandb.mode={config.mode} came to nothing ({what}); metrics.jsonl has the same numbers. "
            "`wandb login` before the run, or wandb.mode=offline and `wandb sync` after it"
        )


def _send(run: Path, config: Wandb, patience: float) -> None:
    """Raises whatever wandb raises."""
    lines = load_run.read_lines(run / "metrics.jsonl")
    import wandb
    import yaml

    os.environ |= dict.fromkeys(("WANDB_DATA_DIR", "WANDB_CACHE_DIR"), str(run.resolve() / "wandb"))  # not in ~
    quiet = {"silent": True, "console": "off", "symlink": False, "disable_git": True, "disable_code": True}
    waits = {"init_timeout": patience, "finish_timeout": patience, "finish_timeout_raises": True}
    known = {key: value for key, value in (quiet | waits).items() if key in wandb.Settings.model_fields}
    wandb.setup(wandb.Settings(**known))  # silent before it looks for a key: then it does not ask for one
    options = {
        "project": os.environ.get("WANDB_PROJECT", "pseudo-label"),
        "group": run.resolve().name,
        "mode": config.mode,
        "dir": str(run.resolve()),
        "config": yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")),
    }
    try:
        for job_type, log_to in {"teacher": _log_teacher, "student": _log_student}.items():
            # by what it tells of: a run that was killed in between tells the same job once more
            told = hash_of(str(run.resolve()), load_run.read_dict(run / "student" / "model.json"), job_type)
            job = wandb.init(
                **options,
                job_type=job_type,
                name=f"{options['group']}-{job_type}",
                id=told,
                resume=None if config.mode == "offline" else "allow",
            )
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
        columns = ["id", "why", "given_label", "predicted", "confidence", "label", "image"]
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
    dataset = load_run.read_table(run / "samples.csv", "id path").drop_duplicates("id")
    return pd.Series(dataset["path"].to_numpy(), dataset["id"]).reindex(ids).fillna("").tolist()


def _image(path: str) -> Any:
    """A small copy for wandb; None where the file cannot be decoded."""
    import wandb
    from PIL import Image

    pixels = load_run.decode_image(load_run.read_bytes(path), SIDE)
    return None if pixels is None else wandb.Image(Image.fromarray(pixels.copy()))


def _main() -> None:
    """The process of its own; it leaves without what wandb would do at the end: to tell its maker, offline as well."""
    try:
        _send(Path(sys.argv[1]), Wandb.model_validate_json(sys.argv[2]), float(sys.argv[3]))
    except Exception as error:  # wandb raises types of its own, and tracking is not worth a run
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        print(f"\n{what}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _main()
