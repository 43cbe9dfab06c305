"""Predictions from outside: how often learned rows are told from held-out ones, and what find_label_issues costs.

    python benchmarks/outside_predictions.py learned --data FOLDER     false and true alarms; a minute
    python benchmarks/outside_predictions.py issues [--n 1000000 10000000]  find_label_issues on a .npy

FOLDER holds human_noise/*.npz (networks on CIFAR-10N, held out) and mnist_png. The other rows are the 1,797 digits of
scikit-learn, three draws of uniform noise each, three folds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import subprocess
import sys
import tempfile
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, load_results, machine, mean_and_sd, save_results
from numpy import ndarray
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from pseudokit.labels.sanity import learned_these_rows

DRAWS = 3
NOISE = (0.0, 0.1, 0.3)
MODELS = {
    "1 neighbor": KNeighborsClassifier(1),
    "5 neighbors": KNeighborsClassifier(5),
    "random forest": RandomForestClassifier(50, random_state=0),
    "extra trees": ExtraTreesClassifier(50, random_state=0),
    "network to zero loss": MLPClassifier(
        64, solver="lbfgs", alpha=0, max_iter=2000, max_fun=100_000, tol=1e-9, random_state=0
    ),
    "logistic regression": LogisticRegression(max_iter=300),
}
PAIR_ROWS = 4000
"""Of each of two MNIST digits that are hardly ever taken for each other."""


def alarm(setting: str, kind: str, probs: ndarray, labels: ndarray) -> dict:
    """What the rule says of one matrix of probabilities."""
    probs = probs / probs.sum(1, keepdims=True)
    confidence = probs.max(1)
    predicted = probs.argmax(1)
    of_label = probs[np.arange(len(labels)), labels]
    return {
        "setting": setting,
        "kind": kind,
        "n": len(labels),
        "agreement": float((predicted == labels).mean()),
        "expected": float(confidence.mean()),
        "log_loss": float(-np.log(np.maximum(of_label, 1e-12)).mean()),
        "alarm": bool(learned_these_rows(predicted, confidence, labels)),
    }


def both_kinds(setting: str, model: ClassifierMixin, x: ndarray, labels: ndarray) -> list[dict]:
    """A model on rows that it learned, and out of fold."""
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    held_out = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")
    learned = model.fit(x, labels).predict_proba(x)
    return [
        alarm(setting, "held out", held_out, labels),
        alarm(setting, "learned", learned, labels),
    ]


def networks(data: Path) -> list[dict]:
    rows = []
    for file in sorted((data / "human_noise").glob("*.npz")):
        matrix = np.load(file)
        probs = np.exp(matrix["log_probs"].astype(float))
        rows.append(alarm("networks on CIFAR-10N", "held out", probs, matrix["given"].astype(int)))
    return rows


def easy_pair(data: Path) -> list[dict]:
    """MNIST 0 against 1, held out: as it is, and with confidences that label smoothing has lowered."""
    import cv2

    files = [
        file
        for digit in "01"
        for file in sorted((data / "mnist_png" / "training" / digit).glob("*.png"))[:PAIR_ROWS]
    ]
    x = np.stack([cv2.resize(cv2.imread(str(file), 0), (14, 14)).ravel() / 255 for file in files])
    labels = np.array([int(file.parent.name) for file in files])
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=300)
    probs = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")
    return [
        alarm("MNIST 0 against 1", "held out", probs, labels),
        alarm("MNIST 0 against 1, smoothed by 0.1", "held out", 0.9 * probs + 0.05, labels),
    ]


def learned(data: Path) -> list[dict]:
    x, clean = load_digits(return_X_y=True)
    x = x / 16
    rows = networks(data) + easy_pair(data)
    rows += both_kinds("SVM, clean labels", SVC(probability=True, random_state=0), x, clean)[:1]
    for noise in NOISE:
        for draw in range(DRAWS):
            rng = np.random.default_rng(draw)
            flip = rng.random(len(clean)) < noise
            other = (clean + rng.integers(1, 10, len(clean))) % 10
            labels = np.where(flip, other, clean)
            for name, model in MODELS.items():
                rows += both_kinds(f"{name}, {noise:.0%} wrong", model, x, labels)
    return rows


def table(rows: list[dict]) -> list[str]:
    lines = [
        "Alarm: predictions look like those of rows that the model learned (`learned_these_rows`). Agreement with the "
        "given labels and the mean confidence in %.",
        "",
        "| setting | rows are | n | agreement | mean confidence | log loss | alarms |",
        "|---" * 7 + "|",
    ]
    frame = pd.DataFrame(rows)
    for (setting, kind), group in frame.groupby(["setting", "kind"], sort=False):
        cells = [
            mean_and_sd(group.agreement, 2, 100).split(" (")[0],
            mean_and_sd(group.expected, 2, 100).split(" (")[0],
            f"{group.log_loss.mean():.4f}",
            f"{group.alarm.sum()} of {len(group)}",
        ]
        lines.append(f"| {setting} | {kind} | {len(group)} | {' | '.join(cells)} |")
    held_out = frame[frame.kind == "held out"]
    memorized = frame[frame.kind == "learned"]
    by_heart = memorized[~memorized.setting.str.contains("5 neighbors|logistic")]
    return [
        *lines,
        "",
        f"False alarms: {held_out.alarm.sum()} of {len(held_out)}. True alarms: {by_heart.alarm.sum()} of "
        f"{len(by_heart)} where models learn every label by heart, {memorized.alarm.sum()} of {len(memorized)} in all.",
    ]


def noisy_rows(n: int, k: int) -> tuple[ndarray, ndarray]:
    """(n, k) probabilities, and (n,) labels of which 9 % are wrong."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, n)
    probs = 0.3 * rng.dirichlet(np.ones(k), n) + 0.7 * np.eye(k)[labels]
    labels = np.where(rng.random(n) < 0.1, rng.integers(0, k, n), labels)
    return probs.astype(np.float32), labels


