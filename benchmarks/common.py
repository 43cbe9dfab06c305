"""What the benchmarks share: run the kit as a user does, know the machine, keep results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]  # the package, and what is shared with the tests
RESULTS = Path(__file__).resolve().parent / "results"


def kit(*args: str, out: Path) -> tuple[Path, float]:
    """Run `pseudo.py ARGS` as a process; returns its run folder and the seconds of the whole process.

    A run that is already there is not repeated, so a benchmark that was stopped goes on.
    """
    name = next(arg.removeprefix("name=") for arg in args if arg.startswith("name="))
    start = time.monotonic()
    subprocess.run([sys.executable, "pseudo.py", *args, f"out={out}"], cwd=ROOT, check=True)
    return out / name, round(time.monotonic() - start, 1)


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def machine() -> str:
    """CPU, cores and versions in one line."""
    import torch

    model, threads = platform.processor(), torch.get_num_threads()
    if Path("/proc/cpuinfo").exists():
        lines = [
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        model = lines[0].split(":")[1].strip() if lines else model
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{model}, {os.cpu_count()} cores, {threads} thread(s), no GPU; {versions}"


def mean_and_sd(values: list[float], digits: int = 4, scale: float = 1) -> str:
    """mean ± sd (n), with the sample standard deviation."""
    values = np.array(values) * scale
    sd = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{sd} (n = {len(values)})"


def save_results(name: str, rows: list[dict], lines: list[str]) -> None:
    """Write results/NAME.json (every single figure) and results/NAME.md (the table), and print the table.

    A row that has its own `machine` is of that one, the others of this.
    """
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n"
    )
    machines = dict.fromkeys(row.get("machine") or machine() for row in rows)
    text = "\n".join([*lines, "", *(machines or [machine()]), ""])
    (RESULTS / f"{name}.md").write_text(text)
    print(text)


def load_results(name: str) -> list[dict]:
    """The rows of results/NAME.json, none where there is no such file."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["rows"] if file.exists() else []


def merge_results(name: str, rows: list[dict], *keys: str) -> list[dict]:
    """Rows of this folder of runs, and those in results/NAME.json that it lacks: what takes days is run in parts."""
    mine = [row | {"machine": machine()} for row in rows]
    return list(
        {tuple(row[key] for key in keys): row for row in [*load_results(name), *mine]}.values()
    )


def grid_arguments(doc: str, *, out: str = "noise", seeds: int = 3, sets: tuple[str, ...] = ()):
    """The command line of a grid of runs, and mine(jobs): those of the jobs that this process is to run.

    out: folder of the runs, below runs/; seeds: how many by default; sets: what --sets may name, all by default.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs") / out)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds)))
    if sets:
        parser.add_argument("--sets", nargs="+", choices=sets, default=list(sets))
    parser.add_argument(
        "--part",
        default="0/1",
        help="i/n: only every n-th run, to share the work between processes",
    )
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.data, arguments.out = arguments.data.resolve(), arguments.out.resolve()
    turn, parts = map(int, arguments.part.split("/"))
    return arguments, lambda jobs: list(jobs)[turn::parts]
