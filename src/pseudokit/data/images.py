"""Image files → one uint8 array: in memory, or in a memory-mapped file where it does not fit."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..config.keys import Data
from ..config.types import UserError, one_line
from ..system.distributed import size
from ..system.files import log
from .cache import decode_all, free_memory, open_cache

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")  # MAX_PIXELS, of formats whose header is not read here
MAX_PIXELS = 100_000_000  # of one image; more are refused by what its header says, before they take memory
BRIGHTER = 3  # of 255: what counts as brighter in a difference hash
LOOK_AT = 64  # images that decide the default size and number of channels
HEADER = 1 << 18  # bytes in which a JPEG says its size, after what cameras write before
FORMATS = ("JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")  # whose header is read
PNG = b"\x89PNG\r\n\x1a\n"
AS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB, None: cv2.IMREAD_ANYCOLOR}
SMALLER = {
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""Bits that are added to any of the flags above; in color as well, in spite of their names."""
Image.MAX_IMAGE_PIXELS = None  # it opens headers alone; neither it nor its warnings have a say
warnings.filterwarnings("ignore", module=r"PIL\.")
DEFAULT_CACHE = "data/cache"
"""Folder of decoded images that would take half of the free memory, where data.cache names none."""


def decode(path: str, channels: int | None = None, side: int | None = None) -> np.ndarray | None:
    """One file → (H, W) grey or (H, W, 3) RGB uint8; None where it cannot be read, or has more than MAX_PIXELS.

    channels: 1, 3, or None for as stored. EXIF rotation is applied; alpha is dropped, 16 bits become 8.
    side: a JPEG may come out smaller than it is, by the largest of 1/2, 1/4, 1/8 that leaves it this many pixels wide
    and high: its decoder then skips most of the work.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    shape = _shape(data)
    if (
        not len(data)
        or (data[:8].tobytes() == PNG and not _ends(data))
        or (shape and not 0 < shape[0] * shape[1] <= MAX_PIXELS)
    ):
        return None
    try:
        return cv2.imdecode(data, AS[channels] | SMALLER[_reduction(data, shape, side)])
    except cv2.error:
        return None


def _ends(data: np.ndarray) -> bool:
    """Whether the chunks of a PNG follow one another up to its end. Else libpng would say on the terminal that it is
    cut off, and OpenCV take the memory that a chunk says it has, up to 4 GB, before it looks whether that is there."""
    at, file = 8, memoryview(data)
    while at + 12 <= len(file) and file[at : at + 8] != b"\0\0\0\0IEND":
        at += 12 + int.from_bytes(file[at : at + 4])
    return at + 12 <= len(file)


def _shape(data: np.ndarray) -> tuple[int, int] | None:
    """Width and height that the header of an image says; None where none can be read, and the decoder is to say."""
    if data[:8].tobytes() == PNG:
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    for part in (data[:HEADER], data):
        try:
            return Image.open(io.BytesIO(part), formats=FORMATS).size
        except Exception:  # each format raises its own types
            continue
    return None


def _reduction(data: np.ndarray, shape: tuple[int, int] | None, side: int | None) -> int:
    """1, 2, 4 or 8: how many times smaller a JPEG may be decoded."""
    if side is None or shape is None or data[:2].tobytes() != b"\xff\xd8":
        return 1
    return max(times for times in (1, 2, 4, 8) if times == 1 or min(shape) >= times * side)


def load_images(paths: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """(N,) paths → (N, H, W, C) uint8 and the (N,) mask of those that could be read.

    They are kept in memory; in a file where `data.cache` names its folder, where several processes share them, or where
    they would take more than half of the memory that is left.

    Raises:
        UserError: images are missing or unreadable and data.bad_images is `refuse`, or the file would not fit.
    """
    side, channels = _format(paths, data)
    shape = (len(paths), side, side, channels)

    def one(path: str) -> np.ndarray | None:
        image = decode(path, channels, side)
        return None if image is None else _resize(image, side).reshape(shape[1:])

    if data.cache is None and size() == 1 and np.prod(shape, dtype=float) <= free_memory() / 2:
        pixels = np.zeros(shape, np.uint8)
        good = decode_all(one, paths, pixels)
    else:
        pixels, good = open_cache(one, paths, shape, Path(data.cache or DEFAULT_CACHE))
    _report_bad(paths[~good], data)
    return pixels, good


def _format(paths: np.ndarray, data: Data) -> tuple[int, int]:
    """Side and channels: as configured, else those of the first readable images (at most 128 pixels)."""
    if data.size and data.channels:
        return data.size, data.channels
    seen = [image for path in paths[:: max(1, len(paths) // LOOK_AT)] if (image := decode(path)) is not None]
    if not seen:
        raise UserError(f"no image can be read, for example {paths[0]}; check data.image_dir and data.image_suffix")
    side = int(np.median([max(image.shape[:2]) for image in seen]))
    grey = all(image.ndim == 2 or (image[..., :1] == image).all() for image in seen)
    return data.size or min(max(side, 8), 128), data.channels or (1 if grey else 3)


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    """To size × size. Squashed rather than cropped: nothing that carries the label is cut off."""
    if image.shape[:2] == (size, size):
        return image
    shrink = image.shape[0] * image.shape[1] > size * size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def _report_bad(bad: np.ndarray, data: Data) -> None:
    if not len(bad):
        return
    reasons = [one_line(f"{path} ({_why(path)})") for path in bad[:10]]
    listed = ", ".join(reasons) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    if data.bad_images == "refuse":
        raise UserError(f"{len(bad)} of the images cannot be read: {listed}; mend them, or set data.bad_images=skip")
    log.info(f"skipped {len(bad)} images that cannot be read: {listed}")


def _why(path: str) -> str:
    if not os.path.exists(path):
        twin = next(iter(sorted(glob.glob(glob.escape(path) + ".*"))), None)
        return f"missing; set data.image_suffix={Path(twin).suffix}" if twin else "missing"
    if os.path.isdir(path):
        return "a folder"
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        return error.strerror
    width, height = _shape(data) or (0, 0)
    if width * height > MAX_PIXELS:
        return f"{width:,}×{height:,} pixels, more than {MAX_PIXELS:,}"
    return "not an image" if len(data) else "zero bytes"


def pixel_hashes(pixels: np.ndarray) -> np.ndarray:
    """(N, …) uint8 → (N,) uint64 hashes of the pixels: equal images have equal hashes."""
    return np.frombuffer(b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels), "u8")


def difference_hashes(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N, H, W, C) uint8 → (len(rows),) uint64 perceptual hashes: is each cell of an 8×9 thumbnail brighter than the
    one before? By more than BRIGHTER, so that the noise which compression leaves on plain ground turns no bit.

    Source: N. Krawetz, "Kind of like that" (2013), dHash.
    """
    bits = np.empty((len(rows), 64), bool)
    for i, row in enumerate(rows):
        thumb = cv2.resize(pixels[row].astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
        grey = thumb.mean(2) if thumb.ndim == 3 else thumb
        bits[i] = (grey[:, 1:] > grey[:, :-1] + BRIGHTER).ravel()
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def thumbnails(pixels: np.ndarray, rows: np.ndarray, side: int) -> np.ndarray:
    """(N, H, W, C) uint8 → those rows at `side` × `side`, or as they are where that is smaller."""
    if pixels.shape[1] <= side:
        return pixels[rows]
    return np.stack([_resize(pixels[row], side) for row in rows])
