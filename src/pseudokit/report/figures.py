"""What the pictures have in common: colors, type, a grid of images, a matrix, the PNG. It brings matplotlib.

Colors are Okabe and Ito's, which color-blind readers can tell apart. Figures are 6 inches wide with large
type, so that they can still be read at the width of a phone.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import ConfusionMatrixDisplay

BLUE = "#0072B2"
VERMILION = "#D55E00"
COLORS = [BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9"]
STYLE = {
    "font.size": 11,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#767676",
    "axes.grid": True,
    "axes.axisbelow": True,
    # 24 lines that can be told apart: all colors, then all again with dashes
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=COLORS),
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.parse_math": False,  # a class may be called $5
}
styled = rc_context(STYLE)
DOTS_PER_INCH = 120
"""Sharp on a phone, and a page of ten pictures stays below a megabyte."""
GRID_COLUMNS = 5
"""Images in a row of a grid: about 130 pixels each."""
MAX_NAMED_CLASSES = 40
"""Classes up to which a matrix names its rows and columns: more names overlap."""
MAX_NUMBERED_CLASSES = 20
"""Classes up to which a matrix shows its numbers: they need four points of type."""


@styled
def png(figure: Figure) -> bytes:
    """The figure as a PNG. Nothing in it depends on the time or the version."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # a class name in a script that no font here has is drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


@styled
def new_figure(title: str, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list]:
    """A figure 6 inches wide and `height` inches high with a title, and its axes, row by row."""
    figure = Figure(figsize=(6, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    figure.suptitle(textwrap.fill(title, 60), x=0.02, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def short(text: object, length: int = 14) -> str:
    """A name in one line of at most `length` characters. The end is kept: it often holds a number."""
    line = " ".join(str(text).split())
    if len(line) <= length:
        return line
    return f"{line[: length - 5]}…{line[-4:]}"


def percent_axis(axis) -> None:
    """Shares along an x or y axis as percent."""
    axis.set_major_formatter(PercentFormatter(1))


def count_axis(axis) -> None:
    """Counts along a logarithmic y axis, as plain numbers."""
    axis.set(yscale="log", ylim=(0.7, None))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_minor_formatter("")


@styled
def image_grid(images: list, names: list[str], is_right: list[bool | None], title: str) -> Figure:
    """Images five in a row, each below its own name.

    Args:
        images: what `imshow` takes, each in RGB, or None where the file cannot be read.
        names: what stands above each image; may have two lines.
        is_right: True has a blue frame, False an orange-red one, None none.
        title: of the whole figure.
    """
    rows = max(1, math.ceil(len(images) / GRID_COLUMNS))
    lines = max([name.count("\n") + 1 for name in names], default=1)
    row_height = 1 + lines / 6
    # one axis for all: an axis for each image takes five times as long to draw
    figure, [axis] = new_figure(title, 0.4 + 1.2 * rows * row_height)
    axis.set_axis_off()
    for place, (image, name, right) in enumerate(zip(images, names, is_right, strict=True)):
        row, column = divmod(place, GRID_COLUMNS)
        height, width = (1, 1) if image is None else np.shape(image)[:2]
        scale = 0.86 / max(height, width)
        x, y = column + 0.5, (row + 1) * row_height - 0.5
        left, right_end = x - scale * width / 2, x + scale * width / 2
        top, bottom = y - scale * height / 2, y + scale * height / 2
        axis.text(x, top - 0.03, name, ha="center", va="bottom", size=9)
        if image is None:
            axis.text(x, y, "not readable", ha="center", va="center", size=8)
        else:
            axis.imshow(image, extent=(left, right_end, bottom, top))
        if right is not None:
            frame = Rectangle(
                (left, top),
                scale * width,
                scale * height,
                fill=False,
                linewidth=2.5,
                color=BLUE if right else VERMILION,
            )
            axis.add_patch(frame)
    axis.set(xlim=(0, GRID_COLUMNS), ylim=(rows * row_height, 0), aspect="equal")
    return figure


@styled
def draw_matrix(axis, shares: np.ndarray, numbers: np.ndarray, classes: list[str]) -> None:
    """Heat map of row shares (K, K), with the texts of `numbers` (K, K) in its fields if they fit."""
    k = len(classes)
    names = [short(name) for name in classes]
    are_long = k * max(map(len, names)) > 40  # letters that fit side by side
    axis.grid(False)
    display = ConfusionMatrixDisplay(shares, display_labels=names)
    display.plot(
        ax=axis,
        cmap="Blues",
        colorbar=False,
        include_values=k <= MAX_NUMBERED_CLASSES,
        xticks_rotation="vertical" if are_long else "horizontal",
        im_kw={"norm": PowerNorm(0.4, 0, 1)},  # bent, so that 1 % can be seen beside 99 %
        text_kw={"size": min(11, 130 / k)},
    )
    axis.spines[:].set_visible(False)
    if k > MAX_NAMED_CLASSES:
        axis.set(xticks=[], yticks=[])
    if display.text_ is not None:
        for text, number, share in zip(display.text_.flat, numbers.flat, shares.flat, strict=True):
            text.set(text=number, color="white" if share > 0.2 else "black")
