"""The one rule: no row is ever predicted by a model that learned a label for that row, or for a copy of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy import ndarray

from ..config.keys import member_folder
from ..data.encoding import has_label
from ..data.folds import make_folds
from ..system.files import TimeBudgetExceeded, hash_of
from .arrays import MAX_EXACT_ROWS, normalize_log, row_blocks

Fit = Callable[..., object]
"""fit(where, rows, labels or soft targets of those rows) → a model with a `hash`."""
Predict = Callable[[object, ndarray], ndarray]
"""predict(model, rows) → (len(rows), K) log-probabilities; of label sets (len(rows), C, 2), see data/encoding.py."""


@dataclass(frozen=True)
class FoldJob:
    """One model of a round."""

    where: str
    """Folder of the model: `round_1/fold_0`."""
    fold: int
    """Of the given labels, the fold that the model does not learn."""
    learned: ndarray
    """Row numbers that it learns, and their targets: (len(learned),) or (len(learned), K)."""
    targets: ndarray
    judged: ndarray
    """Row numbers that it predicts."""
    member: int = 0
    """Which network of a council it is."""


@dataclass(frozen=True)
class FoldPredictions:
    """What one model predicts."""

    rows: ndarray
    """Row numbers, ascending."""
    log_probs: ndarray
    """(len(rows), K) or (len(rows), C, 2)."""
    hash: str
    fold: int
    member: int = 0
    """See FoldJob."""
    weight: float = 1.0
    """How much it counts in a mean."""


@dataclass(frozen=True)
class OutsidePredictions:
    """What other people's models predict of the rows of a run; the weights are those that the user gave."""

    teachers: list[FoldPredictions] = field(default_factory=list)
    """Of all judged rows, in place of trained teachers; then there is one round. Empty = these are trained."""
    others: list[FoldPredictions] = field(default_factory=list)
    """Beside the trained teachers: of unlabeled rows, and of labeled ones where they are held out."""
    own_weight: float = 1.0
    """How much the trained teachers count together beside the others."""
    fits_weights: bool = False
    """Whether weights are fitted: `member` tells the files apart."""
    calibration: dict = field(default_factory=dict)
    """What the run says that has calibrated the teachers."""
    copies: ndarray | None = None
    """(N,) unlabeled rows of which the kit's own teachers alone may speak."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What metrics.json says of them."""

    @property
    def input_hash(self) -> str:
        """Of all that is predicted."""
        models = [*self.teachers, *self.others]
        weights = self.own_weight, self.fits_weights, self.calibration
        return hash_of([(model.hash, model.weight) for model in models], weights)


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Out-of-fold log-probabilities of every row, the mean over models and rounds."""

    log_probs: ndarray
    """(N, K) or (N, C, 2) float32."""
    predicted_by: ndarray
    """(N,) hashes of the models that predicted the row, joined by +."""
    chains: ndarray | None = None
    """(folds, N, …) what the models of each fold say alone, NaN where they predict nothing; of leak-free rounds."""
    models: dict[str, dict] = field(default_factory=dict)
    """Of this round: hash → {"fold": the fold that the model did not learn}."""
    calibration: dict = field(default_factory=dict)
    """What calibration came to, see calibration.py."""

    @property
    def likeliest_rate(self) -> float | None:
        """The likeliest rate of wrong labels, where noise is by difficulty; 0 = it follows the images."""
        return self.calibration.get("likeliest_rate")


Second = Callable[[FoldJob], ndarray]
"""second(fold_job) → (len(fold_job.judged), K) log of what else speaks for each class, from what that job learned."""


def predict_out_of_fold(
    fold_jobs: list[FoldJob],
    fit: Fit,
    predict: Predict,
    clusters: ndarray,
    second: Second | None = None,
    ahead: Callable[[list[FoldJob]], None] | None = None,
) -> list[FoldPredictions]:
    """Train every model and predict with it. The one rule of this project is enforced here and nowhere else.

    Args:
        clusters: (N,) rows of one cluster are copies, or of one group.
        second: a second opinion on what each model predicts, from what that model learned; the product of both counts.
        ahead: is told all jobs at first, so that several processes can share them.

    Raises:
        AssertionError: a model would predict a row that it learned, or a copy of one.
        TimeBudgetExceeded: there is no time for all models. It holds what the others predict.
    """
    for job in fold_jobs:
        seen = np.isin(clusters[job.judged], clusters[job.learned])
        assert not seen.any(), f"{job.where} would predict rows from memory"
    if ahead is not None:
        ahead(fold_jobs)
    predictions = []
    for job in fold_jobs:
        try:
            model = fit(job.where, job.learned, job.targets)
        except TimeBudgetExceeded:
            raise TimeBudgetExceeded(predictions) from None
        log_probs = predict(model, job.judged)
        if second is not None:
            log_probs = normalize_log(log_probs + second(job))
        predictions.append(FoldPredictions(job.judged, log_probs, model.hash, job.fold, job.member))
    return predictions


def for_each_member(fold_jobs: list[FoldJob], n_members: int) -> list[FoldJob]:
    """The same jobs for every network of a council: each learns and predicts the same rows."""
    jobs = []
    for job, member in product(fold_jobs, range(n_members)):
        jobs.append(replace(job, where=member_folder(job.where, member), member=member))
    return jobs


def plain_fold_jobs(
    labels: ndarray,
    targets: ndarray,
    folds: ndarray,
    number: int,
) -> list[FoldJob]:
    """One model a fold: it learns the labels of the other folds and predicts its own, and rows without a fold (-1).

    labels: (N,) or (N, C); targets: the same, or soft ones; folds: (N,), also of rows without a label that share a
    cluster with labeled ones; number: of the round.
    """
    jobs = []
    for fold in range(folds.max() + 1):
        elsewhere = (folds != fold) & (folds >= 0)
        learned = np.flatnonzero(elsewhere & has_label(labels))
        judged = np.flatnonzero(~elsewhere)
        jobs.append(FoldJob(f"round_{number}/fold_{fold}", fold, learned, targets[learned], judged))
    return jobs


def leak_free_fold_jobs(
    given_labels: ndarray,
    chains: list[tuple[ndarray, ndarray]],
    folds: ndarray,
    clusters: ndarray,
    number: int,
    seed: int,
) -> list[FoldJob]:
    """Two models a fold, each taught by the earlier models of its own fold alone.

    Each learns the given labels of the other folds and one half of the unlabeled rows, and predicts the other half; one
    of the two predicts the fold. So no row is predicted by a model that learned it, and nothing that a model learned
    comes from the labels of its fold.

    chains: for each fold the labels by the predictions of its own models, and their targets; folds: see
    plain_fold_jobs.
    """
    unlabeled = folds < 0
    halves = make_folds(np.where(unlabeled, 0, -1), clusters, 2, seed)
    jobs = []
    for fold, (labels, targets) in enumerate(chains):
        for half in range(2):
            given = has_label(given_labels) & (folds != fold)
            pseudo_labeled = unlabeled & (halves != half) & has_label(labels)
            learned = np.flatnonzero(given | pseudo_labeled)
            held_out = (folds == fold) & (half == 0)  # predicted once a round
            judged = np.flatnonzero(held_out | unlabeled & (halves == half))
            where = f"round_{number}/fold_{fold + half * len(chains)}"
            jobs.append(FoldJob(where, fold, learned, targets[learned], judged))
    return jobs


def split_by_fold(
    rows: ndarray, log_probs: ndarray, folds: ndarray, **facts
) -> list[FoldPredictions]:
    """Predictions (M, …) of these rows by the model that made them; folds: (M,) names; facts: member and weight."""
    different, numbers = np.unique(folds, return_inverse=True)
    models = []
    for number in range(len(different)):
        of_fold = numbers == number
        part = log_probs if of_fold.all() else log_probs[of_fold]  # a copy
        part_rows = rows[of_fold]
        models.append(FoldPredictions(part_rows, part, hash_of(part, part_rows), number, **facts))
    return models


def average_models(
    predictions: list[FoldPredictions], n: int, chained: bool = False
) -> OutOfFoldPredictions:
    """Predictions of n rows: the weighted mean of what the models that predicted a row say; NaN where none did.

    chained: also those of the models of each fold alone.
    """
    log_probs, predicted_by = _mean_log_probs(predictions, n)
    chains = None
    if chained:
        folds = sorted({model.fold for model in predictions})
        of_folds = [[model for model in predictions if model.fold == fold] for fold in folds]
        chains = np.stack([_mean_log_probs(models, n)[0] for models in of_folds])
    models = {model.hash: {"fold": model.fold} for model in predictions}
    return OutOfFoldPredictions(log_probs, predicted_by, chains, models)


def _mean_log_probs(predictions: list[FoldPredictions], n: int) -> tuple[ndarray, ndarray]:
    """(n, …) log of the weighted mean probabilities, NaN where no model predicted; (n,) hashes of the models."""
    first = predictions[0]
    is_alone = len(predictions) == 1 and len(first.rows) == n
    if is_alone and n > MAX_EXACT_ROWS:  # its own mean, but for rounding
        log_probs = first.log_probs.astype(np.float32, copy=False)
        return log_probs, np.array([first.hash], object).repeat(n)
    log_probs = np.empty((n, *first.log_probs.shape[1:]), np.float32)
    predicted_by = np.full(n, "", object)
    for model in predictions:
        predicted_by[model.rows] = _join_hashes(predicted_by[model.rows], model.hash)
    for block in row_blocks(n, prod(log_probs.shape[1:])):
        total = np.zeros(log_probs[block].shape)
        weights = np.zeros(len(total))
        for model in predictions:
            part = slice(*np.searchsorted(model.rows, (block.start, block.stop)))
            rows = model.rows[part] - block.start
            total[rows] += model.weight * np.exp(model.log_probs[part])
            weights[rows] += model.weight
        with np.errstate(invalid="ignore"):
            probs = (total.T / weights).T
        log_probs[block] = np.log(np.maximum(probs, 1e-30))
    return log_probs, predicted_by


def with_others(
    predicted: OutOfFoldPredictions, models: list[FoldPredictions]
) -> OutOfFoldPredictions:
    """The mean of the models: our own teachers together, who predict every row, and others."""
    mean = average_models(models, len(predicted.log_probs))
    hashes = _join_hashes(predicted.predicted_by, mean.predicted_by)
    return replace(predicted, log_probs=mean.log_probs, predicted_by=hashes)


def average_rounds(
    predicted: OutOfFoldPredictions, earlier: OutOfFoldPredictions, n: int
) -> OutOfFoldPredictions:
    """The mean over n rounds, n - 1 of which `earlier` is the mean of: log-probabilities averaged and normalized."""

    def mean(new: ndarray, old: ndarray) -> ndarray:
        with np.errstate(invalid="ignore"):  # NaN where a chain predicts nothing
            return normalize_log((new + (n - 1) * old) / n)

    return replace(
        predicted,
        log_probs=mean(predicted.log_probs, earlier.log_probs),
        predicted_by=_join_hashes(earlier.predicted_by, predicted.predicted_by),
        chains=None if predicted.chains is None else mean(predicted.chains, earlier.chains),
    )


@cache  # rows of the same models share one string, so that memory does not grow with the rows
def _join(first: str, second: str) -> str:
    return "+".join(filter(None, (first, second)))


_join_hashes = np.frompyfunc(_join, 2, 1)
"""(N,) hashes of models, and more of them → (N,) all, joined by +."""
