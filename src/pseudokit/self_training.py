"""The loop: teachers predict images whose labels they have not seen, confident predictions become labels, repeat."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy import ndarray

from .config.keys import USES_UNLABELED, Pseudo
from .data.dataset import Dataset
from .data.encoding import counts, differ, has_label
from .data.folds import make_folds
from .labels.arrays import MIN_PROBABILITY
from .labels.calibration import calibrate_models
from .labels.council import weigh_members
from .labels.decide import REPAIRS, decide_labels
from .labels.decisions import NOTHING_LEARNED, Decisions
from .labels.metrics import gain
from .labels.noise import VOTES
from .labels.out_of_fold import (
    Fit,
    FoldJob,
    FoldPredictions,
    OutOfFoldPredictions,
    OutsidePredictions,
    Predict,
    Second,
    average_models,
    average_rounds,
    for_each_member,
    leak_free_fold_jobs,
    plain_fold_jobs,
    predict_out_of_fold,
    with_others,
)
from .labels.pseudo_labels import MAX_DRIFT, drift
from .round_store import MemoryStore, RoundStore
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

    label: ndarray
    decisions: Decisions | None = None
    round: int = 0
    """The round that decided; 0 = the given labels stand."""
    reason: str = "max_rounds"
    human: ndarray | bool = False
    """(N,) where a person decided."""
    predicted: OutOfFoldPredictions | None = None
    """The mean over the rounds up to this one."""

    def targets(self, dataset: Dataset) -> ndarray:
        """What is learned: the labels, or (N, K) targets where some are soft; a person's label is never soft."""
        targets = self.label if self.decisions is None else self.decisions.targets()
        has_soft_labels = dataset.given_targets.ndim > dataset.given_labels.ndim
        if targets.ndim == 1 and not has_soft_labels:
            return self.label
        hard = self.label
        if hard.ndim == 1:
            # A row without a label (-1) gets the target of the last class here, but is never learned.
            hard = np.eye(len(dataset.classes), dtype=np.float32)[self.label]
        if targets.ndim == 1:
            targets = hard
        if dataset.soft_labels is not None and not self._judges_votes:
            stands = (dataset.given_labels >= 0) & (self.label == dataset.given_labels)
            targets = np.where(stands[:, None], dataset.soft_labels, targets)
        human = np.broadcast_to(self.human, len(targets))[:, None]
        targets = np.where(human, hard, targets).astype(np.float32)
        return dataset.weighted(targets) if has_soft_labels else targets

    @property
    def _judges_votes(self) -> bool:
        """Whether the decisions have weighed the votes, so that a label that stands is certain."""
        return self.decisions is not None and self.decisions.noise == VOTES


@dataclass(frozen=True)
class SelfTrainingContext:
    """What self_train works with; it stays the same over the rounds."""

    dataset: Dataset
    """N samples, labeled and, where the mode uses them, unlabeled."""
    fit: Fit
    """fit(where, rows, labels or soft targets) → a model with a `hash`."""
    predict: Predict
    """predict(model, rows) → (len(rows), K) log-probabilities."""
    policy: Pseudo
    """The section `pseudo` of the config."""
    store: RoundStore | MemoryStore
    """Keeps every round; on disk, so that a run that was stopped goes on."""
    mode: str
    """Which labels may change: `denoise` the given ones, `augment` those of unlabeled samples, `joint` both."""
    clusters: ndarray
    """(N,) samples of one cluster (group or copies) never straddle folds."""
    refused: ndarray | str = ""
    """(N,) reason for which an unlabeled sample may not receive a label; empty = it may."""
    seed: int = 0
    metric: str | None = None
    """The score that ends rounds, see _gain."""
    second: Second | None = None
    ahead: Callable[[list[FoldJob]], None] | None = None
    """See predict_out_of_fold, and second."""
    members: int = 1
    """Networks of a council; each predicts every fold."""
    outside: OutsidePredictions = field(default_factory=OutsidePredictions)
    """Other people's predictions, in place of trained teachers or beside them."""
    time_for_round: Callable[[int, float], bool] = lambda number, seconds: True
    """Whether there is time for this round, of so many seconds. The first one is never asked for."""

    @property
    def leak_free(self) -> bool:
        """Whether teachers of a fold never saw its labels: as configured, else where cutoffs are chosen by them."""
        if self.policy.leak_free_folds is not None:
            return self.policy.leak_free_folds
        return self.mode == "augment" and self.policy.min_precision is not None

    def decide(
        self, log_probs: ndarray, number: int, likeliest_rate: float | None = None
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
            votes=self.dataset.votes,
        )


