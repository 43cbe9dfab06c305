"""The loop: teachers predict images whose labels they have not seen, confident predictions become labels, repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .config.keys import Pseudo
from .data.dataset import USES_UNLABELED, Dataset
from .data.encoding import classes_of, differ, has_label
from .data.folds import make_folds
from .labels.arrays import Array
from .labels.calibration import calibrate_models
from .labels.decide import REPAIRS, decide_labels
from .labels.decisions import NOTHING_LEARNED, Decisions
from .labels.metrics import gain
from .labels.out_of_fold import (
    Fit,
    FoldJob,
    OutOfFoldPredictions,
    Predict,
    Second,
    average_models,
    average_rounds,
    leak_free_fold_jobs,
    plain_fold_jobs,
    predict_out_of_fold,
)
from .labels.pseudo_labels import MAX_DRIFT, drift
from .round_store import RoundStore
from .system.files import TimeBudgetExceeded, log, seed_of

WORSE = ("collapse", "no_gain", NOTHING_LEARNED)
"""Reasons for which a round gives way to the best one before it."""
MIN_CHANGED_FRACTION = 0.0005
"""Rounds end with `no_change` where a round changes no more than this fraction of the labels."""
NOISE_OF_GAIN = 2.0
"""How many standard errors a gain or a loss against the best round must have to be believed."""


@dataclass(frozen=True)
class SelfTrainingResult:
    """What the rounds came to: the label to learn of every sample (-1 = none), and why they ended."""

    label: Array
    decisions: Decisions | None
    round: int
    """The round that decided; 0 = the given labels stand."""
    reason: str
    human: Array | bool = False
    """(N,) where a person decided."""

    @property
    def targets(self) -> Array:
        """What is learned: the labels, or (N, K) targets where some are soft; a person's label is never soft."""
        targets = self.label if self.decisions is None else self.decisions.targets()
        if targets.ndim == 1:
            return self.label
        human = np.broadcast_to(self.human, len(targets))[:, None]
        hard = (
            self.label
            if self.label.ndim == 2
            else np.eye(targets.shape[1], dtype=targets.dtype)[self.label]
        )
        return np.where(human, hard, targets).astype(np.float32)


@dataclass(frozen=True)
class SelfTrainingContext:
    """What stays the same over the rounds, see self_train."""

    dataset: Dataset
    policy: Pseudo
    mode: str
    clusters: Array
    refused: Array | str
    seed: int
    metric: str | None
    fit: Fit
    predict: Predict
    second: Second | None
    ahead: Callable[[list[FoldJob]], None] | None

    @property
    def leak_free(self) -> bool:
        """Whether teachers of a fold never saw its labels: as configured, else where cutoffs are chosen by them."""
        if self.policy.leak_free_folds is not None:
            return self.policy.leak_free_folds
        return self.mode == "augment" and self.policy.min_precision is not None

    def decide(
        self, log_probs: Array, number: int, likeliest_rate: float | None = None
    ) -> Decisions:
        """The decisions of one round, always from the given labels."""
        return decide_labels(
            log_probs,
            self.dataset.given_labels,
            self.mode,
            self.policy,
            refused=self.refused,
            progress=number / self.policy.rounds,
            likeliest_rate=likeliest_rate,
        )


