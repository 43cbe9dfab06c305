"""For experiments: labels are hidden or flipped on purpose, and the truth is kept for scoring."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Simulate
from ..config.types import UserError
from .dataset import Dataset
from .encoding import names, strata


def hide_labels(
    dataset: Dataset,
    simulate: Simulate,
    seed: int,
) -> tuple[Dataset, pd.DataFrame]:
    """Keep `simulate.keep_labels` given labels, as equal per class as the classes allow; the others become unlabeled.

    Returns:
        The changed dataset, and the hidden labels (id, clean), which serve only for scoring.
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(dataset.split == "train"))
    classes = pd.Series(strata(dataset.given_labels[rows]))
    turn = classes.groupby(classes).cumcount()  # 0 = the row is drawn first of its class
    hidden = np.sort(rows[turn.argsort(kind="stable")[simulate.keep_labels :]])
    table = dataset.table()
    truth = table.loc[hidden, ["id", "given_label"]]
    truth = truth.rename(columns={"given_label": "clean"})
    table.loc[hidden, ["split", "given_label"]] = ["unlabeled", ""]
    is_multi_label = dataset.given_labels.ndim == 2
    changed = Dataset.from_table(table, dataset.classes, is_multi_label)
    return replace(changed, taken_for=dataset.taken_for), truth


def inject_noise(
    dataset: Dataset,
    simulate: Simulate,
    seed: int,
) -> tuple[Dataset, pd.DataFrame]:
    """Flip given labels of data.train on purpose, or single answers of a multi-label.

    Returns:
        The changed dataset, and the truth (id, clean, given_label), which serves only for scoring.

    Raises:
        UserError: there are fewer than two classes, or the matrix does not fit them.
    """
    is_train = dataset.split == "train"
    noisy = dataset.given_labels.copy()
    can_flip = ((noisy.T >= 0) & is_train).T
    n_classes = len(dataset.classes) if noisy.ndim == 1 else 2
    if n_classes < 2:
        raise UserError("simulate.noise needs at least two classes")
    rng = np.random.default_rng(seed)
    noisy[can_flip] = _flip(noisy[can_flip], n_classes, simulate, rng)
    truth = {
        "id": dataset.id[is_train],
        "clean": names(dataset.given_labels[is_train], dataset.classes),
        "given_label": names(noisy[is_train], dataset.classes),
    }
    return replace(dataset, given_labels=noisy), pd.DataFrame(truth)


def _flip(
    clean: ndarray,
    n_classes: int,
    simulate: Simulate,
    rng: np.random.Generator,
) -> ndarray:
    """(N,) class indices → (N,) noisy ones."""
    if simulate.noise in ("symmetric", "pairflip"):
        n_flipped = round(simulate.noise_rate * len(clean))
        rows = rng.choice(len(clean), n_flipped, replace=False)
        # A shift is never 0 modulo the classes: a flipped label always differs from the true one.
        shift = 1 if simulate.noise == "pairflip" else rng.integers(1, n_classes, len(rows))
        noisy = clean.copy()
        noisy[rows] = (clean[rows] + shift) % n_classes
        return noisy
    edges = _check_matrix(simulate.noise, n_classes).cumsum(1)[clean]
    edges[:, -1] = 1.0  # a sum may fall short of it by rounding
    return (rng.random((len(clean), 1)) >= edges).sum(1)


def _check_matrix(
    noise: list[list[float]],
    n_classes: int,
) -> ndarray:
    """T[true, given] that the config gives."""
    matrix = pd.DataFrame(noise).to_numpy(float)  # NaN where a row is too short
    is_square = matrix.shape == (n_classes, n_classes)
    if not is_square or not np.allclose(matrix.sum(1), 1, atol=1e-6):
        raise UserError(
            f"simulate.noise must be {n_classes} rows of {n_classes} shares that sum to 1, in the order of the sorted "
            "classes"
        )
    return matrix
