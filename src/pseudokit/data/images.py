"""Image files → one uint8 array: in memory, or in a memory-mapped file if it does not fit."""

import io
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps

from ..config.keys import Data
from ..config.types import UserError, one_line
from ..system.distributed import size
from ..system.files import log
from .cache import (
    BAD,
    COLOR,
    DEEP,
    GOOD,
    GRAY,
    Ranges,
    decode_all,
    decoder_warnings,
    free_memory,
    open_cache,
)
from .find_images import why_unreadable

MAX_IMAGE_PIXELS = 100_000_000
"""Of one image: 300 MB as RGB. A larger one is refused by its header, before it takes memory."""
# OpenCV reads both when it is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_IMAGE_PIXELS))
# Our own messages also name the file and a remedy.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2  # noqa: E402

DEFAULT_CACHE = "data/cache"
"""Folder of decoded images that would take more than data.memory, where data.cache names none."""
N_FORMAT_SAMPLES = 64
"""Images that decide the default size and number of channels: spread over all, and read in a second."""
MIN_DEFAULT_SIDE, MAX_DEFAULT_SIDE = 8, 128
"""Pixels. A larger side, which most models can use, is for the user to choose: it costs time and memory."""
MIN_PHOTO_SIDE = 64
"""Pixels. Color images from here on are photos, which want a pretrained network."""
MAX_LISTED_IMAGES = 10
"""Unreadable images that one message names: enough to see a pattern."""
HEADER_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF", "AVIF")
PILLOW_FORMATS = ("WEBP", "GIF", "AVIF")
"""What OpenCV, depending on its version, cannot read or does not turn upright."""
COLOR_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE,
    3: cv2.IMREAD_COLOR_RGB,
    None: cv2.IMREAD_ANYCOLOR,
}
"""By the number of channels that is wanted; None = as the file has it."""
MAX_DARK_MEAN = 0.75
"""Brightness of what is drawn on a transparent background: brighter than this it would be lost on white."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
STANDARD_HUFFMAN_TABLE = bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
"""How most encoders begin it: how many codes of luminance have each length."""
ZEROED_PART = bytes(64)
"""With standard tables it would be blocks in which every coefficient is -1; no picture holds them."""
TIFF_SIGNATURES = (b"II", b"MM")
REDUCTION_FLAGS = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
"""By how much a JPEG is reduced. Of color images as well, in spite of the names."""
# MAX_IMAGE_PIXELS is the limit, and what is damaged is named, so neither Pillow's limit nor its warnings matter.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")


def load_images(
    paths: ndarray, data: Data, ranges: Ranges | None = None
) -> tuple[ndarray, ndarray]:
    """Decode all images, resized to one size.

    They are kept in memory. They go to a file if `data.cache` names its folder, if several processes share them, or if
    they would take more than `data.memory`, by default half of what is free.

    Args:
        paths: (N,) str.
        data: its size, channels, cache and bad_images.
        ranges: which values of more than 8 bits become 0 and 255. Those that are missing are found, and noted in it.
    Returns:
        (N, H, W, C) uint8, and the (N,) mask of the images that could be read.
    Raises:
        UserError: images are missing or unreadable and data.bad_images is `refuse`, or the file would not fit.
    """
    ranges = {} if ranges is None else ranges
    side, channels = _side_and_channels(paths, data)
    is_guess = data.channels is None and channels == 1
    shape = (len(paths), side, side, channels)

    def decode_one(path: str) -> tuple[int, ndarray | None]:
        image = decode(path, None if is_guess else channels, side, ranges)
        if image is None:
            return BAD, None
        if image.dtype != np.uint8:
            return DEEP, None
        if is_guess and image.ndim == 3:
            if (image != image[..., :1]).any():
                return COLOR, None
            image = image[..., 0].copy()
        return GRAY if is_guess else GOOD, resize(image, side).reshape(shape[1:])

    fits_in_memory = np.prod(shape, dtype=float) <= (data.memory or free_memory() / 2)
    if data.cache is None and size() == 1 and fits_in_memory:
        pixels = np.zeros(shape, np.uint8)
        states = decode_all(decode_one, paths, pixels, np.zeros(len(paths), np.uint8))
    else:
        folder = Path(data.cache or DEFAULT_CACHE)
        not_enough = GOOD if is_guess else COLOR
        pixels, states = open_cache(decode_one, paths, shape, folder, ranges, not_enough)
    # Only all images together show these two; they are then decoded again, which is rare.
    colored, deep = paths[states == COLOR], paths[states == DEEP]
    if len(colored):
        log.info(
            f"images: {len(colored):,} among gray ones have color, such as {colored[0]}, so all are read as RGB; "
            "data.channels=1 reads all as gray"
        )
        return load_images(paths, data.model_copy(update={"channels": 3}), ranges)
    if len(deep):
        _add_ranges(deep, ranges)
        return load_images(paths, data, ranges)
    good = states >= GRAY
    if not good.all():
        _report_unreadable(paths[~good], data)
    return pixels, good


def decode(
    path: str,
    channels: int | None = 3,
    side: int | None = None,
    ranges: Ranges | None = None,
) -> ndarray | None:
    """Read one image file: upright, on a background where it is transparent, 8 bits.

    Args:
        path: the file.
        channels: 1, 3, or None = as the file has it.
        side: pixels that are needed in width and height. The decoder may then reduce a JPEG to 1/2, 1/4 or 1/8, which
            skips most of its work, but to no less than this.
        ranges: which values of more than 8 bits become 0 and 255. Default: by this image alone.
    Returns:
        (H, W) gray or (H, W, 3) RGB uint8; of another type if `ranges` does not have it, or if most values lie above
        its range; None if it cannot be read or has more than MAX_IMAGE_PIXELS.
    """
    try:
        image = _read(path, channels, side)
    except Exception:  # each format raises its own types
        return None
    if image is None or image.dtype == np.uint8:
        return image
    image = np.nan_to_num(image, posinf=0, neginf=0)
    ranges = _find_ranges([image]) if ranges is None else ranges
    low, high = ranges.get(image.dtype.name, (-math.inf, -math.inf))
    if np.median(image) > high:
        return image
    share = (image.astype(np.float64) - low) / (high - low)
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


def _read(path: str, channels: int | None, side: int | None) -> ndarray | None:
    """The pixels of a file, of any type."""
    # A pipe or a device would be waited for.
    data = Path(path).read_bytes() if os.path.isfile(path) else b""
    header = _read_header(data)
    width, height = header.size if header else (0, 0)
    is_cut_png = data.startswith(PNG_SIGNATURE) and not _is_whole_png(data)
    if is_cut_png or _has_zeroed_part(data) or width * height > MAX_IMAGE_PIXELS:
        return None
    is_tiff = data.startswith(TIFF_SIGNATURES)
    # Gray floats in a TIFF are read as they are, or not at all.
    flags = COLOR_FLAGS[None if is_tiff else channels] | cv2.IMREAD_ANYDEPTH
    if side and data.startswith(JPEG_SIGNATURE):
        factor = min(width, height) // side
        flags |= next((flag for n, flag in REDUCTION_FLAGS.items() if n <= factor), 0)
    is_for_pillow = header is not None and header.format in PILLOW_FORMATS
    image = None if is_for_pillow else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if is_for_pillow or (header and header.has_transparency_data):
        rgba = np.asarray(ImageOps.exif_transpose(header).convert("RGBA"))
        # Pillow gives 8 bits of any.
        is_deep = image is not None and image.dtype != np.uint8
        image = _on_background(image if is_deep else rgba[..., :3], rgba[..., 3] / 255)
    elif is_tiff and image.ndim == 3:
        image = image[..., ::-1]
    if channels == 1 and image.ndim == 3:
        return cv2.cvtColor(image.copy(), cv2.COLOR_RGB2GRAY)
    return cv2.merge([image] * 3) if channels == 3 and image.ndim == 2 else image


def _has_zeroed_part(data: bytes) -> bool:
    """Whether zeros stand in place of a part of a JPEG; libjpeg says nothing of it."""
    is_suspect = ZEROED_PART in data and STANDARD_HUFFMAN_TABLE in data
    if not is_suspect or not data.startswith(JPEG_SIGNATURE):
        return False
    last_scan = data[data.rfind(b"\xff\xda") :].partition(b"\xff\xd9")[0]
    return ZEROED_PART in last_scan.rstrip(b"\0")


def _read_header(data: bytes) -> Image.Image | None:
    """An image of which only the header is read; None if it is of another format, or damaged."""
    try:
        return Image.open(io.BytesIO(data), formats=HEADER_FORMATS)
    except Exception:  # each format raises its own types
        return None


def _on_background(image: ndarray, alpha: ndarray) -> ndarray:
    """An image with its (H, W) opacity on white, or on black where it would be lost on white."""
    if alpha.min() == alpha.max():  # nothing is drawn with it
        return image
    alpha = np.broadcast_to(alpha.T, image.T.shape).T
    white = max(255, _full_scale(image[alpha > 0].max()))
    background = white if np.average(image, weights=alpha) <= MAX_DARK_MEAN * white else 0
    return np.rint(alpha * image + (1 - alpha) * background).astype(image.dtype)


def _full_scale(highest: float) -> int:
    """What white is where values reach this high: 1, or the largest number of as many bits."""
    return 1 if highest <= 1 else 2 ** max(8, int(highest).bit_length()) - 1


def _add_ranges(paths: ndarray, ranges: Ranges) -> None:
    """Note the ranges of these files, of more than 8 bits.

    Raises:
        UserError: there is a range of this type already, and most values are above it.
    """
    new_ranges = _find_ranges(decode(path, None, None, {}) for path in paths)
    if new_ranges.keys() & ranges.keys():
        raise UserError(
            f"{paths[0]}: most values are above those that the model learned from ({ranges}); store new images with "
            "as many bits as those of the training"
        )
    ranges |= new_ranges
    log.info(
        f"images: {len(paths):,} have more than 8 bits, such as {paths[0]}; these values become 0 … 255: {ranges}"
    )


def _find_ranges(images: Iterable[ndarray]) -> Ranges:
    """Of each type of numbers, the values that become 0 and 255.

    Values that fill their 12 or 16 bits, or 0 … 1, keep that scale. Others are stretched.
    """
    ranges: Ranges = {}
    for image in images:
        low, high = ranges.get(image.dtype.name, (math.inf, -math.inf))
        low = min(low, float(image.min()))
        high = max(high, float(image.max()))
        ranges[image.dtype.name] = low, high
    for kind, (low, high) in ranges.items():
        full = _full_scale(high)
        if low == high or (low >= 0 and high - low > full / 4):
            ranges[kind] = 0, full
    return ranges


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
    side, channels = typical_format(paths)
    default_side = int(np.clip(side, MIN_DEFAULT_SIDE, MAX_DEFAULT_SIDE))
    return data.size or default_side, data.channels or channels


def typical_format(paths: ndarray) -> tuple[float, int]:
    """The median of the longer sides of some images in pixels, and whether they have 1 or 3 channels.

    Raises:
        UserError: none of them can be read.
    """
    step = max(1, len(paths) // N_FORMAT_SAMPLES)
    with decoder_warnings():
        images = [image for path in paths[::step] if (image := decode(path)) is not None]
    if not images:
        raise UserError(f"no image can be read, such as {paths[0]} ({why_unreadable(paths[0])})")
    median_side = np.median([max(image.shape[:2]) for image in images])
    is_gray = all((image == image[..., :1]).all() for image in images)
    return median_side, 1 if is_gray else 3


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
