"""Predictions from outside in a run: checked against its rows, and what is to be said of where they come from."""

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import FIT, USES_UNLABELED, Config
from ..config.types import UserError
from ..data.dataset import Dataset
from ..data.encoding import has_label
from ..labels.council import predicted_by_all
from ..labels.inputs import read_weights
from ..labels.out_of_fold import (
    FoldPredictions,
    OutsidePredictions,
    average_models,
    split_by_fold,
)
from ..labels.sanity import learned_these_rows
from ..system.files import hash_of, log
from .prediction_files import PredictionFile, read_prediction_files

COPY_OF_LABELED = "copy_of_labeled"
"""Why an unlabeled row gets no pseudo-label from outside: those teachers may have learned the label of its copy."""


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
        "predictions.fold_col belongs to predictions.labeled or predictions.unlabeled; give one": (
            predictions.fold_col and not (labeled or unlabeled)
        ),
        "predictions.weights=fit compares teachers: give two files or more of predictions.labeled, and as many of "
        "predictions.unlabeled, of the same teachers in the same order": (
            predictions.weights == FIT
            and labeled
            and (len(labeled) < 2 or len(unlabeled or labeled) != len(labeled))
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
    weights, own_weight = _weights(predictions.weights, files, other_files)
    teachers, warnings = _judge_labeled(files, weights, judged, clusters)
    n_folds = len(teachers)
    others, copies = _judge_unlabeled(other_files, weights, judged, clusters, not files)
    models = [*teachers, *others]
    labeled = has_label(judged.given_labels)
    fits_weights = predictions.weights == FIT
    if fits_weights and not (labeled & predicted_by_all(models, len(judged))).any():
        raise UserError(
            "predictions.weights=fit: no labeled row is predicted by all files, held out; give predictions.labeled of "
            "the same teachers, or predictions.fold_col"
        )
    warnings += _learned(models, judged.given_labels)
    for warning in warnings:
        log.info(f"warning: {warning}")
    shares = weights if files else np.append(weights, own_weight)
    facts = {
        "labeled": [str(file.path) for file in files],
        "unlabeled": [str(file.path) for file in other_files],
        "folds": n_folds if files and predictions.fold_col else None,
        "weights": (shares / shares.sum()).tolist(),
        "warnings": warnings,
    }
    if files:
        teachers, others = models, []
    return OutsidePredictions(
        teachers, others, own_weight, fits_weights, _calibration(files), copies, facts
    )


def _weights(
    given: list[float] | str | None, files: list[PredictionFile], others: list[PredictionFile]
) -> tuple[ndarray, float]:
    """The weight of each file, all alike where they are fitted, and that of the kit's own teachers."""
    own_weight = 0.0 if files else 1.0
    given = None if given == FIT else given
    if given and not files and len(given) == len(others) + 1:
        *given, own_weight = given
    for group in sorted(filter(None, (files, others)), key=len):
        weights = read_weights(given, len(group), "predictions.weights", "files")
    return weights, own_weight


def _calibration(files: list[PredictionFile]) -> dict:
    """What the run says that wrote and calibrated the files of predictions.labeled; {} where no run did.

    Of several the first decides the kind of noise.
    """
    raw = [file for file in files if file.calibration is None]
    if len(raw) == len(files):
        return {}
    if raw:
        raise UserError(
            f"predictions.labeled: {raw[0].path} is not calibrated, and other files are, by the run that wrote them; "
            "give one kind alone"
        )
    log.info(f"{files[0].path} is calibrated already, by the run that wrote it")
    return files[0].calibration


def _judge_labeled(
    files: list[PredictionFile], weights: ndarray, judged: Dataset, clusters: ndarray
) -> tuple[list[FoldPredictions], list[str]]:
    """What each fold of each file says of the labeled rows that it has, together all of them; warnings."""
    labeled = has_label(judged.given_labels)
    is_covered = ~labeled
    models = []
    warnings = []
    for number, file in enumerate(files):
        places = file.places(judged.id)
        doubt = _doubt(file, places, judged, clusters)
        if file.folds is None:
            log.info(f"{file.path}: {doubt}")
        elif doubt:
            warnings.append(f"{file.path}: {doubt}")
        rows = np.flatnonzero(labeled & (places >= 0))
        is_covered[rows] = True
        folds = np.zeros(len(rows)) if file.folds is None else file.folds[places[rows]]
        log_probs = file.log_probs(places[rows], judged.given_labels.ndim == 2)
        facts = {"member": number, "weight": weights[number]}
        models += split_by_fold(rows, log_probs, folds, len(models), **facts)
        _say_unused(file, len(rows))
    if files:
        _refuse_missing(files, judged.id[~is_covered], labeled.sum(), "labeled")
    return models, warnings


def _judge_unlabeled(
    files: list[PredictionFile],
    weights: ndarray,
    judged: Dataset,
    clusters: ndarray,
    beside_own: bool,
) -> tuple[list[FoldPredictions], ndarray | None]:
    """What each file says of the unlabeled rows, and of labeled ones that its folds prove to be held out.

    Args:
        beside_own: the kit's own teachers are trained, and they alone judge copies of labeled rows.

    Returns:
        The predictions, and (N,) which rows are such copies.
    """
    if not files:
        return [], None
    labeled = has_label(judged.given_labels)
    copies = ~labeled & np.isin(clusters, clusters[labeled])
    needed = ~labeled & ~(copies & beside_own)
    models = []
    for number, file in enumerate(files):
        places = file.places(judged.id)
        _refuse_missing([file], judged.id[needed & (places < 0)], needed.sum(), "unlabeled")
        is_judged = needed
        in_file = labeled & (places >= 0)
        if in_file.any():
            text = f"{file.path}: {in_file.sum():,} of its rows are labeled in this run"
            if doubt := _doubt(file, places, judged, clusters):
                log.info(f"{text} and are left out, so it judges unlabeled rows alone: {doubt}")
            else:
                log.info(f"{text}, and by their folds they are held out, so it judges them too")
                is_judged = needed | in_file
        rows = np.flatnonzero(is_judged)
        log_probs = file.log_probs(places[rows], judged.given_labels.ndim == 2)
        model_hash = hash_of(log_probs, rows)
        member = number + beside_own
        models.append(FoldPredictions(rows, log_probs, model_hash, -1, member, weights[number]))
        _say_unused(file, (needed | in_file).sum())
    return models, copies


def _doubt(file: PredictionFile, places: ndarray, judged: Dataset, clusters: ndarray) -> str:
    """Why nothing proves that the labeled rows of a file are held out; "" where their folds do.

    places: (N,) where each row stands in the file, -1 = nowhere.
    """
    if file.folds is None:
        return (
            "nobody says which model predicted which row (predictions.fold_col), so nothing proves that it had not "
            "learned it"
        )
    table = pd.DataFrame({"id": judged.id, "cluster": clusters, "fold": file.folds[places]})[
        places >= 0
    ]
    labeled = has_label(judged.given_labels)[places >= 0]
    no_fold = table.id[labeled & (table.fold == "")]
    if len(no_fold):
        return f"{len(no_fold):,} of them have no fold, such as {no_fold.iloc[0]!r}"
    table = table[table.fold != ""]
    table = table[table.groupby("cluster").fold.transform("nunique") > 1]
    if not len(table):
        return ""
    first = table[table.cluster == table.cluster.iloc[0]].drop_duplicates("fold")
    one, other = first.id[:2]
    return (
        f"rows of {table.cluster.nunique():,} groups or copies lie in several folds, such as {one!r} and {other!r}, so "
        "their predictions are not held out; keep each group in one fold"
    )


def _learned(models: list[FoldPredictions], given_labels: ndarray) -> list[str]:
    """A warning where the mean looks learned by heart. Of label sets, answers that are yes: no is easily right."""
    log_probs = average_models(models, len(given_labels)).log_probs
    rows = given_labels == 1 if given_labels.ndim == 2 else given_labels >= 0
    rows &= ~np.isnan(log_probs[..., 0])
    confidence = np.exp(log_probs.max(-1)[rows])
    problem = learned_these_rows(log_probs.argmax(-1)[rows], confidence, given_labels[rows])
    if not problem:
        return []
    return [
        f"these look like predictions of rows that the model learned: {problem}. Such a model finds no wrong label; "
        "give out-of-fold predictions (scikit-learn: cross_val_predict)"
    ]


def _refuse_missing(files: list[PredictionFile], ids: ndarray, n: int, key: str) -> None:
    if len(ids):
        names = ", ".join(str(file.path) for file in files)
        raise UserError(
            f"predictions.{key}={names}: {len(ids):,} of {n:,} {key} rows are not there, first {ids[0]!r}; add them"
        )


def _say_unused(file: PredictionFile, n_used: int) -> None:
    if n_unused := len(file.ids) - n_used:
        log.info(f"{file.path}: {n_unused:,} of its rows are none of this run")
