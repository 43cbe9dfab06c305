"""The pictures of a run: from what `read_run` returns to PNGs with captions. It brings matplotlib.

A function a picture. It returns None where the run does not have the data.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy import ndarray
from PIL.Image import composite, fromarray
from sklearn.calibration import CalibrationDisplay
from sklearn.decomposition import PCA
from sklearn.preprocessing import scale

from . import load_run
from .figures import (
    COLORS,
    MAX_NUMBERED_CLASSES,
    count_axis,
    image_grid,
    matrix_figure,
    new_figure,
    png,
    short,
    styled,
)
from .gallery import predicted_rows

CaptionedFigure = tuple[str, Figure] | None
GRID_IMAGES = 25
"""Five rows of five."""
MAX_ONE_LINE_NAME = 15
"""Letters that fit above an image of a grid."""
MAX_MAPPED = 5000
"""Points of the map: more hide each other."""
MIN_MAPPED_NUMBERS = 4
"""Of an image: two or three probabilities have a direction that is no more than the class."""
IMAGE_PIXELS = 128
"""Longer side of an image in a grid: about what five in a row of 6 inches can show."""


@styled
def draw_pictures(data: dict) -> dict[str, tuple[str, bytes]]:
    """Name → (caption, PNG) of the pictures that this run has data for, in the order of the page."""
    pictures = {}
    names = WITHOUT_ROUNDS if data["decisions"] is None else PICTURES
    for name in names:
        if drawn := PICTURES[name](data):
            caption, figure = drawn
            pictures[name] = (caption, png(figure))
    return pictures


# ---- grids of images


def disagreements_grid(data: dict) -> CaptionedFigure:
    """The article's picture: the most confident disagreements."""
    rows = load_run.disagreements(data["decisions"], GRID_IMAGES)
    return _grid_of_rows(
        data,
        rows.assign(label=rows.predicted),
        ("given_label", "predicted"),
        "Most confident disagreements: label | predicted",
        "given labels that out-of-fold predictions contradict most confidently.",
    )


def cutoff_grid(data: dict) -> CaptionedFigure:
    """The pseudo-labels nearest to the cutoff."""
    if data["pseudo_labels"] is None:
        return None
    return _grid_of_rows(
        data,
        load_run.nearest_cutoff(data["pseudo_labels"], data["cutoffs"][1], GRID_IMAGES),
        ("label", "confidence"),
        "Nearest to the cutoff: pseudo-label | confidence",
        "pseudo-labels nearest to the cutoff. They are the likeliest to be wrong.",
    )


def _grid_of_rows(
    data: dict, rows: pd.DataFrame, pair: tuple[str, str], title: str, caption: str
) -> CaptionedFigure:
    """The images of the first rows, each below its pair of columns.

    A frame tells whether `label` is right, where the truth is known.
    """
    if rows.empty:
        return None
    images = [load_run.read_image(path, IMAGE_PIXELS) for path in rows.path]
    texts = rows.assign(confidence=rows.confidence.map("{:.3f}".format))
    first, second = (texts[column].replace("", "none").map(short) for column in pair)
    names = first + " | " + second
    if names.str.len().max() > MAX_ONE_LINE_NAME:
        names = first + " |\n" + second
    truth = rows.id.map(data["decisions"].set_index("id")["truth"])
    is_known = truth.notna() & (rows.label != "")
    is_right = (truth == rows.label).astype(object).where(is_known, None)
    caption = (
        f"{len(rows)} {caption} Where the truth is known, right labels have a blue frame and wrong "
        "ones an orange-red one."
    )
    return caption, image_grid(images, names, is_right, title)


