"""self_train with scikit-learn classifiers on numbers, beside scikit-learn's SelfTrainingClassifier and cleanlab.

    python benchmarks/any_model.py --mnist FOLDER      about ten minutes

Two data sets: the 1,797 digits that come with scikit-learn (a third is kept for the test), and 10,000 images of MNIST
as the first 50 principal components (a half is). Each seed draws rows, labels and noise anew. denoise: every label is
turned with a chance of a fifth, into any other class (symmetric) or the next one (pair). augment: 10 or 25 labels a
class, all other training rows unlabeled. All keys have their defaults. Test rows are only scored. Those of augment were
scored twice: first with the cutoff of 0.95, at which hardly a row got a label, then with today's default, which was
chosen on other rows (docs/log.md).
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import mean_and_sd, merge_results, save_results
from numpy import ndarray
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from pseudokit import self_train

NOISE_RATE = 0.2
ESTIMATORS = {
    "LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
    "HistGradientBoosting": HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=15, random_state=0
    ),
}
SETTINGS = ("symmetric", "pair", "10 labels", "25 labels")
ARMS = {
    "denoise": ("baseline", "student", "cleanlab", "clean labels"),
    "augment": ("baseline", "student", "SelfTrainingClassifier"),
}


def mnist(folder: Path) -> tuple[ndarray, ndarray]:
    """10,000 images of the training folder as pixels."""
    files = np.array(sorted((folder / "training").rglob("*.png")), object)
    files = files[np.random.default_rng(0).choice(len(files), 10_000, replace=False)]
    pixels = np.stack([np.asarray(Image.open(file).convert("L")).ravel() for file in files])
    return pixels / 255, np.array([int(file.parent.name) for file in files])


def split(
    name: str, x: ndarray, y: ndarray, seed: int
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Rows to learn and rows to test, drawn anew for each seed."""
    order = np.random.default_rng(seed).permutation(len(y))
    n_test = len(y) // (3 if name == "digits" else 2)
    test, train = order[:n_test], order[n_test:]
    if name == "MNIST":
        components = PCA(50, random_state=0).fit(x[train])
        return components.transform(x[train]), y[train], components.transform(x[test]), y[test]
    return x[train], y[train], x[test], y[test]


def denoise(estimator, noise: str, seed: int, x, y, x_test, y_test) -> dict:
    rng = np.random.default_rng(1000 + seed)
    is_wrong = rng.random(len(y)) < NOISE_RATE
    step = 1 if noise == "pair" else rng.integers(1, 10, len(y))
    given_labels = np.where(is_wrong, (y + step) % 10, y)
    start = time.monotonic()
    result = self_train(x, given_labels, estimator, random_state=seed)
    row = {
        "seconds": round(time.monotonic() - start, 1),
        "baseline": result.baseline.score(x_test, y_test),
        "student": result.estimator.score(x_test, y_test),
        "clean labels": clone(estimator).fit(x, y).score(x_test, y_test),
        "wrong before": float((given_labels != y).mean()),
        "wrong after": float((result.labels != y).mean()),
    }
    try:
        from cleanlab.classification import CleanLearning
    except ModuleNotFoundError:
        return row
    peer = CleanLearning(clone(estimator), seed=seed, verbose=False).fit(x, given_labels)
    return row | {"cleanlab": float((peer.predict(x_test) == y_test).mean())}


def augment(estimator, n_labels: int, seed: int, x, y, x_test, y_test) -> dict:
    given_labels = np.full(len(y), -1)
    for k in range(10):
        rows = np.flatnonzero(y == k)[:n_labels]
        given_labels[rows] = k
    start = time.monotonic()
    result = self_train(x, given_labels, estimator, mode="augment", random_state=seed)
    seconds = round(time.monotonic() - start, 1)
    peer = SelfTrainingClassifier(clone(estimator), threshold=0.9).fit(x, given_labels)
    is_pseudo = (given_labels < 0) & (result.labels >= 0)
    return {
        "seconds": seconds,
        "baseline": result.baseline.score(x_test, y_test),
        "student": result.estimator.score(x_test, y_test),
        "SelfTrainingClassifier": peer.score(x_test, y_test),
        "pseudo-labels": int(is_pseudo.sum()),
        "of them right": float((result.labels == y)[is_pseudo].mean()) if is_pseudo.any() else None,
    }


def run(setting: str, *arguments) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peers
        if setting in ("symmetric", "pair"):
            return denoise(arguments[0], setting, *arguments[1:])
        return augment(arguments[0], int(setting.split()[0]), *arguments[1:])


def tables(rows: list[dict]) -> list[str]:
    lines = ["Test accuracy in %, mean ± sd over seeds; the difference is paired, in points."]
    for mode, settings in (("denoise", SETTINGS[:2]), ("augment", SETTINGS[2:])):
        arms = ARMS[mode]
        more = "wrong labels, %" if mode == "denoise" else "pseudo-labels, of them right"
        header = ["data", "estimator", mode, *arms, "student − baseline", more, "s"]
        lines += ["", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for key in dict.fromkeys((r["data"], r["estimator"], r["setting"]) for r in rows):
            if key[2] not in settings:
                continue
            mine = [r for r in rows if (r["data"], r["estimator"], r["setting"]) == key]
            scores = [
                mean_and_sd([r[arm] for r in mine if arm in r], 1, 100) if arm in mine[0] else "–"
                for arm in arms
            ]
            gain = mean_and_sd([r["student"] - r["baseline"] for r in mine], 2, 100)
            if mode == "denoise":
                before, after = (
                    100 * np.mean([r[f"wrong {when}"] for r in mine])
                    for when in ("before", "after")
                )
                count = f"{before:.1f} → {after:.1f}"
            else:
                n_pseudo = np.mean([r["pseudo-labels"] for r in mine])
                right = [r["of them right"] for r in mine if r["of them right"] is not None]
                count = f"{n_pseudo:,.0f}, {100 * np.mean(right):.1f} %" if right else "none"
            seconds = f"{np.mean([r['seconds'] for r in mine]):.0f}"
            lines.append(f"| {' | '.join([*key, *scores, gain, count, seconds])} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parsed = parser.parse_args()
    data = {"digits": load_digits(return_X_y=True), "MNIST": mnist(parsed.mnist)}
    results = []
    for data_name, (x_all, y_all) in data.items():
        for seed in range(parsed.seeds):
            parts = split(data_name, x_all, y_all, seed)
            for estimator_name, model in ESTIMATORS.items():
                for setting in parsed.settings:
                    row = {
                        "data": data_name,
                        "estimator": estimator_name,
                        "setting": setting,
                        "seed": seed,
                    }
                    results.append(row | run(setting, model, seed, *parts))
                    print(results[-1], flush=True)
    results = merge_results("any_model", results, "data", "estimator", "setting", "seed")
    save_results("any_model", results, tables(results))
