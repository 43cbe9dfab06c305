"""Duplicates among the images of a run, in all its data sets: equal or nearly so."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Data
from ..system.distributed import cores
from .dataset import SCORED_SPLITS, Dataset
from .folds import connect, link_equal
from .images import resize

MAX_DIFFERENT_BITS = 3
"""Of the 64 bits of two difference hashes: what resizing or compressing again turns at most."""
N_NEIGHBORS = 4
"""Rows that each row is compared with in each of the sorted orders: enough, as true copies have nearly equal hashes."""
MIN_BRIGHTNESS_STEP = 3
"""Of 255: a smaller step counts as none in a difference hash, so that the noise of compression turns no bit."""
THUMBNAIL_SIDE = 32
"""Pixels at which images are correlated: texture that compression or resizing takes away does not count."""
PHOTO_SIDE = 64
"""Pixels. Smaller images hold less, so that different things of one shape correlate more."""
PAIRS_PER_CHUNK = 1024
"""Pairs that are correlated at once: 25 MB of color thumbnails."""
MIN_BYTES_FOR_THREADS = 8192
"""Of an image: threads that hash smaller ones wait for each other."""
MIN_PHOTO_CORRELATION = 0.99
MIN_SMALL_CORRELATION = 0.995
"""Lower ones would link different digits; higher ones would miss copies that were compressed again."""


def find_links(
    pixels: ndarray,
    n_first: int,
) -> ndarray:
    """Find the pairs of images that are duplicates; the clusters are what they connect.

    Near duplicates are pairs whose difference hashes differ in at most MAX_DIFFERENT_BITS bits and whose thumbnails
    correlate (a mean difference would call all thin digits alike). The first n_first rows are compared as if there were
    no others: rows that are only scored must not change the folds.

    Args:
        pixels: (N, H, W, C) uint8.
        n_first: how many rows are learned or judged.
    Returns:
        (2, M) pairs of rows.
    """
    keys = row_hashes(pixels)
    # One row of each image, sorted by its hash: the order of the rows must not matter.
    rows = np.unique(keys, return_index=True)[1]
    hashes = difference_hashes(pixels, rows)
    # Pairs among the first rows are looked for twice: beside other rows, a row has other neighbors.
    subsets = [np.flatnonzero(rows < n_first), np.arange(len(rows))]
    pairs = [rows[subset][_close_pairs(hashes[subset])] for subset in subsets]
    pairs = np.unique(np.concatenate(pairs, axis=1), axis=1)
    min_correlation = (
        MIN_PHOTO_CORRELATION if pixels.shape[1] >= PHOTO_SIDE else MIN_SMALL_CORRELATION
    )
    links = [link_equal(keys)]
    for start in range(0, pairs.shape[1], PAIRS_PER_CHUNK):
        chunk = pairs[:, start : start + PAIRS_PER_CHUNK]
        links.append(chunk[:, _correlations(pixels, chunk) >= min_correlation])
    return np.concatenate(links, axis=1)


def row_hashes(rows: Iterable[ndarray]) -> ndarray:
    """N arrays → (N,) uint64 hashes of them: equal images have equal hashes."""

    def digests(part: Iterable[ndarray]) -> bytes:
        return b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in part)

    is_large = isinstance(rows, ndarray) and rows[:1].nbytes >= MIN_BYTES_FOR_THREADS
    if not is_large:
        return np.frombuffer(digests(rows), np.uint64)
    parts = np.array_split(rows, cores())
    with ThreadPoolExecutor(cores()) as threads:
        return np.frombuffer(b"".join(threads.map(digests, parts)), np.uint64)


def difference_hashes(
    pixels: ndarray,
    rows: ndarray,
) -> ndarray:
    """(N, H, W, C) uint8 → (len(rows),) uint64 perceptual hashes: is a cell of an 8×9 thumbnail brighter than the one
    to its left?

    Source: N. Krawetz, "Kind of like that" (2013), dHash.
    """
    hashes = []
    for row in rows:
        image = pixels[row].astype(np.float32)
        thumbnail = cv2.resize(image, (9, 8), interpolation=cv2.INTER_AREA)
        gray = thumbnail.reshape(8, 9, -1).mean(2)
        is_brighter = gray[:, 1:] > gray[:, :-1] + MIN_BRIGHTNESS_STEP
        hashes.append(np.packbits(is_brighter).tobytes())
    return np.frombuffer(b"".join(hashes), np.uint64)


def _close_pairs(hashes: ndarray) -> ndarray:
    """(2, M) pairs of hashes that differ in at most MAX_DIFFERENT_BITS bits; some more than once.

    Two such hashes agree in one of four 16-bit parts. Sorting by the hash rotated to start with each part in turn
    brings them together (Manku et al. 2007, "Detecting near-duplicates for web crawling").
    """
    close_pairs = []
    parts = hashes[:, None].view(np.uint16)
    for turn in range(4):
        rotated = np.roll(parts, turn, axis=1).view(np.uint64)[:, 0]
        order = np.argsort(rotated, kind="stable")
        for step in range(1, N_NEIGHBORS + 1):
            pairs = np.stack([order[:-step], order[step:]])
            n_different = np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]])
            close_pairs.append(pairs[:, n_different <= MAX_DIFFERENT_BITS])
    return np.sort(np.concatenate(close_pairs, axis=1), axis=0)


def _correlations(
    pixels: ndarray,
    pairs: ndarray,
) -> ndarray:
    """(M,) Pearson correlation of the thumbnails of each of (2, M) pairs; 0 if one of them is flat."""
    side = min(pixels.shape[1], THUMBNAIL_SIDE)
    rows, places = np.unique(pairs, return_inverse=True)
    thumbnails = [resize(pixels[row], side).ravel() for row in rows]
    thumbnails = np.array(thumbnails, np.float32)
    thumbnails -= thumbnails.mean(1, keepdims=True)
    a, b = thumbnails[places.reshape(pairs.shape)]
    squared = (a * a).sum(1) * (b * b).sum(1)
    norm = np.sqrt(squared)
    return (a * b).sum(1) / np.where(norm > 0, norm, 1)


def duplicates_table(
    dataset: Dataset,
    pixels: ndarray,
    links: ndarray,
) -> pd.DataFrame:
    """The clusters of two rows or more, as duplicates.csv holds them; first those whose given labels differ.

    Args:
        dataset: N samples.
        pixels: (N, H, W, C) uint8, their images.
        links: see find_links.
    Returns:
        Columns cluster, id, path, split, given_label, kind, conflict. kind: `pixels` if all images
        of the cluster are equal, else `near`. conflict: whether its given labels differ.
    """
    table = dataset.table().assign(cluster=connect(links, len(dataset)))
    clusters = table.cluster[~_is_unlabeled_too(table)]
    table = table[table.cluster.isin(clusters[clusters.duplicated()])].copy()
    table["hash"] = row_hashes(pixels[row] for row in table.index)
    table["label"] = table.given_label.replace("", None)
    n_different = table.groupby("cluster")[["hash", "label"]].transform("nunique")
    table["kind"] = np.where(n_different.hash == 1, "pixels", "near")
    table["conflict"] = n_different.label > 1
    table = table.sort_values(["conflict", "cluster"], ascending=[False, True], ignore_index=True)
    table["cluster"] = pd.factorize(table.cluster)[0] + 1
    return table[["cluster", "id", "path", "split", "given_label", "kind", "conflict"]]


def _is_unlabeled_too(table: pd.DataFrame) -> pd.Series:
    """Which rows of data.test are files of data.unlabeled, too: the user wants to learn from these."""
    unlabeled_files = table.path[table.split == "unlabeled"]
    return (table.split == "test") & table.path.isin(unlabeled_files)


def refused_reasons(
    table: pd.DataFrame,
    ids: ndarray,
    data: Data,
) -> ndarray:
    """Why unlabeled rows may receive no pseudo-label: they are copies of rows that are only scored.

    Args:
        table: duplicates.csv.
        ids: (N,) of the rows of train and unlabeled.
        data: learn_from_test=copies allows them all.
    Returns:
        (N,) str, empty where a row may receive one.
    """
    reasons = np.full(len(ids), "", object)
    if data.learn_from_test == "copies":
        return reasons
    is_only_scored = ~_is_unlabeled_too(table)
    for split in SCORED_SPLITS:
        clusters = table.cluster[is_only_scored & (table.split == split)]
        copies = table.id[table.cluster.isin(clusters) & (table.split == "unlabeled")]
        reasons[pd.Index(ids).isin(copies)] = f"duplicate_of_{split}"
    return reasons


def count_duplicates(table: pd.DataFrame) -> dict[str, int]:
    """What duplicates.csv holds: clusters, rows, conflicts, and how many clusters lie in several splits, by splits."""
    is_conflict = table.conflict.astype(str) == "True"  # text, if the table was read from the file
    counts = {
        "clusters": table.cluster.nunique(),
        "rows": len(table),
        "conflicts": table.cluster[is_conflict].nunique(),
    }
    in_splits = table.drop_duplicates(["cluster", "split"]).groupby("cluster").split
    in_several = in_splits.agg(" and ".join)[in_splits.size() > 1]
    return counts | in_several.value_counts().add_prefix("clusters in ").to_dict()
