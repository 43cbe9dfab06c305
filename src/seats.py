"""Who learns what and judges whom: the models of one round, before any of them is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data.folds import make_folds
from .labels.sets import has_label


@dataclass(frozen=True)
class Taught:
    """What is learned: labels, see labels/sets.py; targets of them, which may be soft; by: hashes of the models they
    come from."""

    labels: np.ndarray
    targets: np.ndarray
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seat:
    """One model of a round. learned, judged: row numbers; targets: (len(learned),) or (len(learned), K).

    fold: of the given labels, the one that it does not learn.
    """

    where: str
    fold: int
    learned: np.ndarray
    targets: np.ndarray
    judged: np.ndarray
    taught_by: tuple[str, ...]


def plain_seats(taught: Taught, folds: np.ndarray) -> list[Seat]:
    """One model a fold: it learns the labels of the others and judges its own rows, and those without a fold (-1)."""
    seats = []
    for fold in range(folds.max() + 1):
        elsewhere = (folds != fold) & (folds >= 0)  # with a label, or a copy of such a row
        learned, judged = np.flatnonzero(elsewhere & has_label(taught.labels)), np.flatnonzero(~elsewhere)
        seats.append(Seat(f"fold_{fold}", fold, learned, taught.targets[learned], judged, taught.by))
    return seats


def chained_seats(
    given: np.ndarray, chains: list[Taught], folds: np.ndarray, clusters: np.ndarray, seed: int
) -> list[Seat]:
    """Two models a fold, each taught by the earlier models of its own fold alone.

    Each learns the given labels of the other folds and one half of the pool, and judges the other half; one of the two
    judges the fold. So no row is judged by a model that learned it, and nothing that a model learned comes from the
    labels of its fold.

    chains: for each fold what its own models made of the samples; folds: (N,) of the given labels and of what shares
    their clusters, -1 elsewhere.
    """
    free, seats = folds < 0, []
    halves = make_folds(np.where(free, 0, -1), clusters, 2, seed)
    for fold, taught in enumerate(chains):
        for half in range(2):
            other, has = free & (halves == 1 - half), has_label(taught.labels)
            learned = np.flatnonzero(has_label(given) & (folds != fold) | other & has)
            own = (folds == fold) & (half == 0)  # judged once a round
            judged = np.flatnonzero(own | free & (halves == half))
            where = f"fold_{fold + half * len(chains)}"
            seats.append(Seat(where, fold, learned, taught.targets[learned], judged, taught.by))
    return seats
