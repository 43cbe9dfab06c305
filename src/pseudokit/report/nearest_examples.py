"""What a label issue is compared with: the nearest examples whose given label the run agrees with."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from . import load_run

EXAMPLES_PER_CLASS = 4
"""As many as fit beside the image."""
MAX_CANDIDATES = 2000
"""Rows of all classes together that may be an example, so that time and file size stay bounded."""


def nearest_examples(
    run: Path, info: dict, items: pd.DataFrame, decisions: pd.DataFrame | None = None
) -> tuple[list, dict[int, str]]:
    """For each item, examples of its given and of its predicted class, by the round's out-of-fold log-probabilities.

    Args:
        run: the run folder.
        info: round.json of the decisive round.
        items: rows with id, given_label and predicted.
        decisions: those of the round, where they are read already.

    Returns:
        near: for each item [rows of the given class, rows of the predicted class], numbers of rows in decisions.csv.
            Both are empty for an item that the round did not predict, and where the round's files are gone.
        paths: row in decisions.csv → its image.
    """
    file = run / f"round_{info.get('round')}" / "log_probs.npy"
    if not file.exists():
        return [[[], []]] * len(items), {}
    log_probs = np.load(file, mmap_mode="r")
    log_probs = log_probs.reshape(len(log_probs), -1)
    if decisions is None:
        columns = "id split given_label predicted decision"
        decisions = load_run.read_rows(run, f"round_{info['round']}/decisions.csv", columns)
    candidates = find_candidates(decisions)
    item_rows = pd.Index(decisions.id).get_indexer(items.id)
    near = []
    for row, *classes in zip(item_rows, items.given_label, items.predicted, strict=True):
        near.append([nearest_rows(log_probs, row, candidates.get(name)) for name in classes])
    shown = {row for pair in near for rows in pair for row in rows}
    return near, decisions.path[sorted(shown)].to_dict()


def find_candidates(decisions: pd.DataFrame) -> dict[str, ndarray]:
    """class → a random sample of the rows that agree with their given label."""
    agrees = decisions.predicted == decisions.given_label
    is_kept = decisions.decision == "keep"
    agreed = decisions.given_label[agrees & is_kept].sample(frac=1, random_state=0)
    by_class = agreed.groupby(agreed)
    limit = max(EXAMPLES_PER_CLASS + 1, MAX_CANDIDATES // max(1, by_class.ngroups))
    return {name: rows.index.to_numpy()[:limit] for name, rows in by_class}


def nearest_rows(log_probs: ndarray, row: int, candidates: ndarray | None) -> list[int]:
    """The few candidates whose log-probabilities (N, K) are nearest to those of a row (-1: not predicted)."""
    if row < 0 or candidates is None:
        return []
    others = candidates[candidates != row]
    distance = np.linalg.norm(log_probs[others] - log_probs[row], axis=1)
    return others[distance.argsort(kind="stable")][:EXAMPLES_PER_CLASS].tolist()
