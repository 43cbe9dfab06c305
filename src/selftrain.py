"""The loop: a teacher judges rows it has not learned, confident judgements become labels, repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .config import Pseudo
from .data.folds import make_folds
from .data.samples import Samples
from .labels.ledger import Ledger, Verdict
from .labels.selection import Decisions, cutoffs, select
from .run import seed_of

Fit = Callable[[str, np.ndarray, np.ndarray], object]
"""fit(where, rows, labels of those rows) → a model with a `hash`."""
Predict = Callable[[object, np.ndarray], np.ndarray]
"""predict(model, rows) → (len(rows), K) log-probabilities."""

NOISE_OF_GAIN = 2.0
"""How many standard errors out-of-fold accuracy must fall below the best round's to count as a loss."""


@dataclass(frozen=True)
class Outcome:
    """What the rounds came to: the label to learn of every judged sample (-1 = none), and why they ended."""

    label: np.ndarray
    decisions: Decisions | None
    round: int
    reason: str
    human: np.ndarray | bool = False
    """(N,) where a person decided."""


def held_out_probs(
    samples: Samples, labels: np.ndarray, folds: np.ndarray, fit: Fit, predict: Predict, *, clusters: np.ndarray
) -> Verdict:
    """Log-probabilities (N, K) of every sample, each judged only by models that learned neither it nor a copy of it.

    Rows with a fold (they or rows of their cluster have a label in `labels`) are judged by their own fold's model
    alone; the others by every fold's model and averaged. The one rule of this project lives here and nowhere else.
    """
    n_folds = folds.max() + 1
    free = folds < 0
    probs = np.zeros((len(samples), len(samples.classes)))
    judges: list[str] = []
    judge = np.full(len(samples), "", dtype=object)
    for fold in range(n_folds):
        learned = np.flatnonzero((labels >= 0) & (folds != fold))
        judged = np.flatnonzero(free | (folds == fold))
        assert not np.isin(clusters[judged], clusters[learned]).any(), "a row would be judged from memory"
        model = fit(f"fold_{fold}", learned, labels[learned])
        share = np.where(free[judged], 1 / n_folds, 1.0)
        probs[judged] += np.exp(predict(model, judged)) * share[:, None]
        judge[judged] = model.hash
        judges.append(model.hash)
    judge[free] = "+".join(judges)
    return Verdict(np.log(np.maximum(probs, 1e-30)).astype(np.float32), judge)


def self_train(
    samples: Samples, fit: Fit, predict: Predict, policy: Pseudo, ledger: Ledger, *,
    mode: str, clusters: np.ndarray, refused: np.ndarray | str = "", seed: int = 0,
    time_for: Callable[[float], bool] = lambda seconds: True,
) -> Outcome:  # fmt: skip
    """Rounds of judging and deciding over samples (labelled set and, where the mode uses it, pool).

    Every round has new folds, fresh weights, and decides afresh from the given labels. A verdict is the mean of all
    rounds so far, every part of it held-out: an ensemble that costs nothing. Ends with a named reason: no_change,
    no_gain (out-of-fold accuracy fell: the best round's labels are returned), time_budget, max_rounds.
    refused: see select.
    """
    outcome = best = Outcome(samples.given, None, 0, "max_rounds")
    hits: dict[int, np.ndarray] = {}
    seconds, earlier = 0.0, None
    for number in range(1, policy.rounds + 1):
        if not time_for(2 * seconds):  # as much again for the student
            return Outcome(best.label, best.decisions, best.round, "time_budget")
        start = time.monotonic()
        labels = outcome.label
        verdict = ledger.recall(number, samples)
        if verdict is None:
            folds = make_folds(labels, clusters, policy.folds, seed_of(seed, number, "folds"))
            verdict = held_out_probs(samples, labels, folds, _in_round(fit, number), predict, clusters=clusters)
            verdict = _average(verdict, earlier, number) if earlier else verdict
        earlier = verdict
        decisions = select(np.exp(verdict.log_probs), samples.given, labels, mode, policy, refused=refused)
        changed = int((decisions.label != labels).sum())
        facts = {"changed": changed, "cutoff": cutoffs(policy)[0], "seconds": round(time.monotonic() - start, 3)}
        ledger.record(number, samples, verdict, decisions, **facts)
        outcome = Outcome(decisions.label, decisions, number, "max_rounds")
        hits[number] = verdict.log_probs.argmax(1)[samples.given >= 0] == samples.given[samples.given >= 0]
        if best.round and _fell(hits[best.round], hits[number]):
            return Outcome(best.label, best.decisions, best.round, "no_gain")
        if not best.round or hits[number].mean() >= hits[best.round].mean():
            best = outcome
        if changed <= policy.min_change * len(samples):
            return Outcome(decisions.label, decisions, number, "no_change")
        seconds = time.monotonic() - start
    return outcome


def _average(verdict: Verdict, earlier: Verdict, n: int) -> Verdict:
    """The mean over n rounds, n - 1 of which `earlier` is the mean of: logits averaged, probabilities normalised."""
    logs = (verdict.log_probs + (n - 1) * earlier.log_probs) / n
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    return Verdict(logs, earlier.judge + "+" + verdict.judge)


def _in_round(fit: Fit, number: int) -> Fit:
    return lambda where, rows, labels: fit(f"round_{number}/{where}", rows, labels)


def _fell(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether paired out-of-fold hits (N,) fell by more than NOISE_OF_GAIN standard errors."""
    change = after.astype(float) - before
    error = change.std() / np.sqrt(len(change))
    return bool(change.mean() < -NOISE_OF_GAIN * error)
