"""Folds in which groups and duplicates stay together."""

import warnings

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .encoding import counts, strata


def find_clusters(
    group: ndarray,
    links: ndarray,
) -> ndarray:
    """Rows that must share a fold: they have the same group, or are linked as duplicates, transitively.

    Args:
        group: (N,) str, empty = none.
        links: (2, M) pairs of rows; those with a row from N on do not count.
    Returns:
        (N,) int, the cluster of each row.
    """
    n = len(group)
    rows = np.flatnonzero(group != "")
    same_group = rows[link_equal(group[rows])]
    inside = links[:, (links < n).all(0)]
    return connect(np.concatenate([same_group, inside], axis=1), n)


def link_equal(keys: ndarray) -> ndarray:
    """(2, N) links from the first row of each key to every row that has it."""
    rows = pd.Series(np.arange(len(keys)))
    return np.stack([rows.groupby(keys).transform("first"), rows])


def connect(
    links: ndarray,
    n: int,
) -> ndarray:
    """(n,) cluster of each row: what the links (2, M) connect, transitively. Numbered in the order of the rows."""
    values = np.ones(links.shape[1], bool)
    graph = coo_array((values, tuple(links)), shape=(n, n))
    _, clusters = connected_components(graph, directed=False)
    return clusters


def make_folds(
    labels: ndarray,
    clusters: ndarray,
    n_folds: int,
    seed: int,
) -> ndarray:
    """Stratified folds of the rows that have a label; rows of a cluster share a fold.

    Args:
        labels: see encoding.py.
        clusters: (N,) int from 0 on.
        n_folds: how many.
        seed: of the shuffle.
    Returns:
        (N,) int, the fold of each row. A row without a label has the fold of the labeled rows of its cluster, -1 where
        there is none.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    classes = strata(labels)
    n_clusters = clusters.max() + 1
    # We shuffle here, as StratifiedGroupKFold's own shuffle makes unbalanced folds in scikit-learn 1.6.
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.flatnonzero(classes >= 0))
    clusters = rng.permutation(n_clusters)[clusters]
    rows_in_cluster = np.bincount(clusters[rows], minlength=n_clusters)
    is_alone = rows_in_cluster[clusters[rows]] == 1
    fold_of_cluster = np.full(n_clusters, -1)
    # Rows that are alone are most, and StratifiedKFold balances them exactly.
    for part, splitter in (
        (rows[is_alone], StratifiedKFold(n_folds)),
        (rows[~is_alone], StratifiedGroupKFold(n_folds)),
    ):
        fold_of_cluster[clusters[part]] = _split(splitter, classes[part], clusters[part])
    return fold_of_cluster[clusters]


def _split(
    splitter,
    classes: ndarray,
    clusters: ndarray,
) -> ndarray:
    """(N,) folds by one of scikit-learn's splitters."""
    n_folds = splitter.get_n_splits()
    names, cluster_numbers = np.unique(clusters, return_inverse=True)
    if len(names) < n_folds:
        return cluster_numbers % n_folds
    # scikit-learn asks for a class with as many rows as folds: the small classes are split as one class, or all are.
    is_small = np.bincount(classes)[classes] < n_folds
    classes = np.where(is_small, classes.max() + 1, classes)
    if np.bincount(classes).max() < n_folds:
        classes = np.zeros_like(classes)
    folds = np.empty(len(classes), int)
    with warnings.catch_warnings():
        # Of a small class, and of clusters that are not needed.
        warnings.simplefilter("ignore", UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(classes, classes, clusters)):
            folds[held_out] = fold
    return folds


def fold_table(
    labels: ndarray,
    folds: ndarray,
    classes: tuple[str, ...],
) -> pd.DataFrame:
    """How many rows each class has in each fold: (K rows, one column a fold). labels: see encoding.py; folds: (N,)."""
    columns = {
        f"fold {fold}": counts(labels[folds == fold], len(classes))
        for fold in range(folds.max() + 1)
    }
    return pd.DataFrame(columns, index=list(classes))
