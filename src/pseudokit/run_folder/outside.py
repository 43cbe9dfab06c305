"""Predictions from outside in a run: checked against its rows, and what is to be said of where they come from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import USES_UNLABELED, Config
from ..config.types import UserError
from ..data.dataset import Dataset
from ..data.encoding import has_label
from ..data.predictions import PredictionFile, read_prediction_files
from ..labels.inputs import read_log_probs
from ..labels.out_of_fold import FoldPredictions, average_models
from ..labels.sanity import learned_these_rows
from ..system.files import hash_of, log

COPY_OF_LABELED = "copy_of_labeled"
"""Why an unlabeled row gets no pseudo-label from outside: those teachers may have learned the label of its copy."""


@dataclass(frozen=True)
class OutsidePredictions:
    """What other people's models say of the rows of a run."""

    teachers: list[FoldPredictions] | None = None
    """Of all judged rows, in place of trained teachers; None = these are trained."""
    others: FoldPredictions | None = None
    """Of unlabeled rows, beside the trained teachers. Its weight is the share of the mean that it has."""
    copies: ndarray | None = None
    """(N,) unlabeled rows of which the kit's own teachers alone may speak, see COPY_OF_LABELED."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What metrics.json says of them."""

    @property
    def input_hash(self) -> str:
        """Of all that is predicted."""
        models = [*(self.teachers or ()), *filter(None, (self.others,))]
        return hash_of([(model.hash, model.weight) for model in models])


