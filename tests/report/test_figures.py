"""Pictures can be drawn whatever the names and images are."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pseudokit.report import figures

BAD_NAMES = ["汉字 |\n$x", "class $\\frac{$"]


def pixels(png):
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)


def contains(image, color):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (image == rgb).all(axis=2).any()


@pytest.mark.parametrize(
    ("is_right", "blue", "vermilion"),
    [([True, None], True, False), ([None, False], False, True), ([None, None], False, False)],
)
def test_the_frame_of_an_image_tells_whether_its_label_is_right(is_right, blue, vermilion):
    gray = Image.new("RGB", (12, 8), "gray")
    figure = figures.image_grid([gray, None], BAD_NAMES, is_right, "two images")
    image = pixels(figures.png(figure))
    assert (contains(image, figures.BLUE), contains(image, figures.VERMILION)) == (blue, vermilion)


def test_a_grid_shows_every_image_in_its_shape_below_its_name():
    images = [Image.new("RGB", (8 + value, 8), (value, 0, 0)) for value in range(7)]
    [axis] = figures.image_grid(images, list("abcdefg"), [None] * 7, "seven").axes
    assert axis.get_aspect() == 1
    assert len(axis.images) == 7
    places = set()
    for value, (image, text) in enumerate(zip(axis.images, axis.texts, strict=True)):
        assert image.get_array().shape == (8, 8 + value, 3)
        assert image.get_array()[4, 4, 0] == value
        left, right, bottom, top = image.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx((8 + value) / 8)
        assert text.get_text() == "abcdefg"[value]
        x, y = text.get_position()
        assert (left + right) / 2 == pytest.approx(x)
        assert 0 < top - y < 0.1, "a larger y is farther down"
        places.add((x, y))
    assert len(places) == 7


@pytest.mark.parametrize("k", [1, 20, 21, 41])
def test_a_matrix_shows_numbers_and_names_while_they_fit(k):
    matrix = 5000 * np.arange(k * k).reshape(k, k)
    names = [f"{i} {BAD_NAMES[1]}" for i in range(k)]
    figure = figures.matrix_figure("matrix", matrix, names, xlabel="predicted", ylabel="label")
    [axis] = figure.axes
    texts = [text.get_text() for text in axis.texts]
    numbers = ["", *matrix.flat[1:].astype(str)]
    assert texts == (numbers if k <= figures.MAX_NUMBERED_CLASSES else [])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "label")
    assert len(axis.get_yticklabels()) == (k if k <= figures.MAX_NAMED_CLASSES else 0)
    assert pixels(figures.png(figure)).std() > 5


def test_short_keeps_the_end_of_a_name():
    assert figures.short("a\n b") == "a b"
    assert figures.short("class of things 0017") == "class of …0017"
