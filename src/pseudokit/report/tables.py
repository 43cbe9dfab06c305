"""The tables that people open first: label_issues.csv and labels.csv."""

import numpy as np
import pandas as pd

from ..data.dataset import Dataset
from ..data.encoding import names
from ..self_training import SelfTrainingResult


def label_issues_table(labeled: pd.DataFrame) -> pd.DataFrame:
    """As label_issues.csv holds them: the labels that are most probably wrong first.

    Args:
        labeled: the labeled rows of decisions_table, with their path.
    """
    columns = ["id", "path", "given_label", "predicted", "confidence", "p_wrong", "decision"]
    issues = labeled.sort_values("p_wrong", ascending=False, kind="stable")[columns]
    issues.insert(0, "rank", np.arange(1, len(issues) + 1))
    return issues.assign(is_issue=issues.p_wrong.round(6) > 0.5)


def count_issues(issues: pd.DataFrame) -> dict:
    """What pages, terminal and metrics.json say of label_issues_table.

    issues: labels that are more probably wrong than right. uncertain: others that the run did not simply keep.
    decided: decision → how many of both.
    """
    is_uncertain = (issues.decision != "keep") & ~issues.is_issue
    decided = issues.decision[issues.is_issue | is_uncertain].value_counts().sort_index()
    return {
        "labels": len(issues),
        "issues": int(issues.is_issue.sum()),
        "uncertain": int(is_uncertain.sum()),
        "decided": decided.to_dict(),
    }


def labels_table(result: SelfTrainingResult, dataset: Dataset) -> pd.DataFrame:
    """As labels.csv holds them: what the student learned, and the given labels that it did not."""
    decisions, is_human = result.decisions, result.human
    table = dataset.table()[["id", "path", "given_label"]]
    table["label"] = names(result.label, dataset.classes)
    sources = {
        "human": is_human,
        "pseudo": table.given_label == "",
        "dropped": table.label == "",
        "softened": decisions.has("soften") if decisions else False,
        "relabeled": table.label != table.given_label,
    }
    table["source"] = np.select(list(sources.values()), list(sources), "given")
    table["confidence"] = decisions.confidence if decisions else np.nan
    table["round"] = result.round
    table["weight"] = np.where(is_human, 1.0, decisions.weight) if decisions else 1.0
    if dataset.weight is not None:
        table["weight"] *= dataset.weight
    return table[is_human | (table.given_label != "") | (table.label != "")]
