"""metrics.jsonl: what every round achieved in flat numbers, the final scores, and the images worth a look.

A line a round, {"round", …}. Then a line for each model that was scored and for each part of metrics.json,
{"of", …}. Then a line for each image, {"image", …}. One table of a round at a time is in memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.encoding import parse
from ..labels.calibration import expected_error, reliability
from ..labels.metrics import share_interval
from ..system.files import atomic_write
from .load_run import decisive_round, label_names, read_metrics, read_table

MAX_CLASSES = 100
"""Of more classes, only those that received a label are counted: a line a round must stay readable."""
MAX_IMAGES = 64
"""As many as a person looks through at once."""
COLUMNS = "id given_label predicted confidence p_wrong decision label model"
"""Of decisions.csv, what is counted here."""
PARTS = ("oof", "noise", "unlabeled", "trusted", "audit", "difference")
"""Parts of metrics.json that get a line."""


def write_metrics(run: Path) -> None:
    """Write metrics.jsonl. Reads metrics.json and the round records, nothing else."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in metric_lines(run)]
    atomic_write(run / "metrics.jsonl", "".join(lines))


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl."""
    metrics = read_metrics(run)
    decisive = decisive_round(metrics)
    lines = []
    images = []
    before = None
    for info in metrics["rounds"]:
        table = read_table(run / f"round_{info['round']}" / "decisions.csv", COLUMNS)
        lines.append(round_line(info, table))
        if before is None:
            before = table.given_label
        if info is decisive:
            images = image_lines(table, before)
        before = table.label
    return lines + score_lines(metrics) + images


def round_line(info: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """The numbers of round.json and what its decisions amount to.

    oof_accuracy: how far out-of-fold predictions agree with the given labels, with interval and spread over folds.
    oof_precision: the same of the oof_precision_n labeled rows at or above cutoff_in_use.
    """
    line = {key: value for key, value in info.items() if is_number(value)}
    for decision, n in info["decisions"].items():
        line[f"decisions/{decision}"] = n
    labeled = table[table.given_label != ""].dropna(subset="confidence")
    hits = labeled.predicted == labeled.given_label
    line["oof_accuracy"] = float(hits.mean())
    line |= interval_facts("oof_accuracy", line["oof_accuracy"], len(hits))
    fold_of = {key: about["fold"] for key, about in info["models"].items()}
    last_model = labeled.model.str.rpartition("+")[2]
    of_folds = hits.groupby(last_model.map(fold_of)).mean()
    if len(of_folds) > 1:
        line["oof_accuracy_sd_over_folds"] = float(of_folds.std())
    bins = reliability(labeled.confidence.to_numpy(), hits.to_numpy())
    line["calibration_error"] = expected_error(bins)
    cutoff = cutoff_in_use(table)
    if cutoff is not None:
        above = hits[labeled.confidence >= cutoff]
        line["cutoff_in_use"] = cutoff
        line["oof_precision_n"] = len(above)
        if len(above):
            line["oof_precision"] = float(above.mean())
    return line | class_counts(info, table)


def cutoff_in_use(table: pd.DataFrame) -> float | None:
    """The lowest confidence of a pseudo-label, else of a relabeled row; None where there is neither."""
    for decision in ("accept", "relabel"):
        confidence = table.confidence[table.decision == decision]
        if len(confidence):
            return float(confidence.min())
    return None


def class_counts(info: dict[str, Any], table: pd.DataFrame) -> dict[str, float]:
    """By class: prior/, its share of the given labels; labels/ of labeled rows after decisions; pseudo_labels/."""
    unlabeled = table.given_label == ""
    given = count_classes(info, table.given_label[~unlabeled])
    counts = pd.DataFrame({"prior": given / max(given.sum(), 1)})
    counts["labels"] = count_classes(info, table.label[~unlabeled])
    if unlabeled.any():
        counts["pseudo_labels"] = count_classes(info, table.label[unlabeled])
    if len(counts) > MAX_CLASSES:
        counts = counts[counts.iloc[:, -1] > 0]
    return {f"{part}/{name}": n for part in counts for name, n in counts[part].to_dict().items()}


def count_classes(info: dict[str, Any], labels: pd.Series) -> pd.Series:
    """How many rows have each class, by its name. Of label sets: how many sets name it."""
    counts = labels.value_counts().reindex(label_names(info), fill_value=0)
    if info.get("multi_label"):
        in_set = parse(counts.index, info["classes"], True) == 1  # (sets, classes)
        return pd.Series(counts.to_numpy() @ in_set, info["classes"])
    return counts


def score_lines(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each model that was scored, `test/accuracy` with its interval and the like, and for each of PARTS."""
    lines = []
    for model, splits in (metrics.get("scores") or {}).items():
        line = {"of": model} | flat(splits)
        for split, scores in splits.items():
            line |= interval_facts(f"{split}/accuracy", scores["accuracy"], scores["n"])
        lines.append(line)
    for part in PARTS:
        if metrics.get(part):
            lines.append({"of": part} | flat(metrics[part]))
    return lines


def interval_facts(name: str, accuracy: float, n: int) -> dict[str, float]:
    """Standard error and 95 % interval of an accuracy of n rows, as `name_se`, `name_low` and `name_high`."""
    return {f"{name}_{key}": value for key, value in share_interval(accuracy, n).items()}


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers and words of a nested dict, as {"a/b": value}."""
    [record] = pd.json_normalize(values, sep="/").to_dict("records")
    return {
        key: value for key, value in record.items() if is_number(value) or isinstance(value, str)
    }


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def image_lines(table: pd.DataFrame, before: pd.Series) -> list[dict[str, Any]]:
    """At most MAX_IMAGES rows, of each kind about as many, the plainest first; `why` is the kind.

    borderline: unlabeled images nearest to the cutoff in use (where none was accepted, the most confident); without
    unlabeled images, labels as likely wrong as right. flipped: the label is not what it was `before` (N,).
    label_issue: probably wrong.
    """
    unlabeled = table[table.given_label == ""]
    if len(unlabeled):
        cutoff = cutoff_in_use(table)
        distance = (unlabeled.confidence - (1 if cutoff is None else cutoff)).abs()
    else:
        distance = (table.p_wrong - 0.5).abs()
    is_flipped = table.label != before
    p_wrong = table.p_wrong.drop(unlabeled.index)
    kinds = {
        "borderline": distance.nsmallest(MAX_IMAGES),
        "flipped": table.confidence[is_flipped].nlargest(MAX_IMAGES),
        "label_issue": p_wrong[p_wrong > 0.5].nlargest(MAX_IMAGES),
    }
    picked = pd.concat(
        [pd.DataFrame({"row": rows.index, "why": why}) for why, rows in kinds.items()]
    )
    picked = (
        picked.sort_index(kind="stable").drop_duplicates("row").head(MAX_IMAGES)
    )  # the kinds take turns
    rows = (
        table.loc[picked["row"]]
        .assign(why=picked["why"].to_numpy())
        .rename(columns={"id": "image"})
    )
    return rows[["image", "why", "given_label", "predicted", "confidence", "label"]].to_dict(
        "records"
    )
