"""The tables that people open: label_issues.csv, pseudo_labels.csv, labels.csv, oof.csv."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..data.dataset import Dataset
from ..data.encoding import differ, has_label, names
from ..labels.decisions import Decisions
from ..self_training import SelfTrainingResult


def label_issues_table(decisions: Decisions, dataset: Dataset) -> pd.DataFrame:
    """As label_issues.csv holds them: the labeled set, the labels that are most probably wrong first."""
    table = predictions_table(decisions, dataset)[has_label(dataset.given_labels)]
    table = table.sort_values("p_wrong", ascending=False, kind="stable")
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def pseudo_labels_table(decisions: Decisions, dataset: Dataset, number: int) -> pd.DataFrame:
    """As pseudo_labels.csv holds them: the unlabeled images that got a label."""
    table = predictions_table(decisions, dataset)[["id", "path", "confidence"]]
    table.insert(2, "label", names(decisions.label, dataset.classes))
    is_accepted = ~has_label(dataset.given_labels) & has_label(decisions.label)
    return table[is_accepted].assign(round=number)


def oof_table(decisions: Decisions, dataset: Dataset) -> pd.DataFrame:
    """As oof.csv holds them: out-of-fold predictions of the labeled set, in the order of oof_log_probs.npy."""
    table = predictions_table(decisions, dataset)[has_label(dataset.given_labels)]
    return table[["id", "given_label", "predicted", "confidence"]].rename(
        columns={"given_label": "label"}
    )


def predictions_table(decisions: Decisions, dataset: Dataset) -> pd.DataFrame:
    """One row an image: what was given, what is predicted, what was decided."""
    return pd.DataFrame(
        {
            "id": dataset.id,
            "path": dataset.path,
            "given_label": names(dataset.given_labels, dataset.classes),
            "predicted": names(decisions.predicted, dataset.classes),
            "confidence": decisions.confidence,
            "p_wrong": decisions.p_wrong,
            "decision": decisions.decision,
        }
    )


def labels_table(result: SelfTrainingResult, dataset: Dataset) -> pd.DataFrame:
    """As labels.csv holds them: what the student learned, and the given labels that it did not."""
    decisions = result.decisions
    has_given = has_label(dataset.given_labels)
    is_learned = has_label(result.label)
    is_human = np.broadcast_to(result.human, len(dataset))
    is_soft, confidence, weight = np.zeros(len(dataset), bool), np.nan, 1.0
    if decisions is not None:
        is_soft = decisions.soft
        confidence = decisions.confidence
        weight = np.where(is_human, 1.0, decisions.weight)
    sources = {
        "human": is_human,
        "pseudo": ~has_given,
        "dropped": ~is_learned,
        "softened": is_soft,
        "relabeled": differ(result.label, dataset.given_labels),
    }
    table = pd.DataFrame(
        {
            "id": dataset.id,
            "path": dataset.path,
            "given_label": names(dataset.given_labels, dataset.classes),
            "label": names(result.label, dataset.classes),
            "source": np.select(list(sources.values()), list(sources), "given"),
            "confidence": confidence,
            "round": result.round,
            "weight": weight,
        }
    )
    return table[has_given | is_learned | is_human]
