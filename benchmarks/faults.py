"""Killed runs, a full disk, unusual and hostile input: nothing is lost, and nothing harmful gets in.

    python benchmarks/faults.py kills      SIGKILL at random moments and at every rename, then the same command
    python benchmarks/faults.py disk       no space is left, from one of its writes on; then there is room again
    python benchmarks/faults.py ranks      two processes under torchrun, one of which is killed
    python benchmarks/faults.py overhead   a healthy run against that of the kit before all this, both at once
    python benchmarks/faults.py inputs     named bad images, tables and configs (bad_inputs.py)
    python benchmarks/faults.py fuzz       thousands of random ones
    python benchmarks/faults.py hostile    what must not be let in

Each ends with 1 where a single try fails. `kills disk --quick` is a part of `make test`.

Runs are small: 160 labels and 60 unlabeled images of 16 × 16 pixels, two rounds of two folds, four steps a network and
a checkpoint after every one, so that a kill meets as many writes as it can. One process imports torch and forks a child
for every try. A run goes on by the same command; then every contracted file must have the bytes of a run that was never
stopped (wall-clock fields aside), and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import ROOT, save_results
from fault_tools import (
    MODES,
    Bench,
    Full,
    HalfWritten,
    Renames,
    child,
    contents,
    ended,
    leftovers,
    warm_up,
)

MAX_SECONDS_TO_END = 60.0
"""Seconds in which torchrun must have ended after one of its processes was killed."""


def killed_at_random(bench: Bench, mode: str, chance: random.Random) -> dict:
    """SIGKILL at a moment that is uniform over the time of a whole run."""
    while True:
        moment = chance.uniform(0, bench.reference(mode)["seconds"])
        number = child("pseudo", bench.command(mode), bench.output)
        time.sleep(moment)
        os.kill(number, signal.SIGKILL)
        if ended(number) == -signal.SIGKILL:
            return {"moment": round(moment, 3)} | bench.goes_on(mode)
        shutil.rmtree(bench.run)  # it was faster than usual


def killed_at_rename(bench: Bench, mode: str, n: int) -> dict:
    code = ended(child("pseudo", bench.command(mode), bench.output, Renames(n)))
    assert code == -signal.SIGKILL, "this rename was not reached"
    return {"rename": n} | bench.goes_on(mode)


def killed_at_write(bench: Bench, mode: str, chance: random.Random) -> dict:
    """SIGKILL half-way through one of its writes."""
    n = chance.randint(1, bench.reference(mode)["writes"])
    code = ended(child("pseudo", bench.command(mode), bench.output, HalfWritten(n)))
    assert code == -signal.SIGKILL, "this write was not reached"
    return {"write": n} | bench.goes_on(mode)


def kills(bench: Bench, quick: bool, tries: int, seed: int) -> bool:
    chance, rows = random.Random(seed), []
    for mode in ["joint"] if quick else MODES:
        renames = range(1, bench.reference(mode)["renames"] + 1)
        renames = chance.sample(renames, 1) if quick else renames
        for n in renames:
            rows.append({"mode": mode, "how": "rename"} | killed_at_rename(bench, mode, n))
        if quick:  # at a place that does not depend on the speed of the machine
            rows.append({"mode": mode, "how": "write"} | killed_at_write(bench, mode, chance))
        else:
            for _ in range(tries):
                rows.append({"mode": mode, "how": "random"} | killed_at_random(bench, mode, chance))
        print(f"{mode}: {len(rows)} kills so far, {sum(map(good, rows))} good", flush=True)
    lines = [
        "| mode | killed | kills | resumed | identical | temporary files left |",
        "|---|---|---|---|---|---|",
    ]
    moments = {
        "rename": "at every rename of a file",
        "write": "half-way through a write",
        "random": "at a random moment",
    }
    for mode, how in itertools.product(MODES, moments):
        group = [row for row in rows if (row["mode"], row["how"]) == (mode, how)]
        what = moments[how]
        lines += [f"| {mode} | {what} | {counted(group)} |"] if group else []
    return finish("faults_kills", rows, [*lines, f"| all | | {counted(rows)} |"], quick)


def good(row: dict) -> bool:
    return row["resumed"] and row["identical"] and not row["left"] and row.get("one_line", True)


def counted(rows: list[dict], *more: str) -> str:
    """`tries | resumed | identical | left`, and further sums, for a table."""
    sums = [sum(row[key] for row in rows) for key in ("resumed", "identical", "left", *more)]
    return " | ".join(map(str, [len(rows), *sums]))


def disk(bench: Bench, quick: bool, tries: int, seed: int) -> bool:
    chance, rows = random.Random(seed), []
    for mode in ["joint"] if quick else MODES:
        for n in sorted(
            chance.sample(range(1, bench.reference(mode)["writes"]), 1 if quick else tries)
        ):
            code = ended(child("pseudo", bench.command(mode), bench.output, Full(n)))
            output = bench.output.read_text()
            errors = [line for line in output.splitlines() if line.startswith("error: ")]
            one_line = (
                code in (1, 2)
                and len(errors) == 1
                and "No space left" in errors[0]
                and "Traceback" not in output
            )
            corrupt = [str(file) for file in bench.run.rglob("*.json") if not is_json(file)]
            row = {
                "mode": mode,
                "write": n,
                "one_line": one_line,
                "says": errors[-1:],
                "corrupt": len(corrupt),
            }
            if not one_line:
                print(f"FAILED {mode}, write {n}: exit code {code}\n{output[-2000:]}")
            rows.append(row | bench.goes_on(mode))
    lines = [
        "| mode | writes that failed | resumed | identical | temporary files left | error in one line | corrupt |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode in [*MODES, "all"]:
        group = [row for row in rows if mode in ("all", row["mode"])]
        lines += [f"| {mode} | {counted(group, 'one_line', 'corrupt')} |"] if group else []
    return finish("faults_disk", rows, lines, quick)


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True


def finish(name: str, rows: list[dict], lines: list[str], quick: bool) -> bool:
    """Keep the results; whether every try was good."""
    print("\n".join(lines)) if quick else save_results(name, rows, lines)
    return all(map(good, rows))


def ranks(bench: Bench, quick: bool, tries: int, seed: int) -> bool:
    """Kill one of two processes of torchrun at a random moment of the training."""
    chance, rows = random.Random(seed), []
    keys = [
        "pseudo.folds=3",
        "train.min_steps=150",
        "train.checkpoint_every=1",
        "pseudo.rounds=1",
        "pseudo.train_baseline=false",
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--",
        "pseudo.py",
        *bench.command("augment"),
        *keys,
    ]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    took, whole = time.monotonic() - start, contents(bench.run)
    for i in range(2 if quick else tries):
        code, seconds = killed_rank(bench, command, i % 2, chance.uniform(0, took / 3))
        text = bench.output.read_text()
        row = {
            "killed": i % 2,
            "seconds": round(seconds, 1),
            "cause": code != 0 and "SIGKILL" in text,
        }
        again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        now = contents(bench.run)
        row |= {
            "resumed": again.returncode == 0,
            "identical": now == whole,
            "left": len(leftovers(bench.folder)),
        }
        row["one_line"] = row["cause"] and seconds <= MAX_SECONDS_TO_END
        if not good(row):
            print(f"FAILED {row}\n{text[-3000:]}\n{again.stderr[-2000:]}", flush=True)
        rows.append(row)
    lines = [
        "| rank killed | kills | resumed | identical | temporary files left | cause named | longest to the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for rank in (0, 1):
        group = [row for row in rows if row["killed"] == rank]
        lines.append(
            f"| {rank} | {counted(group, 'cause')} | {max(row['seconds'] for row in group):.1f} s |"
        )
    return finish("faults_ranks", rows, lines, quick)


def killed_rank(bench: Bench, command: list[str], rank: int, wait: float) -> tuple[int, float]:
    """Kill a process of torchrun so many seconds into the training; its exit code, and seconds until it has ended."""
    while True:
        shutil.rmtree(bench.run, ignore_errors=True)
        with (
            open(bench.output, "w") as output,
            subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process,
        ):
            while not any(bench.run.glob("round_1/fold_*")) and process.poll() is None:
                time.sleep(0.02)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
                wait /= 2  # it was faster than that
                continue
            os.kill(of_rank(rank, process.pid), signal.SIGKILL)
            start = time.monotonic()
            return process.wait(), time.monotonic() - start


def of_rank(rank: int, parent: int) -> int:
    """The process of this rank below torchrun."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            about, environment = (
                Path(f"/proc/{entry}/{name}").read_text() for name in ("stat", "environ")
            )
        except OSError:
            continue
        if (
            int(about.rsplit(")", 1)[1].split()[1]) == parent
            and f"\0RANK={rank}\0" in f"\0{environment}"
        ):
            return int(entry)
    raise AssertionError(f"there is no process of rank {rank}")