def why_grid(data: dict) -> CaptionedFigure:
    """Where the models looked when they contradicted a given label."""
    rows = data["why"]
    if rows is None:
        return None
    images = []
    for path, importance in zip(rows.path, data["why_maps"], strict=True):
        if image := load_run.read_image(path, IMAGE_PIXELS):
            light = fromarray((255 * importance).astype(np.uint8)).resize(image.size)
            image = composite(image, image.point(lambda value: value // 5), light)
        images.append(image)
    names = rows.given_label.map(short) + " |\n" + rows.predicted.map(short)
    title = "What spoke for the prediction: label | predicted"
    return (
        "The brighter a part, the more it spoke for the predicted class (Grad-CAM). Each image is explained by a model "
        "that did not learn its label.",
        image_grid(images, names, [None] * len(rows), title),
    )


# ---- what the predictions are worth


def embeddings_map(data: dict) -> CaptionedFigure:
    """Labeled images in a plane, similar ones side by side; a ring where the label is probably wrong."""
    rows, features = data["decisions"], data["embeddings"]
    source = "frozen embeddings"
    if features is None:
        features, source = data["log_probs"], "out-of-fold log-probabilities"
    labeled = rows.loc[rows.given_label != "", ["given_label"]]
    labeled = labeled.assign(is_issue=rows.p_wrong > 0.5)
    if features is None or len(labeled) < 2 or len(features[0]) < MIN_MAPPED_NUMBERS:
        return None
    shuffled = labeled.sample(frac=1, random_state=0)
    shown = shuffled.sort_values("is_issue", ascending=False, kind="stable")[:MAX_MAPPED]
    vectors = features[shown.index].reshape(len(shown), -1).astype(float)
    places, method = project(scale(vectors, axis=1))
    figure, [axis] = new_figure(f"Map of the images ({method} of {source})", 6.2)
    codes, names = pd.factorize(shown.given_label, sort=True)
    colors = "tab10" if len(names) <= 10 else "turbo"
    images = axis.scatter(*places.T, s=6, c=codes, cmap=colors)
    issues = places[shown.is_issue]
    [rings] = axis.plot(*issues.T, "ko", fillstyle="none")
    axis.set(xticks=[], yticks=[])
    handles, labels = [rings], [f"probably wrong ({len(issues):,})"]
    if len(names) <= MAX_NUMBERED_CLASSES:
        handles += images.legend_elements(num=None)[0]
        labels += map(short, names)
    figure.legend(handles, labels, loc="outside lower left", ncols=4)
    return (
        f"{len(shown):,} of {len(labeled):,} labeled images, colored by their given label. A ring marks a label that "
        "is probably wrong.",
        figure,
    )


def project(features: ndarray) -> tuple[ndarray, str]:
    """(n, D) → (n, 2) and the name of the method: UMAP where umap-learn is installed, else PCA."""
    try:
        from umap import UMAP
    except ImportError:
        return PCA(2, svd_solver="randomized", random_state=0).fit_transform(features), "PCA"
    return UMAP(random_state=0, n_jobs=1).fit_transform(features), "UMAP"


def confusion(data: dict) -> CaptionedFigure:
    """Counts: labels in rows, predictions in columns."""
    rows, source = predicted_rows(data)
    if rows.empty:
        return None
    labels = sorted({*rows.label, *rows.predicted})
    counts = pd.crosstab(rows.label, rows.predicted)
    counts = counts.reindex(index=labels, columns=labels, fill_value=0).to_numpy()
    n_wrong = len(rows) - counts.trace()
    title = f"Confusion matrix ({n_wrong:,} of {len(rows):,} differ)"
    figure = matrix_figure(title, counts, labels, xlabel="predicted", ylabel="label")
    return f"Each row is a label, each column a prediction: {source}.", figure


def confidence(data: dict) -> CaptionedFigure:
    """Histogram of the confidence: labeled images by agreement, unlabeled ones by decision."""
    rows = data["decisions"]
    is_labeled = rows.given_label != ""
    agrees = rows.predicted == rows.given_label
    kinds = np.select(
        [is_labeled & agrees, is_labeled, rows.decision == "accept"],
        ["labeled, predicted = given", "labeled, predicted ≠ given", "unlabeled, accepted"],
        "unlabeled, not accepted",
    )
    edges = np.linspace(min(0.95, rows.confidence.min()), 1, 51)
    figure, [axis] = new_figure("Confidence of the out-of-fold predictions", 4.4)
    for kind, values in rows.confidence.groupby(kinds):
        label = f"{kind} ({len(values):,})"
        axis.hist(values, edges, histtype="step", linewidth=1.8, label=label)
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


def coverage(data: dict) -> CaptionedFigure:
    """Accuracy of the most confident rows, for every possible cutoff."""
    rows = data["decisions"]
    is_labeled = rows.given_label != ""
    is_known = rows.truth.notna()
    cutoff, unlabeled_cutoff = data["cutoffs"]
    curves = [
        ("labeled, against given labels", rows[is_labeled], "given_label", cutoff),
        ("labeled, against the truth", rows[is_labeled & is_known], "truth", cutoff),
        ("unlabeled, against the truth", rows[~is_labeled & is_known], "truth", unlabeled_cutoff),
    ]
    figure, [axis] = new_figure("Coverage against accuracy: what a lower cutoff would cost", 4.8)
    for color, (name, part, column, cutoff) in zip(COLORS, curves, strict=False):
        if part.empty:
            continue
        # rows of equal confidence enter together: no cutoff could tell them apart
        is_right = part.predicted == part[column]
        above = is_right.groupby(part.confidence).agg(["size", "sum"])[::-1].cumsum()
        accuracy = above["sum"] / above["size"]
        accuracy.index = above["size"] / len(part)
        label = f"{name} (n = {len(part):,})"
        axis.plot(accuracy, "-", color=color, linewidth=2, label=label)
        dot = accuracy[above.index >= cutoff][-1:]
        if len(dot):
            axis.plot(dot, "o", color=color, label=f"cutoff {cutoff:.4g}")
    axis.set(
        xlabel="coverage: share of the rows, most confident first",
        ylabel="accuracy of those rows",
    )
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower left")
    return (
        "The accuracy of out-of-fold predictions above every possible cutoff. A dot marks the one in use.",
        figure,
    )


def reliability(data: dict) -> CaptionedFigure:
    """Whether p_wrong means what it says. Only where labels were flipped on purpose is the truth known."""
    rows = data["decisions"]
    rows = rows[rows.given_label != ""].dropna(subset=["truth", "p_wrong"])
    is_wrong = rows.truth != rows.given_label
    if not is_wrong.any():
        return None
    title = "Reliability: are labels wrong as often as p_wrong says?"
    figure, [upper, lower] = new_figure(title, 5.6, 2)
    CalibrationDisplay.from_predictions(is_wrong, rows.p_wrong, n_bins=10, ax=upper, name="p_wrong")
    upper.set(xlabel="", ylabel="share that is wrong")
    lower.hist(rows.p_wrong, bins=10, range=(0, 1))
    lower.set(xlabel="p_wrong", ylabel="labels")
    count_axis(lower)
    return (
        "How many of the labels with a probability p_wrong are wrong, and how many such labels there are.",
        figure,
    )


def noise_matrix(data: dict) -> CaptionedFigure:
    """T[true, given]: how each true class was labeled, as estimated."""
    shares = data["decisive"].get("noise_matrix")
    if not shares:
        return None
    figure = matrix_figure(
        "Noise matrix: which label each true class was given",
        np.multiply(shares, 100).round(1),
        data["decisive"]["classes"],
        xlabel="given label (numbers: % of the row)",
        ylabel="true label (estimated)",
    )
    return (
        "How often an image of the true class (row) was given each label (column), as estimated.",
        figure,
    )


# ---- how training went


def losses(data: dict) -> CaptionedFigure:
    """Training loss: a panel for each round, with a line a fold, and one for each final model; accuracy on data.val."""
    history = data["history"]
    if not history:
        return None
    figure, axes = new_figure("Training loss", 0.7 + 2.2 * len(history), len(history))
    for axis, (name, curves) in zip(axes, history.items(), strict=True):
        twin = None
        for fold, curve in curves.items():
            [line] = axis.plot(curve.epoch, curve.loss, label=fold)
            if "val_accuracy" in curve:
                scored = curve.dropna(subset="val_accuracy")
                twin = twin or axis.twinx()
                color = line.get_color()
                twin.plot(scored.epoch, scored.val_accuracy, ":o", color=color)
                twin.set(ylabel="val accuracy (dots)")
                twin.grid(False)
        if name.startswith("round"):
            axis.legend(ncols=4, fontsize=9)
        axis.set(title=name, ylabel="loss")
    axes[-1].set_xlabel("epoch")
    return (
        "Training loss of every model: those of each round, then baseline and student; "
        "as dots the accuracy on a part of data.val, where there is one.",
        figure,
    )


# file name → function; the order of the page
PICTURES = {
    "grid": disagreements_grid,
    "why_grid": why_grid,
    "unlabeled_grid": cutoff_grid,
    "map": embeddings_map,
    "confusion": confusion,
    "confidence": confidence,
    "coverage": coverage,
    "reliability": reliability,
    "noise_matrix": noise_matrix,
    "losses": losses,
}
WITHOUT_ROUNDS = ("confusion", "losses")
"""Pictures that need no decisions of a round."""
