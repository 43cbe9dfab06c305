"""For experiments: labels are hidden or flipped on purpose, and the truth is kept for scoring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from ..config.keys import Simulate
from ..config.types import UserError
from .dataset import SPLITS, Dataset
from .encoding import names, strata


def hide_labels(dataset: Dataset, simulate: Simulate, seed: int) -> tuple[Dataset, pd.DataFrame]:
    """Keep `simulate.keep_labels` given labels, as equal per class as they allow; the others become unlabeled.

    Returns the samples and the hidden truth (id, clean), which serves only for scoring.
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(dataset.split == "train"))
    labels = strata(dataset.given_labels[rows])
    turn = pd.Series(labels).groupby(labels).cumcount().to_numpy()  # 0 = first drawn of its class
    order = np.lexsort((np.arange(len(rows)), turn))
    hidden = np.sort(rows[order[simulate.keep_labels :]])
    given_labels, split = dataset.given_labels.copy(), dataset.split.copy()
    given_labels[hidden], split[hidden] = -1, "unlabeled"
    truth = pd.DataFrame({"id": dataset.id[hidden], "clean": names(dataset.given_labels[hidden], dataset.classes)})
    changed = replace(dataset, given_labels=given_labels, split=split)
    order = np.lexsort((dataset.id.astype(str), [SPLITS.index(r) for r in split]))
    return changed.take(order), truth


def inject_noise(dataset: Dataset, simulate: Simulate, seed: int) -> tuple[Dataset, pd.DataFrame]:
    """Flip given labels of the labeled set on purpose, or answers of label sets; returns the samples and the truth
    (id, clean, given).

    Raises:
        UserError: there are fewer than two classes, or the matrix does not fit them.
    """
    rows = np.flatnonzero(dataset.split == "train")
    of_rows = dataset.given_labels[rows]
    known, k = of_rows >= 0, len(dataset.classes) if of_rows.ndim == 1 else 2
    clean = of_rows[known]
    if k < 2:
        raise UserError("simulate.noise needs at least two classes")
    rng = np.random.default_rng(seed)
    if simulate.noise not in ("symmetric", "pairflip"):
        noisy = _flip_by_matrix(clean, _noise_matrix(simulate, k, rng), rng)
    else:
        flipped = rng.choice(len(clean), round(simulate.noise_rate * len(clean)), replace=False)
        shift = (
            1 if simulate.noise == "pairflip" else rng.integers(1, k, len(flipped))
        )  # never 0: a flip always differs
        noisy = clean.copy()
        noisy[flipped] = (clean[flipped] + shift) % k
    changed, given_labels = of_rows.copy(), dataset.given_labels.copy()
    changed[known] = noisy
    given_labels[rows] = changed
    truth = {name: names(labels, dataset.classes) for name, labels in (("clean", of_rows), ("given_label", changed))}
    return replace(dataset, given_labels=given_labels), pd.DataFrame({"id": dataset.id[rows]} | truth)


def _noise_matrix(simulate: Simulate, k: int, rng: np.random.Generator) -> np.ndarray:
    """T[true, given]: the one that is given, or a random one whose mean flip rate is `noise_rate`."""
    if simulate.noise == "matrix":
        rate = rng.uniform(0.5, 1.5, k)
        rate = np.minimum(simulate.noise_rate * rate / rate.mean(), 1)
        off = rng.dirichlet(np.full(k - 1, 0.5), k) * rate[:, None]
        return np.stack([np.insert(row, i, 1 - row.sum()) for i, row in enumerate(off)])
    is_square = len(simulate.noise) == k and all(len(row) == k for row in simulate.noise)
    matrix = np.array(simulate.noise, float) if is_square else np.zeros((k, k))
    if not np.allclose(matrix.sum(1), 1, atol=1e-6):
        raise UserError(
            f"simulate.noise must be {k} rows of {k} shares that sum to 1, in the order of the sorted classes"
        )
    return matrix


def _flip_by_matrix(clean: np.ndarray, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edges = matrix.cumsum(1)[clean]
    edges[:, -1] = 1.0
    return (rng.random((len(clean), 1)) >= edges).sum(1)
