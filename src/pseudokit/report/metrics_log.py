"""metrics.jsonl: what every round achieved in flat numbers, and the final scores.

A line a round, {"round", …}. Then a line for each model that was scored and for each part of metrics.json,
{"of", …}. One table of a round at a time is in memory.
"""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
from numpy import ndarray

from ..data.encoding import counts, parse
from ..labels.metrics import share_interval
from ..system.files import atomic_write, read_json
from .load_run import read_table

MAX_CLASSES = 100
"""Of more classes, only those that received a label are counted: a line a round must stay readable."""
COLUMNS = "given_label label"
"""Of decisions.csv, what is counted here."""
PARTS = ("oof", "noise", "unlabeled", "trusted", "audit", "difference")
"""Parts of metrics.json that get a line."""


def write_metrics(run: Path) -> None:
    """Write metrics.jsonl. Reads metrics.json and the round records, nothing else."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in metric_lines(run)]
    atomic_write(run / "metrics.jsonl", "".join(lines))


def metric_lines(run: Path) -> list[dict]:
    """Every line of metrics.jsonl."""
    metrics = read_json(run / "metrics.json")
    lines = []
    for info in metrics["rounds"]:
        table = read_table(run / f"round_{info['round']}" / "decisions.csv", COLUMNS)
        lines.append(round_line(info, table))
    return lines + score_lines(metrics)


def round_line(info: dict, table: pd.DataFrame) -> dict:
    """The numbers of round.json and what its decisions amount to.

    oof_accuracy: how far out-of-fold predictions agree with the given labels, with interval.
    """
    n_labeled = int((table.given_label != "").sum())
    line = {
        **info,
        **interval_facts("oof_accuracy", info["oof_accuracy"], n_labeled),
        **class_counts(info, table),
    }
    for decision, n in info["decisions"].items():
        line[f"decisions/{decision}"] = n
    return {key: value for key, value in line.items() if is_number(value)}


def class_counts(info: dict, table: pd.DataFrame) -> dict[str, float]:
    """By class: prior/, its share of the given labels; labels/ of labeled rows after decisions; pseudo_labels/.

    A label set counts for each class that it names.
    """
    classes = info["classes"]

    def count(texts: pd.Series) -> ndarray:
        return counts(parse(texts, classes, info.get("multi_label", False)), len(classes))

    labeled = table.given_label != ""
    given = count(table.given_label)
    parts = {
        "prior": given / max(given.sum(), 1),
        "labels": count(table.label[labeled]),
    }
    if not labeled.all():
        parts["pseudo_labels"] = count(table.label[~labeled])
    by_class = pd.DataFrame(parts, classes)
    if len(classes) > MAX_CLASSES:
        by_class = by_class[by_class.iloc[:, -1] > 0]
    return {f"{part}/{name}": n for part in by_class for name, n in by_class[part].items()}


def score_lines(metrics: dict) -> list[dict]:
    """A line for each model that was scored, `test/accuracy` with its interval and the like, and for each of PARTS."""
    lines = []
    for model, splits in metrics["scores"].items():
        line = {"of": model} | flat(splits)
        for split, scores in splits.items():
            line |= interval_facts(f"{split}/accuracy", scores["accuracy"], scores["n"])
        lines.append(line)
    return lines + [{"of": part} | flat(metrics[part]) for part in PARTS if part in metrics]


def interval_facts(name: str, accuracy: float, n: int) -> dict[str, float]:
    """Standard error and 95 % interval of an accuracy of n rows, as `name_se`, `name_low` and `name_high`."""
    return {f"{name}_{key}": value for key, value in share_interval(accuracy, n).items()}


def flat(values: dict) -> dict:
    """Numbers and words of a nested dict, as {"a/b": value}."""
    [record] = pd.json_normalize(values, sep="/").to_dict("records")
    return {
        key: value for key, value in record.items() if isinstance(value, str) or is_number(value)
    }


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