def self_train(
    dataset: Dataset,
    fit: Fit,
    predict: Predict,
    policy: Pseudo,
    store: RoundStore,
    *,
    mode: str,
    clusters: Array,
    refused: Array | str = "",
    seed: int = 0,
    metric: str | None = None,
    second: Second | None = None,
    ahead: Callable[[list[FoldJob]], None] | None = None,
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
    context = SelfTrainingContext(
        dataset, policy, mode, clusters, refused, seed, metric, fit, predict, second, ahead
    )
    result = best = SelfTrainingResult(dataset.given_labels, None, 0, "max_rounds")
    earlier: list[OutOfFoldPredictions] = []
    seconds = 0.0
    for number in range(1, policy.rounds + 1):
        if number > 1 and not time_for(2 * seconds):  # as much again for the student
            return replace(best, reason="time_budget")
        start = time.monotonic()
        try:  # the teachers
            predicted = store.recall(number, dataset) or _predict_round(context, result, earlier)
        except TimeBudgetExceeded:
            if not best.round:
                raise
            return replace(best, reason="time_budget")
        decisions = context.decide(predicted.log_probs, number, predicted.likeliest_rate)

        facts = _facts(context, decisions, result.label)
        seconds = round(time.monotonic() - start, 3)
        store.record(number, dataset, predicted, decisions, **facts, seconds=seconds)

        change = None  # against the best round before
        if best.round:
            change = _gain(context, earlier[best.round - 1], predicted, best.decisions, decisions)
        earlier.append(predicted)
        reason = _stop_reason(context, decisions, facts, change, number)
        if reason in WORSE:
            return replace(best, reason=reason)
        result = SelfTrainingResult(decisions.label, decisions, number, reason or "max_rounds")
        if reason:
            return result
        if (
            change is None or change[0] >= 0 or mode in REPAIRS
        ):  # within noise: more teachers, cleaner labels
            best = result
    return result


def _predict_round(
    context: SelfTrainingContext, result: SelfTrainingResult, earlier: list[OutOfFoldPredictions]
) -> OutOfFoldPredictions:
    """Train the teachers of one round and predict out of fold; the mean with the rounds before."""
    number, given_labels = len(earlier) + 1, context.dataset.given_labels
    models = predict_out_of_fold(
        _fold_jobs(context, result, earlier),
        context.fit,
        context.predict,
        context.clusters,
        context.second,
        context.ahead,
    )
    calibration = {}
    if context.mode in REPAIRS:
        models, calibration = calibrate_models(
            models,
            given_labels,
            result.label,
            choose=number == 1
            and context.policy.relabel_cutoff is None,  # a plain cutoff needs no noise model
            likeliest_rate=earlier[0].likeliest_rate if earlier else None,
        )
    predicted = replace(
        average_models(models, len(given_labels), context.leak_free), calibration=calibration
    )
    return average_rounds(predicted, earlier[-1], number) if earlier else predicted


def _fold_jobs(
    context: SelfTrainingContext, result: SelfTrainingResult, earlier: list[OutOfFoldPredictions]
) -> list[FoldJob]:
    """New folds every round; in leak-free rounds the same folds of the given labels in all of them."""
    number, policy, clusters = len(earlier) + 1, context.policy, context.clusters
    given_labels = context.dataset.given_labels
    labels, fold_round = (given_labels, 1) if context.leak_free else (result.label, number)
    folds = make_folds(labels, clusters, policy.folds, seed_of(context.seed, fold_round, "folds"))
    if not (context.leak_free and earlier):
        return plain_fold_jobs(result.label, result.targets, folds, number)
    chains = []
    for log_probs in earlier[-1].chains:
        # What the models of one fold alone make of the unlabeled samples
        alone = (given_labels < 0)[..., None] & ~np.isnan(log_probs)
        chains.append(context.decide(np.where(alone, log_probs, earlier[-1].log_probs), number - 1))
    seed = seed_of(context.seed, number, "halves")
    return leak_free_fold_jobs(given_labels, chains, folds, clusters, number, seed)


def _facts(context: SelfTrainingContext, decisions: Decisions, labels: Array) -> dict:
    """What round.json says of a round: how many labels it changed, and how far the pseudo-labels drifted."""
    facts = {
        "changed": int(differ(decisions.label, labels).sum()),
        "cutoff": context.policy.relabel_cutoff,
    }
    if context.mode in USES_UNLABELED:
        given_labels = context.dataset.given_labels
        pseudo_labels = np.where(given_labels < 0, decisions.label, -1)
        facts |= drift(
            classes_of(pseudo_labels), classes_of(given_labels), len(context.dataset.classes)
        )
    return facts


def _stop_reason(
    context: SelfTrainingContext,
    decisions: Decisions,
    facts: dict,
    change: tuple[float, float] | None,
    number: int,
) -> str:
    """Why the rounds end with this one; "" where they go on. change: against the best round before, see _gain."""
    if (
        decisions.problem and context.mode != "train"
    ):  # plain training decides nothing, and its scores tell
        log.info(
            f"warning: {decisions.problem}: no label is changed or given. Check that ids and labels belong together, "
            "train longer (train.epochs, train.min_steps), at a lower train.lr, or begin with model.checkpoint"
        )
        return NOTHING_LEARNED
    if facts.get("collapsed"):
        log.info(
            "warning: the pseudo-labels have collapsed onto a few classes; they are not learned. Give more "
            "labels, or try pseudo.distribution_alignment=true"
        )
        return "collapse"
    if facts.get("drift", 0) > MAX_DRIFT:
        log.info(
            f"warning: {100 * facts['drift']:.0f} % of the pseudo-labels would have to change class to have the "
            "class shares of the given labels; if the unlabeled images should, try pseudo.distribution_alignment=true"
        )
    if change is not None:
        difference, error = change
        noise = NOISE_OF_GAIN * error
        # Scores of plain rounds favor later rounds a little, so that a rise proves nothing, and only a fall ends them.
        if difference <= noise if context.leak_free else difference < -noise:
            return "no_gain"
    if number == 1 and context.mode in REPAIRS:
        return ""  # its teachers learned the wrong labels; those of the second round do not
    few = MIN_CHANGED_FRACTION * len(context.dataset)
    return "no_change" if facts["changed"] <= few else ""


def _gain(
    context: SelfTrainingContext,
    before: OutOfFoldPredictions,
    after: OutOfFoldPredictions,
    decisions_before: Decisions,
    decisions_after: Decisions,
) -> tuple[float, float]:
    """What a round gains on another, out of fold, in the score that counts; its standard error.

    Scored on the given labels; where they are repaired, on the labels that both rounds together believe in. Given
    labels would blame a round for contradicting wrong ones, and praise it for having learned them.
    Where no metric is named: accuracy; in leak-free rounds log loss, which is finer where labels are few.
    Log loss of believed labels would be won by whoever is most confident: where labels are repaired accuracy stands in.
    """
    metric = context.metric or ("log_loss" if context.leak_free else "accuracy")
    labels = context.dataset.given_labels
    rows = has_label(labels)
    if context.mode in REPAIRS:
        metric = "accuracy" if metric == "log_loss" else metric
        labels = decisions_before.believed_labels(decisions_after)
    return gain(
        metric, before.log_probs[rows], after.log_probs[rows], labels[rows], context.dataset.classes
    )
