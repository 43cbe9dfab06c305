"""The loop: a teacher judges rows it has not learned, confident judgments become labels, repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .config.keys import Pseudo
from .data.dataset import USES_POOL, Dataset
from .data.encoding import classes_of, differ, has_label
from .data.folds import make_folds
from .labels.calibration import calibrated, normalized
from .labels.decide import NOTHING_LEARNED, REPAIRS, Decisions
from .labels.metrics import gain
from .labels.multilabel import decide_single_or_multilabel
from .labels.out_of_fold import (
    Fit,
    FoldJob,
    Predict,
    Second,
    TrainingLabels,
    leak_free_fold_jobs,
    plain_fold_jobs,
    predict_out_of_fold,
)
from .labels.predictions import OutOfFoldPredictions, together
from .labels.pseudo_labels import DRIFT, drift
from .labels.sanity import learned_nothing
from .round_store import RoundStore, assert_leak_free
from .system.files import TimeBudgetExceeded, hash_of, log, seed_of

WORSE = ("collapse", "no_gain", NOTHING_LEARNED)
"""Reasons for which a round gives way to the best one before it."""
MIN_CHANGED_FRACTION = 0.0005
"""Rounds end with `no_change` where a round changes no more than this fraction of the labels."""
NOISE_OF_GAIN = 2.0
"""How many standard errors a gain or a loss against the best round must have to be believed."""


@dataclass(frozen=True)
class SelfTrainingResult:
    """What the rounds came to: the label to learn of every judged sample (-1 = none), and why they ended."""

    label: np.ndarray
    decisions: Decisions | None
    round: int
    reason: str
    human: np.ndarray | bool = False
    """(N,) where a person decided."""

    @property
    def targets(self) -> np.ndarray:
        """What is learned: the labels, or (N, K) targets where some are soft; a person's word is never soft."""
        targets = self.label if self.decisions is None else self.decisions.targets()
        if targets.ndim == 1:
            return self.label
        human = np.broadcast_to(self.human, len(targets))[:, None]
        said = self.label if self.label.ndim == 2 else np.eye(targets.shape[1], dtype=targets.dtype)[self.label]
        return np.where(human, said, targets).astype(np.float32)


@dataclass(frozen=True)
class SelfTrainingContext:
    """What stays the same over the rounds."""

    dataset: Dataset
    policy: Pseudo
    mode: str
    clusters: np.ndarray
    refused: np.ndarray | str = ""
    seed: int = 0
    second: Second | None = None
    ahead: Callable = lambda fold_jobs: None
    metric: str | None = None

    @property
    def leak_free_folds(self) -> bool:
        """As configured, else where something is chosen by out-of-fold scores."""
        policy, chosen = self.policy, self.policy.leak_free_folds
        by_score = self.mode == "augment" and policy.min_precision is not None
        return by_score if chosen is None else chosen

    def input_hash(self) -> dict[str, str]:
        """Hashes of what a round depends on, beside the models that judged it."""
        dataset, keys = self.dataset, self.policy.model_dump(exclude_defaults=True)
        judged = dataset.id, dataset.given_labels, dataset.classes, self.clusters, self.refused
        return {"samples": hash_of(*judged), "keys": hash_of(keys, self.mode, self.seed, self.metric)}


