"""Predictions from outside in a run: checked against its rows, and what is to be said of where they come from."""

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import FIT, USES_UNLABELED, Config
from ..config.types import UserError
from ..data.dataset import Dataset
from ..data.encoding import has_label
from ..labels.council import predicted_by_all
from ..labels.inputs import read_log_probs, read_weights
from ..labels.out_of_fold import (
    FoldPredictions,
    OutsidePredictions,
    average_models,
    split_by_fold,
)
from ..labels.sanity import learned_these_rows
from ..system.files import log
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
        "predictions.ids, weights and fold_col belong to predictions.labeled or predictions.unlabeled; give one": (
            (predictions.ids or predictions.weights or predictions.fold_col)
            and not (labeled or unlabeled)
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
    copies = ~labeled & np.isin(clusters, clusters[labeled])
    # The kit's own teachers, where they are trained, alone judge copies of labeled rows.
    unlabeled = ~labeled if files else ~labeled & ~copies
    own_weight = 0.0 if files else 1.0
    fits_weights = predictions.weights == FIT
    given = None if fits_weights else predictions.weights
    if given and not files and len(given) > len(other_files):
        *given, own_weight = given
    teachers, warnings = _judge("labeled", files, given, labeled, judged, clusters)
    others, _ = _judge("unlabeled", other_files, given, unlabeled, judged, clusters)
    models = [*teachers, *others]
    is_paired = not files or (len(files) > 1 and len(other_files) in (0, len(files)))
    is_common = labeled & predicted_by_all(models, len(judged))
    if fits_weights and not (is_paired and is_common.any()):
        raise UserError(
            "predictions.weights=fit compares teachers on labeled rows that all of them predict, held out: give two "
            "files or more of predictions.labeled, and as many of predictions.unlabeled, of the same teachers in the "
            "same order; or predictions.unlabeled with predictions.fold_col"
        )
    warnings += _learned(models, judged.given_labels)
    for warning in warnings:
        log.info(f"warning: {warning}")
    file_weights = given or [1.0] * len(files or other_files)
    weights = np.array([*file_weights, own_weight])
    weights = weights[: -1 if files else None] / weights.sum()
    facts = {"weights": weights.tolist(), "warnings": warnings}
    return OutsidePredictions(
        models if files else [],
        [] if files else others,
        own_weight,
        fits_weights,
        _calibration(files),
        copies if other_files else None,
        facts,
    )


def _calibration(files: list[PredictionFile]) -> dict:
    """What the run says that wrote and calibrated the files of predictions.labeled; {} where no run did.

    Of several the first decides the kind of noise.
    """
    of_files = [file.calibration for file in files]
    if not any(of_files):
        return {}
    if not all(of_files):
        raw = files[of_files.index({})].path
        raise UserError(
            f"predictions.labeled: {raw} is not calibrated, and other files are, by the run that wrote them; give one "
            "kind alone"
        )
    log.info(f"{files[0].path} is calibrated already, by the run that wrote it")
    return of_files[0]


def _judge(
    key: str,
    files: list[PredictionFile],
    weights: list[float] | None,
    needed: ndarray,
    judged: Dataset,
    clusters: ndarray,
) -> tuple[list[FoldPredictions], list[str]]:
    """What the files of one key say of the rows that are needed (N,), and of labeled ones that are proved held out.

    Files of predictions.labeled have the needed rows together, each file of predictions.unlabeled has all of them.

    Returns:
        What each fold of each file predicts; warnings.
    """
    labeled = has_label(judged.given_labels)
    missing = needed
    models = []
    warnings = []
    for number, file in enumerate(files):
        places = file.ids.get_indexer(judged.id)
        in_file = places >= 0
        missing = (needed if key == "unlabeled" else missing) & ~in_file
        if missing.any() and (key == "unlabeled" or file is files[-1]):
            names = file.path if key == "unlabeled" else ", ".join(str(one.path) for one in files)
            raise UserError(
                f"predictions.{key}={names}: {missing.sum():,} {key} rows are not there, first "
                f"{judged.id[missing][0]!r}; add them"
            )
        is_judged = needed & in_file
        more = labeled & in_file & ~needed
        doubt = _doubt(file, places, judged, clusters) if (labeled & in_file).any() else ""
        if more.any():
            fate = f"left out, so it judges unlabeled rows alone: {doubt}"
            if not doubt:
                fate = "held out by their folds, so it judges them too"
                is_judged |= more
            log.info(f"{file.path}: {more.sum():,} of its rows are labeled in this run and {fate}")
        elif doubt and file.folds is None:
            log.info(f"{file.path}: {doubt}")
        elif doubt:
            warnings.append(f"{file.path}: {doubt}")
        rows = np.flatnonzero(is_judged)
        folds = np.zeros(len(rows))
        if file.folds is not None:
            folds = file.folds[places[rows]]
        log_probs = read_log_probs(
            file.values,
            multi_label=judged.given_labels.ndim == 2,
            rows=places[rows],
            name=str(file.path),
            ids=file.ids,
        )
        weight = read_weights(weights, len(files), "predictions.weights", "files")[number]
        models += split_by_fold(rows, log_probs, folds, member=number, weight=weight)
    return models, warnings


def _doubt(file: PredictionFile, places: ndarray, judged: Dataset, clusters: ndarray) -> str:
    """Why nothing proves that the labeled rows of a file are held out; "" where their folds do.

    places: (N,) where each row stands in the file, -1 = nowhere.
    """
    if file.folds is None:
        return (
            "nobody says which model predicted which row (predictions.fold_col), so nothing proves that it had not "
            "learned it"
        )
    columns = {"id": judged.id, "cluster": clusters, "fold": file.folds[places]}
    is_there = places >= 0
    table = pd.DataFrame(columns)[is_there]
    labeled = has_label(judged.given_labels)[is_there]
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
