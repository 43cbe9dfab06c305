"""Folds in which groups and duplicates stay together."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from .duplicates import chain, connected
from .encoding import counts, strata


def make_folds(labels: np.ndarray, clusters: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Stratified folds of the rows that have a label; rows of a cluster share a fold.

    labels: see encoding.py; clusters: (N,) int. Returns (N,) fold; rows without a label have the fold of the labeled
    rows of their cluster, -1 where there is none.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    labels = strata(labels)
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
    of_cluster = np.full(clusters.max() + 1, -1)
    of_cluster[clusters[rows]] = folds[rows]
    return of_cluster[clusters]


def _split(splitter, part, labels, clusters):
    """Classes with fewer rows than folds share one stratum, so that scikit-learn can split them."""
    strata = labels[part].copy()
    strata[np.bincount(strata)[strata] < splitter.get_n_splits()] = labels.max() + 1
    if np.bincount(strata).max() < splitter.get_n_splits():
        strata[:] = 0
    with_groups = {"groups": clusters[part]} if "Group" in type(splitter).__name__ else {}
    return splitter.split(part, strata, **with_groups)


def fold_table(labels: np.ndarray, folds: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """(K rows, one column a fold): how many rows each class has in each fold. labels: see encoding.py; folds: (N,)."""
    of_folds = {f"fold {f}": counts(labels[folds == f], len(classes)) for f in range(folds.max() + 1)}
    return pd.DataFrame(of_folds, index=list(classes))


def find_clusters(group: np.ndarray, links: np.ndarray) -> np.ndarray:
    """(N,) cluster of each row: same group, or linked as duplicates (transitively).

    group: (N,) str, empty = none; links: (2, M) pairs of rows, of which those between the first N count.
    """
    n = len(group)
    inside = links[:, (links < n).all(0)]
    return connected(np.concatenate([chain(group.astype(str), group != ""), inside], axis=1), n)
