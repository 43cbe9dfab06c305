"""The pictures of a run: from what `read_run` returns to PNGs with captions. It brings matplotlib.

A function a picture. It returns None where the run does not have the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import confusion_matrix

from . import load_run
from .figures import (
    COLORS,
    count_axis,
    draw_matrix,
    image_grid,
    new_figure,
    percent_axis,
    png,
    short,
    styled,
)
from .gallery import predicted_rows

RunData = dict[str, Any]
CaptionedFigure = tuple[str, Figure] | None
IMAGE_PIXELS = 128
"""Longer side of an image in a grid: about what five in a row of 6 inches can show."""


class Picture(NamedTuple):
    """One picture of a run."""

    name: str
    """Of its file, without the suffix."""
    caption: str
    png: bytes
    is_photo: bool
    """Shows images of the data. A dark page must not invert their colors."""

    @property
    def address(self) -> str:
        """What an <img> of a page shows."""
        return load_run.data_address(self.png)


@styled
def draw_pictures(data: RunData) -> list[Picture]:
    """The pictures that this run has data for, in the order of the page."""
    pictures = []
    for name, draw in PICTURES.items():
        drawn = draw(data)
        if drawn is not None:
            caption, figure = drawn
            pictures.append(Picture(name, caption, png(figure), name in PHOTOS))
    return pictures


# ---- grids of images


def disagreements_grid(data: RunData) -> CaptionedFigure:
    """The article's picture: the 25 most confident disagreements."""
    if data["decisions"] is None or data["metrics"].get("mode") == "augment":
        return None
    rows = load_run.disagreements(data["decisions"])
    return _grid_of_rows(
        data,
        rows["id"],
        rows["predicted"],
        _pair_names(rows["given_label"], rows["predicted"]),
        "Most confident disagreements: label | predicted",
        f"The {len(rows)} given labels that out-of-fold predictions contradict most confidently.",
    )


def cutoff_grid(data: RunData) -> CaptionedFigure:
    """The 25 pseudo-labels nearest to the cutoff."""
    if data["pseudo_labels"] is None or data["decisions"] is None:
        return None
    rows = load_run.nearest_cutoff(data["pseudo_labels"], data["cutoffs"][1])
    return _grid_of_rows(
        data,
        rows["id"],
        rows["label"],
        _pair_names(rows["label"], rows["confidence"].map("{:.3f}".format)),
        "Nearest to the cutoff: pseudo-label | confidence",
        f"The {len(rows)} pseudo-labels nearest to the cutoff. They are the likeliest to be wrong.",
    )


def changed_grid(data: RunData) -> CaptionedFigure:
    """The labels that the decisive round changed against the round before, the most confident first."""
    rows = pd.DataFrame([line for line in data["facts"] if line.get("why") == "flipped"][:25])
    if rows.empty:
        return None
    new_labels = rows["label"].replace("", "none")
    return _grid_of_rows(
        data,
        rows["image"],
        rows["label"],
        _pair_names(new_labels, rows["confidence"].map("{:.3f}".format)),
        "Changed by the round: new label | confidence",
        f"{len(rows)} labels that the round changed, compared with the round before.",
    )


def _grid_of_rows(
    data: RunData, ids: pd.Series, labels: pd.Series, names: list[str], title: str, caption: str
) -> CaptionedFigure:
    """The images of these ids. A frame tells whether a label is right, where the truth is known."""
    if ids.empty:
        return None
    paths = load_run.image_paths(data["samples"])
    images = [load_run.read_image(paths[name], IMAGE_PIXELS) for name in ids]
    truth = data["decisions"].set_index("id")["truth"]
    is_right = []
    for true_label, label in zip(truth.reindex(ids), labels, strict=True):
        unknown = pd.isna(true_label) or label == ""
        is_right.append(None if unknown else true_label == label)
    caption += " Where the truth is known, right labels have a blue frame and wrong ones an orange-red one."
    return caption, image_grid(images, names, is_right, title)


