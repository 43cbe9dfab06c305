"""The one rule: no row is ever judged by a model that learned a label for that row, or for a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..data.dataset import Dataset
from ..data.encoding import has_label
from ..data.folds import make_folds
from .calibration import normalized
from .predictions import FoldPredictions, OutOfFoldPredictions, mix

Fit = Callable[..., object]
"""fit(where, rows, labels or soft targets of those rows) → a model with a `hash`."""
Predict = Callable[[object, np.ndarray], np.ndarray]
"""predict(model, rows) → (len(rows), K) log-probabilities; of label sets (len(rows), C, 2), see data/encoding.py."""


@dataclass(frozen=True)
class TrainingLabels:
    """What is learned: labels, see data/encoding.py; targets of them, which may be soft; by: hashes of the models they
    come from."""

    labels: np.ndarray
    targets: np.ndarray
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoldJob:
    """One model of a round. learned, judged: row numbers; targets: (len(learned),) or (len(learned), K).

    fold: of the given labels, the one that it does not learn.
    """

    where: str
    fold: int
    learned: np.ndarray
    targets: np.ndarray
    judged: np.ndarray
    teachers: tuple[str, ...]


Second = Callable[[FoldJob], np.ndarray]
"""second(fold_job) → (len(fold_job.judged), K) log of what else speaks for each class, from what that job learned."""


def predict_out_of_fold(
    dataset: Dataset,
    fold_jobs: list[FoldJob],
    fit: Fit,
    predict: Predict,
    *,
    clusters: np.ndarray,
    chained: bool = False,
    calibrate: Callable | None = None,
    second: Second | None = None,
    ahead: Callable[[list[FoldJob]], None] = lambda fold_jobs: None,
) -> OutOfFoldPredictions:
    """Log-probabilities, (N, K) or (N, C, 2), of every sample, judged only by models that saw neither it nor a copy.

    What several models judged is averaged. The one rule of this project lives here and nowhere else.
    chained: see mix. calibrate: parts → (calibrated parts, facts), before they are mixed. second: a second opinion on
    what each model judges, from what that model learned; the product of both counts. ahead: told of all fold jobs at
    first, so that several processes can share them.
    """
    parts, models = [], {}
    for fold_job in fold_jobs:
        assert not np.isin(clusters[fold_job.judged], clusters[fold_job.learned]).any(), (
            "a row would be judged from memory"
        )
    ahead(fold_jobs)
    for fold_job in fold_jobs:
        model = fit(fold_job.where, fold_job.learned, fold_job.targets)
        said = predict(model, fold_job.judged)
        said = normalized(said + second(fold_job)) if second else said
        parts.append(FoldPredictions(fold_job.judged, said, model.hash, fold_job.fold))
        models[model.hash] = {"fold": fold_job.fold, "teachers": list(fold_job.teachers)}
    parts, about = calibrate(parts) if calibrate else (parts, {})
    return replace(mix(parts, len(dataset), chained), calibration=about, models=models)


def plain_fold_jobs(training_labels: TrainingLabels, folds: np.ndarray) -> list[FoldJob]:
    """One model a fold: it learns the labels of the others and judges its own rows, and those without a fold (-1)."""
    fold_jobs = []
    for fold in range(folds.max() + 1):
        elsewhere = (folds != fold) & (folds >= 0)  # with a label, or a copy of such a row
        learned, judged = np.flatnonzero(elsewhere & has_label(training_labels.labels)), np.flatnonzero(~elsewhere)
        fold_jobs.append(
            FoldJob(f"fold_{fold}", fold, learned, training_labels.targets[learned], judged, training_labels.by)
        )
    return fold_jobs


def leak_free_fold_jobs(
    given_labels: np.ndarray, chains: list[TrainingLabels], folds: np.ndarray, clusters: np.ndarray, seed: int
) -> list[FoldJob]:
    """Two models a fold, each taught by the earlier models of its own fold alone.

    Each learns the given labels of the other folds and one half of the pool, and judges the other half; one of the two
    judges the fold. So no row is judged by a model that learned it, and nothing that a model learned comes from the
    labels of its fold.

    chains: for each fold what its own models made of the samples; folds: (N,) of the given labels and of what shares
    their clusters, -1 elsewhere.
    """
    free, fold_jobs = folds < 0, []
    halves = make_folds(np.where(free, 0, -1), clusters, 2, seed)
    for fold, training_labels in enumerate(chains):
        for half in range(2):
            other, has = free & (halves == 1 - half), has_label(training_labels.labels)
            learned = np.flatnonzero(has_label(given_labels) & (folds != fold) | other & has)
            own = (folds == fold) & (half == 0)  # judged once a round
            judged = np.flatnonzero(own | free & (halves == half))
            where = f"fold_{fold + half * len(chains)}"
            fold_jobs.append(
                FoldJob(where, fold, learned, training_labels.targets[learned], judged, training_labels.by)
            )
    return fold_jobs