def self_train(
    dataset: Dataset,
    fit: Fit,
    predict: Predict,
    policy: Pseudo,
    store: RoundStore,
    *,
    mode: str,
    clusters: np.ndarray,
    refused: np.ndarray | str = "",
    seed: int = 0,
    metric: str | None = None,
    second: Second | None = None,
    ahead: Callable = lambda fold_jobs: None,
    time_for: Callable[[float], bool] = lambda seconds: True,
) -> SelfTrainingResult:
    """Train teachers, predict out of fold, decide, repeat. The student is then fit on the result.

    Every round has fresh weights and new folds, and decides again from the given labels, so an early mistake can be
    undone. Decisions use the mean of the predictions of all rounds so far: an ensemble that costs nothing, as every
    part of it is out of fold.

    Args:
        dataset: N samples, labeled and, where the mode uses them, unlabeled.
        fit: fit(where, rows, labels or soft targets) → a model with a `hash`.
        predict: predict(model, rows) → (len(rows), K) log-probabilities.
        policy: the section `pseudo` of the config. store: keeps every round, so that a run that was stopped goes on.
        mode: which labels may change: `denoise` the given ones, `augment` those of unlabeled samples, `joint` both.
        clusters: (N,) samples of one cluster (group or copies) never straddle folds.
        refused: (N,) reason for which an unlabeled sample may not receive a label; empty = it may.
        metric: the score that ends rounds, see _gain. second, ahead: see predict_out_of_fold.
        time_for: whether so many seconds are left.

    Returns:
        The labels to learn, and why the rounds ended: `max_rounds`, `no_change`, `time_budget`; or `no_gain`,
        `collapse`, `learned_nothing`, and then they are those of the best round before.

    Raises:
        TimeBudgetExceeded: not even the first round fits into the time budget.
    """
    context = SelfTrainingContext(dataset, policy, mode, clusters, refused, seed, second, ahead, metric)
    result = best = SelfTrainingResult(dataset.given_labels, None, 0, "max_rounds")
    input_hash, seconds, all_predicted, before = context.input_hash(), 0.0, [], dataset.given_labels
    for number in range(1, policy.rounds + 1):
        if number > 1 and not time_for(2 * seconds):  # as much again for the student
            return replace(best, reason="time_budget")
        start, labels = time.monotonic(), result.label
        try:
            # the teachers
            predicted = store.recall(number, dataset, input_hash) or _predict_round(
                context, result, all_predicted, fit, predict
            )
        except TimeBudgetExceeded:
            if not best.round:
                raise
            return replace(best, reason="time_budget")
        # always from the given labels
        decisions = _decide(context, predicted.log_probs, number, predicted.likeliest_rate)
        changes, before = _changes(before, labels, decisions.label), labels
        facts = changes | _drift(context, decisions) | _nothing_learned(context, decisions) | {"input_hash": input_hash}
        seconds = round(time.monotonic() - start, 3)
        store.record(number, dataset, predicted, decisions, **facts, cutoff=policy.relabel_cutoff, seconds=seconds)
        if context.leak_free_folds:
            assert_leak_free(store.rounds())
        all_predicted.append(predicted)
        change = (
            _gain(context, all_predicted[best.round - 1], predicted, best.decisions, decisions) if best.round else None
        )
        reason = _reason(context, change, facts, number)
        if reason in WORSE:
            return replace(best, reason=reason)
        result = SelfTrainingResult(decisions.label, decisions, number, reason or "max_rounds")
        if reason:
            return result
        if change is None or change[0] >= 0 or context.mode in REPAIRS:  # within noise: more judges, cleaner labels
            best = result
    return result


def _reason(context: SelfTrainingContext, change: tuple[float, float] | None, facts: dict, number: int) -> str:
    """Why the rounds end with this one; "" where they go on. change: against the best round before, see _gain.

    Where given labels are repaired, one round alone is never enough to say that nothing changes: its judges learned the
    wrong labels, those of the second round did not.
    """
    if facts.get(NOTHING_LEARNED):
        return NOTHING_LEARNED
    if facts.get("collapsed"):
        return "collapse"
    if change is not None and _no_gain(context, *change):
        return "no_gain"
    if number == 1 and context.mode in REPAIRS:
        return ""
    return "no_change" if facts["changed"] <= MIN_CHANGED_FRACTION * len(context.dataset) else ""


