"""Folds in which groups and duplicates stay together."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .images import difference_hashes, pixel_hashes

NEAR_BITS = 3  # of 64 that may differ between near duplicates
NEAR_CORRELATION = 0.99  # lowest correlation of their pixels; a mean difference would call all thin digits alike
NEIGHBOURS = 4  # rows that each row is compared with in each of the sorted orders


def make_folds(labels: np.ndarray, clusters: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds of the rows that have a label; rows of a cluster share a fold.

    labels: (N,) class index or -1; clusters: (N,) int. Returns (N,) fold, -1 for rows without a label.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = np.full(len(labels), -1)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(labels >= 0))
    clusters = rng.permutation(clusters.max() + 1)[clusters]
    shared = np.bincount(clusters[rows], minlength=clusters.max() + 1)[clusters[rows]] > 1
    # Rows were shuffled above: StratifiedGroupKFold's own shuffle makes unbalanced folds in scikit-learn 1.6.
    splitters = [(rows[~shared], StratifiedKFold(n_folds)), (rows[shared], StratifiedGroupKFold(n_folds))]
    for part, splitter in splitters:
        if len(np.unique(clusters[part])) < n_folds:  # a handful of clusters: deal them out
            folds[part] = np.unique(clusters[part], return_inverse=True)[1] % n_folds
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            for fold, (_, held_out) in enumerate(_split(splitter, part, labels, clusters)):
                folds[part[held_out]] = fold
    return folds


def _split(splitter, part, labels, clusters):
    """Classes with fewer rows than folds share one stratum, so that scikit-learn can split them."""
    strata = labels[part].copy()
    strata[np.bincount(strata)[strata] < splitter.get_n_splits()] = labels.max() + 1
    if np.bincount(strata).max() < splitter.get_n_splits():
        strata[:] = 0
    with_groups = {"groups": clusters[part]} if "Group" in type(splitter).__name__ else {}
    return splitter.split(part, strata, **with_groups)


def find_clusters(pixels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(N,) cluster of each row: same group, same pixels or nearly so (transitively).

    pixels: (N, H, W, C) uint8; group: (N,) str, empty = none. Near duplicates are pairs whose difference hashes
    differ in at most NEAR_BITS of 64 bits and whose pixels correlate by at least NEAR_CORRELATION.
    """
    pairs = [_chain(group.astype(str), group != ""), _chain(pixel_hashes(pixels).astype(str)), _near_pairs(pixels)]
    a, b = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(group), len(group)))
    return connected_components(graph, directed=False)[1]


def _chain(keys: np.ndarray, among: np.ndarray | slice = slice(None)) -> np.ndarray:
    """(2, M) links between neighbours of equal key."""
    rows = np.arange(len(keys))[among]
    rows = rows[np.argsort(keys[rows], kind="stable")]
    same = keys[rows[1:]] == keys[rows[:-1]]
    return np.stack([rows[:-1][same], rows[1:][same]])


def _near_pairs(pixels: np.ndarray) -> np.ndarray:
    """(2, M) near-duplicate pairs by sorted neighbourhoods.

    Two hashes that differ in at most 3 bits agree in one of four 16-bit parts; sorting by the hash rotated to start
    with each part in turn brings them together (Manku et al. 2007, "Detecting near-duplicates for web crawling").
    """
    hashes = difference_hashes(pixels)
    found = []
    for turn in range(4):
        turned = np.roll(hashes[:, None].view(np.uint16), turn, axis=1).copy().view(np.uint64)[:, 0]
        order = np.argsort(turned, kind="stable")
        for step in range(1, NEIGHBOURS + 1):
            a, b = order[:-step], order[step:]
            close = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
            found.append(np.stack([a[close], b[close]]))
    a, b = np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)
    near = np.zeros(len(a), bool)
    for i in range(0, len(a), 4096):
        near[i : i + 4096] = _correlation(pixels[a[i : i + 4096]], pixels[b[i : i + 4096]]) >= NEAR_CORRELATION
    return np.stack([a[near], b[near]])


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M, …) and (M, …) → (M,) Pearson correlations of the pixels; 0 where an image is flat."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    norm = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / np.where(norm > 0, norm, 1)