def refuse_idle_predictions(config: Config, mode: str, trains: bool) -> None:
    """Raises UserError where a key of `predictions` has no effect, or does not fit the mode or other keys."""
    predictions, pseudo = config.predictions, config.pseudo
    labeled, unlabeled = predictions.labeled, predictions.unlabeled
    faults = {
        "predictions.labeled needs --mode denoise, or augment or joint with predictions.unlabeled": (
            labeled and (mode == "train" or (mode in USES_UNLABELED and not unlabeled))
        ),
        "predictions.unlabeled needs --mode augment or joint": (
            unlabeled and mode not in USES_UNLABELED
        ),
        "predictions.ids and predictions.weights belong to predictions.labeled or predictions.unlabeled; give one": (
            (predictions.ids or predictions.weights) and not (labeled or unlabeled)
        ),
        "predictions.fold_col belongs to predictions.labeled; give it, or leave the column out": (
            predictions.fold_col and not labeled
        ),
        "pseudo.leak_free_folds=true: teachers from outside may have learned the labels of every fold; leave it out": (
            unlabeled and pseudo.leak_free_folds
        ),
        "pseudo.min_precision is measured on the kit's own teachers, not on those of predictions.unlabeled; give "
        "predictions.labeled of the same teachers, or use pseudo.cutoff": (
            unlabeled and not labeled and pseudo.min_precision is not None
        ),
        "data.submission needs a model, and with predictions.labeled mode denoise trains none; leave it out": (
            config.data.submission and not trains
        ),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise UserError(fault)


def read_outside(config: Config, judged: Dataset, clusters: ndarray) -> OutsidePredictions:
    """Read and check the files of `predictions`. Warns of predictions that do not look held out.

    Args:
        judged: the N rows that are learned or judged.
        clusters: (N,) rows of one cluster are copies, or of one group.

    Raises:
        UserError: a file is wrong, or does not cover the rows that it should.
    """
    predictions = config.predictions
    if not (predictions.labeled or predictions.unlabeled):
        return OutsidePredictions()
    files, other_files = read_prediction_files(predictions, config.data, judged.classes)
    labeled = has_label(judged.given_labels)
    facts = {
        "labeled": [str(file.path) for file in files],
        "unlabeled": [str(file.path) for file in other_files],
    }
    teachers = others = copies = None
    if files:
        weights = _weights(predictions.weights, len(files))
        teachers = _judge_labeled(files, weights, judged, np.flatnonzero(labeled))
        warnings = [*_straddling(files, judged, clusters), *_learned(teachers, judged.given_labels)]
        facts |= {"folds": len(teachers) if predictions.fold_col else None, "warnings": warnings}
        for warning in warnings:
            log.info(f"warning: {warning}")
    if other_files:
        copies = ~labeled & np.isin(clusters, clusters[labeled])
        rows = np.flatnonzero(~labeled if files else ~labeled & ~copies)
        own_weight = 0.0 if files else 1.0
        weights = predictions.weights or []
        if not files and len(weights) == len(other_files) + 1:
            *weights, own_weight = weights
        weights = _weights(weights, len(other_files))
        others = _judge_unlabeled(other_files, weights, own_weight, judged, rows)
        facts["share"] = others.weight
    if teachers and others:
        teachers, others = [*teachers, others], None
    return OutsidePredictions(teachers, others, copies, facts)


def _weights(given: list[float] | None, n: int) -> list[float]:
    """A weight a file, all alike where none is given."""
    if not given:
        return [1.0] * n
    if len(given) != n or min(given) <= 0:
        raise UserError(
            f"predictions.weights={given} must be a number above 0 for each of the {n} files, as {','.join('1' * n)}"
        )
    return given


# ---- labeled rows


def _judge_labeled(
    files: list[PredictionFile], weights: list[float], judged: Dataset, rows: ndarray
) -> list[FoldPredictions]:
    """What each fold of each file says of the labeled rows that it has; together they have all rows."""
    models = []
    is_covered = np.zeros(len(rows), bool)
    for file, weight in zip(files, weights, strict=True):
        places = file.places(judged.id[rows])
        is_covered |= places >= 0
        log_probs = _read(file, "labeled", places[places >= 0], judged)
        in_file = rows[places >= 0]
        folds = np.full(len(in_file), "")
        if file.folds is not None:
            folds = file.folds[places[places >= 0]]
        for name in sorted({*folds}):
            of_fold = folds == name
            part = log_probs[of_fold]
            number = len(models)
            models.append(
                FoldPredictions(
                    in_file[of_fold], part, hash_of(part, number), number, weight=weight
                )
            )
        _say_unused(file, len(in_file))
    _refuse_missing(files, judged.id[rows][~is_covered], len(rows), "labeled")
    return models


def _straddling(files: list[PredictionFile], judged: Dataset, clusters: ndarray) -> list[str]:
    """A warning for each file of which a cluster of rows lies in several folds: then a model had seen some of it."""
    warnings = []
    for file in files:
        if file.folds is None:
            log.info(
                f"{file.path}: nobody says which model predicted which row (predictions.fold_col), so nothing proves "
                "that it had not learned it"
            )
            continue
        places = file.places(judged.id)
        rows = np.flatnonzero(places >= 0)
        table = pd.DataFrame(
            {"id": judged.id[rows], "cluster": clusters[rows], "fold": file.folds[places[rows]]}
        )
        table = table[table.groupby("cluster").fold.transform("nunique") > 1]
        if len(table):
            first = table[table.cluster == table.cluster.iloc[0]].drop_duplicates("fold")
            one, other = first.id[:2]
            warnings.append(
                f"{file.path}: rows of {table.cluster.nunique():,} groups or copies lie in several folds, such as "
                f"{one!r} and {other!r}. Their predictions are not held out; keep each group in one fold"
            )
    return warnings


def _learned(teachers: list[FoldPredictions], given_labels: ndarray) -> list[str]:
    """A warning where the mean looks learned by heart. Of label sets, answers that are yes: no is easily right."""
    log_probs = average_models(teachers, len(given_labels)).log_probs
    rows = given_labels == 1 if given_labels.ndim == 2 else given_labels >= 0
    log_probs = log_probs[rows]
    confidence = np.exp(log_probs.max(-1))
    problem = learned_these_rows(log_probs.argmax(-1), confidence, given_labels[rows])
    if not problem:
        return []
    return [
        f"these look like predictions of rows that the model learned: {problem}. Such a model finds no wrong label; "
        "give out-of-fold predictions (scikit-learn: cross_val_predict)"
    ]


# ---- unlabeled rows


def _judge_unlabeled(
    files: list[PredictionFile],
    weights: list[float],
    own_weight: float,
    judged: Dataset,
    rows: ndarray,
) -> FoldPredictions:
    """The mean of the files on these rows. Its weight is the share of it in the mean with the kit's own teachers."""
    labeled_ids = judged.id[has_label(judged.given_labels)]
    models = []
    for file, weight in zip(files, weights, strict=True):
        places = file.places(judged.id[rows])
        _refuse_missing([file], judged.id[rows][places < 0], len(rows), "unlabeled")
        log_probs = _read(file, "unlabeled", places, judged)
        models.append(FoldPredictions(np.arange(len(rows)), log_probs, "", -1, weight=weight))
        n_labeled = int((file.places(labeled_ids) >= 0).sum())
        if n_labeled:
            log.info(
                f"{file.path}: {n_labeled:,} of its rows are labeled in this run and are left out, as its teachers may "
                "have learned their labels; held-out predictions of them belong in predictions.labeled"
            )
        _say_unused(file, len(rows) + n_labeled)
    log_probs = average_models(models, len(rows)).log_probs
    share = sum(weights) / (sum(weights) + own_weight)
    return FoldPredictions(rows, log_probs, hash_of(log_probs), -1, weight=share)


def _read(file: PredictionFile, key: str, places: ndarray, judged: Dataset) -> ndarray:
    """Log-probabilities of some rows of a file; all of its rows are checked."""
    log_probs = read_log_probs(
        file.values,
        multi_label=judged.given_labels.ndim == 2,
        name=f"predictions.{key}={file.path}",
        ids=file.ids,
        remedy="mend the row; write the softmax of logits, and exp of log-probabilities",
    )
    return log_probs[places]


def _refuse_missing(files: list[PredictionFile], ids: ndarray, n: int, key: str) -> None:
    if len(ids):
        names = ", ".join(str(file.path) for file in files)
        raise UserError(
            f"predictions.{key}={names}: {len(ids):,} of {n:,} {key} rows are not there, first {ids[0]!r}; add them"
        )


def _say_unused(file: PredictionFile, n_used: int) -> None:
    if n_unused := len(file.ids) - n_used:
        log.info(f"{file.path}: {n_unused:,} of its rows are none of this run")
