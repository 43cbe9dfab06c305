"""What a row costs beside its images: N rows are loaded, folded, decided and written; one process, for speed.py.

    PYTHONPATH=src python benchmarks/peers/rows.py N FOLDER

Prints the microseconds of each stage and of all, and the peak of the memory in MB.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from ranking import most_mb

from pseudokit.config.keys import Config, Data
from pseudokit.data.dataset import load_dataset
from pseudokit.data.folds import find_clusters, make_folds
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.out_of_fold import OutOfFoldPredictions
from pseudokit.report.tables import label_issues_table, labels_table
from pseudokit.round_store import RoundStore, decisions_table
from pseudokit.self_training import SelfTrainingResult
from pseudokit.system.files import write_csv

K = 10


def main(n: int, folder: Path) -> None:
    folder = folder / f"rows_{n}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng, seconds = np.random.default_rng(0), {}
    labels = np.array(list("abcdefghij"))[rng.integers(0, K, n)]
    table = pd.DataFrame({"id": [f"image_{i:08d}" for i in rng.permutation(n)], "label": labels})
    table.to_csv(folder / "train.csv", index=False)

    def timed(stage: str, job):
        start = time.monotonic()
        done = job()
        seconds[stage] = seconds.get(stage, 0) + time.monotonic() - start
        return done

    # scikit-learn is imported once, whatever the rows.
    make_folds(np.arange(100) % K, np.arange(100), 5, 0)
    dataset = timed("load", lambda: load_dataset(Data(train=str(folder / "train.csv"))))
    clusters = timed("fold", lambda: find_clusters(dataset.group, np.empty((2, 0), int)))
    timed("fold", lambda: make_folds(dataset.given_labels, clusters, 5, 0))
    logs = rng.standard_normal((n, K), np.float32)
    logs[np.arange(n), dataset.given_labels] += 5
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    decisions = timed(
        "decide", lambda: decide_labels(logs, dataset.given_labels, "denoise", Config().pseudo)
    )

    def write() -> None:
        predicted = OutOfFoldPredictions(logs, np.repeat(np.array(["model"], object), n))
        write_csv(folder / "samples.csv", dataset.table())
        RoundStore(folder).record(1, dataset, predicted, decisions)
        rows = decisions_table(decisions, dataset, "").assign(path=dataset.path)
        write_csv(folder / "label_issues.csv", label_issues_table(rows))
        write_csv(
            folder / "labels.csv",
            labels_table(SelfTrainingResult(decisions.label, decisions, 1, "max_rounds"), dataset),
        )

    timed("write", write)
    shutil.rmtree(folder)
    each = {stage: round(1e6 * s / n, 2) for stage, s in seconds.items()}
    print(json.dumps({"us": round(sum(each.values()), 2), "mb": most_mb(), **each}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
