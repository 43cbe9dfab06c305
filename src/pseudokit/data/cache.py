"""Decoded images in a memory-mapped file: made once, shared by processes, resumed where it stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..config.types import UserError
from ..system.files import log

CHUNKS = 64  # parts after which progress is shown, and a stopped cache goes on
DECODER = 2  # to be raised with every change of what a file decodes to
TINY = 64  # pixels; below, threads lose more to the interpreter's lock than decoding takes (36 against 20 µs an image)
UNSEEN, GOOD, BAD = 0, 1, 2
Decode = Callable[[str], np.ndarray | None]
"""path → (H, W, C) uint8 of the shape that is asked for, or None."""


def decode_all(one: Decode, paths: np.ndarray, pixels: np.ndarray, chunk_done: Callable = lambda rows, good: None):
    """Fill pixels (N, H, W, C) in place, on all cores; returns the (N,) mask of the files that could be read.

    chunk_done(rows, good) is called with each slice that is finished, in order.
    """
    from tqdm.auto import tqdm

    def load(i: int) -> bool:
        image = one(paths[i])
        if image is not None:
            pixels[i] = image
        return image is not None

    chunk = max(1, -(-len(paths) // CHUNKS))
    slices = [slice(a, min(a + chunk, len(paths))) for a in range(0, len(paths), chunk)]
    good = np.zeros(len(paths), bool)
    with (
        ThreadPoolExecutor(1 if pixels.shape[1] <= TINY else os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decode images", disable=None, leave=False) as bar,
    ):
        for rows, found in zip(
            slices, pool.map(lambda s: [load(i) for i in range(s.start, s.stop)], slices), strict=True
        ):
            good[rows] = found
            chunk_done(rows, good[rows])
            bar.update(len(found))
    return good


def open_cache(one: Decode, paths: np.ndarray, shape: tuple[int, ...], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images of these files as a memory-mapped array of this shape, and the mask of those that could be read.

    Its name is a hash of every path, its size and time of change, and of the format: what has changed is decoded anew.
    Where another process is making it, this one waits.

    Raises:
        UserError: the folder cannot be written, or its disk is too full.
    """
    from filelock import FileLock

    name = _name(paths, shape)
    pixels, states = folder / f"{name}.npy", folder / f"{name}.states.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            _make(one, paths, shape, (pixels, states))
    except OSError as error:
        raise UserError(
            f"data.cache: {folder} cannot take {_size(shape)} ({error.strerror}); choose another, or a "
            "smaller data.size"
        ) from None
    return np.load(pixels, mmap_mode="c"), np.load(states) == GOOD


def _size(shape: tuple[int, ...]) -> str:
    return f"{np.prod(shape, dtype=float) / 2**20:,.0f} MiB"


def _name(paths: np.ndarray, shape: tuple[int, ...]) -> str:
    digest = hashlib.sha256(repr((DECODER, shape)).encode())
    for path in paths:
        try:
            about = os.stat(path)
        except OSError:
            about = None
        digest.update(repr((str(path), about and (about.st_size, about.st_mtime_ns))).encode())
    return digest.hexdigest()[:16]


def _make(one: Decode, paths: np.ndarray, shape: tuple[int, ...], files: tuple[Path, Path]) -> None:
    """Decode what the cache lacks. A row's state is written after its pixels, so that no kill makes a false one."""
    if not (_is_array(files[0], shape) and _is_array(files[1], shape[:1])):
        log.info(f"images: {len(paths):,} will take {_size(shape)} in {files[0]}")
        files[1].unlink(missing_ok=True)  # what it says of pixels that are cut off is not true
        reserve(files[0], shape)
        reserve(files[1], shape[:1])
    pixels, states = (np.lib.format.open_memmap(file, "r+") for file in files)
    left = np.flatnonzero(states == UNSEEN)
    if not len(left):
        return log.info(f"images: {len(paths):,} from {files[0]}")
    first = left[0]  # chunks are finished in order

    def chunk_done(rows: slice, good: np.ndarray) -> None:
        pixels.flush()
        states[first:][rows] = np.where(good, GOOD, BAD)
        states.flush()

    decode_all(one, paths[first:], pixels[first:], chunk_done)


def _is_array(file: Path, shape: tuple[int, ...]) -> bool:
    """Whether it is whole: to write into a map of a file that was cut off fills it up with zeros."""
    try:
        found = np.load(file, mmap_mode="r")
        return found.shape == shape and found.dtype == np.uint8
    except (OSError, ValueError, EOFError):
        return False


def reserve(file: Path, shape: tuple[int, ...], dtype: type = np.uint8) -> None:
    """An array of zeros (N, …), its room on the disk taken: a full disk would kill whoever writes to a map."""
    part = file.with_name(file.name + ".part")
    try:
        np.lib.format.open_memmap(part, "w+", dtype, shape).flush()
        if hasattr(os, "posix_fallocate"):
            with open(part, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, part.stat().st_size)
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def free_memory() -> int:
    """Bytes that may still be taken: what the system has left, at most what a container allows."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        group = Path("/sys/fs/cgroup")
        allowed = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # none, or "max"
        return free
    return min(free, allowed)
