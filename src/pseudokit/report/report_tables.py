"""The tables of a finished run. report.html, the terminal and Weights & Biases show the same ones.

In a DataFrame, shares are numbers from 0 to 1. `as_text` writes them as people read them.
"""

from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ..data.dataset import SCORED_SPLITS
from ..labels.metrics import share_interval
from .load_run import MODELS, decisive_round

MAX_ROWS = 20
"""Rows of a table of classes or of pairs of classes: more is no overview."""
DECIMALS = ("log loss", "macro F1", "auc", "map", "kappa")
"""Columns of fractions that are no shares in percent."""
DECISIONS = {
    "keep": "kept",
    "relabel": "relabeled",
    "soften": "softened",
    "downweight": "down-weighted",
    "drop": "dropped",
    "review": "to review",
    "accept": "pseudo-label",
    "leave": "no label",
}
REASONS = {
    "given_stands": "given labels are not changed in this mode",
    "agrees": "nothing speaks against the given label",
    "another_class_reaches_precision": "another class is certain enough (pseudo.relabel_precision)",
    "another_class_above_cutoff": "the confidence in another class reaches pseudo.relabel_cutoff",
    "wrong_but_no_replacement": "probably wrong, but no other class is certain enough",
    "doubtful": "neither the given label nor another class is certain enough",
    "above_cutoff": "the confidence reaches the cutoff",
    "below_cutoff": "the confidence is below the cutoff",
    "beyond_share": "not among the most confident of its class (pseudo.top_fraction)",
    "class_floor": "its class would lose more than half of its labels",
    "copy_of_labeled": "a copy of a labeled image, whose label teachers from outside may have learned",
    "learned_nothing": "the models are no better than chance",
    "duplicate_of_val": "a copy of an image in data.val, which is only scored (data.learn_from_test)",
    "duplicate_of_trusted": "a copy of an image in data.trusted, which is only scored (data.learn_from_test)",
    "duplicate_of_test": "a copy of an image in data.test, which is only scored (data.learn_from_test)",
}
ROUND_COLUMNS = {
    "round": "round",
    **{f"decisions/{decision}": name for decision, name in DECISIONS.items()},
    "changed": "changed since the round before",
    "estimated_rate": "estimated share of wrong labels",
    "oof_accuracy": "out-of-fold agreement",
    "interval": "95 % interval",
    "seconds": "time",
}
COUNCIL_COLUMNS = {
    "models": "model",
    "weights": "weight",
    "oof_accuracies": "out-of-fold agreement",
}
CLASS_COLUMNS = {
    "prior": "share of given labels",
    "labels": "labels now",
    "pseudo_labels": "pseudo-labels",
    "share": "share now",
    "recall": "recall",
    "precision": "precision",
    "rate": "wrong labels",
    "missing": "missing labels",
    "extra": "extra labels",
}
ANNOTATOR_COLUMNS = {
    "annotator": "annotator",
    "confusion": "most frequent confusion",
    "votes": "votes",
    "agreement": "agreement with others",
    "accuracy": "estimated accuracy",
    "interval": "95 % interval",
    "confusion_rate": "share of that class",
}
MEMORY_COLUMNS = {"memory": "peak memory, MiB", "gpu_memory": "peak GPU memory, MiB"}
NOTES = {
    "Scores": "On images that no model learned. Teacher: the models of the first round together. Baseline: trained "
    "like the student, on the given labels alone.",
    "Council": "The mean of the networks' probabilities counts, by weights under which held-out given labels are most "
    "likely.",
    "Rounds": "Out-of-fold agreement: how often models predict given labels that they did not learn. Where given "
    "labels are wrong, a good model disagrees.",
    "Decisions": "What became of each label in the round that the student learned. Right: the share of the labels "
    "that are true, where this experiment changed or hid labels on purpose.",
    "Annotators": "Estimated from votes and images together (Dawid and Skene 1979). First the worst ones; all are in "
    "annotators.csv. Agreement: how often others voted the same on the same image.",
    "Classes": "First the classes whose share changed most. Share now: of the pseudo-labels, if there are any, else of "
    "the labels. Recall and precision: out of fold, against given labels.",
}
"""Where a number alone would mislead."""


def report_tables(metrics: dict, lines: list[dict]) -> dict[str, pd.DataFrame]:
    """Title → table of what the run has. metrics: metrics.json; lines: metrics.jsonl."""
    decisive = decisive_round(metrics)
    round_lines = {line["round"]: line for line in lines if "round" in line}
    tables = {
        "Scores": scores_table(metrics["scores"]),
        "Council": pd.DataFrame(metrics.get("council", {})).rename(columns=COUNCIL_COLUMNS),
        "Rounds": rounds_table(list(round_lines.values())),
        "Annotators": annotators_table(metrics.get("annotators", [])),
        "Classes": classes_table(
            round_lines.get(decisive.get("round"), {}),
            metrics.get("oof_classes", {}),
            decisive.get("noise_by_class", {}),
        ),
    }
    return {title: table for title, table in tables.items() if len(table)}


def scores_table(scores: dict) -> pd.DataFrame:
    """One row for each split and model that was scored, the most trustworthy split first."""
    rows = []
    for split in reversed(SCORED_SPLITS):
        for model in MODELS:
            if values := scores.get(model, {}).get(split):
                names = {"split": split, "model": model}
                rows.append(names | values | {"95 % interval": accuracy_interval(values)})
    table = pd.DataFrame(rows).rename(columns={"log_loss": "log loss", "macro_f1": "macro F1"})
    return table.dropna(axis=1, how="all")


