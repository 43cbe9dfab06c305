"""What a run says in tables. Pure: from what `read_run` returns to rows of text."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.duplicates import count_duplicates
from ..labels.metrics import share_interval

SPLITS = ("test", "trusted", "val")  # the first that was scored carries the headline
ARMS = ("teacher", "baseline", "student")
HELD_OUT = "Out-of-fold accuracy against given labels"
WORDS = {"oof_accuracy": "out-of-fold accuracy", "macro_f1": "macro F1", "pseudo_labels": "pseudo-labels"}


def percent(share: float) -> str:
    return f"{100 * share:.2f}\N{NO-BREAK SPACE}%"


def show(key: str, value: Any) -> str:
    """A value of metrics.json as text; the key says which unit it has."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if key.endswith("interval"):
        return f"{100 * value[0]:.2f} to {percent(value[1])}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if key.endswith(("accuracy", "coverage", "rate")):
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if key == "seconds" else f"{value:.4g}" if "cutoff" in key else f"{value:.4f}"


def duration(seconds: float) -> str:
    """`5.2 s`, `52 s`, `8 min 53 s`, `2 h 5 min`, in one line."""
    whole = round(seconds)
    minutes = whole // 60
    text = f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {whole % 60} s"
    text = text if whole >= 120 else f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def word(key: str) -> str:
    return WORDS.get(key, key.replace("_", " "))


def tables(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables {"title", "names", "header", "rows"} of what the run has; the first `names` columns are text."""
    metrics = data["metrics"]
    made = [
        scores_table(metrics.get("scores") or {}),
        facts_table("Given labels", metrics.get("noise") or {}),
        noise_table(data["decisive"].get("noise_by_class") or {}),
        facts_table("Pool", metrics.get("unlabeled") or {}),
        rounds_table(data["rounds"]),
        samples_table(data["samples"]),
        duplicates_counts(data["duplicates"]),
    ]
    return [table for table in made if table["rows"]]


def scores_table(scores: dict[str, dict[str, dict]]) -> dict[str, Any]:
    found = [(split, arm, scores[arm][split]) for split in SPLITS for arm in ARMS if split in scores.get(arm, {})]
    keys = list(dict.fromkeys(key for *_, values in found for key in values))
    rows = [
        [split, arm, *(show(key, v.get(key)) for key in keys), between(share_interval(v["accuracy"], v["n"]))]
        for split, arm, v in found
    ]
    header = ["split", "arm", *map(word, keys), "accuracy, 95 % interval"]
    return {"title": "Scores", "names": 2, "header": header, "rows": rows}


def between(interval: dict[str, float]) -> str:
    return f"{percent(interval['low'])} to {percent(interval['high'])}"


def noise_table(by_class: dict[str, dict]) -> dict[str, Any]:
    """Of label sets: which share of the answers to each question is wrong, and on which side."""
    rows = [
        [name, *(percent(found[key]) for key in ("rate", "missing", "extra")), found["type"]]
        for name, found in by_class.items()
    ]
    header = ["class", "wrong answers", "of those with it, not named", "of those without it, named", "noise"]
    return {"title": "Noise by class", "names": 1, "header": header, "rows": rows}


def facts_table(title: str, values: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for key, value in values.items():
        nested = value.items() if isinstance(value, dict) else ()
        parts = [[f"{word(key)} {part}", show(key, v)] for part, v in nested]
        rows += parts or [[word(key), show(key, value)]]
    return {"title": title, "names": 1, "header": ["measure", "value"], "rows": rows}


def rounds_table(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a round: how many of each decision, then its other numbers."""
    kinds = list(dict.fromkeys(kind for info in rounds for kind in info.get("decisions") or {}))
    skip = (
        "round",
        "decisions",
        "classes",
        "temperatures",
        "estimated_rate_interval",
        "noise_matrix",
        "noise_matrix_low",
        "noise_matrix_high",
        "difficulty_z",
        "likeliest_rate",
        "noise_rate_by_confidence",
        "learned_nothing",
        "models",
        "multi_label",
        "label_sets",
        "noise_by_class",
    )
    keys = dict.fromkeys(k for info in rounds for k, v in info.items() if k not in skip and v is not None)
    rows = []
    for info in rounds:
        counts = [show(kind, (info.get("decisions") or {}).get(kind, 0)) for kind in kinds]
        rows.append([show("round", info.get("round")), *counts, *(show(key, info.get(key)) for key in keys)])
    return {"title": "Rounds", "names": 0, "header": ["round", *kinds, *map(word, keys)], "rows": rows}


def folds_table(folds: dict[int, dict[int, tuple[int, float]]], rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a round: which share of its given labels the model of each fold agrees with, and of all of them."""
    names = sorted({fold for found in folds.values() for fold in found})
    together = {info.get("round"): info.get("oof_accuracy") for info in rounds}
    rows = []
    for number, found in folds.items():
        shares = [found.get(fold, (0, None))[1] for fold in names]
        rows.append([str(number), *(show("accuracy", share) for share in [*shares, together.get(number)])])
    header = ["round", *(f"fold {fold}" for fold in names), "all"]
    return {"title": HELD_OUT, "names": 1, "header": header, "rows": rows if names else []}


def samples_table(dataset: pd.DataFrame | None) -> dict[str, Any]:
    groups = () if dataset is None else (dataset["given_label"] != "").groupby(dataset["split"], sort=False)
    rows = [[split, f"{len(has):,}", f"{has.sum():,}"] for split, has in groups]
    return {"title": "Samples", "names": 1, "header": ["split", "n", "with a given label"], "rows": rows}


def duplicates_counts(duplicates: pd.DataFrame | None) -> dict[str, Any]:
    counts = {} if duplicates is None or duplicates.empty else count_duplicates(duplicates)
    return facts_table("Duplicates", counts)


def disagreeing(duplicates: pd.DataFrame | None, n: int = 20, most: int = 6) -> list[dict[str, Any]]:
    """The first n clusters of copies whose labels differ: {"labels", "about", "rows"}, rows with id, path, role, given.

    Of a large cluster `most` rows are returned, at first one of each label.
    """
    if duplicates is None:
        return []
    shown = []
    for _, rows in list(duplicates[duplicates["conflict"] == "True"].groupby("cluster", sort=False))[:n]:
        labels = dict.fromkeys(rows["given_label"][rows["given_label"] != ""])
        turn = rows.groupby("given_label").cumcount().where(rows["given_label"] != "", len(rows))
        first = rows.loc[turn.sort_values(kind="stable").index[:most]]
        about = f"{rows['kind'].iloc[0]} · {len(rows):,} rows"
        shown.append({"labels": " | ".join(labels), "about": about, "rows": first.to_dict("records")})
    return shown


def costs(seconds: dict[str, float]) -> dict[str, Any]:
    """A table of the stages with a bar for each, and their total."""
    stages = {name: float(value) for name, value in seconds.items() if name != "total"}
    total = seconds.get("total", sum(stages.values())) or 1
    rows = [[word(name), duration(value), f"{100 * value / total:.0f} %"] for name, value in stages.items()]
    rows += [["total", duration(total), ""]] if rows else []
    bars = [*(value / total for value in stages.values()), 0.0]
    return {"title": "Cost in time", "names": 1, "header": ["stage", "time", "share"], "rows": rows, "bars": bars}


def command(config: Path, name: str, mode: str) -> str:
    """The command that does this run again under another name."""
    script = "train.py" if mode == "train" else f"pseudo.py --mode {mode or 'denoise'}"
    return f"python {script} --config {shlex.quote(str(config))} {shlex.quote(f'name={name}-again')}"
