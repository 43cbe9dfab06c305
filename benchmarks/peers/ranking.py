"""Labels ranked from stored predictions, by the kit or by cleanlab; one process each, for speed.py.

    PYTHONPATH=src python benchmarks/peers/ranking.py make FILE N K
    PYTHONPATH=src python benchmarks/peers/ranking.py read|decide|issues|cleanlab|cleanlab-batched FILE

Prints seconds without imports and compiling, those of imports and compiling alone (warm_up), the peak of the memory
that is not a mapped file in MB, of all its processes, average precision on the first million rows, and how many rows
are listed. A tenth of the labels is flipped. All read float16 from memory-mapped files that have been read before.
What each does:
decide: the step of `pseudo.py --mode select` that decides stored log-probabilities (decide_labels): for every row
    p_wrong, decision, reason, weight and the likeliest class; then the rows with p_wrong above 0.5, ranked.
issues: find_label_issues, which also checks and calibrates the probabilities, undoes the noise that the models have
    learned, chooses the model of the noise, ranks all rows, and makes a table of all.
cleanlab: filter.find_label_issues, its issues ranked by self-confidence, on as many processes as there are cores.
cleanlab-batched: find_label_issues_batched, its issues in the order of the rows. On one process: with two it starts
    new ones for every batch of 10,000 rows, and is slower.
read: no more than the bytes of the file, block by block.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

BLOCK = 2**22
"""Probabilities that are made at once."""
WARM_UP = 11_000_000
"""Probabilities of a first call, which imports and compiles."""


def make(file: Path, n: int, k: int) -> None:
    """FILE.log_probs.npy and FILE.probs.npy: (n, k) of models that are mostly right; .given_label.npy, .wrong.npy."""
    rng = np.random.default_rng(0)
    logs, probs = (
        np.lib.format.open_memmap(_of(file, what), "w+", np.float16, (n, k))
        for what in ("log_probs", "probs")
    )
    truth = rng.integers(0, k, n)
    for start in range(0, n, BLOCK // k):
        part = slice(start, min(start + BLOCK // k, n))
        x = rng.standard_normal((part.stop - start, k), np.float32)
        x[np.arange(len(x)), truth[part]] += 2 + np.log(k)
        x -= np.log(np.exp(x).sum(1, keepdims=True))
        logs[part], probs[part] = x, np.exp(x)
    wrong = rng.random(n) < 0.1
    np.save(_of(file, "given_label"), np.where(wrong, (truth + rng.integers(1, k, n)) % k, truth))
    np.save(_of(file, "wrong"), wrong)


def read(array: ndarray, given_labels: ndarray) -> ndarray:
    total = sum(
        int(array[start : start + BLOCK // array.shape[1]].view(np.uint16).max())
        for start in range(0, len(array), BLOCK // array.shape[1])
    )
    return np.arange(min(total, 1))


def decide(log_probs: ndarray, given_labels: ndarray) -> tuple[ndarray, ndarray]:
    from pseudokit.config.keys import Pseudo
    from pseudokit.labels.decide import decide_labels

    decisions = decide_labels(log_probs, given_labels, "denoise", Pseudo())
    rows = np.flatnonzero(decisions.p_wrong > 0.5)
    return rows[np.argsort(-decisions.p_wrong[rows], kind="stable")], decisions.p_wrong


def issues(probs: ndarray, given_labels: ndarray) -> tuple[ndarray, ndarray]:
    from pseudokit import find_label_issues

    table = find_label_issues(given_labels, probs)
    return table.index[table.is_issue], -table["rank"].to_numpy(float)


def cleanlab(probs: ndarray, given_labels: ndarray) -> tuple[ndarray, None]:
    from cleanlab.filter import find_label_issues

    return find_label_issues(
        given_labels, probs, return_indices_ranked_by="self_confidence", n_jobs=cores()
    ), None


def cleanlab_batched(probs: ndarray, given_labels: ndarray) -> tuple[ndarray, None]:
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    return find_label_issues_batched(given_labels, probs, verbose=False), None


RANKINGS = {
    "read": (read, "probs"),
    "decide": (decide, "log_probs"),
    "issues": (issues, "probs"),
    "cleanlab": (cleanlab, "probs"),
    "cleanlab-batched": (cleanlab_batched, "probs"),
}
"""What is measured, and the file that it reads."""


def cores() -> int:
    return len(os.sched_getaffinity(0))


def _of(file: Path, what: str) -> Path:
    return file.with_suffix(f".{what}.npy")


def timed(rank: Callable, array: ndarray, given_labels: ndarray) -> tuple[float, Any]:
    start = time.monotonic()
    result = rank(array, given_labels)
    return time.monotonic() - start, result


class Peak(threading.Thread):
    """MB of memory that is not a mapped file, of this process and its children, the most that was seen."""

    def __init__(self):
        super().__init__(daemon=True)
        self.mb = 0.0

    def run(self) -> None:
        while True:
            files = Path("/proc/self/task").glob("*/children")
            children = " ".join(file.read_text() for file in files).split()
            self.mb = max(self.mb, sum(map(_anonymous, ["self", *children])))
            time.sleep(0.1)


def _anonymous(pid: str) -> float:
    try:
        lines = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
    except OSError:
        return 0.0
    return int(lines.get("RssAnon", "0 kB").split()[0]) / 1024


def most_mb() -> int:
    """Peak of the memory of this process in MB; getrusage would count what its parent had before it was replaced."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) // 1024


def main(who: str, file: Path, *size: str) -> None:
    if who == "make":
        return make(file, *map(int, size))
    rank, what = RANKINGS[who]
    array = np.load(_of(file, what), mmap_mode="r")
    given_labels, wrong = (np.load(_of(file, what)) for what in ("given_label", "wrong"))
    few = WARM_UP // array.shape[1]
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # nothing is compiled before
    first, second = (timed(rank, array[:few], given_labels[:few])[0] for _ in range(2))
    read(array, given_labels)  # into the cache of the system
    peak = Peak()
    peak.start()
    seconds, result = timed(rank, array, given_labels)
    measured = {"seconds": seconds, "mb": round(peak.mb), "warm_up": round(first - second, 2)}
    if who != "read":
        from sklearn.metrics import average_precision_score

        listed, score = result
        if score is None:  # cleanlab ranks its issues alone
            score = np.full(len(given_labels), -len(given_labels))
            score[listed] = -np.arange(len(listed))
        first = slice(1_000_000)
        quality = float(average_precision_score(wrong[first], score[first]))
        measured |= {"quality": quality, "listed": len(listed)}
    print(json.dumps(measured))


if __name__ == "__main__":
    who, file, *size = sys.argv[1:]
    main(who, Path(file), *size)
