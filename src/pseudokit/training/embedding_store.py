"""Embeddings that are kept between runs: a file a backbone, in it a row an image, found by a hash of its pixels."""

from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy import ndarray

from ..data.duplicates import row_hashes

RECORD = np.dtype([("image", "<u8"), ("vector", "<u8")])
"""What is written of a row beside its vector: hashes of the image and of the vector. Equal hashes, equal images, as for
duplicates."""


class EmbeddingStore:
    """(M, D) float32 vectors in NAME.vectors, and a RECORD of each in NAME.records. Both files only grow.

    Any number of processes may read and add at once. The record of a row is written after its vector, so a process that
    is killed leaves no record without one. A vector that is not as it was written is taken for missing.
    """

    def __init__(self, folder: Path, name: str, units: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._units = units
        self._vectors = folder / f"{name}.vectors"
        self._records = folder / f"{name}.records"
        self._lock = FileLock(folder / f"{name}.lock")
        for file in (self._vectors, self._records):
            file.touch()

    def find(self, images: ndarray) -> tuple[ndarray, ndarray]:
        """What is known of n images.

        Args:
            images: (n, H, W, C) uint8.

        Returns:
            (n,) whether the vector of an image is here; and these vectors, (number of True, D) float32.
        """
        stored = self._read_records()
        places = pd.Series(np.arange(len(stored)), stored["image"])
        places = places[~places.index.duplicated(keep="last")]
        place = places.reindex(row_hashes(images), fill_value=-1).to_numpy()
        known = place >= 0
        if not known.any():
            return known, np.empty((0, self._units), np.float32)
        shape = (len(stored), self._units)
        vectors = np.memmap(self._vectors, np.float32, "r", shape=shape)[place[known]]
        is_intact = row_hashes(vectors) == stored["vector"][place[known]]
        known[known] = is_intact
        return known, vectors[is_intact]

    def add(self, images: ndarray, vectors: ndarray) -> None:
        """Append the vectors (n, D) float32 of images (n, H, W, C) uint8."""
        records = np.empty(len(images), RECORD)
        records["image"], records["vector"] = row_hashes(images), row_hashes(vectors)
        with self._lock:
            n = len(self._read_records())
            _write_at(self._vectors, n * self._units * 4, vectors)
            _write_at(self._records, n * RECORD.itemsize, records)

    def _read_records(self) -> ndarray:
        """Those whose vector is here too: a file may have been cut off."""
        n = self._vectors.stat().st_size // (self._units * 4)
        n = min(n, self._records.stat().st_size // RECORD.itemsize)
        return np.fromfile(self._records, RECORD, n)


def _write_at(file: Path, start: int, rows: ndarray) -> None:
    """Write rows from a byte on; what a killed process has left behind it goes."""
    with open(file, "r+b") as opened:
        opened.truncate(start)
        opened.seek(start)
        opened.write(rows.tobytes())
