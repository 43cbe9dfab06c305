"""Image files of every kind → one uint8 array. Files that cannot be read are named."""

import errno
import os
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from filelock import FileLock, Timeout
from numpy import ndarray
from PIL import Image, ImageOps

from pseudokit.config.keys import Data
from pseudokit.config.types import UserError
from pseudokit.data import cache, images
from pseudokit.data.cache import free_memory
from pseudokit.data.images import decode, load_images


def gradient(height=12, width=20, color=False) -> ndarray:
    """Bright to the right; with color the red channel alone also grows downwards."""
    image = np.tile(np.linspace(40, 200, width), (height, 1))
    if not color:
        return image.astype(np.uint8)
    red = image / 2 + np.linspace(20, 120, height)[:, None]
    return np.stack([red, image, image / 3], 2).astype(np.uint8)


GRAY, COLOR = Image.fromarray(gradient()), Image.fromarray(gradient(color=True))
SIXTEEN = Image.fromarray(gradient().astype(np.uint16) * 257)
ALPHA = COLOR.copy()
ALPHA.putalpha(255)


def paths(*files) -> ndarray:
    return np.array([str(file) for file in files], object)


@pytest.mark.parametrize(
    ("name", "image", "near"),
    [
        ("a.png", GRAY, 0),
        ("a.jpg", GRAY, 3),
        ("a.bmp", GRAY, 0),
        ("a.tif", GRAY, 0),
        ("a.pgm", GRAY, 0),
        ("a.webp", GRAY, 3),
        ("a.png", SIXTEEN, 1),
        ("a.tif", SIXTEEN, 1),
        ("a.png", COLOR, 0),
        ("a.jpg", COLOR, 12),
        ("a.bmp", COLOR, 0),
        ("a.tif", COLOR, 0),
        ("a.ppm", COLOR, 0),
        ("a.png", ALPHA, 0),
        ("a.png", GRAY.convert("LA"), 0),
        ("a.png", COLOR.convert("P", palette=1), 30),
        ("a.gif.png", GRAY.convert("P"), 0),
        ("a.PNG", GRAY, 0),
    ],
    ids=lambda value: getattr(value, "mode", str(value)),
)
def test_every_usual_kind_of_image_is_read(tmp_path, name, image, near):
    image.save(tmp_path / name)
    color = image.mode not in ("L", "LA", "I;16")
    expected = np.asarray(
        COLOR if image.mode in ("RGB", "RGBA") or near == 30 else GRAY.convert("RGB"), int
    )
    rgb = decode(str(tmp_path / name), 3)
    assert rgb.dtype == np.uint8
    assert rgb.shape == (12, 20, 3)
    assert np.abs(rgb.astype(int) - expected).max() <= near
    gray = decode(str(tmp_path / name), 1)
    assert gray.dtype == np.uint8
    assert gray.shape == (12, 20)
    if not color:
        assert np.abs(gray.astype(int) - gradient()).max() <= near
    assert decode(str(tmp_path / name)).dtype == np.uint8


def test_a_black_and_white_image_is_read(tmp_path):
    GRAY.point(lambda value: 255 * (value > 100)).convert("1").save(tmp_path / "a.png")
    assert set(np.unique(decode(str(tmp_path / "a.png"), 1))) == {0, 255}


