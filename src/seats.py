"""Who learns what and judges whom: the models of one round, before any of them is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data.folds import make_folds


@dataclass(frozen=True)
class Seat:
    """One model of a round. learned, judged, looked: row numbers; targets: (len(learned),) or (len(learned), K).

    looked: rows without a label that it may see unlabelled. fold: of the given labels, the one that it does not learn.
    """

    where: str
    fold: int
    learned: np.ndarray
    targets: np.ndarray
    judged: np.ndarray
    looked: np.ndarray


def plain_seats(labels: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> list[Seat]:
    """One model a fold: it learns the labels of the others and judges its own rows, and those without a fold.

    labels: (N,) class index or -1; targets: (N,) or (N, K), what is learned where there is a label; folds: (N,) or -1.
    """
    seats = []
    for fold in range(folds.max() + 1):
        elsewhere = (folds != fold) & (folds >= 0)
        learned, looked = (np.flatnonzero(elsewhere & has) for has in (labels >= 0, labels < 0))
        judged = np.flatnonzero(~elsewhere)
        seats.append(Seat(f"fold_{fold}", fold, learned, targets[learned], judged, looked))
    return seats


def chained_seats(
    given: np.ndarray, chains: list[tuple[np.ndarray, np.ndarray]], folds: np.ndarray, clusters: np.ndarray, seed: int
) -> list[Seat]:
    """Two models a fold, each taught by the earlier models of its own fold alone.

    Each learns the given labels of the other folds and one half of the pool, and judges the other half; one of the two
    judges the fold. So no row is judged by a model that learned it, and nothing that a model learned comes from the
    labels of its fold.

    chains: for each fold what its models made of the samples: labels (N,), -1 = none, and targets, (N,) or (N, K);
    folds: (N,) of the given labels and of what shares their clusters, -1 elsewhere.
    """
    free, seats = folds < 0, []
    halves = make_folds(np.where(free, 0, -1), clusters, 2, seed)
    for fold, (labels, targets) in enumerate(chains):
        for half in range(2):
            other = free & (halves == 1 - half)
            learned = np.flatnonzero((given >= 0) & (folds != fold) | other & (labels >= 0))
            own = (folds == fold) & (half == 0)  # judged once a round
            judged = np.flatnonzero(own | free & (halves == half))
            looked = np.flatnonzero(other & (labels < 0))
            where = f"fold_{fold + half * len(chains)}"
            seats.append(Seat(where, fold, learned, targets[learned], judged, looked))
    return seats
