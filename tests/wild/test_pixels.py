"""What an image file shows is what a network sees: depth, transparency, orientation, color, damage."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from pseudokit.config.keys import Data
from pseudokit.config.types import UserError
from pseudokit.data.images import decode, load_images
from tests.wild.common import corners, picture, saved

STROKES = np.zeros((2, 16, 16), np.uint8)
STROKES[0, 2:14, 7:9] = 255
STROKES[1, 7:9, 2:14] = 255
"""A vertical and a horizontal bar."""
RAMP = np.linspace(0, 1, 256).reshape(16, 16)


def write(folder, contents: list, ending: str) -> np.ndarray:
    """Arrays, images or bytes as files."""
    files = []
    for i, content in enumerate(contents):
        file = folder / f"{i:03d}.{ending}"
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, Image.Image):
            content.save(file)
        else:
            file.write_bytes(cv2.imencode(f".{ending}", content)[1].tobytes())
        files.append(str(file))
    return np.array(files, object)


def load(files, ranges=None, **data) -> np.ndarray:
    pixels, good = load_images(files, Data(**{"size": 16, "channels": 1} | data), ranges)
    assert good.all()
    return pixels[..., 0]


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_values_of_more_than_8_bits_fill_the_scale(tmp_path, ending, bits):
    values = (RAMP * (2**bits - 1)).astype(np.uint16)
    pixels = load(write(tmp_path, [values, values // 2], ending))
    assert np.abs(pixels[0] - 255 * RAMP).max() <= 1
    assert np.abs(pixels[1] - 255 * RAMP / 2).max() <= 1, "one scale for all images of a set"


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(0, 1, np.float32), (0, 255, np.float32), (-1000, 3000, np.float32), (0, 4095, np.float64)],
)
def test_float_tiffs_fill_the_scale(tmp_path, low, high, kind):
    values = (low + RAMP * (high - low)).astype(kind)
    assert np.abs(load(write(tmp_path, [values], "tif"))[0] - 255 * RAMP).max() <= 1
    assert np.abs(decode(str(tmp_path / "000.tif"), 3) - 255 * RAMP[..., None]).max() <= 1


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_floats_that_are_no_numbers_spoil_only_their_pixels(tmp_path, fill):
    values = RAMP.astype(np.float32)
    values[0, 0] = fill
    assert np.abs(load(write(tmp_path, [values], "tif"))[0] - 255 * RAMP).max() <= 1
    assert (load(write(tmp_path, [np.full_like(values, fill)], "tif")) == 0).all()


def test_a_narrow_range_is_stretched_and_a_constant_keeps_its_scale(tmp_path):
    values = (30_000 + RAMP * 1000).astype(np.uint16)
    assert np.abs(load(write(tmp_path, [values], "png"))[0] - 255 * RAMP).max() <= 1
    constant = np.full((16, 16), 32_900, np.uint16)
    assert (load(write(tmp_path, [constant], "png")) == 128).all()


def test_color_of_16_bits_keeps_its_colors_and_8_bits_beside_it_stay(tmp_path):
    deep = picture().astype(np.uint16)[..., ::-1] * 16
    files = write(tmp_path, [deep, Image.fromarray(picture())], "png")
    pixels, _ = load_images(files, Data(size=32))
    np.testing.assert_array_equal(pixels[1], picture())
    assert np.abs(pixels[0].astype(int) - picture()).max() <= 1


def test_the_scale_of_training_is_that_of_prediction(tmp_path):
    """A test set that is darker than the training set stays darker."""
    ranges = {}
    values = (RAMP * 4095).astype(np.uint16)
    load(write(tmp_path, [values], "png"), ranges)
    for data in ({}, {"cache": str(tmp_path / "cache")}):
        for _ in range(2):  # the second time from the cache
            pixels = load(write(tmp_path, [values // 64], "png"), ranges, **data)
            assert pixels.max() == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_opacity_beside_more_than_8_bits_keeps_them(tmp_path, channels):
    values = (RAMP * 4095).astype(np.uint16)
    for alpha in (65535, 4095):
        image = np.dstack([values] * 3 + [np.full_like(values, alpha)])
        pixels = load(write(tmp_path, [image], "png"), channels=channels)
        assert np.abs(pixels[0] - 255 * RAMP).max() <= 1
    half = np.dstack([values] * 3 + [np.uint16(65535) * (RAMP > 0.5)])
    shown = np.where(RAMP > 0.5, 255 * RAMP, 255 * (RAMP[RAMP > 0.5].mean() < 0.75))
    assert np.abs(load(write(tmp_path, [half], "png"), channels=channels)[0] - shown).max() <= 1
    black = [np.dstack([alpha * 0] * 3 + [alpha]).astype(np.uint16) * 257 for alpha in STROKES]
    pixels = load(write(tmp_path, black, "png"), channels=channels)
    np.testing.assert_array_equal(pixels, 255 - STROKES)


def test_new_images_of_another_depth_are_refused(tmp_path):
    ranges = {"uint16": (0, 4095)}
    deeper = write(tmp_path, [(RAMP * 65535).astype(np.uint16)], "png")
    with pytest.raises(UserError, match=r"000\.png.*4095"):
        load(deeper, ranges)


DRAWINGS = {
    "black, gray with alpha": lambda alpha: Image.merge(
        "LA", [Image.new("L", (16, 16)), Image.fromarray(alpha)]
    ),
    "black, color with alpha": lambda alpha: Image.fromarray(
        np.dstack([np.zeros((16, 16, 3), np.uint8), alpha])
    ),
    "white, color with alpha": lambda alpha: Image.fromarray(
        np.dstack([np.full((16, 16, 3), 255, np.uint8), alpha])
    ),
    "red, color with alpha": lambda alpha: Image.fromarray(
        np.dstack([alpha * 0 + 200, alpha * 0, alpha * 0, alpha])
    ),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
@pytest.mark.parametrize("ending", ["png", "webp", "tif", "avif"])
def test_a_drawing_on_transparency_is_seen(tmp_path, draw, ending):
    pixels = load(write(tmp_path, [draw(alpha) for alpha in STROKES], ending)).astype(int)
    for image, alpha in zip(pixels, STROKES, strict=True):
        drawn, background = image[alpha > 0].mean(), image[alpha == 0].mean()
        assert abs(drawn - background) > 100


def test_a_transparent_palette_or_gray_value_is_seen(tmp_path):
    gray = Image.fromarray(STROKES[0])
    contents = [saved("PNG", gray, transparency=255), saved("PNG", gray.quantize(2))]
    pixels = load(write(tmp_path, contents, "png"))
    assert pixels[0].std() > 60, "black around what is see-through"
    assert pixels[1].std() > 60
    whole = saved("GIF", gray.convert("P"), transparency=0)
    assert load(write(tmp_path, [whole], "gif")).std() > 60


def test_an_alpha_that_is_the_same_everywhere_changes_nothing(tmp_path):
    for alpha in (0, 9, 255):
        image = Image.fromarray(np.dstack([picture(), np.full((32, 32), alpha, np.uint8)]))
        assert corners(decode(str(write(tmp_path, [image], "png")[0]))) == "rgbw"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_in_every_format(tmp_path, kind, orientation):
    back = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]  # a number of Image.Transpose
    image = Image.fromarray(picture()[:24])
    turned = image if back is None else image.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(kind, turned, exif=exif, quality=95)
    upright = decode(str(write(tmp_path, [data], "x")[0]))
    assert upright.shape == (24, 32, 3)
    assert corners(upright[:, :]) == corners(picture()[:24])


def test_color_is_found_wherever_it_stands(tmp_path):
    """Among 200 gray images one has color, and it is not among those that are looked at first."""
    gray = cv2.imencode(".png", STROKES[0])[1].tobytes()
    files = write(tmp_path, [gray] * 200, "png")
    cv2.imwrite(files[101], picture()[..., ::-1])
    for data in (Data(), Data(cache=str(tmp_path / "cache")), Data(cache=str(tmp_path / "cache"))):
        pixels, good = load_images(files, data)
        assert good.all()
        assert pixels.shape[3] == 3
        assert corners(pixels[101]) == "rgbw"
        np.testing.assert_array_equal(pixels[0], np.dstack([STROKES[0]] * 3))
    pixels, _ = load_images(files, Data(channels=1, cache=str(tmp_path / "cache")))
    assert pixels.shape[3] == 1
    assert len(np.unique(pixels[101])) > 3, "asked for in gray, it is read in gray"
    assert load_images(files, Data(cache=str(tmp_path / "cache")))[0].shape[3] == 3


# ---- damaged JPEGs


def photo() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    return saved("JPEG", Image.fromarray(cv2.resize(noise, (96, 96))), quality=90)


def spoil(how: str) -> bytes:
    data = photo()
    half = len(data) // 2
    middle = {
        "forged end": b"\xff\xd9",
        "end inside": b"\xff\xd9" + data[half:],
        "ones inside": b"\xff" * 40 + data[half + 40 :],
        "zeros inside": bytes(64) + data[half + 64 :],
    }
    return data[:half] + middle[how]


@pytest.mark.parametrize("how", ["forged end", "end inside", "ones inside", "zeros inside"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_jpeg_that_is_damaged_inside_is_refused_or_skipped(tmp_path, how, cached, capfd):
    files = write(tmp_path, [photo(), spoil(how), photo()], "jpg")
    data = {"size": 32, "cache": str(tmp_path / "cache") if cached else None}
    for _ in range(2):
        with pytest.raises(UserError, match=r"001\.jpg.*data\.bad_images") as caught:
            load_images(files, Data(**data))
        assert "000.jpg" not in str(caught.value)
        _, good = load_images(files, Data(**data, bad_images="skip"))
        assert good.tolist() == [True, False, True]
    assert "JPEG" not in capfd.readouterr().err, "what the decoder prints names no file"


def test_fill_bytes_at_the_end_of_a_whole_jpeg_are_no_damage(tmp_path, capfd):
    data = photo()
    filled = [data[:-2] + bytes(90) + data[-2:], data + bytes(1000), data + data]
    pixels, good = load_images(write(tmp_path, [data, *filled], "jpg"), Data(size=32))
    assert good.all()
    assert (pixels == pixels[0]).all()
    assert "JPEG" not in capfd.readouterr().err


def test_random_bytes_inside_a_jpeg_are_damage(tmp_path):
    rng = np.random.default_rng(0)
    data = photo()
    spoiled = []
    for start in rng.integers(len(data) // 3, len(data) - 100, 20):
        spoiled.append(data[:start] + rng.bytes(30) + data[start + 30 :])
    _, good = load_images(
        write(tmp_path, [data, *spoiled], "jpg"), Data(size=32, bad_images="skip")
    )
    assert good[0]
    # libjpeg says nothing of some.
    assert good[1:].mean() < 0.3


def test_what_others_print_meanwhile_is_passed_on(capfd):
    from pseudokit.data.cache import decoder_warnings

    with decoder_warnings() as lines:
        os.write(2, b"hello\nCorrupt JPEG data: 3 extraneous bytes\nworld\n")
    assert len(lines) == 1
    assert capfd.readouterr().err == "hello\nworld\n"


def test_a_progressive_jpeg_with_a_forged_end_is_refused(tmp_path):
    file = io.BytesIO()
    Image.open(io.BytesIO(photo())).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    files = write(tmp_path, [data, data[: len(data) // 2] + b"\xff\xd9"], "jpg")
    _, good = load_images(files, Data(size=16, bad_images="skip"))
    assert good.tolist() == [True, False]
