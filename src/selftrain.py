"""The loop: a teacher judges rows it has not learned, confident judgements become labels, repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .config import Pseudo
from .data.folds import make_folds
from .data.samples import Samples
from .labels.calibration import calibrate
from .labels.ledger import Ledger, Verdict
from .labels.noise import OF_THE_CLASS, noise_matrix, noise_type
from .labels.selection import REPAIRS, Decisions, given_cutoff, select
from .run import seed_of

Fit = Callable[[str, np.ndarray, np.ndarray], object]
"""fit(where, rows, labels or soft targets of those rows) → a model with a `hash`."""
Predict = Callable[[object, np.ndarray], np.ndarray]
"""predict(model, rows) → (len(rows), K) log-probabilities."""

Part = tuple[np.ndarray, np.ndarray, str]
"""What one fold's model says: rows, their (len(rows), K) log-probabilities, its hash."""
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

    @property
    def targets(self) -> np.ndarray:
        """What is learned: the labels (N,), or (N, K) targets where some are soft; a person's word is never soft."""
        targets = self.label if self.decisions is None else self.decisions.targets()
        if targets.ndim == 1:
            return self.label
        human = np.broadcast_to(self.human, len(targets))[:, None]
        return np.where(human, np.eye(targets.shape[1], dtype=targets.dtype)[self.label], targets)


def held_out_probs(
    samples: Samples, labels: np.ndarray, folds: np.ndarray, fit: Fit, predict: Predict, *,
    clusters: np.ndarray, targets: np.ndarray | None = None, noisy: bool = False,
) -> Verdict:  # fmt: skip
    """Log-probabilities (N, K) of every sample, each judged only by models that learned neither it nor a copy of it.

    Rows with a fold (they or rows of their cluster have a label in `labels`) are judged by their own fold's model
    alone; the others by every fold's model and averaged. The one rule of this project lives here and nowhere else.
    targets: what is learned, where that is more than the labels. noisy: given labels may be wrong; each model is
    calibrated for the true class, by the given labels of the rows it judges, before models are mixed.
    """
    free, parts = folds < 0, []
    for fold in range(folds.max() + 1):
        learned = np.flatnonzero((labels >= 0) & (folds != fold))
        judged = np.flatnonzero(free | (folds == fold))
        assert not np.isin(clusters[judged], clusters[learned]).any(), "a row would be judged from memory"
        model = fit(f"fold_{fold}", learned, (labels if targets is None else targets)[learned])
        parts.append((judged, predict(model, judged), model.hash))
    return calibrated(parts, samples.given, labels, free) if noisy else _mix(parts, free)


def calibrated(parts: list[Part], given: np.ndarray, labels: np.ndarray, free: np.ndarray) -> Verdict:
    """One verdict from what each fold's model says, turned into log-probabilities of the true class.

    Where no T describes the noise, the identity stands in, and a temperature is all that is changed.
    """
    known = given >= 0
    probs = np.exp(_mix(parts, free).log_probs[known])
    of_the_class = noise_type(probs, given[known]) in OF_THE_CLASS
    matrix = noise_matrix(probs, given[known]) if of_the_class else np.eye(probs.shape[1])
    learned_noise = np.array_equal(labels[known], given[known])
    found = [calibrate(logs, given[rows], matrix, learned_noise) for rows, logs, _ in parts]
    parts = [(rows, logs, judge) for (rows, _, judge), (logs, _) in zip(parts, found, strict=True)]
    return replace(_mix(parts, free), temperatures=tuple(t for _, t in found))


def _mix(parts: list[Part], free: np.ndarray) -> Verdict:
    """One verdict from what each fold's model says; free: (N,) rows that all models judged."""
    probs = np.zeros((len(free), parts[0][1].shape[1]))
    judge = np.full(len(free), "", dtype=object)
    for rows, logs, model in parts:
        probs[rows] += np.exp(logs) / np.where(free[rows], len(parts), 1)[:, None]
        judge[rows] = model
    judge[free] = "+".join(model for *_, model in parts)
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
    seconds, earlier, before = 0.0, None, samples.given
    for number in range(1, policy.rounds + 1):
        if not time_for(2 * seconds):  # as much again for the student
            return Outcome(best.label, best.decisions, best.round, "time_budget")
        start = time.monotonic()
        labels = outcome.label
        verdict = ledger.recall(number, samples)
        if verdict is None:
            folds = make_folds(labels, clusters, policy.folds, seed_of(seed, number, "folds"))
            options = {"clusters": clusters, "targets": outcome.targets, "noisy": mode in REPAIRS}
            verdict = held_out_probs(samples, labels, folds, _in_round(fit, number), predict, **options)
            verdict = _average(verdict, earlier, number) if earlier else verdict
        earlier = verdict
        decisions = select(np.exp(verdict.log_probs), samples.given, mode, policy, refused=refused)
        changes, before = _changes(before, labels, decisions.label), labels
        seconds = round(time.monotonic() - start, 3)
        ledger.record(number, samples, verdict, decisions, **changes, cutoff=given_cutoff(policy), seconds=seconds)
        outcome = Outcome(decisions.label, decisions, number, "max_rounds")
        hits[number] = verdict.log_probs.argmax(1)[samples.given >= 0] == samples.given[samples.given >= 0]
        if best.round and _fell(hits[best.round], hits[number]):
            return Outcome(best.label, best.decisions, best.round, "no_gain")
        if not best.round or hits[number].mean() >= hits[best.round].mean():
            best = outcome
        if changes["changed"] <= policy.min_change * len(samples):
            return Outcome(decisions.label, decisions, number, "no_change")
    return outcome


def _changes(before: np.ndarray, labels: np.ndarray, new: np.ndarray) -> dict[str, int]:
    """How many labels a round changed, and how many of them back to what they were a round earlier. All (N,)."""
    changed = new != labels
    return {"changed": int(changed.sum()), "changed_back": int((changed & (new == before)).sum())}


def _average(verdict: Verdict, earlier: Verdict, n: int) -> Verdict:
    """The mean over n rounds, n - 1 of which `earlier` is the mean of: logits averaged, probabilities normalised."""
    logs = (verdict.log_probs + (n - 1) * earlier.log_probs) / n
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    return Verdict(logs, earlier.judge + "+" + verdict.judge, verdict.temperatures)


def _in_round(fit: Fit, number: int) -> Fit:
    return lambda where, rows, labels: fit(f"round_{number}/{where}", rows, labels)


def _fell(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether paired out-of-fold hits (N,) fell by more than NOISE_OF_GAIN standard errors."""
    change = after.astype(float) - before
    error = change.std() / np.sqrt(len(change))
    return bool(change.mean() < -NOISE_OF_GAIN * error)
