"""Duplicates among the images of a run, of whatever role: the same bytes, the same pixels, or nearly so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..config.keys import Data
from .dataset import SCORED_SPLITS, SPLITS, Dataset

KINDS = ("bytes", "pixels", "near")
NEAR_BITS = 3  # of 64 that may differ between near duplicates
NEIGHBOURS = 4  # rows that each row is compared with in each of the sorted orders
PHOTO = 64  # pixels; smaller images say less, so that different things of one shape correlate more
NEAR_CORRELATION = {"photo": 0.99, "small": 0.995}
SIDE = 32  # pixels at which images are correlated: texture that compression or resizing takes away does not count


def find_links(pixels: np.ndarray, n_first: int) -> np.ndarray:
    """(2, M) pairs of rows that are duplicates; the clusters are what they connect.

    pixels: (N, H, W, C) uint8. Near duplicates are pairs whose difference hashes differ in at most NEAR_BITS of 64
    bits and whose thumbnails correlate by at least NEAR_CORRELATION (a mean difference would call all thin digits
    alike). The first n_first rows are compared as if there were no others: what is judged does not depend on what is
    only scored.
    """
    from .images import difference_hashes, pixel_hashes  # brings OpenCV, which reading duplicates.csv does not need

    keys = pixel_hashes(pixels)
    rows = np.unique(keys, return_index=True)[1]  # one of each, in an order that the order of the rows has no part in
    hashes = difference_hashes(pixels, rows)
    first = rows < n_first
    near = [rows[first][_candidates(hashes[first])]]
    if not first.all():
        across = rows[_candidates(hashes)]
        near.append(across[:, across.max(0) >= n_first])
    pairs = np.concatenate(near, axis=1)
    return np.concatenate([chain(keys), pairs[:, _alike(pixels, pairs)]], axis=1)


def chain(keys: np.ndarray, among: np.ndarray | slice = slice(None)) -> np.ndarray:
    """(2, M) links between neighbors of equal key, in the order of the rows."""
    rows = np.arange(len(keys))[among]
    rows = rows[np.argsort(keys[rows], kind="stable")]
    same = keys[rows[1:]] == keys[rows[:-1]]
    return np.stack([rows[:-1][same], rows[1:][same]])


def connected(links: np.ndarray, n: int) -> np.ndarray:
    """(n,) number of the cluster of each row: what the links connect, transitively."""
    graph = coo_array((np.ones(links.shape[1], bool), tuple(links)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def _candidates(hashes: np.ndarray) -> np.ndarray:
    """(2, M) pairs of close hashes by sorted neighborhoods.

    Two hashes that differ in at most 3 bits agree in one of four 16-bit parts; sorting by the hash rotated to start
    with each part in turn brings them together (Manku et al. 2007, "Detecting near-duplicates for web crawling").
    """
    found = []
    for turn in range(4):
        turned = np.roll(hashes[:, None].view(np.uint16), turn, axis=1).copy().view(np.uint64)[:, 0]
        order = np.argsort(turned, kind="stable")
        for step in range(1, NEIGHBOURS + 1):
            a, b = order[:-step], order[step:]
            close = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
            found.append(np.stack([a[close], b[close]]))
    return np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)


def _alike(pixels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(M,) whether the images of each pair correlate enough."""
    from .images import thumbnails

    least = NEAR_CORRELATION["photo" if pixels.shape[1] >= PHOTO else "small"]
    alike = np.zeros(pairs.shape[1], bool)
    for i in range(0, len(alike), 1024):
        a, b = (thumbnails(pixels, rows, SIDE) for rows in pairs[:, i : i + 1024])
        alike[i : i + 1024] = _correlation(a, b) >= least
    return alike


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M, …) and (M, …) → (M,) Pearson correlations of the pixels; 0 where an image is flat."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / np.where(norm > 0, norm, 1)


def duplicates_table(dataset: Dataset, pixels: np.ndarray, links: np.ndarray) -> pd.DataFrame:
    """As duplicates.csv holds them: cluster, id, path, role, given, kind, conflict; what disagrees comes first.

    A row of data.test whose own file is in the pool is the user's wish: alone it makes no cluster. kind is that of
    the whole cluster: one file many times, one image many times, or near. conflict: its given labels differ.
    """
    cluster = connected(links, len(dataset))
    rows = np.flatnonzero(np.bincount(cluster)[cluster] > 1)
    table = dataset.take(rows).table().drop(columns="group").assign(cluster=cluster[rows])
    several = table[~_wished(table)].cluster.value_counts() > 1
    kept = table.cluster.isin(several.index[several]).to_numpy()
    table, rows = table[kept].reset_index(drop=True), rows[kept]
    table["kind"] = _kinds(table, pixels, rows)
    labels = table[table.given_label != ""].groupby("cluster").given_label.nunique()
    table["conflict"] = table.cluster.map(labels).fillna(0) > 1
    order = np.lexsort((np.arange(len(table)), table.cluster, table.kind.map(KINDS.index), ~table.conflict))
    table = table.iloc[order].reset_index(drop=True)
    table["cluster"] = pd.factorize(table.cluster)[0] + 1
    return table[["cluster", "id", "path", "split", "given_label", "kind", "conflict"]]


def _wished(table: pd.DataFrame) -> pd.Series:
    """Which rows are those of data.test whose own file the user put into the pool as well."""
    return (table.split == "test") & table.path.isin(table.path[table.split == "unlabeled"])


def _kinds(table: pd.DataFrame, pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M,) kind of each row's cluster; pixels[rows] are the images of the table."""
    from .images import pixel_hashes

    cluster = table.cluster
    one_image = pd.Series(pixel_hashes(pixels[rows])).groupby(cluster).transform("nunique") == 1
    files = table.path[one_image].drop_duplicates()
    digests = {path: hashlib.blake2b(Path(path).read_bytes()).hexdigest() for path in files}
    one_file = table.path.map(digests).groupby(cluster).transform("nunique") == 1
    return np.where(one_image & one_file, "bytes", np.where(one_image, "pixels", "near")).astype(object)


def refused_reasons(table: pd.DataFrame, ids: np.ndarray, data: Data) -> np.ndarray:
    """(N,) why each of these rows of train and pool may receive no pseudo-label; empty where it may.

    table: duplicates.csv. Refused are unlabeled rows that are copies of rows which are only scored, unless
    data.learn_from_test=copies allows them.
    """
    others, reasons = table[~_wished(table)], {}
    for split in SCORED_SPLITS if data.learn_from_test != "copies" else ():
        copies = (table.split == "unlabeled") & table.cluster.isin(others.cluster[others.split == split])
        reasons |= dict.fromkeys(table.id[copies], f"duplicate_of_{split}")
    return np.array([reasons.get(i, "") for i in ids], object)


def count_duplicates(table: pd.DataFrame) -> dict[str, int]:
    """Of duplicates.csv: clusters, rows, conflicts, and for every two roles that share clusters how many."""
    has = {split: set(table.cluster[table.split == split]) for split in SPLITS}
    tests = table[(table.split == "test") & ~_wished(table)]
    pairs = {(a, b): has[a] & has[b] for i, a in enumerate(SPLITS) for b in SPLITS[i + 1 :]}
    pairs["unlabeled", "test"] = has["unlabeled"] & set(tests.cluster)
    conflicts = table.cluster[table.conflict.astype(str) == "True"].nunique()
    counts = {"clusters": table.cluster.nunique(), "rows": len(table), "conflicts": conflicts}
    return counts | {f"clusters in {a} and {b}": len(both) for (a, b), both in pairs.items() if both}
