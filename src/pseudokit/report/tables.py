"""The tables that people open: label_issues.csv, pseudo_labels.csv, labels.csv, oof.csv."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.dataset import Dataset
from ..data.encoding import differ, has_label, names
from ..labels.decisions import Decisions


def label_issues_table(d: Decisions, dataset: Dataset) -> pd.DataFrame:
    """As label_issues.csv holds them: the labeled set, most suspicious first."""
    rows = np.flatnonzero(has_label(dataset.given_labels))
    rows = rows[np.argsort(-d.p_wrong[rows], kind="stable")]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(rows) + 1),
            "id": dataset.id[rows],
            "path": dataset.path[rows],
            "given_label": names(dataset.given_labels[rows], dataset.classes),
            "predicted": names(d.predicted[rows], dataset.classes),
            "confidence": d.confidence[rows],
            "p_wrong": d.p_wrong[rows],
            "decision": d.decision[rows],
        }
    )


def pseudo_labels_table(d: Decisions, dataset: Dataset, number: int) -> pd.DataFrame:
    """As pseudo_labels.csv holds them: the accepted part of the pool."""
    rows = np.flatnonzero(~has_label(dataset.given_labels) & has_label(d.label))
    return pd.DataFrame(
        {
            "id": dataset.id[rows],
            "path": dataset.path[rows],
            "label": names(d.label[rows], dataset.classes),
            "confidence": d.confidence[rows],
            "round": number,
        }
    )


def labels_table(result, dataset: Dataset) -> pd.DataFrame:
    """As labels.csv holds them: what the student learned, and the given labels that it did not. outcome: Outcome."""
    label, d, human = result.label, result.decisions, np.broadcast_to(result.human, len(dataset))
    given_labels, learned = has_label(dataset.given_labels), has_label(label)
    soft = np.zeros(len(dataset), bool) if d is None else d.soft
    conditions = [human, ~given_labels, ~learned, soft, differ(label, dataset.given_labels)]
    source = np.select(conditions, ["human", "pseudo", "dropped", "softened", "relabeled"], "given")
    rows = np.flatnonzero(given_labels | learned | human)
    confidence = np.full(len(dataset), np.nan) if d is None else d.confidence
    weight = np.where(human | (d is None), 1.0, 1.0 if d is None else d.weight)
    return pd.DataFrame(
        {
            "id": dataset.id[rows],
            "path": dataset.path[rows],
            "given_label": names(dataset.given_labels[rows], dataset.classes),
            "label": names(label[rows], dataset.classes),
            "source": source[rows],
            "confidence": confidence[rows],
            "round": result.round,
            "weight": weight[rows],
        }
    )


def oof_table(d: Decisions, dataset: Dataset) -> pd.DataFrame:
    """As oof.csv holds them: out-of-fold predictions of the labeled set, in the order of oof_log_probs.npy."""
    rows = np.flatnonzero(has_label(dataset.given_labels))
    return pd.DataFrame(
        {
            "id": dataset.id[rows],
            "label": names(dataset.given_labels[rows], dataset.classes),
            "predicted": names(d.predicted[rows], dataset.classes),
            "confidence": d.confidence[rows],
        }
    )
