"""Which picture shows what of a run: from what `read_run` returns to (name, caption, figure).

Import this module only where a picture is drawn: it brings matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from ..labels import calibration
from . import curves, figures, load_run

Picture = tuple[str, str, Any]  # file name without suffix, caption in one sentence, figure
PHOTOS = ("grid", "pool_grid", "flipped")
NAMES = (
    "grid",
    "pool_grid",
    "flipped",
    "confusion",
    "confidence",
    "coverage",
    "reliability",
    "noise_matrix",
    "rounds",
    "losses",
)


def pictures(data: dict[str, Any]) -> Iterator[Picture]:
    """The pictures that this run has data for, in the order of the page."""
    for draw in (
        grid,
        pool_grid,
        flipped,
        confusion,
        confidence,
        coverage,
        reliability,
        noise_matrix,
        rounds,
        losses,
    ):
        picture = draw(data)
        if picture is not None:
            yield picture


def grid(data: dict[str, Any]) -> Picture | None:
    """The article's grid: the 25 most confident disagreements."""
    if data["decisions"] is None or data["metrics"].get("mode") == "augment":
        return None
    rows = load_run.disagreements(data["decisions"])
    paths = data["samples"].drop_duplicates("id").set_index("id")["path"].reindex(rows["id"])
    titles = pairs(rows["given_label"], rows["predicted"])
    caption = f"The {len(rows)} given labels that held-out predictions contradict most confidently."
    right = matches(rows["truth"], rows["predicted"])
    title = "Most confident disagreements: label | predicted"
    return tiles("grid", caption, title, (paths, titles, right))


def pool_grid(data: dict[str, Any]) -> Picture | None:
    """The 25 pseudo-labels that only just passed."""
    if data["pseudo_labels"] is None:
        return None
    rows = load_run.nearest_cutoff(data["pseudo_labels"], data["cutoffs"][1])
    truth = pd.Series(dtype=str) if data["decisions"] is None else data["decisions"].set_index("id")["truth"]
    right = matches(truth.reindex(rows["id"]), rows["label"])
    titles = pairs(rows["label"], [f"{value:.3f}" for value in rows["confidence"]])
    caption = f"The {len(rows)} pseudo-labels nearest to the cutoff, the likeliest to be wrong."
    title = "Nearest to the cutoff: pseudo-label | confidence"
    return tiles("pool_grid", caption, title, (rows["path"], titles, right))


def flipped(data: dict[str, Any]) -> Picture | None:
    """The labels that the decisive round changed against the round before, the surest first."""
    rows = pd.DataFrame([line for line in data["facts"] if line.get("why") == "flipped"][:25])
    if rows.empty:
        return None
    paths = data["samples"].drop_duplicates("id").set_index("id")["path"].reindex(rows["image"])
    titles = pairs(rows["label"].replace("", "none"), [f"{value:.3f}" for value in rows["confidence"]])
    truth = data["decisions"].set_index("id")["truth"].reindex(rows["image"]).where(rows["label"].to_numpy() != "")
    caption = f"{len(rows)} labels that the round changed, against the round before (the first: what was given)."
    title = "Changed by the round: new label | confidence"
    return tiles("flipped", caption, title, (paths, titles, matches(truth, rows["label"])))


def matches(truth: Iterable, labels: Iterable) -> list[bool | None]:
    """Whether each label is the true one; None where the truth is not known."""
    return [None if pd.isna(t) else bool(t == label) for t, label in zip(truth, labels, strict=True)]


def pairs(first: Iterable, second: Iterable) -> list[str]:
    """`a | b` above each image; long names in two lines."""
    names = [(figures.short(a), figures.short(b)) for a, b in zip(first, second, strict=True)]
    gap = " |\n" if any(len(a) + len(b) > 12 for a, b in names) else " | "
    return [a + gap + b for a, b in names]


def tiles(name: str, caption: str, title: str, columns: tuple[Iterable, list[str], list]) -> Picture | None:
    """A grid picture from (paths, titles, right), one entry for each image."""
    paths, titles, right = columns
    if not titles:
        return None
    images = [load_run.decode_image(load_run.read_bytes(str(path)), 128) for path in paths]
    if any(value is not None for value in right):
        caption += " The truth is known: right predictions have a blue frame, wrong ones an orange-red one."
    return name, caption, figures.grid(images, titles, right, title)


def confusion(data: dict[str, Any]) -> Picture | None:
    """The student on test, else on valid; else what the held-out predictions say of the given labels."""
    scored, decisions = data["scored"], data["decisions"]
    for split in ("test", "val") if scored is not None else ():
        rows = scored[(scored["arm"] == "student") & (scored["split"] == split) & (scored["label"] != "")]
        if len(rows):
            return confused(data, rows["label"], rows["predicted"], ("label", f"the student on {split}"))
    rows = None if decisions is None else decisions[decisions["given_label"] != ""]
    if rows is None or not len(rows):
        return None
    names = ("given label", "the held-out predictions")
    return confused(data, rows["given_label"], rows["predicted"], names)


