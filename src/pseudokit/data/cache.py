"""Decoded images in a memory-mapped file: made once, shared by processes."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy import ndarray
from tqdm.auto import trange

from ..config.types import UserError
from ..system.files import hash_of, log, whole, write_npy

IMAGES_PER_CHUNK = 1024
"""After each chunk, progress is shown and a signal is heard."""
DECODER_VERSION = 3
"""Raise it with every change of what a file decodes to."""
MIN_SIDE_FOR_THREADS = 65
"""Pixels. Below, threads lose more to the interpreter's lock than decoding takes (36 against 20 µs an image)."""
Decode = Callable[[str], ndarray | None]
"""path → (H, W, C) uint8 of the shape that is asked for, or None."""


def open_cache(
    decode: Decode, paths: ndarray, shape: tuple[int, ...], folder: Path
) -> tuple[ndarray, ndarray]:
    """The images of these files from a cache, which is made first where it is not there.

    Its name is a hash of the format and of every path with its size and time of change, so a changed file is decoded
    again. Where another process is making it, this one waits.

    Args:
        decode: reads one file.
        paths: (N,) str.
        shape: (N, H, W, C) of the result.
        folder: of the cache.
    Returns:
        A memory-mapped array of this shape, and the (N,) mask of the images that could be read.
    Raises:
        UserError: the folder cannot be written, or its disk is too full.
    """
    name = hash_of(DECODER_VERSION, shape, *map(_version_of, paths))
    pixels_file, good_file = folder / f"{name}.npy", folder / f"{name}.good.npy"
    size = f"{np.prod(shape, dtype=float) / 2**20:,.0f} MiB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            cached = _load(pixels_file, good_file)
            if cached is None:
                log.info(f"images: {len(paths):,} will take {size} in {pixels_file}")
                # First, as it must not speak of pixels that are lost.
                good_file.unlink(missing_ok=True)
                pixels = reserve(pixels_file, shape)
                good = decode_all(decode, paths, pixels)
                pixels.flush()
                write_npy(good_file, good)
                cached = _load(pixels_file, good_file)
    except OSError as error:
        raise UserError(
            f"data.cache: {folder} cannot take {size} ({error.strerror}); choose another folder or a smaller data.size"
        ) from None
    log.info(f"images: {len(paths):,} from {pixels_file}")
    return cached


def _load(pixels_file: Path, good_file: Path) -> tuple[ndarray, ndarray] | None:
    """A finished cache; None where a file of it is missing or cut off."""
    try:
        return np.load(pixels_file, mmap_mode="c"), np.load(good_file)
    except (OSError, ValueError, EOFError):
        return None


def decode_all(decode: Decode, paths: ndarray, pixels: ndarray) -> ndarray:
    """Decode the files, on all cores.

    Args:
        decode: reads one file.
        paths: (N,) str.
        pixels: (N, H, W, C) uint8, filled in place.
    Returns:
        The (N,) mask of the files that could be read.
    """
    good = np.zeros(len(paths), bool)

    def decode_row(row: int) -> None:
        image = decode(paths[row])
        if image is not None:
            pixels[row] = image
            good[row] = True

    n_threads = os.cpu_count() if pixels.shape[1] >= MIN_SIDE_FOR_THREADS else 1
    with ThreadPoolExecutor(n_threads) as threads:
        decode_many = threads.map if n_threads > 1 else map
        for start in trange(
            0, len(paths), IMAGES_PER_CHUNK, desc="decode images", disable=None, leave=False
        ):
            rows = range(start, min(start + IMAGES_PER_CHUNK, len(paths)))
            list(decode_many(decode_row, rows))
    return good


def _version_of(path: str) -> tuple:
    try:
        facts = os.stat(path)
    except OSError:
        return (path,)
    return path, facts.st_size, facts.st_mtime_ns


def reserve(file: Path, shape: tuple[int, ...], dtype: type = np.uint8) -> ndarray:
    """A map of a new .npy file, whose room on the disk is taken: a full disk would kill who writes to a map later."""
    with whole(file) as part:
        array = np.lib.format.open_memmap(part.name, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(part.fileno(), 0, array.offset + array.nbytes)
    return np.load(file, mmap_mode="r+")


def free_memory() -> int:
    """Bytes that may still be taken: what the system has left, at most what a container allows."""
    try:
        kibibytes = re.search(r"MemAvailable:\s*(\d+)", Path("/proc/meminfo").read_text())[1]
        free = int(kibibytes) * 1024
    except OSError:  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no group, or "max": no limit
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        free = min(free, limit - used)
    return free
