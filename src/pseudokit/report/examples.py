"""What a suspect is compared with: the nearest examples whose given label the run agrees with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import load_run

SHOWN = 4
"""Examples a class and sample."""
CANDIDATES = 2000
"""Rows of all classes together that may be an example, so that cost and file size stay bounded."""


def find_examples(run: Path, info: dict[str, Any], rows: pd.DataFrame) -> tuple[list[str], list[list[list[int]]]]:
    """(paths, near): near[i] = [places in `paths` of examples given as row i is, of examples of its predicted class].

    info: round.json of the decisive round, whose held-out log-probabilities say what is near. Both lists are empty
    for a row that the round did not judge, and for every row of a round without files.
    """
    near: list[list[list[int]]] = [[[], []] for _ in range(len(rows))]
    folder = run / f"round_{info.get('round')}"
    if not (folder / "log_probs.npy").exists():
        return [], near
    table = load_run.read_table(folder / "decisions.csv", "id given_label predicted confidence decision")
    log_probs = np.load(folder / "log_probs.npy", mmap_mode="r")
    log_probs = log_probs.reshape(len(log_probs), -1)
    judged = pd.Index(table["id"]).get_indexer(rows["id"])
    judged[(rows["predicted"] == "").to_numpy()] = -1
    for name, pool in candidates(table, load_run.label_names(info)).items():
        for side, column in enumerate(("given_label", "predicted")):
            asked = np.flatnonzero((rows[column] == name).to_numpy() & (judged >= 0))
            for i, found in zip(asked, nearest(log_probs, judged[asked], pool), strict=True):
                near[i][side] = found
    return to_paths(run, table["id"], near)


def candidates(table: pd.DataFrame, classes: list[str]) -> dict[str, np.ndarray]:
    """class → rows of decisions.csv that agree with their given label, evenly spread from doubtful to certain."""
    agrees = table[(table["decision"] == "keep") & (table["predicted"] == table["given_label"])].sort_values(
        "confidence"
    )
    most = max(SHOWN + 1, CANDIDATES // max(1, len(classes)))
    pools = {}
    for name, group in agrees.groupby("given_label"):
        spread = np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int)
        pools[name] = group.index.to_numpy()[spread]
    return pools


def nearest(log_probs: np.ndarray, asked: np.ndarray, pool: np.ndarray) -> list[list[int]]:
    """For each asked row the SHOWN rows of the pool with the nearest log-probabilities, never the row itself."""
    from scipy.spatial.distance import cdist

    if not len(asked):
        return []
    distance = cdist(log_probs[asked], log_probs[pool])
    distance[asked[:, None] == pool] = np.inf
    order = distance.argsort(axis=1, kind="stable")[:, :SHOWN]
    return [[int(pool[k]) for k in row if np.isfinite(distance[i, k])] for i, row in enumerate(order)]


def to_paths(run: Path, ids: pd.Series, near: list) -> tuple[list[str], list]:
    """Rows of decisions.csv → places in a list of image paths in which each stands once."""
    used = sorted({row for pair in near for side in pair for row in side})
    place = {row: k for k, row in enumerate(used)}
    path = load_run.read_table(run / "samples.csv", "id path").drop_duplicates("id").set_index("id")["path"]
    paths = path.reindex(ids.iloc[used]).fillna("").tolist()
    return paths, [[[place[row] for row in side] for side in pair] for pair in near]
