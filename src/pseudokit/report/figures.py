"""The pictures: functions from tables and arrays to matplotlib figures. Import only where one is drawn.

Colors are Okabe and Ito's, which color-blind readers can tell apart. Figures are 6 inches wide with large
type, so that they can still be read at the width of a phone.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

BLUE, ORANGE, GREEN, VERMILION, GREY, INK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676", "#222222"
SEQUENCE = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9")
STYLE = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.parse_math": False,  # a class may be called $5
}
styled = rc_context(STYLE)
MAX_NUMBERS = 20  # classes up to which a matrix shows its numbers
MAX_NAMES = 40  # classes up to which a matrix names its rows


@styled
def png(figure: Figure, colors: int | None = None) -> bytes:
    """The figure as a PNG of 120 dots per inch; the same figure gives the same bytes.

    colors: so many of them, at a third of the bytes; None: all, as photos need them.
    """
    buffer, small = io.BytesIO(), io.BytesIO()
    packing = {"compress_level": 6 if colors is None else 0}
    with warnings.catch_warnings():
        # a class name in a script that no font here has is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None}, pil_kwargs=packing)
    if colors is None:
        return buffer.getvalue()
    Image.open(buffer).convert("RGB").quantize(colors, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def short(text: object, length: int = 14) -> str:
    """A name that fits: one line, at most `length` characters, the end kept (it often holds a number)."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else f"{line[: length - 5]}…{line[-4:]}"


