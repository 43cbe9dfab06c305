"""From held-out probabilities to decisions. The only place where a label changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import Pseudo
from ..data.samples import USES_POOL
from .noise import posterior, true_class_probs

REPAIRS = ("denoise", "joint")
CUTOFFS = {"posterior": 0.5, "cutoff": 0.9, "pool": 0.95}
"""Default cutoffs: of the posterior, of the plain confidence on given labels, of the confidence on the pool."""
CLASS_FLOOR = 0.5
"""Least share of a class's given labels that is still learned after decisions."""


@dataclass(frozen=True)
class Decisions:
    """One entry a judged sample, all (N,): see decisions.csv. label is the class index to learn, -1 = none.

    predicted, confidence and self_confidence are those of the held-out probabilities (of the pool: of the true class);
    p_wrong and label come from the belief in the true class that the policy forms.
    """

    predicted: np.ndarray
    confidence: np.ndarray
    self_confidence: np.ndarray
    p_wrong: np.ndarray
    decision: np.ndarray
    label: np.ndarray
    reason: np.ndarray
    matrix: np.ndarray | None
    """T[true, given] (K, K); None where no given label is judged for noise."""


def cutoffs(policy: Pseudo) -> tuple[float, float]:
    """(cutoff on given labels, cutoff on the pool): as configured, else the defaults."""
    given = CUTOFFS[policy.policy] if policy.cutoff is None else policy.cutoff
    pool = next(c for c in (policy.pool_cutoff, policy.cutoff, CUTOFFS["pool"]) if c is not None)
    return given, pool


def select(
    probs: np.ndarray, given: np.ndarray, learned: np.ndarray, mode: str, policy: Pseudo, *,
    refused: np.ndarray | str = "",
) -> Decisions:  # fmt: skip
    """Decide afresh, from the given labels, for every judged sample.

    probs: (N, K) held-out; given: (N,) class index, -1 = pool; learned: (N,) labels that the judging models learned.
    A mode is only which rows may change their label: the given ones (denoise, joint), the pool (augment, joint).
    refused: (N,) reason for which a pool row may not receive one; empty = it may.
    """
    n, rows, pool = len(given), np.flatnonzero(given >= 0), given < 0
    belief, matrix = probs.astype(np.float64), None
    self_confidence, p_wrong = np.full(n, np.nan), np.full(n, np.nan)
    self_confidence[rows] = belief[rows, given[rows]]
    if policy.policy == "posterior" and mode in REPAIRS:
        belief = true_class_probs(probs, given, learned)
    predicted, confidence = _top(np.where(pool[:, None], belief, probs))
    if policy.policy == "posterior" and mode in REPAIRS:
        belief[rows], matrix = posterior(belief[rows], given[rows])
    p_wrong[rows] = _others(belief[rows], given[rows])

    decision, reason = np.full(n, "keep", object), np.full(n, "given_stands", object)
    at_given, at_pool = cutoffs(policy)
    if mode in REPAIRS:
        decision[rows], reason[rows] = _judge_given(belief[rows], given[rows], p_wrong[rows], at_given)
    refused = np.broadcast_to(np.asarray(refused, object), n)
    accepted = pool & (confidence >= at_pool) & (mode in USES_POOL) & (refused == "")
    decision[pool], reason[pool] = "leave", np.where(refused[pool] == "", "below_cutoff", refused[pool])
    decision[accepted], reason[accepted] = "accept", "above_cutoff"

    label = np.where(
        np.isin(decision, ["relabel", "accept"]), belief.argmax(1), np.where(decision == "drop", -1, given)
    )
    _protect_classes(given, p_wrong, decision, label, reason)
    return Decisions(predicted, confidence, self_confidence, p_wrong, decision, label, reason, matrix)


def _top(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return probs.argmax(1), probs.max(1)


def _others(belief: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(M,) probability of all classes but the given one, summed so that tiny values keep their order."""
    others = belief.copy()
    others[np.arange(len(given)), given] = 0
    return others.sum(1)


def _judge_given(belief: np.ndarray, given: np.ndarray, p_wrong: np.ndarray, cutoff: float):
    """(M,) decisions and reasons for given labels from (M, K) beliefs in the true class.

    relabel: one other class reaches the cutoff. drop: the given label is wrong with that confidence, but no single
    class replaces it. review: more likely wrong than right, not decided; it is still learned.
    """
    best, confidence = _top(belief)
    disagrees = best != given
    conditions = [disagrees & (confidence >= cutoff), disagrees & (p_wrong >= cutoff), p_wrong > 0.5]
    decision = np.select(conditions, ["relabel", "drop", "review"], "keep").astype(object)
    reasons = ["another_class_above_cutoff", "wrong_but_no_replacement", "below_cutoff"]
    return decision, np.select(conditions, reasons, "agrees").astype(object)


def _protect_classes(given, p_wrong, decision, label, reason) -> None:
    """In place: give a class back its least certain rows where fewer than CLASS_FLOOR of its labels would be left."""
    k = int(max(given.max(), label.max())) + 1
    floor = np.ceil(CLASS_FLOOR * np.bincount(given[given >= 0], minlength=k))
    while (short := np.flatnonzero(np.bincount(label[label >= 0], minlength=k) < floor)).size:
        lost = np.flatnonzero((given == short[0]) & (label != short[0]))
        back = lost[p_wrong[lost].argmin()]  # one at a time: it may be taken from another class at its floor
        decision[back], label[back], reason[back] = "keep", short[0], "class_floor"