def self_train(context: SelfTrainingContext) -> SelfTrainingResult:
    """Train teachers, predict out of fold, decide, repeat. The student is then fit on the result.

    Every round has fresh weights and new folds, and decides again from the given labels, so an early mistake can be
    undone. Decisions use the mean of the predictions of all rounds so far: an ensemble that costs nothing, as every
    part of it is out of fold.

    Returns:
        The labels to learn, and why the rounds ended: `max_rounds`, `no_change`, `time_budget`; or `no_gain`,
        `collapse`, `learned_nothing`, and then they are those of the best round before.

    Raises:
        TimeBudgetExceeded: not even the first round fits into the time budget.
    """
    dataset = context.dataset
    store = context.store
    last = best = SelfTrainingResult(dataset.given_labels)
    seconds = 0.0  # of the last round
    for number in range(1, context.policy.rounds + 1):
        # The student, which comes after the rounds, takes about as long as one of them.
        if number > 1 and not context.time_for_round(number, 2 * seconds):
            return replace(best, reason="time_budget")
        start = time.monotonic()

        # Teachers learn the labels of the last round, and each predicts the rows whose label it did not learn. Of a
        # round that an earlier process finished, the predictions are read.
        try:
            predicted = store.recall(number, dataset) or _predict_round(context, last)
        except TimeBudgetExceeded:
            if number == 1:
                raise
            return replace(best, reason="time_budget")

        # Confident predictions become labels.
        decisions = context.decide(predicted.log_probs, number, predicted.likeliest_rate)
        facts = _facts(context, decisions, last.label)
        seconds = round(time.monotonic() - start, 3)
        store.record(number, dataset, predicted, decisions, **facts, seconds=seconds)

        # Go on with the new labels, unless the round has made things worse or changed next to nothing.
        last = SelfTrainingResult(decisions.label, decisions, number, predicted=predicted)
        change, error = _gain(context, best, last)
        reason = _stop_reason(context, last, facts, change, error)
        if reason in WORSE:
            return replace(best, reason=reason)
        if reason:
            return replace(last, reason=reason)
        # A repair that is worse within noise is still preferred: it has more teachers and cleaner labels.
        if change >= 0 or context.mode in REPAIRS:
            best = last
    return last


def _predict_round(context: SelfTrainingContext, last: SelfTrainingResult) -> OutOfFoldPredictions:
    """Train the teachers of the next round and predict out of fold; the mean with the rounds before."""
    given_labels = context.dataset.given_labels
    earlier = last.predicted
    outside = context.outside
    repairs = context.mode in REPAIRS
    own = outside.teachers or predict_out_of_fold(
        for_each_member(_fold_jobs(context, last), context.members),
        context.fit,
        context.predict,
        context.clusters,
        context.second,
        context.ahead,
    )
    models = [*own, *outside.others]
    calibration = outside.calibration
    # Votes are judged with a sharpness of their own.
    if repairs and not calibration and context.dataset.votes is None:
        models, calibration = calibrate_models(
            models,
            given_labels,
            last.label,
            # a plain cutoff needs no noise model
            choose=context.policy.relabel_cutoff is None,
            earlier=earlier,
        )
    own, others = models[: len(own)], models[len(own) :]
    if context.members > 1 or (outside.teachers and outside.fits_weights):
        own, weights = weigh_members(own, given_labels, repairs)
        calibration = calibration | weights
    predicted = average_models(own, len(given_labels), context.leak_free)
    if others:
        rows = np.arange(len(given_labels))
        # of rows that nobody else predicts a weight of 0 would leave nothing
        weight = max(outside.own_weight, MIN_PROBABILITY)
        last_member = 1 + others[-1].member
        own = FoldPredictions(rows, predicted.log_probs, "", -1, last_member, weight)
        others = [own, *others]
        if outside.fits_weights:
            others, weights = weigh_members(others, given_labels, repairs)
            calibration = calibration | {"file_weights": weights["member_weights"]}
        predicted = with_others(predicted, others)
    predicted = replace(predicted, calibration=calibration)
    return average_rounds(predicted, earlier, last.round + 1) if earlier else predicted


