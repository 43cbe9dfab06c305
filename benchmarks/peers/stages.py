"""What each process of a run spends its time on: runs pseudo.py with these arguments; for speed.py.

    PYTHONPATH=src python [-m torch.distributed.run --nproc-per-node=2 --] benchmarks/peers/stages.py FILE ARGUMENT …

Process R writes FILE.R.json: by stage of the run, the seconds of each part without the parts inside of it, and of the
stage as a whole. The other processes of torchrun know no stages, so all of theirs is one.
"""

import json
import os
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path

PARTS = {
    "train": ("training.trainer", "train_model"),
    "batch norms": ("training.loop", "estimate_statistics"),
    "make networks": ("training.trainer", "create_model"),
    "predict": ("training.trainer", "log_probs"),
    "read images": ("training.trainer", "load_images"),
    "read images ": ("run_folder.prepare", "load_images"),
    "find copies": ("run_folder.prepare", "find_links"),
    "hash": ("run_folder.prepare", "hash_of"),
    "hash ": ("training.trainer", "hash_of"),
    "read networks": ("training.trainer", "load_model"),
    "write networks": ("training.trainer", "save_model"),
    "folds": ("self_training", "make_folds"),
    "calibrate": ("self_training", "calibrate_models"),
    "average models": ("self_training", "average_models"),
    "decide": ("self_training", "decide_labels"),
    "gain": ("self_training", "_gain"),
    "write tables": ("round_store", "decisions_table"),
    "write tables ": ("round_store", "write_csv"),
    "summary": ("round_store", "summary"),
}
"""Function of the package that takes the time of a part; names that differ by a space are one part."""
WAITS = ("init_process_group", "broadcast_object_list", "gather_object", "barrier")
"""Of torch.distributed: in these a process waits for the others, or for what they send."""
seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
running = [["start", "other", time.monotonic()]]
"""Stage, part and the time since which it is counted, the innermost last."""


@contextmanager
def part(name: str, stage: str = ""):
    now = time.monotonic()
    outer = running[-1]
    seconds[outer[0]][outer[1]] += now - outer[2]
    running.append([stage or outer[0], name, now])
    try:
        yield
    finally:
        inner = running.pop()
        now = time.monotonic()
        seconds[inner[0]][inner[1]] += now - inner[2]
        running[-1][2] = now


def timed(holder, name: str, title: str) -> None:
    function = getattr(holder, name)

    @wraps(function)
    def wrapper(*args, **kwargs):
        with part(title):
            return function(*args, **kwargs)

    setattr(holder, name, wrapper)


def main(file: str, *arguments: str) -> None:
    with part("imports"):
        import torch.distributed

        for title, (module, name) in PARTS.items():
            holder = import_module(f"pseudokit.{module}")
            timed(holder, name, title.strip())
        from pseudokit.cli import main as command
        from pseudokit.cli import pseudo_command
        from pseudokit.run_folder.folder import Run
    for name in WAITS:
        timed(torch.distributed, name, "wait for others")
    stage = Run.stage

    @contextmanager
    def timed_stage(run, name):
        with part("other", name), stage(run, name):
            yield

    Run.stage = timed_stage
    sys.argv[1:] = arguments
    try:
        with part("other"):
            command(pseudo_command)
    finally:
        rank = os.environ.get("RANK", 0)
        Path(f"{file}.{rank}.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
