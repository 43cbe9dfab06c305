"""metrics.jsonl: what every round came to in flat facts, the final scores, and the images worth a look.

A line a round, {"round", …}; then one for each arm and for what metrics.json says besides, {"of", …}; then one for each
image, {"image", …}. One table of a round at a time is in memory, and of that only the columns that count.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.encoding import parse
from ..labels.calibration import expected_error, reliability
from ..labels.metrics import share_interval
from ..round_store import RoundStore
from ..system.files import atomic_write
from . import load_run
from .summary import percent, show

FEW_CLASSES = 100
"""Of more classes only those that received a label are counted."""
IMAGES = 64
MOST = 20
"""Classes in a table of the report."""
PARTS = ("oof", "noise", "unlabeled", "trusted", "audit", "difference")


def write_metrics(run: Path) -> None:
    """Write metrics.jsonl. Reads metrics.json and the round records, nothing else."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in all_facts(run)]
    atomic_write(run / "metrics.jsonl", "".join(lines))


def all_facts(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl."""
    metrics, infos = load_run.read_dict(run / "metrics.json"), RoundStore(run).rounds()
    decisive = load_run.decisive_round(metrics, infos).get("round")
    lines, images, before = [], [], None
    for info in infos:
        folder = run / f"round_{info['round']}"
        table = read_judged(folder, info)
        lines.append(round_facts(info, table))
        if info["round"] == decisive:
            images = image_facts(folder, info, worth_a_look(table, table["given_label"] if before is None else before))
        before = table["label"]
    return lines + score_facts(metrics) + images


def read_judged(folder: Path, info: dict[str, Any]) -> pd.DataFrame:
    """decisions.csv of a round: given, predicted, label (class index, -1 = none), confidence, p_wrong, decision, fold.

    fold is the one that the last judge of a row left out, -1 where round.json does not say. Of label sets the indices
    are those of the sets, see label_names.
    """
    models, numbers = info.get("models") or {}, ("confidence", "p_wrong")
    classes = load_run.label_names(info)
    named = dict.fromkeys(("given_label", "predicted", "label"), pd.CategoricalDtype([*classes, ""]))
    kinds = named | dict.fromkeys(numbers, float) | dict.fromkeys(("decision", "model"), str)
    options = {"keep_default_na": False, "na_values": {name: [""] for name in numbers}}  # a class may be called NA
    table = pd.read_csv(folder / "decisions.csv", usecols=list(kinds), dtype=kinds, **options)
    judge, judges = pd.factorize(table.pop("model"))
    left_out = [models.get(name.rsplit("+", 1)[-1], {}).get("fold", -1) for name in judges]
    codes = {name: table[name].cat.codes for name in named}
    labels = {name: code.where(code < len(classes), -1) for name, code in codes.items()}
    return table.assign(fold=np.array(left_out)[judge], **labels)


def round_facts(info: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """The numbers of round.json, and what its decisions come to: spread, precision, calibration, classes."""
    facts = {key: value for key, value in info.items() if _is_number(value)}
    facts |= {f"decisions/{kind}": n for kind, n in (info.get("decisions") or {}).items()}
    return facts | held_out_facts(table) | class_facts(table, info)


def held_out_facts(table: pd.DataFrame) -> dict[str, float]:
    """How far held-out predictions of labeled rows agree with the given labels, and how sure that figure is.

    oof_precision: of the oof_precision_n labeled rows at or above cutoff_in_use, the share that agrees. Spread over
    folds: standard deviation of their accuracies.
    """
    rows = table[(table["given_label"] >= 0) & table["confidence"].notna()]
    hits, said = (rows["predicted"] == rows["given_label"]).to_numpy(), rows["confidence"].to_numpy()
    facts = with_spread("oof_accuracy", float(hits.mean()), len(hits))
    folds = pd.Series(hits)[(rows["fold"] >= 0).to_numpy()].groupby(rows["fold"][rows["fold"] >= 0].to_numpy()).mean()
    if len(folds) > 1:
        facts["oof_accuracy_sd_over_folds"] = float(folds.std())
    facts["calibration_error"] = expected_error(reliability(said, hits))
    if (cutoff := cutoff_in_use(table)) is not None:
        above = said >= cutoff
        facts |= {"cutoff_in_use": cutoff, "oof_precision_n": int(above.sum())}
        facts |= {"oof_precision": float(hits[above].mean())} if above.any() else {}
    return facts


def with_spread(name: str, share: float, n: int) -> dict[str, float]:
    return {name: share} | {f"{name}_{key}": value for key, value in share_interval(share, n).items()}


def cutoff_in_use(table: pd.DataFrame) -> float | None:
    """The lowest confidence of an accepted pool row, else of a relabeled row; None where there is neither."""
    for kind in ("accept", "relabel"):
        if (rows := table["decision"] == kind).any():
            return float(table["confidence"][rows].min())
    return None


def class_facts(table: pd.DataFrame, info: dict[str, Any]) -> dict[str, float]:
    """By class: prior/, its share of the given labels; labels/ of labeled rows after decisions; pseudo_labels/."""
    classes, pool = info["classes"], (table["given_label"] < 0).to_numpy()
    given_labels, label = table["given_label"].to_numpy(), table["label"].to_numpy()
    counts = {"labels": _of_classes(label[~pool & (label >= 0)], info)}
    if pool.any():
        counts["pseudo_labels"] = _of_classes(label[pool & (label >= 0)], info)
    received = counts.get("pseudo_labels", counts["labels"])
    shown = range(len(classes)) if len(classes) <= FEW_CLASSES else np.flatnonzero(received).tolist()
    prior = _of_classes(given_labels[~pool], info)
    prior = prior / max(prior.sum(), 1)
    facts = {f"prior/{classes[c]}": float(prior[c]) for c in shown}
    return facts | {f"{what}/{classes[c]}": int(n[c]) for what, n in counts.items() for c in shown}


def _of_classes(labels: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """(K,) how many rows have each class, from indices (N,) into label_names."""
    names = load_run.label_names(info)
    n = np.bincount(labels, minlength=len(names))
    return n @ np.maximum(parse(names, info["classes"], True), 0) if info.get("multi_label") else n


def score_facts(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each arm that was scored, `test/accuracy` with its spread and the like, and for each of PARTS."""
    lines = []
    for arm, splits in (metrics.get("scores") or {}).items():
        line = {"of": arm}
        for split, values in splits.items():
            line |= flat(values | with_spread("accuracy", values["accuracy"], values["n"]), f"{split}/")
        lines.append(line)
    return lines + [{"of": part} | flat(metrics[part]) for part in PARTS if metrics.get(part)]


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Numbers and words of a nested dict, as {"a/b": value}."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{above}{key}/")
        elif _is_number(value) or isinstance(value, str):
            found[above + key] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def worth_a_look(table: pd.DataFrame, before: pd.Series, n: int = IMAGES) -> pd.DataFrame:
    """At most n rows of `table` with a column `why`, of each kind about as many, the plainest first.

    borderline: pool rows nearest to the cutoff in use (where nothing was accepted, the surest); without a pool, labels
    as likely wrong as right. flipped: the label is not what it was `before` (N,). suspect: probably wrong.
    """
    given_labels, confidence, wrong = table["given_label"] >= 0, table["confidence"], table["p_wrong"]
    cutoff = cutoff_in_use(table)
    distance = (
        (wrong - 0.5).abs()
        if given_labels.all()
        else (confidence - (1.0 if cutoff is None else cutoff)).abs()[~given_labels]
    )
    rows = {
        "borderline": distance.nsmallest(n).index,
        "flipped": confidence[table["label"] != before].nlargest(n).index,
        "suspect": wrong[given_labels & (wrong > 0.5)].nlargest(n).index,
    }
    order = [(turn, why, row) for why, kind in rows.items() for turn, row in enumerate(kind)]
    order = pd.DataFrame(sorted(order, key=lambda entry: entry[0]), columns=["turn", "why", "row"])
    order = order.drop_duplicates("row").head(n)
    return table.loc[order["row"]].assign(why=order["why"].to_numpy())


