"""Labels ranked from stored log-probabilities, by the kit or by cleanlab; one process each, for speed.py.

    PYTHONPATH=src python benchmarks/peers/ranking.py make FILE.npy N K
    PYTHONPATH=src python benchmarks/peers/ranking.py kit|cleanlab|cleanlab-batched FILE.npy

Prints seconds, the peak of the memory that is not a mapped file in MB, of all its processes, and average precision. A
tenth of the labels is flipped. cleanlab wants probabilities: it is given their file, memory-mapped as the kit's is.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from numpy import ndarray

BLOCK = 2**22
"""Probabilities that are made at once."""


def make(file: Path, n: int, k: int) -> None:
    """FILE.npy: log-probabilities (n, k) of models that are right in most cases; .probs.npy; .given.npy, .wrong.npy."""
    rng = np.random.default_rng(0)
    logs, probs = (
        np.lib.format.open_memmap(f, "w+", np.float32, (n, k)) for f in (file, _of(file, "probs"))
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


def kit(file: Path, given_labels: ndarray) -> ndarray:
    from pseudokit.config.keys import Pseudo
    from pseudokit.labels.decide import decide_labels

    decisions = decide_labels(np.load(file, mmap_mode="r"), given_labels, "denoise", Pseudo())
    return np.argsort(-decisions.p_wrong, kind="stable")


def cleanlab(file: Path, given_labels: ndarray) -> ndarray:
    from cleanlab.filter import find_label_issues

    probs = np.load(_of(file, "probs"), mmap_mode="r")
    return find_label_issues(given_labels, probs, return_indices_ranked_by="self_confidence")


def cleanlab_batched(file: Path, given_labels: ndarray) -> ndarray:
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    return find_label_issues_batched(
        given_labels, np.load(_of(file, "probs"), mmap_mode="r"), verbose=False
    )


def _of(file: Path, what: str) -> Path:
    return file.with_suffix(f".{what}.npy")


class Peak(threading.Thread):
    """MB of memory that is not a mapped file, of this process and its children, the most that was seen."""

    def __init__(self):
        super().__init__(daemon=True)
        self.mb, self._group = 0.0, _group("self")

    def run(self) -> None:
        while True:
            mine = [pid for pid in _processes() if _group(pid) == self._group]
            self.mb = max(self.mb, sum(map(_anonymous, mine)))
            time.sleep(0.05)


def _processes() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def _group(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[2]
    except OSError:  # it has ended
        return ""


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


def main(who: str, file: str, *size: str) -> None:
    if who == "make":
        return make(Path(file), *map(int, size))
    from sklearn.metrics import average_precision_score

    given_labels, wrong = (np.load(_of(Path(file), what)) for what in ("given_label", "wrong"))
    peak = Peak()
    peak.start()
    start = time.monotonic()
    ranked = {"kit": kit, "cleanlab": cleanlab, "cleanlab-batched": cleanlab_batched}[who](
        Path(file), given_labels
    )
    seconds = time.monotonic() - start
    mb, score = peak.mb, np.zeros(len(given_labels))
    score[ranked] = -np.arange(len(ranked))
    # cleanlab ranks its issues alone.
    score[np.setdiff1d(np.arange(len(given_labels)), ranked)] = -len(given_labels)
    quality = float(average_precision_score(wrong, score))
    print(
        json.dumps(
            {
                "seconds": round(seconds, 2),
                "mb": round(mb),
                "quality": quality,
                "listed": len(ranked),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