def _pair_names(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """`a | b` for each image, in two lines where names are long."""
    pairs = [(short(a), short(b)) for a, b in zip(first, second, strict=True)]
    are_long = any(len(a) + len(b) > 12 for a, b in pairs)
    separator = " |\n" if are_long else " | "
    return [separator.join(pair) for pair in pairs]


# ---- what the predictions are worth


def confusion(data: RunData) -> CaptionedFigure:
    """Counts: labels in rows, predictions in columns."""
    rows, source = predicted_rows(data)
    if rows.empty:
        return None
    classes = load_run.label_names(data["decisive"])
    others = {*rows["label"], *rows["predicted"]} - {*classes}
    classes = [*classes, *sorted(others)]
    counts = confusion_matrix(rows["label"], rows["predicted"], labels=classes)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    numbers = np.where(counts > 0, counts.astype(str), "")
    wrong = (rows["label"] != rows["predicted"]).sum()
    title = f"Confusion matrix ({wrong:,} of {len(rows):,} differ)"
    figure, [axis] = new_figure(title, 6.2)
    draw_matrix(axis, shares, numbers, classes)
    axis.set(xlabel="predicted", ylabel="label")
    return f"Each row is a label, each column a prediction: {source}.", figure


def confidence(data: RunData) -> CaptionedFigure:
    """Histogram of the confidence: labeled images by agreement, unlabeled ones by decision."""
    rows = data["decisions"]
    if rows is None or rows.empty:
        return None
    is_labeled = rows["given_label"] != ""
    agrees = rows["predicted"] == rows["given_label"]
    kinds = np.select(
        [is_labeled & agrees, is_labeled, rows["decision"] == "accept"],
        ["labeled, predicted = given", "labeled, predicted ≠ given", "unlabeled, accepted"],
        "unlabeled, not accepted",
    )
    edges = np.linspace(min(0.95, rows["confidence"].min()), 1, 51)
    figure, [axis] = new_figure("Confidence of the out-of-fold predictions", 4.4)
    for kind, values in rows["confidence"].groupby(kinds):
        axis.hist(
            values,
            edges,
            histtype="step",
            linewidth=1.8,
            label=f"{kind} ({len(values):,})",
        )
    for cutoff in set(data["cutoffs"]):
        if cutoff <= 1:
            axis.axvline(cutoff, color="black", linestyle="--", label=f"cutoff {cutoff:.4g}")
    axis.set(xlabel="confidence", ylabel="images")
    count_axis(axis)
    figure.legend(loc="outside lower left", ncols=2)
    return (
        "How confident the models were of images whose label they had not learned. Counts are logarithmic.",
        figure,
    )


def coverage(data: RunData) -> CaptionedFigure:
    """Accuracy of the most confident rows, for every possible cutoff."""
    rows = data["decisions"]
    if rows is None:
        return None
    is_labeled = rows["given_label"] != ""
    is_known = rows["truth"].notna()
    cutoff, unlabeled_cutoff = data["cutoffs"]
    curves = [
        ("labeled, against given labels", is_labeled, "given_label", cutoff),
        ("labeled, against the truth", is_labeled & is_known, "truth", cutoff),
        ("unlabeled, against the truth", ~is_labeled & is_known, "truth", unlabeled_cutoff),
    ]
    figure, [axis] = new_figure("Coverage against accuracy: what a lower cutoff would cost", 4.8)
    for color, (name, is_shown, column, cutoff) in zip(COLORS, curves, strict=False):
        part = rows[is_shown]
        if part.empty:
            continue
        # rows of equal confidence enter together: no cutoff could tell them apart
        is_right = part["predicted"] == part[column]
        levels = is_right.groupby(part["confidence"]).agg(["size", "sum"])
        totals = levels.sort_index(ascending=False).cumsum()
        share = totals["size"] / len(part)
        accuracy = totals["sum"] / totals["size"]
        label = f"{name} (n = {len(part):,})"
        axis.plot(share, accuracy, "-", color=color, linewidth=2, label=label)
        above = totals.index >= cutoff
        if above.any():
            x = share[above].iloc[-1]
            y = accuracy[above].iloc[-1]
            axis.plot(x, y, "o", color=color, label=f"cutoff {cutoff:.4g}")
    axis.set(
        xlabel="coverage: share of the rows, most confident first",
        ylabel="accuracy of those rows",
    )
    percent_axis(axis.xaxis)
    percent_axis(axis.yaxis)
    figure.legend(loc="outside lower left")
    return (
        "The accuracy of out-of-fold predictions above every possible cutoff. A dot marks the one in use.",
        figure,
    )


def reliability(data: RunData) -> CaptionedFigure:
    """Whether p_wrong means what it says. Only where labels were flipped on purpose is the truth known."""
    rows = data["decisions"]
    if rows is None:
        return None
    rows = rows[(rows["given_label"] != "") & rows["truth"].notna() & rows["p_wrong"].notna()]
    is_wrong = rows["truth"] != rows["given_label"]
    if not is_wrong.any():
        return None
    title = "Reliability: are labels wrong as often as p_wrong says?"
    figure, [upper, lower] = new_figure(title, 5.6, 2)
    CalibrationDisplay.from_predictions(
        is_wrong,
        rows["p_wrong"],
        n_bins=10,
        ax=upper,
        name="p_wrong",
    )
    upper.set(xlabel="", ylabel="share that is wrong")
    lower.hist(rows["p_wrong"], bins=10, range=(0, 1))
    lower.set(xlabel="p_wrong", ylabel="labels")
    count_axis(lower)
    return (
        "How many of the labels with a probability p_wrong are wrong, and how many such labels there are.",
        figure,
    )


def noise_matrix(data: RunData) -> CaptionedFigure:
    """T[true, given]: how each true class was labeled, as estimated."""
    matrix = data["decisive"].get("noise_matrix")
    classes = data["decisive"].get("classes")
    if not matrix or not classes:
        return None
    shares = np.array(matrix, float)
    numbers = np.char.mod("%.3g", 100 * shares.round(3))
    figure, [axis] = new_figure("Noise matrix: which label each true class was given", 6.2)
    draw_matrix(axis, shares, numbers, classes)
    axis.set(
        xlabel="given label (numbers: % of the row)",
        ylabel="true label (estimated)",
    )
    return (
        "How often an image of the true class (row) was given each label (column), as estimated.",
        figure,
    )


# ---- how training and rounds went


def rounds(data: RunData) -> CaptionedFigure:
    """What each round achieved. One round has nothing to compare with."""
    if len(data["rounds"]) < 2:
        return None
    infos = pd.DataFrame(data["rounds"]).set_index("round")
    judged = infos["decisions"].map(lambda decisions: sum(decisions.values()))
    wrong = pd.DataFrame(data["wrong"], columns=["round", "train", "unlabeled"]).set_index("round")
    series = {
        "out-of-fold accuracy against given labels": infos["oof_accuracy"],
        "labels changed since the round before": infos["changed"] / judged,
        "given labels still wrong": wrong["train"],
        "wrong pseudo-labels": wrong["unlabeled"],
    }
    series = {name: values.dropna().astype(float) for name, values in series.items()}
    series = {name: values for name, values in series.items() if values.any()}
    if not series:
        return None
    height = 0.9 + 1.6 * len(series)
    figure, axes = new_figure("Round by round", height, len(series))
    for axis, (name, values) in zip(axes, series.items(), strict=True):
        axis.plot(values.index, values, "o-", linewidth=2)
        for number, share in values.items():
            axis.annotate(
                f"{share:.2%}",
                (number, share),
                (0, 8),
                textcoords="offset points",
                ha="center",
                size=10,
            )
        axis.set(title=name, xlim=(-0.3, infos.index[-1] + 0.3))
        axis.margins(y=0.45)
        percent_axis(axis.yaxis)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("round")
    return "What every round of teachers and decisions achieved. Round 0 is what was given.", figure


def losses(data: RunData) -> CaptionedFigure:
    """Training loss: a panel for each round, with a line a fold, and one for each final model."""
    history = data["history"]
    if not history:
        return None
    figure, axes = new_figure("Training loss", 0.7 + 2.2 * len(history), len(history))
    for axis, (name, tables) in zip(axes, history.items(), strict=True):
        for table in tables:
            # with leak-free folds, two models leave out the same fold
            fold = table["fold"].iloc[0]
            axis.plot(table["epoch"], table["loss"], label=f"fold {fold}")
        if name.startswith("round"):
            axis.legend(ncols=math.ceil(len(tables) / 6), fontsize=9)
        axis.set(title=name, ylabel="loss")
    axes[-1].set_xlabel("epoch")
    return "Training loss of every model: those of each round, then baseline and student.", figure


# file name → function; the order of the page
PICTURES = {
    "grid": disagreements_grid,
    "pool_grid": cutoff_grid,
    "flipped": changed_grid,
    "confusion": confusion,
    "confidence": confidence,
    "coverage": coverage,
    "reliability": reliability,
    "noise_matrix": noise_matrix,
    "rounds": rounds,
    "losses": losses,
}
PHOTOS = ("grid", "pool_grid", "flipped")
