"""Files that are written whole or not at all, hashes, seeds and the log."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..config.types import UserError

if TYPE_CHECKING:
    import pandas as pd
    from numpy import ndarray

log = logging.getLogger("kit")
ROWS_AT_ONCE = 10_000
"""Of a table that is written: a few megabytes as text."""


class TimeBudgetExceeded(Exception):
    """The time budget does not suffice for the next network; what is finished is kept.

    args: the FoldPredictions of the round that it ended, or nothing.
    """


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that will be there whole or not at all: temporary name in the same folder, flush, rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        if isinstance(error, OSError) and not error.filename:  # as where a disk is full
            error.filename = str(path)
        part.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes | memoryview | str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table with six digits a number, whole or not at all: as pandas does it, in less time and memory."""
    with whole(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        for start in range(0, len(table), ROWS_AT_ONCE):
            columns = [_cells(column) for _, column in table[start : start + ROWS_AT_ONCE].items()]
            writer.writerows(zip(*columns, strict=True))
        text.detach()


def _cells(column: pd.Series) -> list:
    """As csv.writer takes them; "" where there is nothing."""
    if column.dtype.kind == "f":
        return ["" if number != number else f"{number:.6g}" for number in column.astype(float)]
    return column.astype(object).where(column.notna(), "").tolist()


def write_npy(path: Path, array: ndarray) -> None:
    """Write an array of numbers, whole or not at all."""
    import numpy as np

    with whole(path) as file:
        np.save(file, array, allow_pickle=False)


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A mapping that this kit has written.

    Raises:
        UserError: the file is no JSON, or lacks one of the keys.
    """
    with suppress(ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() >= {*keys}:
            return content
    raise UserError(
        f"{path} is no JSON as it was written; bring it back, or start over with --fresh"
    )


def seed_of(*parts: Any) -> int:
    """A 31-bit seed that depends on its parts only, not on what ran before."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def hash_of(*parts: Any) -> str:
    """A hash of the contents of files (paths) and arrays, and of the repr of any other part."""
    import numpy as np

    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with open(part, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        elif isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            content = part.tolist() if isinstance(part, np.ndarray) else part
            digest.update(repr(content).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write the log to this file too, with the traceback of an error that is a fault of ours."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    # A full disk shows where more than a line of the log is lost.
    handler.handleError = lambda record: None
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        # The terminal shows one line at most.
        if not isinstance(error, UserError | TimeBudgetExceeded):
            record = {"msg": "ended by", "exc_info": sys.exc_info()}
            handler.emit(logging.makeLogRecord(record))
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


def show_log() -> None:
    """Print what is logged: on a terminal, or in a notebook below the cell."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