def _predict_round(
    context: SelfTrainingContext,
    result: SelfTrainingResult,
    earlier: list[OutOfFoldPredictions],
    fit: Fit,
    predict: Predict,
) -> OutOfFoldPredictions:
    """Out-of-fold predictions of one round, averaged with those of the rounds before."""
    number, given_labels = len(earlier) + 1, context.dataset.given_labels
    fold_jobs = [
        replace(fold_job, where=f"round_{number}/{fold_job.where}") for fold_job in _fold_jobs(context, result, earlier)
    ]
    how = None
    if context.mode in REPAIRS:
        choose = not earlier and context.policy.relabel_cutoff is None  # a plain cutoff asks for no noise model
        rate = earlier[0].likeliest_rate if earlier else None
        how = partial(calibrated, given_labels=given_labels, labels=result.label, choose=choose, likeliest_rate=rate)
    options = {
        "clusters": context.clusters,
        "chained": context.leak_free_folds,
        "calibrate": how,
        "second": context.second,
    }
    predicted = predict_out_of_fold(context.dataset, fold_jobs, fit, predict, ahead=context.ahead, **options)
    return _average(predicted, earlier[-1], number) if earlier else predicted


def _fold_jobs(
    context: SelfTrainingContext, result: SelfTrainingResult, earlier: list[OutOfFoldPredictions]
) -> list[FoldJob]:
    """New folds every round; where rounds are to be fold-safe, the same folds of the given labels in all of them."""
    number, given_labels, policy = len(earlier) + 1, context.dataset.given_labels, context.policy
    if not context.leak_free_folds:
        training_labels = TrainingLabels(result.label, result.targets, _judges(earlier))
        folds = make_folds(
            training_labels.labels, context.clusters, policy.folds, seed_of(context.seed, number, "folds")
        )
        return plain_fold_jobs(training_labels, folds)
    folds = make_folds(given_labels, context.clusters, policy.folds, seed_of(context.seed, 1, "folds"))
    if not earlier:
        return plain_fold_jobs(TrainingLabels(given_labels, given_labels), folds)
    chains = [_of_chain(context, earlier, fold) for fold in range(policy.folds)]
    return leak_free_fold_jobs(given_labels, chains, folds, context.clusters, seed_of(context.seed, number, "halves"))


def _of_chain(context: SelfTrainingContext, earlier: list[OutOfFoldPredictions], fold: int) -> TrainingLabels:
    """What the models of one fold alone made of the samples."""
    predicted = earlier[-1]
    said = predicted.chains[fold]
    alone = (context.dataset.given_labels < 0)[..., None] & ~np.isnan(said)
    decisions = _decide(context, np.where(alone, said, predicted.log_probs), len(earlier))
    return TrainingLabels(decisions.label, decisions.targets(), _judges(earlier, fold))


def _judges(earlier: list[OutOfFoldPredictions], fold: int | None = None) -> tuple[str, ...]:
    """Hashes of the models of all earlier rounds, or of one fold's."""
    models = [pair for predicted in earlier for pair in predicted.models.items()]
    return tuple(judge for judge, about in models if fold in (None, about["fold"]))


def _decide(
    context: SelfTrainingContext,
    log_probs: np.ndarray,
    number: int,
    likeliest_rate: float | None = None,
) -> Decisions:
    """What the policy makes of held-out log-probabilities in this round."""
    options = {"refused": context.refused, "progress": number / max(context.policy.rounds, 1)}
    options["likeliest_rate"] = likeliest_rate
    return decide_single_or_multilabel(log_probs, context.dataset.given_labels, context.mode, context.policy, **options)


def _drift(context: SelfTrainingContext, decisions: Decisions) -> dict:
    """How far pseudo-labels are from the class shares of the given labels, with a warning; {} without a pool."""
    given_labels = context.dataset.given_labels
    if context.mode not in USES_POOL:
        return {}
    accepted = classes_of(np.where(given_labels < 0, decisions.label, -1))
    found = drift(accepted, classes_of(given_labels), len(context.dataset.classes))
    if found["collapsed"]:
        log.info(
            "warning: the pseudo-labels have collapsed onto a few classes; they are not learned. Give more "
            "labels, or try pseudo.distribution_alignment=true"
        )
    elif found["drift"] > DRIFT:
        log.info(
            f"warning: {100 * found['drift']:.0f} % of the pseudo-labels would have to change class to have the "
            "class shares of the given labels; where the pool should, try pseudo.distribution_alignment=true"
        )
    return found


