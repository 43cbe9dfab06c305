"""A run in Weights & Biases: curves while networks train, then metrics.jsonl, tables and plots. Disabled by default.

Each process that trains has a job of the type `training` for its curves. The rounds are one of the type `teacher`, what
became of them one of the type `student`. Their group is the run.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import yaml

from ..config.keys import STUDENTS, Wandb
from ..data.csv_text import read_csv
from ..system.environment import PACKAGE
from ..system.files import hash_of, log, read_json
from .load_run import read_dict, read_lines
from .report_tables import report_tables

FINISHED = "finished"
"""What a run says that has come to its end."""
TIMEOUT_SECONDS = 360.0
"""For all of it: two jobs with some megabytes of plots. wandb itself waits 90 s for a server that is silent."""
SECONDS_TO_STOP = 20.0
"""For the last curves of a run that is stopped: some systems give it 30 s."""
SECONDS_PER_LOOK = 5.0
"""Between two looks at the curves."""


@contextmanager
def tracked(run: Path, config: Wandb) -> Iterator[None]:
    """Log the curves of what a block trains, and where it ends well all that it wrote. A failure is only logged.

    In a process of its own: some versions of wandb wait without end for a server that is silent.
    """
    if config.mode == "disabled":
        yield
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
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, folder, str(time.time())],
        cwd=PACKAGE.parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is not for it
    )
    last_word, seconds = "", SECONDS_TO_STOP
    try:
        yield
        last_word, seconds = FINISHED, TIMEOUT_SECONDS
    finally:
        try:
            _, errors = process.communicate(last_word, seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            errors = f"no answer for {seconds:.0f} s"
        if process.returncode != 0:
            problem = errors.strip().rpartition("\n")[2] or f"exit code {process.returncode}"
            log.info(
                f"warning: wandb.mode={config.mode} failed ({problem}); metrics.jsonl has the same numbers. Use "
                "`wandb login` before the run, or wandb.mode=offline and `wandb sync` after it"
            )


def send_curves(run: Path, since: float, listener: Thread) -> None:
    """Log what is added to any history.csv after a time, until the listener ends."""
    sent: dict[str, float] = {}
    with _start_job(run, "training") as job:
        is_last = False
        while not is_last:
            listener.join(SECONDS_PER_LOOK)
            is_last = not listener.is_alive()
            for file in run.glob("*/**/history.csv"):
                if file.stat().st_mtime < since:
                    continue
                prefix = f"curves/{file.parent.relative_to(run).as_posix()}"
                job.define_metric(f"{prefix}/*", step_metric=f"{prefix}/epoch")
                curve = read_csv(file).apply(pd.to_numeric)
                for _, row in curve[curve.epoch > sent.get(prefix, 0)].iterrows():
                    job.log(row.dropna().add_prefix(f"{prefix}/").to_dict())
                sent[prefix] = curve.epoch.max()


def send(run: Path) -> None:
    """Log the jobs of a finished run. Raises whatever wandb raises."""
    import wandb

    lines = read_lines(run / "metrics.jsonl")
    scores = [line for line in lines if "of" in line]
    metrics = read_json(run / "metrics.json")
    # named by its content: a run that was killed while it logged logs the same job once more
    content = (str(run), read_dict(run / "student" / "model.json"))
    with _start_job(run, "teacher", hash_of(*content, "teacher")) as teacher:
        for line in lines:
            if "round" in line:
                teacher.log(line, step=line["round"])
        for line in scores:
            if line["of"] not in STUDENTS:
                teacher.log(_with_prefix(line))
        for title, table in report_tables(metrics, lines).items():
            teacher.log({f"tables/{title}": wandb.Table(dataframe=table)})
    with _start_job(run, "student", hash_of(*content, "student")) as student:
        for line in scores:
            if line["of"] in STUDENTS:
                student.log(_with_prefix(line))
        for file in sorted((run / "plots").glob("*.png")):
            student.log({f"plots/{file.stem}": wandb.Image(str(file))})


def _start_job(run: Path, job_type: str, key: str | None = None) -> Any:
    import wandb

    return wandb.init(
        group=run.name,
        job_type=job_type,
        name=f"{run.name}-{job_type}",
        config=yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")),
        id=key,
        resume="allow",
    )


def _with_prefix(line: dict) -> dict:
    """The numbers of one model or part, by `student/test/accuracy` and the like."""
    return {f"{line['of']}/{key}": value for key, value in line.items() if key != "of"}


if __name__ == "__main__":
    try:
        run, words = Path(sys.argv[1]), []
        listener = Thread(target=lambda: words.append(sys.stdin.read()), daemon=True)
        listener.start()
        with suppress(Exception):  # what follows may go well, and says why it does not
            send_curves(run, float(sys.argv[2]), listener)
        listener.join()
        if words == [FINISHED]:
            send(run)
    except Exception as error:  # wandb raises types of its own; the caller shows the last line
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
