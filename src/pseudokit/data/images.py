"""Image files → one uint8 array: in memory, or in a memory-mapped file if it does not fit."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from ..config.keys import Data
from ..config.types import UserError, one_line
from ..system.distributed import size
from ..system.files import log
from .cache import decode_all, free_memory, open_cache
from .find_images import why_unreadable

MAX_IMAGE_PIXELS = 100_000_000
"""Of one image: 300 MB as RGB. A larger one is refused by its header, before it takes memory."""
# OpenCV reads both when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))
# Our own messages also name the file and a remedy.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2  # noqa: E402

DEFAULT_CACHE = "data/cache"
"""Folder of decoded images that would take half of the free memory, where data.cache names none."""
N_FORMAT_SAMPLES = 64
"""Images that decide the default size and number of channels: spread over all, and read in a second."""
MIN_DEFAULT_SIDE, MAX_DEFAULT_SIDE = 8, 128
"""Pixels. A larger side, which most models can use, is for the user to choose: it costs time and memory."""
MAX_LISTED_IMAGES = 10
"""Unreadable images that one message names: enough to see a pattern."""
HEADER_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
REDUCTION_FLAGS = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
"""By how much a JPEG is reduced. Of color images as well, in spite of the names."""
# Pillow reads headers only, so neither its limit nor its warnings matter.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")


def load_images(paths: ndarray, data: Data) -> tuple[ndarray, ndarray]:
    """Decode all images, resized to one size.

    They are kept in memory. They go to a file if `data.cache` names its folder, if several processes share them, or if
    they would take more than half of the free memory.

    Args:
        paths: (N,) str.
        data: its size, channels, cache and bad_images.
    Returns:
        (N, H, W, C) uint8, and the (N,) mask of the images that could be read.
    Raises:
        UserError: images are missing or unreadable and data.bad_images is `refuse`, or the file would not fit.
    """
    side, channels = _side_and_channels(paths, data)
    shape = (len(paths), side, side, channels)

    def decode_one(path: str) -> ndarray | None:
        image = decode(path, channels, side)
        return None if image is None else resize(image, side).reshape(shape[1:])

    fits_in_memory = np.prod(shape, dtype=float) <= free_memory() / 2
    if data.cache is None and size() == 1 and fits_in_memory:
        pixels = np.zeros(shape, np.uint8)
        good = decode_all(decode_one, paths, pixels, np.zeros(len(paths), np.uint8))
    else:
        pixels, good = open_cache(decode_one, paths, shape, Path(data.cache or DEFAULT_CACHE))
    if not good.all():
        _report_unreadable(paths[~good], data)
    return pixels, good


def decode(
    path: str,
    channels: int = 3,
    side: int | None = None,
) -> ndarray | None:
    """Read one image file. EXIF rotation is applied, alpha is dropped, and 16 bits become 8.

    Args:
        path: the file.
        channels: 1 or 3.
        side: pixels that are needed in width and height. The decoder may then reduce a JPEG to 1/2, 1/4 or 1/8, which
            skips most of its work, but to no less than this.
    Returns:
        (H, W) gray or (H, W, 3) RGB uint8; None if it cannot be read or has more than MAX_IMAGE_PIXELS.
    """
    try:
        # A pipe or a device would be waited for.
        data = Path(path).read_bytes() if os.path.isfile(path) else b""
        width, height = read_size(data)
        is_cut_png = data.startswith(PNG_SIGNATURE) and not _is_whole_png(data)
        if is_cut_png or width * height > MAX_IMAGE_PIXELS:
            return None
        flags = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        if side and data.startswith(JPEG_SIGNATURE):
            factor = min(width, height) // side
            flags |= next((flag for n, flag in REDUCTION_FLAGS.items() if n <= factor), 0)
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (OSError, cv2.error):
        return None


def read_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by the header of an image; 0 if it is of another format, or damaged."""
    try:
        return Image.open(io.BytesIO(data), formats=HEADER_FORMATS).size
    except Exception:  # each format raises its own types
        return 0, 0


def _is_whole_png(data: bytes) -> bool:
    """Whether the chunks of a PNG follow one another up to its end.

    If not, OpenCV would first take the memory that a damaged chunk claims to need, up to 4 GB.
    """
    position = len(PNG_SIGNATURE)
    while data[position : position + 8] != b"\0\0\0\0IEND" and position < len(data):
        length = int.from_bytes(data[position : position + 4])
        position += 12 + length  # the length, the name and the checksum take 4 bytes each
    return position + 12 <= len(data)


def _side_and_channels(paths: ndarray, data: Data) -> tuple[int, int]:
    """As configured, else those of the first readable images."""
    if data.size and data.channels:
        return data.size, data.channels
    step = max(1, len(paths) // N_FORMAT_SAMPLES)
    images = [image for path in paths[::step] if (image := decode(path)) is not None]
    if not images:
        raise UserError(f"no image can be read, such as {paths[0]} ({why_unreadable(paths[0])})")
    median_side = np.median([max(image.shape[:2]) for image in images])
    default_side = int(np.clip(median_side, MIN_DEFAULT_SIDE, MAX_DEFAULT_SIDE))
    is_gray = all((image == image[..., :1]).all() for image in images)
    return data.size or default_side, data.channels or (1 if is_gray else 3)


def resize(image: ndarray, side: int) -> ndarray:
    """To (side, side). Squashed rather than cropped, so that nothing that carries the label is cut off."""
    height, width = image.shape[:2]
    method = cv2.INTER_AREA if height * width > side * side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method)


def _report_unreadable(paths: ndarray, data: Data) -> None:
    examples = [f"{path} ({why_unreadable(path)})" for path in paths[:MAX_LISTED_IMAGES]]
    message = one_line(f"{len(paths)} images cannot be read, such as {', '.join(examples)}")
    if data.bad_images == "refuse":
        raise UserError(
            f"{message}; replace them (of {MAX_IMAGE_PIXELS:,} pixels at most), or set data.bad_images=skip"
        )
    log.info(f"skipped: {message}")
