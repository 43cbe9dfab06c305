"""What a label issue is compared with: the nearest examples whose given label the run agrees with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import load_run

EXAMPLES_PER_CLASS = 4
"""As many as fit beside the image."""
MAX_CANDIDATES = 2000
"""Rows of all classes together that may be an example, so that time and file size stay bounded."""


def nearest_examples(run: Path, info: dict[str, Any], items: pd.DataFrame) -> tuple[list, dict[int, str]]:
    """For each item, examples of its given and of its predicted class, by the round's out-of-fold log-probabilities.

    Args:
        run: the run folder.
        info: round.json of the decisive round.
        items: rows with id, given_label and predicted.

    Returns:
        near: for each item [rows of the given class, rows of the predicted class], numbers of rows in decisions.csv.
            Both are empty for an item that the round did not judge, and where the round's files are gone.
        paths: row in decisions.csv → its image.
    """
    near: list = [[[], []] for _ in range(len(items))]
    folder = run / f"round_{info.get('round')}"
    if not (folder / "log_probs.npy").exists():
        return near, {}
    decisions = load_run.read_table(folder / "decisions.csv", "id given_label predicted confidence decision")
    log_probs = np.load(folder / "log_probs.npy", mmap_mode="r")
    log_probs = log_probs.reshape(len(log_probs), -1)
    candidates = find_candidates(decisions)
    rows = pd.Index(decisions["id"]).get_indexer(items["id"])  # -1: not judged
    for side, column in enumerate(("given_label", "predicted")):
        for name, group in candidates.items():
            features = log_probs[group]
            for i in np.flatnonzero((items[column] == name) & (rows >= 0)):
                distance = np.linalg.norm(features - log_probs[rows[i]], axis=1)
                order = group[distance.argsort(kind="stable")]
                near[i][side] = order[order != rows[i]][:EXAMPLES_PER_CLASS].tolist()
    shown = sorted({row for pair in near for side in pair for row in side})
    samples = load_run.read_table(run / "samples.csv", "id path").drop_duplicates("id").set_index("id")
    return near, {row: samples["path"][decisions["id"][row]] for row in shown}


def find_candidates(decisions: pd.DataFrame) -> dict[str, np.ndarray]:
    """class → rows that agree with their given label, evenly spread from the least to the most confident."""
    is_agreed = (decisions["decision"] == "keep") & (decisions["predicted"] == decisions["given_label"])
    by_class = decisions[is_agreed].sort_values("confidence", kind="stable").groupby("given_label")
    limit = max(EXAMPLES_PER_CLASS + 1, MAX_CANDIDATES // max(1, by_class.ngroups))
    candidates = {}
    for name, group in by_class:
        places = np.linspace(0, len(group) - 1, min(limit, len(group)))
        candidates[name] = group.index.to_numpy()[places.round().astype(int)]
    return candidates