def cost(what: str, n: int, k: int, command: list[str]) -> dict:
    """What a process takes: seconds of the processor, and the most memory of this one and of all before it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    gb = after.ru_maxrss / 1e6
    return {"what": what, "n": n, "classes": k, "seconds": round(seconds, 1), "gb": gb}


def many_issues(n: int, k: int = 10) -> dict:
    """find_label_issues on a memory map."""
    probs, labels = noisy_rows(n, k)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/oof.npy", probs)
        np.save(f"{folder}/labels.npy", labels)
        code = (
            "import sys; sys.path.insert(0, 'src'); import numpy as np; from pseudokit import find_label_issues; "
            f"find_label_issues(np.load('{folder}/labels.npy'), np.load('{folder}/oof.npy', mmap_mode='r'))"
        )
        return cost("find_label_issues", n, k, [sys.executable, "-c", code])


def rows_table(rows: list[dict]) -> list[str]:
    lines = ["| what | rows | classes | processor seconds | memory |", "|---" * 5 + "|"]
    for row in rows:
        lines.append(
            f"| {row['what']} | {row['n']:,} | {row['classes']} | {row['seconds']} | {row['gb']:.2f} GB |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["learned", "issues"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", type=int, nargs="+", default=[1_000_000, 10_000_000])
    args = parser.parse_args()
    if args.what == "learned":
        rows, to_lines = learned(args.data), table
    else:
        rows, to_lines = [many_issues(n) for n in args.n], rows_table
    name = f"outside_predictions_{args.what}"
    rows = [row | {"machine": machine()} for row in rows]
    if args.what != "learned":  # millions of rows take long, and are measured one at a time
        others = [row for row in load_results(name) if row["n"] not in args.n]
        rows = sorted([*others, *rows], key=itemgetter("n"))
    save_results(name, rows, to_lines(rows))


if __name__ == "__main__":
    main()