def rounds_table(lines: list[dict]) -> pd.DataFrame:
    """One row a round: how many of each decision, agreement with the given labels, time."""
    table = pd.DataFrame(lines)
    if table.empty:
        return table
    table["interval"] = [
        between(line["oof_accuracy_low"], line["oof_accuracy_high"]) for line in lines
    ]
    table["seconds"] = table["seconds"].map(duration)
    counts = [name for name in table if name.startswith("decisions/")]
    table[counts] = table[counts].fillna(0).astype(int)
    return table.filter(list(ROUND_COLUMNS)).rename(columns=ROUND_COLUMNS)


def classes_table(line: dict, oof_classes: dict, noise_by_class: dict) -> pd.DataFrame:
    """One row a class: its share of the given labels and of what the round gave, out-of-fold recall and precision.

    At most MAX_ROWS, first those whose share changed most. Of label sets also which share of the labels is wrong.
    """
    counts = {"prior": {}, "labels": {}, "pseudo_labels": {}}
    for key, value in line.items():
        part, _, name = key.partition("/")
        if part in counts:
            counts[part][name] = value
    table = pd.DataFrame(counts)
    received = table["pseudo_labels" if counts["pseudo_labels"] else "labels"]
    table["share"] = received / max(received.sum(), 1)
    table["change"] = (table["share"] - table["prior"]).abs()
    table = table.join([pd.DataFrame(oof_classes).T, pd.DataFrame(noise_by_class).T])
    table = table.sort_values("change", ascending=False, kind="stable")[:MAX_ROWS]
    table = table.filter(list(CLASS_COLUMNS)).dropna(axis=1, how="all")
    return table.rename(columns=CLASS_COLUMNS).rename_axis("class").reset_index()


def annotators_table(annotators: list[dict]) -> pd.DataFrame:
    """One row an annotator, at most MAX_ROWS, the least accurate first."""
    table = pd.DataFrame(annotators)
    if table.empty:
        return table
    ends = zip(table["accuracy_low"], table["accuracy_high"], strict=True)
    table["interval"] = [between(*interval) for interval in ends]
    table = table.sort_values("accuracy", kind="stable")[:MAX_ROWS]
    return table[list(ANNOTATOR_COLUMNS)].rename(columns=ANNOTATOR_COLUMNS)


def decision_tables(decisions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """How many rows had each decision and reason, and from which class to which the relabeled ones went.

    decisions: as `read_decisions` returns them.
    """
    relabeled = decisions[decisions.decision == "relabel"]
    relabeled = relabeled.assign(relabeled=relabeled.given_label + " → " + relabeled.label)
    by_reason = count_rows(decisions.rename(columns={"reason": "why"}), ["decision", "why"])
    tables = {
        "Decisions": by_reason.replace({"decision": DECISIONS, "why": REASONS}),
        "Relabeled": count_rows(relabeled, ["relabeled"]).head(MAX_ROWS),
    }
    return {title: table for title, table in tables.items() if len(table)}


def count_rows(decisions: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns, `rows` that have these values, most first, and `right`: the share of their labels that is true."""
    is_known = (decisions.label != "") & decisions.truth.notna()
    is_right = (decisions.label == decisions.truth).astype(float).where(is_known)
    groups = decisions.assign(right=is_right).groupby(columns, as_index=False)
    table = groups.agg(rows=("label", "size"), right=("right", "mean"))
    return table.sort_values("rows", ascending=False, kind="stable").dropna(axis=1, how="all")


def time_table(seconds: dict[str, float], peaks: dict[str, dict] | None = None) -> pd.DataFrame:
    """What each stage of the run took, over all its starts; `other` is what lies between them.

    peaks: MiB by stage, see system/memory.py.
    """
    stages = pd.Series(seconds, dtype=float)
    total = stages.pop("total")
    stages["other"] = total - stages.sum()
    stages["total"] = total
    table = pd.DataFrame({"share": stages / total, "time": stages.map(duration)})
    memory = pd.DataFrame(peaks).T.map("{:,.0f}".format, "ignore")
    return table.join(memory.rename(columns=MEMORY_COLUMNS)).rename_axis("stage").reset_index()


# ---- numbers as people read them


def page_table(table: pd.DataFrame) -> dict:
    """What the page shows of a table: names of columns, rows of text, and how many columns of text come first."""
    is_number = [is_numeric_dtype(dtype) for dtype in table.dtypes]
    rows = as_text(table).to_numpy().tolist()
    return {"columns": list(table), "rows": rows, "n_text": is_number.index(True)}


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with every cell as text."""
    texts = pd.DataFrame()
    for name, column in table.items():
        texts[name] = [cell_text(name, value) for value in column]
    return texts


def cell_text(column: str, value: Any) -> str:
    """A share in percent, a count with its commas, – for nothing."""
    if pd.isna(value):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if column in DECIMALS else percent(value)


def percent(share: float) -> str:
    """`97.60 %`, in one line."""
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def between(low: float, high: float) -> str:
    """`95.20 to 97.60 %`: an interval of a share."""
    return f"{100 * low:.2f} to {percent(high)}"


def accuracy_interval(scores: dict[str, float]) -> str:
    """The 95 % interval of the accuracy of n rows."""
    interval = share_interval(scores["accuracy"], scores["n"])
    return between(interval["low"], interval["high"])


def duration(seconds: float) -> str:
    """`52.3 s`, `8.9 min` or `2.1 h`, in one line."""
    if seconds < 120:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    if seconds < 7200:
        return f"{seconds / 60:.1f}\N{NO-BREAK SPACE}min"
    return f"{seconds / 3600:,.1f}\N{NO-BREAK SPACE}h"
