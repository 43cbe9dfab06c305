"""Wrong labels and pseudo-labels from anyone's predictions: arrays, tables or tensors in, a table out. No torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from .config.load import make_policy
from .config.types import UserError
from .data.encoding import has_label
from .labels.calibration import calibrate_models
from .labels.decide import decide_labels
from .labels.decisions import Decisions
from .labels.inputs import (
    GivenLabels,
    column_names,
    match_table,
    order_columns,
    read_array,
    read_labels,
    read_log_probs,
    read_table,
)
from .labels.out_of_fold import (
    FoldPredictions,
    OutOfFoldPredictions,
    average_models,
    average_rounds,
    split_by_fold,
)
from .labels.pseudo_labels import check_cutoff
from .round_store import noise_summary


def find_label_issues(
    labels: Any,
    pred_probs: Any = None,
    *,
    logits: Any = None,
    folds: Any = None,
    classes: Sequence | None = None,
    relabel_precision: float = 0.99,
    uncertain_labels: str | None = None,
) -> pd.DataFrame:
    """Which labels are probably wrong, what they should be, and what a student would best learn.

    The probabilities must be out of fold: no row predicted by a model that learned its label. Decisions are those of
    one round of `--mode denoise`: docs/architecture.md, How a given label is judged. A memory-mapped array is read in
    blocks. Of more than 200,000 rows the noise is counted on as many, drawn at random, and probabilities are float32.

    Args:
        labels: N class names or indices; NaN, None, an empty text or -1 is no label. With several labels a row (N, C)
            of 1, 0 and NaN.
        pred_probs: (N, K) out-of-fold probabilities, or their logarithms; with several labels a row (N, C) of yes, or
            (N, C, 2) of no and yes. What a run of the kit stored is calibrated already, and not for this. A list of
            several is one of each teacher or round: the first decides the kind of noise, and the mean of all decides
            the labels. Tables are matched with the labels by index and by the names of the classes.
        logits: in place of pred_probs, what a network gives before softmax (with several labels a row, sigmoid).
        folds: (N,) which model predicted a row, where it is known; each is then calibrated by itself. Of a list of
            pred_probs a list.
        classes: the classes in the order of the columns. Default: the columns of a table; else 0 … K - 1 where labels
            are numbers, and the sorted labels where they are names.
        relabel_precision, uncertain_labels: as `pseudo.*` in docs/config.md.

    Returns:
        A row a label, in their order and with their index:
        p_wrong: probability that the label is wrong; NaN without a label. is_issue: whether that is above 0.5.
        suggested_label: the likeliest class, as the labels are written; with several labels a row the list of classes.
        decision: keep, relabel, soften, downweight, drop or review; leave without a label.
        rank: 1 = most probably wrong.
        Its attrs hold noise_type, estimated_rate and, where it is known, estimated_rate_interval; with several labels a
        row estimated_rate and noise_by_class. Where predictions are no better than chance there is a warning, attrs
        hold `problem` alone, and all labels stay.

    Raises:
        UserError: labels or predictions cannot be used; it names row, id or class. It is a ValueError.
    """
    policy = make_policy(relabel_precision=relabel_precision, uncertain_labels=uncertain_labels)
    teachers, name = _teachers(pred_probs, logits)
    given = _read_given(labels, teachers[0], name, classes)
    if not has_label(given.indices).any():
        raise UserError("labels: no row has one; of rows without labels use select_pseudo_labels")
    predicted = _average_teachers(teachers, given, folds, name)
    decisions = decide_labels(
        predicted.log_probs,
        given.indices,
        "denoise",
        policy,
        likeliest_rate=predicted.likeliest_rate,
    )
    if decisions.problem:
        warnings.warn(
            f"{decisions.problem}: no label is called wrong. Check that the rows of labels and predictions belong "
            "together, and so do classes and columns",
            stacklevel=2,
        )
    return issues_table(decisions, given, predicted.likeliest_rate)


def _teachers(pred_probs: Any, logits: Any) -> tuple[list, str]:
    """The predictions of each teacher, and the name of the argument that has them."""
    if (pred_probs is None) == (logits is None):
        raise UserError("give either pred_probs or logits")
    name = "logits" if pred_probs is None else "pred_probs"
    predictions = logits if pred_probs is None else pred_probs
    if isinstance(predictions, list | tuple) and len(np.shape(predictions[0])) >= 2:
        return list(predictions), name
    return [predictions], name


def _read_given(labels: Any, predictions: Any, name: str, classes: Sequence | None) -> GivenLabels:
    """The labels, as indices of the columns of the predictions."""
    n, k, *_ = read_table(predictions, name).shape
    given = read_labels(labels, column_names(predictions) if classes is None else classes, k)
    if len(given.indices) != n:
        raise UserError(f"there are {len(given.indices):,} labels, and {name} has {n:,} rows")
    return given


def _read_teacher(teacher: Any, given: GivenLabels, name: str) -> ndarray:
    """The log-probabilities of the rows and classes of the labels."""
    return read_log_probs(
        match_table(teacher, given, name),
        logits=name == "logits",
        multi_label=given.indices.ndim == 2,
        name=name,
        ids=given.ids,
    )


def _read_folds(folds: Any, given: GivenLabels) -> ndarray:
    """(N,) number of the fold of each row."""
    array = read_array(match_table(folds, given, "folds"), "folds")
    if array.shape != (len(given.indices),):
        raise UserError(f"folds have the shape {array.shape}; give one a row, for each teacher")
    codes, different = pd.factorize(array)
    labeled = np.unique(codes[has_label(given.indices)])
    if codes.min() < 0 or len(labeled) < len(different):
        raise UserError("folds: every row needs one, and each of them rows with a label")
    return codes


def _average_teachers(
    teachers: list, given: GivenLabels, folds: Any, name: str
) -> OutOfFoldPredictions:
    """What all teachers say of the true class, calibrated and averaged as the rounds of a run are."""
    labels = given.indices
    rows = np.arange(len(labels))
    if folds is None:
        folds = [None] * len(teachers)
    elif len(teachers) == 1 and not (isinstance(folds, list) and np.ndim(folds[0])):
        folds = [folds]
    if len(folds) != len(teachers):
        raise UserError(f"folds: give a list of {len(teachers)}, those of each teacher")
    earlier = None
    for number, (teacher, of_teacher) in enumerate(zip(teachers, folds, strict=True), 1):
        log_probs = _read_teacher(teacher, given, name)
        if log_probs.shape[:2] != (len(labels), len(given.names)):
            raise UserError(
                f"{name}: number {number} has the shape {log_probs.shape[:2]}; give all the same one"
            )
        if of_teacher is None:
            models = [FoldPredictions(rows, log_probs, "", 0)]
        else:
            models = split_by_fold(rows, log_probs, _read_folds(of_teacher, given))
        models, calibration = calibrate_models(models, labels, labels, earlier=earlier)
        predicted = replace(average_models(models, len(labels)), calibration=calibration)
        earlier = predicted if earlier is None else average_rounds(predicted, earlier, number)
    return earlier


def issues_table(
    decisions: Decisions, given: GivenLabels, likeliest_rate: float | None
) -> pd.DataFrame:
    """See find_label_issues."""
    p_wrong = pd.Series(decisions.p_wrong, given.ids)
    if decisions.questions:
        best = np.stack([question.best for question in decisions.questions], -1)
        suggested = [list(given.classes[row == 1]) for row in best]
    else:
        suggested = given.classes[decisions.best]
    rank = np.empty(len(p_wrong), int)
    rank[_order(decisions)] = np.arange(1, len(p_wrong) + 1)
    table = pd.DataFrame(
        {
            "p_wrong": p_wrong,
            "is_issue": p_wrong > 0.5,
            "suggested_label": suggested,
            "decision": _names(decisions.decision),
            "rank": pd.Series(rank, given.ids, "Int64").where(p_wrong.notna()),
        }
    )
    if decisions.problem:
        table.attrs["problem"] = decisions.problem
    else:
        noise = noise_summary(decisions, given.indices, given.names, likeliest_rate)
        noise.pop("noise_matrix", None)
        table.attrs |= noise
    return table


def _names(values: pd.Categorical | ndarray) -> Any:
    """The values as a column of text. Of categories it is put together in a tenth of the time of astype."""
    if not isinstance(values, pd.Categorical):
        return values
    return pd.Series([*values.categories]).array.take(values.codes)


def _order(decisions: Decisions) -> ndarray:
    """The rows from the label that is most probably wrong on; of equal ones first what the models contradict more."""
    order = np.argsort(-decisions.p_wrong)  # NaN comes last
    falling = decisions.p_wrong[order]
    is_tie = np.append(falling[1:] == falling[:-1], False)
    is_tie[1:] |= is_tie[:-1]
    tied = np.sort(order[is_tie])
    keys = -decisions.confidence, decisions.self_confidence, -decisions.p_wrong
    order[is_tie] = tied[np.lexsort([key[tied] for key in keys])]
    return order


@dataclass(frozen=True)
class PseudoLabels:
    """Labels for N rows that had none. With several labels a row each array has a column a class, (N, C)."""

    labels: ndarray
    """(N,) class names, None where there is none; indices and -1 where the classes have no names. (N, C): yes = 1,
    no = 0, nothing = -1."""
    weights: ndarray
    """(N,) how much each label counts; 0 where there is none."""
    targets: ndarray
    """(N, K) float32 what to learn: one-hot, or the probabilities; zeros where there is no label. (N, C): probability
    of yes, -1 where there is no answer."""
    confidence: ndarray
    """(N,) probability of the likeliest class, or answer."""
    reason: ndarray
    """(N,) above_cutoff, below_cutoff or beyond_share; learned_nothing, where labels= prove that predictions are no
    better than chance."""


def select_pseudo_labels(
    pred_probs: Any = None,
    *,
    logits: Any = None,
    classes: Sequence | None = None,
    multi_label: bool = False,
    cutoff: float | str | None = None,
    top_fraction: float | None = None,
    min_precision: float | None = None,
    labels: Any = None,
    pred_probs_labeled: Any = None,
    targets: str = "hard",
) -> PseudoLabels:
    """Which unlabeled rows are predicted confidently enough to be learned, and as what.

    Args:
        pred_probs: (N, K) probabilities of rows without a label, or their logarithms; or logits of a softmax.
        classes: names of the columns. Default: those of a DataFrame, else none.
        multi_label: several labels a row: pred_probs are (N, C) of yes, or logits of a sigmoid, and each class has
            answers and cutoffs of its own. Labels (L, C) say so, too.
        cutoff: confidence from which a row gets a label, or "adaptive" (FreeMatch). Default: 0.95; with min_precision
            there is none.
        top_fraction: at most this share of the rows that are predicted as a class, the most confident first.
        min_precision: each class has the lowest cutoff at which the precision on rows with a label is at least this
            with 95 % confidence. It needs labels (L,) and pred_probs_labeled (L, K), their out-of-fold probabilities;
            with several labels a row both are (L, C).
        targets: hard = the class; weighted = the class with the confidence as weight; soft = the probabilities.

    Raises:
        UserError: predictions or labels cannot be used; it names row or class. It is a ValueError.
    """
    policy = make_policy(
        cutoff=cutoff, top_fraction=top_fraction, min_precision=min_precision, targets=targets
    )
    check_cutoff(policy)
    (predictions, *more), name = _teachers(pred_probs, logits)
    if more:
        raise UserError(f"{name} is a list of {1 + len(more)} arrays; give one, such as their mean")
    if classes is None:
        classes = column_names(predictions)
    else:
        predictions = order_columns(predictions, classes)
    if min_precision is not None:
        proof, proof_labels = _read_proof(labels, pred_probs_labeled, classes)
        multi_label = multi_label or proof_labels.ndim == 2
    log_probs = read_log_probs(
        predictions, logits=name == "logits", multi_label=multi_label, name=name
    )
    n, k = log_probs.shape[:2]
    if classes is not None and len(classes) != k:
        raise UserError(f"there are {len(classes)} classes, and {name} has {k} columns")
    given_labels = np.full(log_probs.shape[:-1], -1)
    if min_precision is not None:
        if proof.shape[1:] != log_probs.shape[1:]:
            raise UserError(
                f"{name} and pred_probs_labeled differ in their classes, or only one has labels (L, C); give both alike"
            )
        log_probs = np.concatenate([log_probs, proof])
        given_labels = np.concatenate([given_labels, proof_labels])
    decisions = decide_labels(log_probs, given_labels, "augment", policy)
    indices = decisions.label[:n]
    confidence = decisions.each("confidence")[:n]
    weights = np.where(indices < 0, 0, confidence if targets == "weighted" else 1.0)
    chosen = indices
    if multi_label:
        learned = indices.astype(np.float32) if targets != "soft" else decisions.targets()[:n]
    else:
        learned = np.eye(k, dtype=np.float32)[indices]
        learned[indices < 0] = 0
        for rows, probs in decisions.taught.blocks(np.flatnonzero(decisions.soft)):
            learned[rows] = probs
        if classes is not None:
            chosen = np.array([*classes, None], object)[indices]
    return PseudoLabels(
        chosen, weights, learned, confidence, np.asarray(decisions.each("reason")[:n])
    )


def _read_proof(labels: Any, pred_probs: Any, classes: Sequence | None) -> tuple[ndarray, ndarray]:
    """Log-probabilities and labels of the L rows by which min_precision chooses cutoffs."""
    name = "pred_probs_labeled"
    if labels is None or pred_probs is None:
        raise UserError(f"min_precision needs labels= and {name}=, rows whose precision is known")
    given = _read_given(labels, pred_probs, name, classes)
    return _read_teacher(pred_probs, given, name), given.indices
