"""Unusual, random and hostile input: what the kit prints, and whether anything harmful gets in.

    python -m benchmarks.bad_inputs                 all three tables, results/bad_inputs.md and the like (9 minutes)
    python -m benchmarks.bad_inputs inputs          images, tables and configs by name
    python -m benchmarks.bad_inputs fuzz            random ones: 33,000 cases (4 minutes of CPU)
    python -m benchmarks.bad_inputs hostile         ids, links, weights, pages, cells, sockets

A case is right where it is read as it should be, or refused in one line that names what is wrong; a traceback, a hang
or a wrong label is none. The cases are those of tests/wild/common.py, tests/fuzz.py, tests/fuzz_wild.py and
tests/hostile.py, of which `make test` runs a part. Exit code 1 where a case is not right.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import save_results

from pseudokit.config.types import one_line
from tests import fuzz as random_cases
from tests import hostile as hostile_cases
from tests.wild import common

FUZZED = {
    "image": 8_000,
    "table": 6_000,
    "config": 7_000,
    "roles": 1_000,
    "submission": 2_500,
    "wild table": 2_000,
    "finding images": 2_000,
    "pixels": 2_500,
    "corrections": 1_000,
    "command line": 1_000,
}
JOBS = 4
"""Kinds of random cases at a time."""
MAX_FAULT_CHARACTERS = 600
"""Of what a case says that is not right."""
MAX_CELL_CHARACTERS = 160
"""Of a line in the table: enough to see what is wrong."""


@contextmanager
def quiet():
    """Without the messages of libpng and libjpeg on the terminal."""
    sys.stderr.flush()
    old, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(old, 2)
        os.close(old)
        os.close(nothing)


def inputs() -> list[dict]:
    """Every named case: {kind, name, line, right}."""
    rows = []
    for case in common.cases():
        with tempfile.TemporaryDirectory() as folder, quiet():
            try:
                line, right = common.check_case(case, Path(folder))
            except (Exception, common.Hangs) as error:
                line, right = f"{type(error).__name__}: {error}", False
        rows.append({"kind": case.kind, "name": case.name, "line": line, "right": right})
    table = [
        f"| {row['kind']} | {row['name']} | {_cell(row['line'])} | {_verdict(row)} |"
        for row in rows
    ]
    right = sum(row["right"] for row in rows)
    head = [
        f"{right} of {len(rows)} named inputs are read right, or refused in one line.",
        "",
        "| kind | input | what is printed | verdict |",
        "|---|---|---|---|",
    ]
    save_results("bad_inputs", rows, [*head, *table])
    return rows


def fuzz_kind(kind: str) -> dict:
    """{kind, n, read, refused, silent, raised, seconds, right} of the random cases of a kind."""
    logging.getLogger("kit").setLevel(logging.ERROR)  # what a run would tell of each case
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, quiet():
        outcomes = random_cases.run(kind, Path(folder), FUZZED[kind])
    seconds = round(time.process_time() - start, 1)
    silent, raised = (
        [one_line(fault)[:MAX_FAULT_CHARACTERS] for fault in faults]
        for faults in (outcomes.silent, outcomes.raised)
    )
    return {
        "kind": kind,
        "n": FUZZED[kind],
        "read": outcomes.right,
        "refused": outcomes.refused,
        "silent": silent,
        "raised": raised,
        "seconds": seconds,
        "right": not silent and not raised,
    }


def fuzz() -> list[dict]:
    """Random cases, the kinds side by side."""
    with ProcessPoolExecutor(JOBS) as processes:
        rows = list(processes.map(fuzz_kind, FUZZED))
    table = [
        f"| {row['kind']} | {row['n']:,} | {row['read']:,} | {row['refused']:,} | {len(row['silent'])} | "
        f"{len(row['raised'])} | {row['seconds']} |"
        for row in rows
    ]
    head = [
        f"{sum(row['n'] for row in rows):,} random inputs. Read right: labels, files, classes, pixels or cells are "
        "those that the generator meant, or that Python's own reader sees. Silent: they are others, or input "
        "without fault is refused. Raised: a traceback, a hang or more than a GB.",
        "",
        "| kind | cases | read right | refused in a line | silent | raised | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    faults = [f"- {_cell(fault)}" for row in rows for fault in (*row["silent"], *row["raised"])]
    save_results("bad_inputs_fuzz", rows, [*head, *table, "", *faults])
    return rows


def hostile() -> list[dict]:
    """Every hostile case: {name, let_in, right}."""
    rows = []
    for name, case in hostile_cases.cases().items():
        with tempfile.TemporaryDirectory() as folder, quiet():
            try:
                let_in = case(Path(folder))
            except Exception as error:
                let_in = f"{type(error).__name__}: {error}"
        rows.append({"name": name, "let_in": let_in, "right": not let_in})
    table = [
        f"| {row['name']} | {_cell(row['let_in']) or 'nothing'} | {_verdict(row)} |" for row in rows
    ]
    head = [
        f"{sum(not row['right'] for row in rows)} of {len(rows)} hostile inputs are let in.",
        "",
        "| input | what is let in | verdict |",
        "|---|---|---|",
    ]
    save_results("bad_inputs_hostile", rows, [*head, *table])
    return rows


def _cell(text: str) -> str:
    """Text as it may stand in a cell of Markdown."""
    text = (
        text
        if len(text) <= MAX_CELL_CHARACTERS
        else f"{text[: MAX_CELL_CHARACTERS // 2]} … {text[-MAX_CELL_CHARACTERS // 2 :]}"
    )
    return text.replace("|", "\\|").replace("<", "&lt;")


def _verdict(row: dict) -> str:
    return "right" if row["right"] else "**wrong**"


if __name__ == "__main__":
    parts = {"inputs": inputs, "fuzz": fuzz, "hostile": hostile}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", choices=[*parts, []], metavar="PART", help="default: all three"
    )
    chosen = parser.parse_args().parts or list(parts)
    sys.exit(not all(row["right"] for name in chosen for row in parts[name]()))
