"""metrics.jsonl of a finished run in Weights & Biases, with tables, training curves and plots. Disabled by default.

The rounds are one job of the type `teacher`, what became of them one of the type `student`. Their group is the run.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..config.keys import STUDENTS, Wandb
from ..system.environment import PACKAGE
from ..system.files import hash_of, log, read_json
from .load_run import read_dict, read_history, read_lines
from .report_tables import report_tables

TIMEOUT_SECONDS = 360.0
"""For all of it: two jobs with some megabytes of plots. wandb itself waits 90 s for a server that is silent."""


def track(run: Path, config: Wandb) -> None:
    """Log metrics.jsonl, tables and plots. Reads files only, so it can be called again; a failure is only logged.

    In a process of its own: some versions of wandb wait without end for a server that is silent.
    """
    if config.mode == "disabled":
        return
    folder = str(run.resolve())
    environment = {
        "WANDB_PROJECT": "pseudo-label",
        **os.environ,
        "WANDB_MODE": config.mode,
        "WANDB_DIR": folder,
        "WANDB_DATA_DIR": f"{folder}/wandb",  # else in the home folder
        "WANDB_CACHE_DIR": f"{folder}/wandb",
        "WANDB_SILENT": "true",  # then it does not ask for a key
        "WANDB_CONSOLE": "off",
        "WANDB_SYMLINK": "false",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    try:
        subprocess.run(
            [sys.executable, "-m", __name__, folder],
            cwd=PACKAGE.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        return
    except subprocess.TimeoutExpired:
        problem = f"no answer for {TIMEOUT_SECONDS:.0f} s"
    except subprocess.CalledProcessError as error:
        problem = error.stderr.strip().rpartition("\n")[2] or f"exit code {error.returncode}"
    log.info(
        f"warning: wandb.mode={config.mode} failed ({problem}); metrics.jsonl has the same numbers. Use `wandb login` "
        "before the run, or wandb.mode=offline and `wandb sync` after it"
    )


def send(run: Path) -> None:
    """Log both jobs. Raises whatever wandb raises."""
    import wandb

    lines = read_lines(run / "metrics.jsonl")
    scores = [line for line in lines if "of" in line]
    metrics = read_json(run / "metrics.json")
    history = read_history(run, metrics["rounds"])
    with _start_job(run, "teacher") as teacher:
        for line in lines:
            if "round" in line:
                teacher.log(line, step=line["round"])
        for line in scores:
            if line["of"] not in STUDENTS:
                teacher.log(_with_prefix(line))
        for title, table in report_tables(metrics, lines).items():
            teacher.log({f"tables/{title}": wandb.Table(dataframe=table)})
        for arm, curves in history.items():
            _log_curves(teacher, arm, curves)
    with _start_job(run, "student") as student:
        for line in scores:
            if line["of"] in STUDENTS:
                student.log(_with_prefix(line))
        for file in sorted((run / "plots").glob("*.png")):
            student.log({f"plots/{file.stem}": wandb.Image(str(file))})


def _log_curves(job: Any, arm: str, curves: dict[str, pd.DataFrame]) -> None:
    """Log what training came to, by epoch."""
    for network, curve in curves.items():
        prefix = f"curves/{arm}/{network}"
        job.define_metric(f"{prefix}/*", step_metric=f"{prefix}/epoch")
        for _, row in curve.iterrows():
            job.log(row.dropna().add_prefix(f"{prefix}/").to_dict())


def _start_job(run: Path, job_type: str) -> Any:
    import wandb

    return wandb.init(
        group=run.name,
        job_type=job_type,
        name=f"{run.name}-{job_type}",
        config=yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")),
        # named by its content: a run that was killed while it logged logs the same job once more
        id=hash_of(str(run), read_dict(run / "student" / "model.json"), job_type),
        resume="allow",
    )


def _with_prefix(line: dict) -> dict:
    """The numbers of one model or part, by `student/test/accuracy` and the like."""
    return {f"{line['of']}/{key}": value for key, value in line.items() if key != "of"}


if __name__ == "__main__":
    try:
        send(Path(sys.argv[1]))
    except Exception as error:  # wandb raises types of its own; the caller shows the last line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