def _nothing_learned(context: SelfTrainingContext, decisions: Decisions) -> dict:
    """Whether held-out predictions are no better than chance, with a warning; {} where they are better.

    Plain training decides nothing, and its scores say it themselves.
    """
    if context.mode == "train" or not (decisions.reason == NOTHING_LEARNED).all():
        return {}
    why = learned_nothing(decisions.predicted, context.dataset.given_labels, len(context.dataset.classes))
    log.info(
        f"warning: {why}: no label is changed or given. Check that ids and labels belong together, train longer "
        "(train.epochs, train.min_steps), at a lower train.lr, or begin with model.checkpoint"
    )
    return {NOTHING_LEARNED: True}


def _changes(before: np.ndarray, labels: np.ndarray, new: np.ndarray) -> dict[str, int]:
    """How many labels a round changed, and how many of them back to what they were a round earlier."""
    changed = differ(new, labels)
    return {"changed": int(changed.sum()), "changed_back": int((changed & ~differ(new, before)).sum())}


def _average(predicted: OutOfFoldPredictions, earlier: OutOfFoldPredictions, n: int) -> OutOfFoldPredictions:
    """The mean over n rounds, n - 1 of which `earlier` is the mean of: logits averaged, probabilities normalized."""

    def mean(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN where a chain judges nothing
            return normalized((new + (n - 1) * old) / n)

    chains = None if predicted.chains is None else mean(predicted.chains, earlier.chains)
    logs, judge = mean(predicted.log_probs, earlier.log_probs), together(earlier.judge, predicted.judge)
    return replace(predicted, log_probs=logs, judge=judge, chains=chains)


def _gain(
    context: SelfTrainingContext,
    best: OutOfFoldPredictions,
    new: OutOfFoldPredictions,
    best_decisions: Decisions,
    new_decisions: Decisions,
) -> tuple[float, float]:
    """What a round gains on another, out of fold, in the score that counts; its standard error.

    Scored on the given labels; where they are repaired, on the labels that both rounds together believe in. Given
    labels would blame a round for contradicting wrong ones, and praise it for having learned them.
    Where no score is named: accuracy; where rounds are fold-safe log loss, which is finer where labels are few.
    Log loss of beliefs would be won by whoever is surest of everything: where labels are repaired accuracy stands in.
    """
    metric = context.metric or ("log_loss" if context.leak_free_folds else "accuracy")
    labels, rows = context.dataset.given_labels, has_label(context.dataset.given_labels)
    if context.mode in REPAIRS:
        metric = "accuracy" if metric == "log_loss" else metric
        labels = _believed(best_decisions, new_decisions, labels)
    return gain(metric, best.log_probs[rows], new.log_probs[rows], labels[rows], context.dataset.classes)


def _believed(one: Decisions, other: Decisions, given_labels: np.ndarray) -> np.ndarray:
    """(N,) the likeliest class by the mean of two beliefs, -1 where no label is given; of label sets (N, C).

    Where they disagree, the surer one has its way.
    """
    if one.questions:
        pairs = zip(one.questions, other.questions, given_labels.T, strict=True)
        return np.stack([_believed(*pair) for pair in pairs], 1)
    labels, rows = np.full(len(given_labels), -1), np.flatnonzero(given_labels >= 0)
    for (part, probs), (_, others) in zip(one.posterior.blocks(rows), other.posterior.blocks(rows), strict=True):
        labels[part] = (probs + others).argmax(1)
    return labels


def _no_gain(context: SelfTrainingContext, change: float, error: float) -> bool:
    """Whether a round ends the rounds: its score fell beyond noise; where rounds are fold-safe, did not rise beyond it.

    Plain rounds' scores favor later rounds a little, so that a rise proves nothing.
    """
    noise = NOISE_OF_GAIN * error
    return bool(change <= noise if context.leak_free_folds else change < -noise)
