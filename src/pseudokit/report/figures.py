"""What the pictures have in common: colors, type, a grid of images, a matrix, the PNG. It brings matplotlib.

Colors are Okabe and Ito's, which color-blind readers can tell apart. Figures are 6 inches wide with large
type, so that they can still be read at the width of a phone.
"""

import io
import math
import warnings

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy import ndarray
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay

BLUE = "#0072B2"
VERMILION = "#D55E00"
FRAME_COLORS = {True: BLUE, False: VERMILION, None: "none"}
COLORS = [BLUE, VERMILION, "#009E73", "#E69F00", "#CC79A7", "#56B4E9"]
STYLE = {
    "font.size": 11,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "figure.constrained_layout.use": True,
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
COMPRESS_LEVEL = 3
"""Of PNGs: Pillow's default takes twice as long for a tenth less."""
GRID_COLUMNS = 5
"""Images in a row of a grid: about 130 pixels each."""
GRID_ROW = 1.35
"""Height of a row, in longer sides of an image: with two lines for its name."""
UNREADABLE = Image.new("RGB", (1, 1), "white")
"""What stands for an image that has gone."""
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
        # savefig would draw twice, the first time for the layout alone
        FigureCanvasAgg(figure).print_png(
            buffer, metadata={"Software": None}, pil_kwargs={"compress_level": COMPRESS_LEVEL}
        )
    return buffer.getvalue()


def new_figure(
    title: str, height: float, rows: int = 1, columns: int = 1
) -> tuple[Figure, ndarray]:
    """A figure 6 inches wide and `height` inches high with a title, and its axes, row by row."""
    figure = Figure(figsize=(6, height), dpi=DOTS_PER_INCH)
    figure.suptitle(title, x=0.02, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def short(text: object, length: int = 14) -> str:
    """A name in one line of at most `length` characters. The end is kept: it often holds a number."""
    line = " ".join(str(text).split())
    if len(line) <= length:
        return line
    return f"{line[: length - 5]}…{line[-4:]}"


def count_axis(axis) -> None:
    """Counts along a logarithmic y axis, as plain numbers."""
    axis.set(yscale="log", ylim=(0.7, None))
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_minor_formatter("")


@styled
def image_grid(images: list, names: list[str], is_right: list[bool | None], title: str) -> Figure:
    """Images five in a row, each below its own name.

    Args:
        images: of Pillow in RGB, or None where the file cannot be read, which is left white.
        names: what stands above each image; may have two lines.
        is_right: True has a blue frame, False an orange-red one, None none.
        title: of the whole figure.
    """
    n_rows = math.ceil(len(images) / GRID_COLUMNS)
    # one axis: one for each image takes three times as long
    figure, [axis] = new_figure(title, 0.4 + 1.17 * GRID_ROW * n_rows)
    for place, (image, name, right) in enumerate(zip(images, names, is_right, strict=True)):
        row, column = divmod(place, GRID_COLUMNS)
        image = image or UNREADABLE
        width, height = np.divide(image.size, max(image.size))
        left, top = column - width / 2, row * GRID_ROW - height / 2
        axis.imshow(image, extent=(left, left + width, top + height, top))
        axis.text(column, top - 0.05, name, size=9, ha="center", va="bottom")
        color = FRAME_COLORS[right]
        frame = Rectangle((left, top), width, height, fill=False, linewidth=2.5, edgecolor=color)
        axis.add_patch(frame)
    axis.set(
        xlim=(-0.53, GRID_COLUMNS - 0.47), ylim=((n_rows - 1) * GRID_ROW + 0.53, 0.52 - GRID_ROW)
    )
    axis.set_axis_off()
    return figure


@styled
def matrix_figure(title: str, matrix: ndarray, names: list[str], **axis_labels: str) -> Figure:
    """Heat map of the shares of each row of a matrix, with the numbers in its fields if they fit.

    Args:
        title: of the whole figure.
        matrix: (K, K) counts or percentages, written as they are.
        names: of the K classes.
        axis_labels: `xlabel` and `ylabel`.
    """
    k = len(names)
    names = [short(name) for name in names]
    are_long = k * max(map(len, names)) > 40  # letters that fit side by side
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    figure, [axis] = new_figure(title, 6.2)
    # the root, so that 1 % can be seen beside 99 %
    ConfusionMatrixDisplay(np.sqrt(shares), display_labels=names).plot(
        ax=axis,
        cmap="Blues",
        colorbar=False,
        include_values=k <= MAX_NUMBERED_CLASSES,
        xticks_rotation="vertical" if are_long else "horizontal",
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"size": min(11, 130 / k)},
    )
    for text, number in zip(axis.texts, matrix.flat, strict=False):
        text.set_text(f"{number:.9g}" if number else "")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set(**axis_labels)
    if k > MAX_NAMED_CLASSES:
        axis.set(xticks=[], yticks=[])
    return figure