def _fold_jobs(context: SelfTrainingContext, last: SelfTrainingResult) -> list[FoldJob]:
    """New folds every round; in leak-free rounds the same folds of the given labels in all of them."""
    number = last.round + 1
    given_labels = context.dataset.given_labels
    labels, fold_round = (given_labels, 1) if context.leak_free else (last.label, number)
    seed = seed_of(context.seed, fold_round, "folds")
    folds = make_folds(labels, context.clusters, context.policy.folds, seed)
    if last.predicted is None or not context.leak_free:
        return plain_fold_jobs(last.label, last.targets(context.dataset), folds, number)
    chains = []
    for log_probs in last.predicted.chains:
        # What the models of one fold alone make of the unlabeled samples
        alone = (given_labels < 0)[..., None] & ~np.isnan(log_probs)
        log_probs = np.where(alone, log_probs, last.predicted.log_probs)
        decisions = context.decide(log_probs, last.round)
        chain = SelfTrainingResult(decisions.label, decisions)
        chains.append((chain.label, chain.targets(context.dataset)))
    seed = seed_of(context.seed, number, "halves")
    return leak_free_fold_jobs(given_labels, chains, folds, context.clusters, number, seed)


def _facts(context: SelfTrainingContext, decisions: Decisions, labels: ndarray) -> dict:
    """What round.json says of a round: how many labels it changed, and how far the pseudo-labels drifted."""
    facts = {
        "changed": int(differ(decisions.label, labels).sum()),
        "cutoff": context.policy.relabel_cutoff,
    }
    if context.mode in USES_UNLABELED:
        given_labels = context.dataset.given_labels
        k = len(context.dataset.classes)
        pseudo_counts = counts(np.where(given_labels < 0, decisions.label, -1), k)
        if context.policy.targets == "soft":
            pseudo_counts = decisions.soft_pseudo_counts()
        facts |= drift(pseudo_counts, counts(given_labels, k))
    return facts


def _stop_reason(
    context: SelfTrainingContext,
    last: SelfTrainingResult,
    facts: dict,
    change: float,
    error: float,
) -> str:
    """Why the rounds end with the last one; "" where they go on. change, error: see _gain."""
    problem = last.decisions.problem
    if problem and context.mode != "train":  # plain training decides nothing, and its scores tell
        log.info(
            f"warning: {problem}: no label is changed or given. Check that ids and labels belong together, "
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
    noise = NOISE_OF_GAIN * error
    # Scores of plain rounds favor later rounds a little, so that a rise proves nothing, and only a fall ends them.
    if change <= noise if context.leak_free else change < -noise:
        return "no_gain"
    if last.round == 1 and context.mode in REPAIRS:
        return ""  # its teachers learned the wrong labels; those of the second round do not
    few = MIN_CHANGED_FRACTION * len(context.dataset)
    return "no_change" if facts["changed"] <= few else ""


def _gain(
    context: SelfTrainingContext, best: SelfTrainingResult, last: SelfTrainingResult
) -> tuple[float, float]:
    """What the last round gains on the best before, out of fold, in the score that counts; its standard error.

    Scored on the given labels; where they are repaired, on the labels that both rounds together believe in. Given
    labels would blame a round for contradicting wrong ones, and praise it for having learned them.
    Where no metric is named: accuracy; in leak-free rounds log loss, which is finer where labels are few.
    Log loss of believed labels would be won by whoever is most confident: where labels are repaired accuracy stands in.
    """
    if best.predicted is None:
        return np.inf, 0.0
    metric = context.metric or ("log_loss" if context.leak_free else "accuracy")
    labels = context.dataset.given_labels
    rows = has_label(labels)
    if context.mode in REPAIRS:
        metric = "accuracy" if metric == "log_loss" else metric
        labels = best.decisions.believed_labels(last.decisions)
    before = best.predicted.log_probs[rows]
    after = last.predicted.log_probs[rows]
    return gain(metric, before, after, labels[rows], context.dataset.classes)