@pytest.mark.parametrize("name", ["red.png", "red.jpg", "red.webp"])
def test_red_is_in_channel_zero(tmp_path, name):
    Image.new("RGB", (16, 16), (250, 10, 30)).save(tmp_path / name)
    pixels, _ = load_images(paths(tmp_path / name), Data())
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), [250, 10, 30], atol=4)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_photo_that_was_turned_is_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    COLOR.resize((64, 32)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")))
    rgb = decode(str(tmp_path / "a.jpg"), 3)
    assert rgb.shape == upright.shape
    assert np.abs(rgb.astype(int) - upright).mean() < 4
    assert decode(str(tmp_path / "a.jpg")).shape[:2] == upright.shape[:2]


def test_images_of_any_size_are_squashed_to_one(tmp_path):
    for name, size in (
        ("a.png", (64, 64)),
        ("b.png", (9, 40)),
        ("c.png", (16, 16)),
        ("d.png", (3, 200)),
    ):
        GRAY.resize(size).save(tmp_path / name)
    pixels, good = load_images(paths(*sorted(tmp_path.iterdir())), Data(size=16))
    assert pixels.shape == (4, 16, 16, 1)
    assert pixels.dtype == np.uint8
    assert good.all()
    assert (pixels[:, :, 0, 0] < pixels[:, :, -1, 0]).all(), (
        "the whole image is seen, left to right"
    )
    np.testing.assert_array_equal(pixels[2, :, :, 0], np.asarray(GRAY.resize((16, 16))))


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(20, 12)] * 3, 20),
        ([(20, 12), (30, 50), (60, 60)], 50),
        ([(500, 300)], 128),
        ([(4, 5)], 8),
    ],
)
def test_the_side_is_that_of_the_images_within_bounds(tmp_path, sizes, side):
    files = [tmp_path / f"{i}.png" for i in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        GRAY.resize(size).save(file)
    assert load_images(paths(*files), Data())[0].shape[1:] == (side, side, 1)


def test_gray_images_have_one_channel_even_when_stored_as_rgb(tmp_path):
    GRAY.convert("RGB").save(tmp_path / "a.png")
    GRAY.save(tmp_path / "b.png")
    COLOR.save(tmp_path / "c.png")
    assert load_images(paths(tmp_path / "a.png", tmp_path / "b.png"), Data())[0].shape[3] == 1
    mixed, _ = load_images(
        paths(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"), Data()
    )
    assert mixed.shape[3] == 3
    np.testing.assert_array_equal(mixed[0], mixed[1])
    assert load_images(paths(tmp_path / "c.png"), Data(channels=1))[0].shape[3] == 1
    assert load_images(paths(tmp_path / "b.png"), Data(channels=3))[0].shape[3] == 3


def numbered(folder, n=150) -> ndarray:
    """n images, number i all of gray level i."""
    for i in range(n):
        cv2.imwrite(str(folder / f"{i:03d}.png"), np.full((10, 10), i, np.uint8))
    return paths(*sorted(folder.iterdir()))


@pytest.mark.parametrize("small", [0, cache.SMALL_FILE], ids=["in threads", "in this thread"])
def test_row_i_is_the_image_of_path_i(tmp_path, monkeypatch, small):
    monkeypatch.setattr(cache, "SMALL_FILE", small)
    files = np.random.default_rng(0).permutation(numbered(tmp_path))
    pixels, good = load_images(files, Data())
    assert good.all()
    assert pixels[:, 5, 5, 0].tolist() == [int(file[-7:-4]) for file in files]


def spoil(folder) -> list[str]:
    """Make files that are no image, beside 000.png; their names, and that of one that is missing."""
    whole = (folder / "000.png").read_bytes()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(
        folder / "x.jpg"
    )
    photo = (folder / "x.jpg").read_bytes()
    (folder / "x.jpg").unlink()
    (folder / "zero.png").touch()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (folder / "cut_late.jpg").write_bytes(photo[:-40])
    (folder / "text.png").write_text("an error page of some server")
    (folder / "folder.png").mkdir()
    return ["zero.png", "cut.png", "cut.jpg", "cut_late.jpg", "text.png", "folder.png", "gone.png"]


def test_each_image_that_cannot_be_read_is_refused_by_its_name(tmp_path):
    files = numbered(tmp_path, 5)
    for name in spoil(tmp_path):
        with pytest.raises(UserError) as caught:
            load_images(paths(*files, tmp_path / name), Data())
        message = str(caught.value)
        assert str(tmp_path / name) in message
        assert "data.bad_images=skip" in message
        assert "\n" not in message
        assert not any(file in message for file in files)


def test_bad_images_are_skipped_on_demand_and_the_others_keep_their_places(tmp_path):
    files = list(numbered(tmp_path, 100))
    for i, name in enumerate(spoil(tmp_path)):
        files.insert(13 * i, str(tmp_path / name))
    pixels, good = load_images(paths(*files), Data(bad_images="skip"))
    assert good.tolist() == [file[-7:-4].isdigit() for file in files]
    assert len(pixels) == len(files)
    assert pixels[good][:, 5, 5, 0].tolist() == list(range(100))


def test_at_most_ten_bad_images_are_listed(tmp_path):
    files = numbered(tmp_path, 30)
    for file in files[:14]:
        open(file, "w").close()
    with pytest.raises(UserError) as caught:
        load_images(files, Data())
    assert sum(file in str(caught.value) for file in files) == 10
    assert "14" in str(caught.value)


def test_where_no_image_is_found_the_suffix_is_named(tmp_path):
    files = paths(*(file.removesuffix(".png") for file in numbered(tmp_path, 3)))
    with pytest.raises(UserError, match=r"data\.image_suffix"):
        load_images(files, Data())
    with pytest.raises(UserError, match=r"\b000\b"):
        load_images(files, Data(size=10, channels=1))


def test_a_folder_of_no_readable_image_is_refused_even_where_bad_ones_are_skipped(tmp_path):
    spoil_only = paths(*(tmp_path / name for name in ("a.png", "b.png")))
    with pytest.raises(UserError, match=re.escape(spoil_only[0])):
        load_images(spoil_only, Data(bad_images="skip"))


def large_jpeg(folder, size) -> str:
    """A red ramp to the right, as large as (width, height)."""
    file = folder / "large.jpg"
    COLOR.resize(size, Image.Resampling.BICUBIC).save(file, quality=95)
    return str(file)


@pytest.mark.parametrize(
    ("size", "side", "shape"),
    [
        ((400, 240), None, (240, 400)),
        ((400, 240), 128, (240, 400)),
        ((400, 240), 120, (120, 200)),
        ((400, 240), 61, (120, 200)),
        ((400, 240), 60, (60, 100)),
        ((400, 240), 16, (30, 50)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_is_decoded_smaller_but_never_below_the_side(
    tmp_path, size, side, shape, channels
):
    file = large_jpeg(tmp_path, size)
    image = decode(file, channels, side)
    assert image.shape[:2] == shape
    whole = decode(file, channels)
    resized = cv2.resize(whole, shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - resized).mean() < 2, (
        "the same picture, colors in their places"
    )


def test_a_photo_that_was_turned_is_upright_when_decoded_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    COLOR.resize((400, 240)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert decode(str(tmp_path / "a.jpg"), 3, 60).shape == (100, 60, 3)


@pytest.mark.parametrize("n", [1, 63, 150])
def test_a_cache_holds_the_same_images_and_is_made_once(tmp_path, n, monkeypatch):
    files, data = numbered(tmp_path, n), Data(cache=str(tmp_path / "cache"))
    expected, _ = load_images(files, Data())
    pixels, good = load_images(files, data)
    assert isinstance(pixels, np.memmap)
    np.testing.assert_array_equal(pixels, expected)
    assert good.all()
    seen = count_decodes(monkeypatch)
    again, _ = load_images(files, Data(cache=str(tmp_path / "cache"), size=10, channels=1))
    np.testing.assert_array_equal(again, expected)
    assert not seen


def count_decodes(monkeypatch, stop_after=None) -> list[str]:
    """The files that are decoded from now on; after so many of them the process is as good as killed."""
    seen, original = [], images.decode

    def spy(path, *args):
        seen.append(path)
        if stop_after and len(seen) > stop_after:
            raise KeyboardInterrupt
        return original(path, *args)

    monkeypatch.setattr(images, "decode", spy)
    return seen


FORMAT = {"size": 10, "channels": 1}


def test_a_changed_file_is_decoded_anew(tmp_path):
    files, data = numbered(tmp_path, 5), Data(cache=str(tmp_path / "cache"), **FORMAT)
    load_images(files, data)
    cv2.imwrite(files[3], np.full((10, 10), 77, np.uint8))
    os.utime(files[3], ns=(1, 1))
    assert load_images(files, data)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 77, 4]


def test_a_cache_that_was_stopped_goes_on(tmp_path, monkeypatch):
    files, data = numbered(tmp_path, 200), Data(cache=str(tmp_path / "cache"), **FORMAT)
    monkeypatch.setattr(cache, "IMAGES_PER_CHUNK", 16)
    with monkeypatch.context() as patch:
        count_decodes(patch, stop_after=120)
        with pytest.raises(KeyboardInterrupt):
            load_images(files, data)
    with monkeypatch.context() as patch:
        seen = count_decodes(patch)
        pixels, good = load_images(files, data)
    assert len(seen) == 200 - 7 * 16, "the chunks that were finished are kept"
    assert good.all()
    assert pixels[:, 0, 0, 0].tolist() == list(range(200))


def test_a_cache_remembers_which_files_are_bad(tmp_path):
    files = list(numbered(tmp_path, 100))
    for i, name in enumerate(spoil(tmp_path)):
        files.insert(13 * i, str(tmp_path / name))
    data = Data(cache=str(tmp_path / "cache"), bad_images="skip", **FORMAT)
    for _ in range(2):
        pixels, good = load_images(paths(*files), data)
        assert good.tolist() == [file[-7:-4].isdigit() for file in files]
        assert pixels[good][:, 5, 5, 0].tolist() == list(range(100))


def test_images_that_do_not_fit_into_memory_go_to_a_cache_in_the_current_folder(
    tmp_path, monkeypatch
):
    files = numbered(tmp_path, 30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(images, "free_memory", lambda: 5_999)
    pixels, _ = load_images(files, Data())
    assert isinstance(pixels, np.memmap)
    assert list((tmp_path / "data" / "cache").glob("*.npy"))
    assert not isinstance(load_images(files, Data(memory=3_000))[0], np.memmap)
    monkeypatch.setattr(images, "free_memory", lambda: 6_000)
    assert not isinstance(load_images(files, Data())[0], np.memmap)
    assert isinstance(load_images(files, Data(memory="2999"))[0], np.memmap)


def test_two_processes_make_one_cache_and_read_the_same(tmp_path):
    files = numbered(tmp_path, 200)
    data = Data(cache=str(tmp_path / "cache"), **FORMAT)
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        results = [processes.submit(load_images, files, data) for _ in range(2)]
    for result in results:
        pixels, good = result.result()
        assert good.all()
        assert pixels[:, 0, 0, 0].tolist() == list(range(200))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2, "the images and their states"


def test_a_cache_is_locked_while_it_is_made(tmp_path, monkeypatch):
    files, data = numbered(tmp_path, 3), Data(cache=str(tmp_path / "cache"), **FORMAT)
    original = images.decode

    def decode_locked(*args):
        (lock,) = (tmp_path / "cache").glob("*.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(timeout=0)
        return original(*args)

    monkeypatch.setattr(images, "decode", decode_locked)
    assert load_images(files, data)[1].all()


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "pgm", "webp"])
def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 240)
    for width, is_read in ((20, True), (21, False)):
        file = str(tmp_path / f"{width}.{ending}")
        GRAY.resize((width, 12)).save(file)
        assert (decode(file, 1) is not None) == is_read


def test_a_disk_that_is_too_full_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    seen = count_decodes(monkeypatch)
    with pytest.raises(UserError, match=r"data\.cache.*data\.size") as caught:
        load_images(numbered(tmp_path, 3), Data(cache=str(tmp_path / "cache"), **FORMAT))
    assert str(tmp_path / "cache") in str(caught.value)
    assert not seen
    assert not list((tmp_path / "cache").glob("*.npy*"))


def test_free_memory_is_some_of_the_machines():
    assert 1 << 26 < free_memory() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-700], lambda data: b"", lambda data: b"text" * 99, None]
)
@pytest.mark.parametrize("which", [".npy", ".states.npy"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage, which):
    files, data = numbered(tmp_path, 20), Data(cache=str(tmp_path / "cache"), **FORMAT)
    whole, good = (np.array(a) for a in load_images(files, data))
    file = next(
        f
        for f in (tmp_path / "cache").glob("*.npy")
        if f.name.endswith(which) == (f.suffixes[0] == which)
    )
    file.write_bytes(damage(file.read_bytes())) if damage else file.unlink()
    again, same = load_images(files, data)
    np.testing.assert_array_equal(again, whole)
    np.testing.assert_array_equal(same, good)
