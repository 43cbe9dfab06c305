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


def nearest_examples(
    run: Path, info: dict[str, Any], items: pd.DataFrame
) -> tuple[list, dict[int, str]]:
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
    near: list = [[[], []] for _ in items.index]
    folder = run / f"round_{info.get('round')}"
    if not (folder / "log_probs.npy").exists():
        return near, {}
    columns = "id given_label predicted confidence decision"
    decisions = load_run.read_table(folder / "decisions.csv", columns)
    samples = load_run.read_table(run / "samples.csv", "id path")
    path_of_id = load_run.image_paths(samples)
    log_probs = np.load(folder / "log_probs.npy", mmap_mode="r")
    log_probs = log_probs.reshape(len(log_probs), -1)
    candidates = find_candidates(decisions)
    item_rows = pd.Index(decisions["id"]).get_indexer(items["id"])  # -1: not judged
    paths = {}
    for side, column in enumerate(("given_label", "predicted")):
        for name, group in candidates.items():
            features = log_probs[group]
            is_asked = (items[column] == name) & (item_rows >= 0)
            for i in np.flatnonzero(is_asked):
                own_row = item_rows[i]
                distance = np.linalg.norm(features - log_probs[own_row], axis=1)
                order = group[distance.argsort(kind="stable")]
                others = order[order != own_row]
                nearest = others[:EXAMPLES_PER_CLASS].tolist()
                near[i][side] = nearest
                for row in nearest:
                    paths[row] = path_of_id[decisions["id"][row]]
    return near, paths


def find_candidates(decisions: pd.DataFrame) -> dict[str, np.ndarray]:
    """class → rows that agree with their given label, evenly spread from the least to the most confident."""
    agrees = decisions["predicted"] == decisions["given_label"]
    is_kept = decisions["decision"] == "keep"
    agreed = decisions[agrees & is_kept].sort_values("confidence", kind="stable")
    n_classes = max(1, agreed["given_label"].nunique())
    limit = max(EXAMPLES_PER_CLASS + 1, MAX_CANDIDATES // n_classes)
    candidates = {}
    for name, group in agreed.groupby("given_label"):
        n = min(limit, len(group))
        places = np.linspace(0, len(group) - 1, n).round().astype(int)
        candidates[name] = group.index.to_numpy()[places]
    return candidates