def new_figure(title: str, height: float = 4.0, panels: int = 1):
    """A figure 6 inches wide with its panels (below one another) and a wrapped title."""
    figure = Figure(figsize=(6, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    figure.suptitle(textwrap.fill(title, 60), x=0.02, ha="left", weight="bold", size=12)
    return figure, figure.subplots(panels, squeeze=False)[:, 0]


@styled
def grid(images: list[np.ndarray | None], titles: list[str], right: list[bool | None], title: str) -> Figure:
    """Images five in a row, each below its own title. `right`: frame it as right, wrong or (None) unknown."""
    rows = max(1, -(-len(images) // 5))
    lines = max([t.count("\n") + 1 for t in titles], default=1)
    step = 1.08 + 0.15 * lines  # of the width of a column
    height = 0.3 + 1.2 * step * rows
    figure = Figure(figsize=(6, height))
    figure.text(0.02, 1 - 0.1 / height, title, va="top", weight="bold", size=12)
    axis = figure.add_axes((0, 0, 1, 1 - 0.3 / height))
    for i, (image, name, good) in enumerate(zip(images, titles, right, strict=True)):
        x, y = i % 5 + 0.05, (i // 5 + 1) * step - 0.95  # y grows downwards
        _tile(axis, image, x, y)
        if good is not None:
            color = BLUE if good else VERMILION
            axis.add_patch(Rectangle((x, y), 0.9, 0.9, fill=False, linewidth=2.5, edgecolor=color))
        axis.text(x + 0.45, y - 0.03, name, ha="center", va="bottom", size=10)
    axis.set(xlim=(0, 5), ylim=(rows * step, 0), aspect="auto")
    axis.axis("off")
    return figure


def _tile(axis, image: np.ndarray | None, x: float, y: float) -> None:
    """One image in the middle of its 0.9 × 0.9 field, pixels as they are."""
    if image is None:
        axis.add_patch(Rectangle((x, y), 0.9, 0.9, color="#eeeeee"))
        axis.text(x + 0.45, y + 0.45, "not readable", ha="center", va="center", size=8, color=GREY)
        return
    height, width = 0.9 * np.array(image.shape[:2]) / max(image.shape[:2])
    left, top = x + (0.9 - width) / 2, y + (0.9 - height) / 2
    smooth = "nearest" if max(image.shape) < 100 else "antialiased"
    axis.imshow(image, extent=(left, left + width, top + height, top), interpolation=smooth)


@styled
def confidence_histogram(decisions: pd.DataFrame, cutoffs: tuple[float, float]) -> Figure:
    """Confidence of held-out predictions: labeled rows by agreement, pool rows by decision."""
    given_labels = decisions["given_label"] != ""
    agree = decisions["predicted"] == decisions["given_label"]
    accepted = decisions["decision"] == "accept"
    groups = [
        (
            "labeled",
            cutoffs[0],
            {"predicted = given": given_labels & agree, "predicted ≠ given": given_labels & ~agree},
        ),
        ("unlabeled", cutoffs[1], {"accepted": ~given_labels & accepted, "left": ~given_labels & ~accepted}),
    ]
    groups = [group for group in groups if any(mask.any() for mask in group[2].values())]
    figure, axes = new_figure("Confidence of the held-out predictions", 0.9 + 2.7 * len(groups), len(groups))
    for axis, (kind, line, masks) in zip(axes, groups, strict=True):
        bins = _bins(decisions["confidence"].min(), line)
        for (name, mask), color in zip(masks.items(), (BLUE, VERMILION), strict=True):
            counts = np.histogram(decisions["confidence"][mask], bins)[0]
            axis.stairs(counts, bins, fill=True, alpha=0.25, color=color)
            axis.stairs(counts, bins, color=color, linewidth=1.8, label=f"{name} ({mask.sum():,})")
        if bins[0] < line <= 1:
            axis.axvline(line, color=INK, linestyle="--", linewidth=1.4, label=f"cutoff {line:.4g}")
        axis.set(yscale="log", ylim=(0.7, None), xlim=(bins[0], 1.002), ylabel=f"{kind} samples")
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.legend(loc="upper left")
    axes[-1].set_xlabel("confidence")
    return figure


def _bins(lowest: float, cutoff: float) -> np.ndarray:
    """About 60 edges up to 1, one of them at the cutoff so that no bar straddles it."""
    lowest = min(lowest, 0.97)
    width = (1 - lowest) / 60
    anchor = cutoff if lowest < cutoff <= 1 else 1.0
    return anchor + width * np.arange(np.floor((lowest - anchor) / width), np.ceil((1 - anchor) / width) + 1)


def percent_axis(axis, bins: int) -> None:
    axis.set_major_locator(MaxNLocator(bins))
    axis.set_major_formatter(lambda value, _: f"{100 * value:.5g} %")


@styled
def noise_matrix(matrix: np.ndarray, classes: list[str], title: str) -> Figure:
    """T[true, given] (K, K), rows sum to 1: how each class was labeled."""
    figure, axes = new_figure(title, 6.2)
    axes[0].set(xlabel="given label (numbers: % of the row)", ylabel="true label (estimated)")
    _matrix(axes[0], matrix, classes, lambda i, j: f"{100 * matrix[i, j]:.1f}".removesuffix(".0"))
    return figure


@styled
def reliability(curves: dict[str, list[tuple[float, float, int]]], words: tuple[str, str, str]) -> Figure:
    """One line for each name → bins (mean probability, share that came true, rows), against perfect calibration.

    words: title, what is said, what came true.
    """
    figure, axes = new_figure(words[0], 4.6)
    axes[0].plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for (name, bins), color in zip(curves.items(), (BLUE, VERMILION), strict=False):
        said, was, rows = np.array(bins).T
        axes[0].plot(said, was, "o-", color=color, linewidth=1.8, label=name or None)
        for x, y, n in zip(said, was, rows, strict=True):
            side = ("left", "top") if y < x else ("right", "bottom")
            axes[0].text(x, y, f" {int(n):,} ", size=9, color=INK, ha=side[0], va=side[1])
    axes[0].set(xlim=(-0.02, 1.02), ylim=(-0.05, 1.05), xlabel=words[1], ylabel=words[2])
    if len(curves) > 1:
        axes[0].legend()
    return figure


@styled
def confusion_matrix(truth: pd.Series, predicted: pd.Series, classes: list[str], names: tuple[str, str, str]) -> Figure:
    """Counts: truth (N,) in rows, predicted (N,) in columns. names: of the picture, the rows, the columns."""
    codes = [pd.Categorical(labels, categories=classes).codes for labels in (truth, predicted)]
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (codes[0], codes[1]), 1)
    figure, axes = new_figure(names[0], 6.2)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axes[0].set(ylabel=names[1], xlabel=names[2])
    _matrix(axes[0], shares, classes, lambda i, j: str(counts[i, j] or ""))
    return figure


def _matrix(axis, shares: np.ndarray, classes: list[str], number: Callable[[int, int], str]) -> None:
    """Heat map of row shares (K, K), its scale bent to show 1 % beside 99 %; `number` fills a field."""
    k = len(classes)
    axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1), aspect="equal")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    if k <= MAX_NAMES:
        names = [short(name) for name in classes]
        tilt = 90 if max(map(len, names)) > 2 and k > 5 else 0
        axis.set_xticks(range(k), names, rotation=tilt)
        axis.set_yticks(range(k), names)
    else:
        axis.set(xlabel=f"{axis.get_xlabel()} (place among the sorted classes)")
    for i, j in np.ndindex(k, k) if k <= MAX_NUMBERS else ():
        size = np.clip(480 / k / max(3, len(number(i, j))), 4, 11)
        color = "white" if shares[i, j] ** 0.4 > 0.55 else INK
        axis.text(j, i, number(i, j), ha="center", va="center", size=size, color=color)


def coverage_curve(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence (N,), right (N,)) → levels that occur, descending; coverage and accuracy at each level.

    Rows of equal confidence enter together: no cutoff could tell them apart.
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, hits = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(np.diff(confidence) != 0, True))
    return confidence[ends], (ends + 1) / len(order), hits[ends] / (ends + 1)


@styled
def coverage_accuracy(curves: dict[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """One line for each name → (confidence (N,), right (N,), cutoff): accuracy of the most confident rows."""
    figure, axes = new_figure("Coverage against accuracy: what a lower cutoff would cost")
    axis, floor = axes[0], 1.0
    for (name, (confidence, right, cutoff)), color in zip(curves.items(), SEQUENCE, strict=False):
        level, coverage, accuracy = coverage_curve(confidence, right)
        dashes = "--" if "truth" in name else "-"  # lines that coincide stay visible
        axis.plot(coverage, accuracy, dashes, color=color, linewidth=2, label=f"{name} (n = {len(right):,})")
        at = np.flatnonzero(level >= cutoff)
        if len(at):
            dot = coverage[at[-1]], accuracy[at[-1]]
            label = f"cutoff {cutoff:.4g}"
            axis.plot(*dot, "o", color=color, markersize=9, markeredgecolor="white", label=label)
        floor = min(floor, accuracy[coverage >= min(0.05, coverage[-1])].min())
    axis.set(xlim=(0, 1.01), ylim=(floor - 0.05 * (1.002 - floor), 1 + 0.05 * (1.002 - floor)))
    axis.set(xlabel="coverage: share of the rows, most confident first", ylabel="accuracy of those rows")
    percent_axis(axis.xaxis, 5)
    percent_axis(axis.yaxis, 6)
    figure.legend(loc="outside lower left", ncols=2)
    return figure


@styled
def rounds(series: dict[str, dict[int, float]]) -> Figure:
    """One panel for each name → {round: share}."""
    figure, axes = new_figure("Round by round", 0.9 + 1.6 * len(series), len(series))
    last = max(max(values) for values in series.values())
    first = min(min(values) for values in series.values())
    for axis, (name, values), color in zip(axes, series.items(), SEQUENCE, strict=False):
        axis.plot(list(values), list(values.values()), "o-", color=color, linewidth=2, label=name)
        for r, value in values.items():
            where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "size": 10}
            axis.annotate(f"{100 * value:.2f} %", (r, value), **where)
        axis.set(xlim=(first - 0.3, last + 0.3))
        axis.margins(y=0.45)
        percent_axis(axis.yaxis, 3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(name)
    axes[-1].set_xlabel("round")
    return figure