COMMIT_BEFORE = "f3ba135"
"""The last commit without any of this: no checkpoints, no hashes of what was made from what, no steps left out."""
HEALTHY = [
    "pseudo.py",
    "--mode",
    "joint",
    "simulate.noise_rate=0.1",
    "train.min_steps=150",
    "--fresh",
]


def overhead(bench: Bench, quick: bool, tries: int, seed: int) -> bool:
    """A healthy run of the kit as it is and of the kit before all this, both at once, each on a core of its own.

    The speed of a machine that others use too changes by more than what is measured, from one minute to the next; and
    one of its cores may be faster, so that they change cores after each pair.
    """
    before, rows = bench.folder / "before", []
    subprocess.run(
        ["git", "worktree", "add", "--detach", before, COMMIT_BEFORE],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    try:
        healthy_run(bench, ROOT, 0)()  # writes the built-in digits, and compiles both
        healthy_run(bench, before, 1)()
        for i in range(1 if quick else tries):
            ends = {
                "now": healthy_run(bench, ROOT, i % 2),
                "before": healthy_run(bench, before, 1 - i % 2),
            }
            seconds = {side: end() for side, end in ends.items()}
            rows.append(seconds | {"ratio": seconds["now"] / seconds["before"]})
            print(rows[-1], flush=True)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    x = np.array([row["ratio"] for row in rows])
    lines = [
        f"| wall time of a healthy run ÷ that of {COMMIT_BEFORE}, in pairs (mean ± sd) | median | lowest | highest "
        "| n |",
        "|---|---|---|---|---|",
        f"| {x.mean():.3f} ± {x.std(ddof=len(x) > 1):.3f} | {np.median(x):.3f} | {x.min():.3f} | {x.max():.3f} "
        f"| {len(x)} |",
        "",
        f"`{' '.join(HEALTHY)}`, {np.mean([row['now'] for row in rows]):.0f} s from the first import to the end; "
        "both at once, each on a core of its own.",
    ]
    print("\n".join(lines)) if quick else save_results("faults_overhead", rows, lines)
    return bool(x.mean() <= 1.03)


def healthy_run(bench: Bench, where: Path, core: int) -> Callable[[], float]:
    """Begin a run of the kit that lies there; returns a function that waits for its end and returns its seconds."""
    output, start = bench.folder / f"output_{core}.txt", time.monotonic()
    keys = [f"data.cache={bench.folder / 'root'}", f"out={bench.folder}", f"name=healthy_{core}"]
    command = ["taskset", "--cpu-list", str(core), sys.executable, *HEALTHY, *keys]
    with open(output, "w") as out:
        process = subprocess.Popen(command, cwd=where, stdout=out, stderr=out)
    ended = []
    watch = threading.Thread(
        target=lambda: ended.append((process.wait(), time.monotonic() - start))
    )
    watch.start()

    def end() -> float:
        watch.join()
        code, seconds = ended[0]
        assert code == 0, output.read_text()
        return round(seconds, 2)

    return end


DONE_HERE = {
    "kills": (kills, 20),
    "disk": (disk, 8),
    "ranks": (ranks, 6),
    "overhead": (overhead, 10),
}
"""What, and how many tries by default (of kills and disk: a mode)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=[*DONE_HERE, "inputs", "fuzz", "hostile"])
    parser.add_argument(
        "--tries", type=int, help="default: 20 random kills, 8 writes a mode; 6 ranks, 10 pairs"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few tries; no results are written")
    arguments, outcomes = parser.parse_args(), []
    warm_up()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder))
        for what in arguments.what:
            if what in DONE_HERE:
                tries, usual = DONE_HERE[what]
                outcomes.append(
                    tries(bench, arguments.quick, arguments.tries or usual, arguments.seed)
                )
            else:
                import bad_inputs

                outcomes.append(all(row["right"] for row in getattr(bad_inputs, what)()))
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()