def image_facts(folder: Path, info: dict[str, Any], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A line for each of these rows of a round: image (its id), why, given, predicted, confidence, label."""
    ids, names = load_run.read_table(folder / "decisions.csv", "id")["id"], [*load_run.label_names(info), ""]
    return [
        {
            "image": ids[row.Index],
            "why": row.why,
            "given_label": names[row.given_label],
            "predicted": names[row.predicted],
            "confidence": row.confidence,
            "label": names[row.label],
        }
        for row in rows.itertuples()
    ]


def tables(lines: list[dict[str, Any]], decisive: int | None) -> list[dict[str, Any]]:
    """Tables as summary.tables makes them: held-out predictions by round, and the classes of the decisive round."""
    rounds = [line for line in lines if "round" in line]
    shown = [held_out_table(rounds), *(classes_table(line) for line in rounds if line["round"] == decisive)]
    return [table for table in shown if table["rows"]]


def held_out_table(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a round: agreement with the given labels and its spread, precision at the cutoff, calibration."""
    header = [
        "round",
        "out-of-fold accuracy",
        "95 % interval",
        "sd over folds",
        "cutoff in use",
        "rows from it on",
        "out-of-fold precision there",
        "calibration error",
    ]
    rows = []
    for line in rounds:
        over_folds, precision = (line.get(key) for key in ("oof_accuracy_sd_over_folds", "oof_precision"))
        rows.append(
            [
                str(line["round"]),
                percent(line["oof_accuracy"]),
                f"{percent(line['oof_accuracy_low'])} to {percent(line['oof_accuracy_high'])}",
                "–" if over_folds is None else percent(over_folds),
                show("cutoff", line.get("cutoff_in_use")),
                show("", line.get("oof_precision_n")),
                "–" if precision is None else percent(precision),
                show("", line["calibration_error"]),
            ]
        )
    return {"title": "Held-out predictions", "names": 0, "header": header, "rows": rows}


def classes_table(line: dict[str, Any]) -> dict[str, Any]:
    """The MOST classes whose share of the labels that a round gave is furthest from that of the given labels."""
    of = {
        what: {key[len(what) + 1 :]: n for key, n in line.items() if key.startswith(f"{what}/")}
        for what in ("prior", "labels", "pseudo_labels")
    }
    counts = of["pseudo_labels"] or of["labels"]
    total = max(sum(counts.values()), 1)
    order = sorted(counts, key=lambda name: -abs(counts[name] / total - of["prior"][name]))
    rows = [
        [
            name,
            percent(of["prior"][name]),
            percent(counts[name] / total),
            show("", of["labels"][name]),
            show("", of["pseudo_labels"].get(name)),
        ]
        for name in order[:MOST]
    ]
    named = "pseudo-labels" if of["pseudo_labels"] else "labels"
    header = ["class", "share of given labels", f"share of {named}", "given labels, as decided", "pseudo-labels"]
    some = f", the {MOST} furthest from the given labels" if len(counts) > MOST else ""
    return {"title": f"Classes of round {line['round']}{some}", "names": 1, "header": header, "rows": rows}
