"""The samples for a person to look at: one table, which review.html shows and Label Studio gets as tasks."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..system.files import read_json
from . import load_run

COLUMNS = "id path given_label predicted confidence p_wrong decision"
"""What is known of a sample."""
NO_TEXT = {"predicted": "", "decision": "", "duplicates": "", "cluster": ""}
"""What stands where nothing is known of a sample."""
MAX_ITEMS = 5000
"""Samples on a page: with them it stays below 30 MB."""


def read_review_items(run: Path, limit: int = MAX_ITEMS) -> tuple[pd.DataFrame, dict]:
    """The samples in the order to look at them, and round.json of the decisive round.

    First the training rows with a duplicate that has another label. Then the label issues: those that the run did
    not keep, then the others, by rank. A run without label issues lists the pseudo-labels nearest to the cutoff.

    Returns:
        At most `limit` rows (COLUMNS, duplicates, cluster) and what the round says. `duplicates` names the labels of
        the cluster, as text. Text is "" and numbers are NaN where the run does not say.
    """
    metrics = read_json(run / "metrics.json")
    info = load_run.decisive_round(metrics)
    _, cutoff = load_run.cutoffs(metrics, info)
    issues = _read_issues(run, cutoff, limit)
    conflicts = read_conflicts(run)
    conflicts = conflicts[conflicts.split == "train"].drop(columns="split")
    conflicts = conflicts.merge(issues, how="left", on=["id", "path", "given_label"])
    items = pd.concat([conflicts, issues[:limit]]).drop_duplicates("id", ignore_index=True)
    return items[:limit].fillna(NO_TEXT), info


def read_conflicts(run: Path) -> pd.DataFrame:
    """cluster, id, path, split, given_label, duplicates of the rows whose duplicates have another label."""
    columns = "cluster id path split given_label conflict"
    table = load_run.read_table(run / "duplicates.csv", columns)
    labeled = table[(table.conflict == "True") & (table.given_label != "")]
    labels = labeled.given_label + " (" + labeled.split + ")"
    duplicates = labels.groupby(labeled.cluster).transform(" · ".join)
    return labeled.drop(columns="conflict").assign(duplicates=duplicates)


def _read_issues(run: Path, cutoff: float, limit: int) -> pd.DataFrame:
    """COLUMNS of all label issues, or else of the `limit` pseudo-labels nearest to the cutoff."""
    issues = load_run.read_table(run / "label_issues.csv", COLUMNS)
    if issues is not None:
        is_kept = issues.decision == "keep"
        return pd.concat([issues[~is_kept], issues[is_kept]])
    pseudo_labels = load_run.read_table(run / "pseudo_labels.csv", "id path label confidence")
    if pseudo_labels is None:
        return pd.DataFrame(columns=COLUMNS.split(), dtype=str)
    rows = load_run.nearest_cutoff(pseudo_labels, cutoff, limit)
    rows = rows.rename(columns={"label": "predicted"})
    return rows.assign(given_label="", p_wrong=np.nan, decision="accept")


def class_names(items: pd.DataFrame, info: dict) -> list[str]:
    """What a person can choose from: the classes or label sets of the round; without a round, those that occur."""
    known = info.get("label_sets") or info.get("classes")
    return known or sorted({*items.given_label, *items.predicted} - {""})