def confused(data: dict[str, Any], truth: pd.Series, predicted: pd.Series, names: tuple[str, str]) -> Picture:
    classes = load_run.label_names(data["decisive"])
    classes = [*classes, *sorted({*truth, *predicted} - {*classes})]
    differ = int((truth.to_numpy() != predicted.to_numpy()).sum())
    title = f"Confusion matrix of {names[1]} ({differ:,} of {len(truth):,} differ)"
    caption = f"Each row is a {names[0]}, each column a prediction; everything off the diagonal was confused."
    figure = figures.confusion_matrix(truth, predicted, classes, (title, names[0], "predicted"))
    return "confusion", caption, figure


def confidence(data: dict[str, Any]) -> Picture | None:
    if data["decisions"] is None or data["decisions"].empty:
        return None
    caption = "How sure the models were of rows that they had not learned; the counts are logarithmic."
    return "confidence", caption, figures.confidence_histogram(data["decisions"], data["cutoffs"])


def coverage(data: dict[str, Any]) -> Picture | None:
    """Labeled rows against given labels and, where known, against the truth; pool rows against the truth."""
    rows = data["decisions"]
    if rows is None:
        return None
    given_labels, known = rows["given_label"] != "", rows["truth"].notna()
    flipped = (known & given_labels & (rows["truth"] != rows["given_label"])).any()
    at_given, at_pool = data["cutoffs"]
    lines = {
        "against given labels": (given_labels, "given_label", at_given),
        "against the truth": (given_labels & known & flipped, "truth", at_given),
        "pool against the truth": (~given_labels & known, "truth", at_pool),
    }
    curves = {
        name: (part["confidence"].to_numpy(), (part["predicted"] == part[column]).to_numpy(), line)
        for name, (mask, column, line) in lines.items()
        if len(part := rows[mask])
    }
    caption = "The accuracy of held-out predictions above every possible cutoff; a dot marks one in use."
    return ("coverage", caption, figures.coverage_accuracy(curves)) if curves else None


def reliability(data: dict[str, Any]) -> Picture | None:
    """Whether p_wrong means what it says; only where labels were flipped on purpose."""
    rows = data["decisions"]
    if rows is None:
        return None
    rows = rows[(rows["given_label"] != "") & rows["truth"].notna() & rows["p_wrong"].notna()]
    wrong = (rows["truth"] != rows["given_label"]).to_numpy()
    if not wrong.any():
        return None
    caption = "Of the labels that are said to be wrong with a probability p_wrong, this share is."
    bins = {"": calibration.reliability(rows["p_wrong"].to_numpy(), wrong)}
    words = ("Reliability: is p_wrong what it says?", "p_wrong (numbers: rows)", "share that is wrong")
    return "reliability", caption, figures.reliability(bins, words)


def noise_matrix(data: dict[str, Any]) -> Picture | None:
    matrix, classes = data["decisive"].get("noise_matrix"), data["decisive"].get("classes")
    if not matrix or not classes:
        return None
    info, matrix = data["decisive"], np.array(matrix, float)
    caption = "How often a sample of the true class (row) was given each label (column), as estimated."
    if info.get("noise_matrix_low"):
        wide = np.subtract(info["noise_matrix_high"], info["noise_matrix_low"])
        caption += f" The 95 % intervals are {50 * np.median(wide):.1f} points to either side (median of the cells)."
    kind = info.get("noise_type")
    title = "Noise matrix: which label each true class was given" + (f" ({kind})" if kind else "")
    return "noise_matrix", caption, figures.noise_matrix(matrix, classes, title)


def rounds(data: dict[str, Any]) -> Picture | None:
    """What each round changed; needs two to compare."""
    infos = data["rounds"]
    if len(infos) < 2:
        return None
    judged = {i["round"]: sum((i.get("decisions") or {}).values()) or np.nan for i in infos}
    series = {
        "held-out accuracy against given labels": {i["round"]: i.get("oof_accuracy") for i in infos},
        "labels changed since the round before": {
            i["round"]: i["changed"] / judged[i["round"]] for i in infos if i.get("changed") is not None
        },
        "given labels still wrong": {w["round"]: w.get("train") for w in data["wrong"]},
        "wrong pseudo-labels": {w["round"]: w.get("unlabeled") for w in data["wrong"]},
    }
    series = {name: {r: v for r, v in values.items() if pd.notna(v)} for name, values in series.items()}
    series = {name: values for name, values in series.items() if any(values.values())}
    caption = "What every round of teacher and decisions achieved"
    caption += "; round 0 is what was given." if any(0 in values for values in series.values()) else "."
    return ("rounds", caption, figures.rounds(series)) if series else None


def losses(data: dict[str, Any]) -> Picture | None:
    if not data["history"]:
        return None
    folds = {f"round {number}": scores for number, scores in data["folds"].items() if scores}
    caption = "Training loss of every model; baseline and student below."
    if folds:
        caption += (
            " Beside each fold: the share of its given labels that its model, which had not learned them, agrees "
        )
        caption += "with; from the second round on the mean over all rounds so far is asked."
    return "losses", caption, curves.losses(data["history"], folds)
