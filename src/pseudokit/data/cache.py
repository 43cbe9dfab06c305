"""Decoded images in a memory-mapped file: made once, shared by processes, resumed where it stopped."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy import ndarray

from ..config.types import UserError
from ..system.files import hash_of, log, whole
from ..system.progress import progress

IMAGES_PER_CHUNK = 1024
"""After each chunk a stopped cache goes on: 150 MB of images of 224 pixels."""
SMALL_FILE = 8192
"""Bytes. An image of so many is decoded in 0.2 ms; threads of less work wait longer for the interpreter's lock."""
N_SIZE_SAMPLES = 64
"""Files that are asked for their size."""
DECODER_VERSION = 5
"""Raise it with every change of what a file decodes to."""
UNSEEN, BAD, COLOR, DEEP, GRAY, GOOD = range(6)
"""State of an image in a cache; it is kept from GRAY on. Where all are expected to be gray, an image is found to be
GRAY, or to have COLOR. DEEP: it has more than 8 bits, of a range that is not known yet."""
Decode = Callable[[str], tuple[int, ndarray | None]]
"""path → its state, and if that is GOOD or GRAY (H, W, C) uint8 of the shape that is asked for."""
Ranges = dict[str, tuple[float, float]]
"""Type of numbers with more than 8 bits → the values that become 0 and 255."""
JPEG_WARNING = re.compile(rb".*(?:Corrupt JPEG|Premature end of JPEG).*\n?")
"""Lines that libjpeg prints, where it then makes up the pixels that are missing."""
JPEG_END = b"\xff\xd9"
SURPLUS = re.compile(rb"(\d+) extraneous bytes before marker 0xd9")
"""Of such a line: how many bytes nobody needed before the end of the image."""


def open_cache(
    decode: Decode,
    paths: ndarray,
    shape: tuple[int, ...],
    folder: Path,
    ranges: Ranges,
    not_enough: int,
) -> tuple[ndarray, ndarray]:
    """The images of these files from a cache, which is made first where it is not there.

    Its name is a hash of the format and of every path with its size and time of change, so a changed file is decoded
    again. Where another process is making it, this one waits.

    Args:
        decode: reads one file.
        paths: (N,) str.
        shape: (N, H, W, C) of the result.
        folder: of the cache.
        ranges: what becomes 0 … 255 of more than 8 bits.
        not_enough: images of this state are decoded again.
    Returns:
        A memory-mapped array of this shape, and the (N,) state of each image.
    Raises:
        UserError: the folder cannot be written, or its disk is too full.
    """
    name = hash_of(DECODER_VERSION, shape, ranges, *map(_version_of, paths))
    pixels_file = folder / f"{name}.npy"
    states_file = folder / f"{name}.states.npy"
    size = f"{np.prod(shape, dtype=float) / 2**20:,.0f} MiB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):
            if not (_is_readable(pixels_file) and _is_readable(states_file)):
                log.info(f"images: {len(paths):,} will take {size} in {pixels_file}")
                # First, as it must not speak of pixels that are lost.
                states_file.unlink(missing_ok=True)
                reserve(pixels_file, shape)
                reserve(states_file, shape[:1])
            pixels = np.load(pixels_file, mmap_mode="r+")
            states = np.load(states_file, mmap_mode="r+")
            states[states == not_enough] = UNSEEN
            states = decode_all(decode, paths, pixels, states)
    except OSError as error:
        raise UserError(
            f"data.cache: {folder} cannot take {size} ({error.strerror}); choose another folder or a smaller data.size"
        ) from None
    log.info(f"images: {len(paths):,} from {pixels_file}")
    return np.load(pixels_file, mmap_mode="c"), states


def decode_all(decode: Decode, paths: ndarray, pixels: ndarray, states: ndarray) -> ndarray:
    """Decode the files that are UNSEEN, on all cores.

    Args:
        decode: reads one file.
        paths: (N,) str.
        pixels: (N, H, W, C) uint8, filled in place.
        states: (N,) uint8; set in place after the pixels are written, so that a process that is
            killed leaves no false one.
    Returns:
        A copy of the states, when all files are seen.
    """
    rows_left = np.flatnonzero(states == UNSEEN)
    with progress.part("decode", len(rows_left)):
        for start in range(0, len(rows_left), IMAGES_PER_CHUNK):
            rows = rows_left[start : start + IMAGES_PER_CHUNK]
            new_states = np.empty(len(rows), np.uint8)
            with decoder_warnings() as lines:
                for i, (state, image) in enumerate(map_images(decode, paths[rows])):
                    progress.advance(1)
                    new_states[i] = state
                    if image is not None:
                        pixels[rows[i]] = image
            if lines:  # one at a time, as the lines name no file
                for i in np.flatnonzero(new_states >= GRAY):
                    path = paths[rows[i]]
                    with decoder_warnings() as lines:
                        decode(path)
                    if lines and not _are_fill_bytes(path, lines):
                        new_states[i] = BAD
            if isinstance(pixels, np.memmap):
                pixels.flush()
            states[rows] = new_states
    return np.array(states)


def map_images(function: Callable[[str], Any], paths: Sequence[str]) -> Iterator:
    """function(path) of each image file, in order; on all cores, unless the files are small."""
    sample = paths[:: len(paths) // N_SIZE_SAMPLES + 1]
    sizes = [os.path.getsize(path) for path in sample if os.path.isfile(path)]
    if sum(sizes) < SMALL_FILE * len(sizes):
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(function, paths)


def _are_fill_bytes(path: str, lines: list[bytes]) -> bool:
    """Whether all that libjpeg complains of is a run of one byte before the end, which some cameras write.

    Damage inside a JPEG also leaves bytes that nobody needs there, but different ones.
    """
    matches = [SURPLUS.search(line) for line in lines]
    if not all(matches):
        return False
    data = Path(path).read_bytes()
    end = data.rfind(JPEG_END)
    n_surplus = max(int(match[1]) for match in matches)
    return len({*data[end - n_surplus : end]}) == 1


@contextmanager
def decoder_warnings() -> Iterator[list[bytes]]:
    """Collect what libjpeg prints of damaged files, which it does not report otherwise; the list is filled at the end.

    All else that is printed meanwhile is passed on.
    """
    lines: list[bytes] = []
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            printed.seek(0)
            text = printed.read()
            lines += JPEG_WARNING.findall(text)
            os.write(2, JPEG_WARNING.sub(b"", text))


def _version_of(path: str) -> tuple:
    try:
        facts = os.stat(path)
    except OSError:
        return (path,)
    return path, facts.st_size, facts.st_mtime_ns


def _is_readable(file: Path) -> bool:
    """False where it is missing or cut off: a map for writing would fill it up with zeros."""
    try:
        np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return True


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
