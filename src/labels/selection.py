"""From held-out probabilities to decisions. The only place where a label changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..config import Pseudo
from ..data.samples import USES_POOL
from .noise import OF_THE_CLASS, noise_matrix, noise_type, posterior
from .pool import ACCEPTED, align, choose, class_shares, soften

REPAIRS = ("denoise", "joint")
PLAIN_CUTOFF = 0.9
"""Default cutoff of the plain confidence on given labels (policy=cutoff)."""
SURE = 0.9
"""A label is in doubt where no class has this belief."""
SAFETY = 0.5
"""Share of the allowed errors that is used: real ones were up to twice the estimated ones (benchmarks/noise.py)."""
CLASS_FLOOR = 0.5
"""Least share of a class's given labels that is still learned after decisions."""


@dataclass(frozen=True)
class Decisions:
    """One entry a judged sample, all (N,): see decisions.csv. label is the class index to learn, -1 = none.

    predicted, confidence and self_confidence are those of the held-out probabilities; p_wrong and label come from the
    belief in the true class that the policy forms.
    """

    predicted: np.ndarray
    confidence: np.ndarray
    self_confidence: np.ndarray
    p_wrong: np.ndarray
    decision: np.ndarray
    label: np.ndarray
    reason: np.ndarray
    weight: np.ndarray
    """1, or less: how much a label counts, which share of a soft target its label has."""
    soft: np.ndarray
    """(N,) where `belief` is learned in place of the label."""
    belief: np.ndarray
    """(N, K) probabilities of the true class; what a soft row learns."""
    matrix: np.ndarray | None
    """T[true, given] (K, K); None where no given label is judged for noise."""
    noise: str | None
    """The type of the noise, see labels/noise.py."""

    def targets(self) -> np.ndarray:
        """What is learned: `label` (N,) where that says it all, else (N, K) targets with soft and weighted rows."""
        if (self.weight == 1).all():
            return self.label
        hard = np.eye(self.belief.shape[1], dtype=np.float32)[self.label] * self.weight[:, None]
        return np.where(self.soft[:, None], self.belief, hard).astype(np.float32)


def select(
    probs: np.ndarray, given: np.ndarray, mode: str, policy: Pseudo, *,
    refused: np.ndarray | str = "", agreement: np.ndarray | float = 1.0, progress: float = 1.0,
) -> Decisions:  # fmt: skip
    """Decide afresh, from the given labels, for every judged sample.

    probs: (N, K) held-out probabilities of the true class; given: (N,) class index, -1 = pool.
    A mode is only which rows may change their label: the given ones (denoise, joint), the pool (augment, joint).
    refused: (N,) reason for which a pool row may not receive one; empty = it may. agreement, progress: see choose.
    """
    n, rows, pool = len(given), np.flatnonzero(given >= 0), np.flatnonzero(given < 0)
    belief, matrix, noise = probs.astype(np.float64), None, None
    if policy.pool_align and len(pool):
        belief[pool] = align(belief[pool], class_shares(given[rows], probs.shape[1]))
    predicted, confidence = belief.argmax(1), belief.max(1)
    self_confidence, p_wrong = np.full(n, np.nan), np.full(n, np.nan)
    self_confidence[rows] = belief[rows, given[rows]]
    known = belief[rows]
    if policy.policy == "posterior" and mode in REPAIRS:
        matrix, noise = noise_matrix(belief[rows], given[rows]), noise_type(belief[rows], given[rows])
        if noise in OF_THE_CLASS:
            belief[rows] = posterior(belief[rows], given[rows], matrix)
    p_wrong[rows] = _others(belief[rows], given[rows])

    decision, reason = np.full(n, "keep", object), np.full(n, "given_stands", object)
    if mode in REPAIRS:
        decision[rows], reason[rows] = _judge_given(
            belief[rows], given[rows], p_wrong[rows], _rule(mode, noise, policy)
        )
    agreement, refused = (np.broadcast_to(np.asarray(x), n)[pool] for x in (agreement, refused))
    options = {"agreement": agreement, "refused": refused.astype(object), "progress": progress}
    reason[pool] = choose(belief[pool], (known, given[rows]), policy, **options)
    decision[pool] = np.where(np.isin(reason[pool], ACCEPTED) & (mode in USES_POOL), "accept", "leave")

    label = np.where(np.isin(decision, ["relabel", "accept", "soften"]), belief.argmax(1), given)
    label[decision == "drop"] = -1
    _protect_classes(given, p_wrong, decision, label, reason)
    soft, weight = _lessons(decision, policy, belief, p_wrong)
    return Decisions(predicted, confidence, self_confidence, p_wrong, decision, label, reason, weight, soft, belief,
                     matrix, noise)  # fmt: skip


def _lessons(decision: np.ndarray, policy: Pseudo, belief: np.ndarray, p_wrong: np.ndarray):
    """(N,) where the belief (N, K) is learned in place of the label, and (N,) how much the label counts.

    In place: the belief of soft pseudo-labels has the temperature at which they are learned.
    """
    accepted = decision == "accept"
    if policy.pool_targets == "soft":
        belief[accepted] = soften(belief[accepted], policy.pool_temperature)
    best = belief.max(1)
    soft = (decision == "soften") | (accepted & (policy.pool_targets == "soft"))
    shared = soft | (accepted & (policy.pool_targets == "weighted"))
    return soft, np.select([shared, decision == "downweight"], [best, 1 - p_wrong], 1.0)


def given_cutoff(policy: Pseudo) -> float | None:
    """The cutoff on given labels; None where the target precision decides."""
    return PLAIN_CUTOFF if policy.cutoff is None and policy.policy == "cutoff" else policy.cutoff


def _others(belief: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(M,) probability of all classes but the given one, summed so that tiny values keep their order."""
    others = belief.copy()
    others[np.arange(len(given)), given] = 0
    return others.sum(1)


@dataclass(frozen=True)
class _Rule:
    """How given labels are decided: by `cutoff`, else by `precision` (None: nothing is relabelled); and the action
    where a label is in doubt."""

    cutoff: float | None
    precision: float | None
    action: str


def _rule(mode: str, noise: str | None, policy: Pseudo) -> _Rule:
    """What the policy comes to in this mode and for this type of noise."""
    cutoff = given_cutoff(policy)
    by_noise = {"none": "review", "look-alike": "drop"}.get(noise, "soften")
    action = policy.doubtful or ("review" if cutoff is not None else "drop" if mode == "joint" else by_noise)
    return _Rule(cutoff, policy.precision if noise in OF_THE_CLASS else None, action)


def _judge_given(belief: np.ndarray, given: np.ndarray, p_wrong: np.ndarray, rule: _Rule):
    """(M,) decisions and reasons for given labels from (M, K) beliefs in the true class.

    relabel: another class reaches its cutoff. What is then neither certainly right nor replaced is in doubt: with a
    plain cutoff it is dropped where the given label is wrong with that confidence; else the rule's action is taken.
    """
    best, confidence, plain = belief.argmax(1), belief.max(1), rule.cutoff is not None
    disagrees = best != given
    at = np.full(belief.shape[1], rule.cutoff) if plain else precision_cutoffs(belief, given, rule.precision)
    relabel = disagrees & (confidence >= at[best])
    drop = disagrees & (p_wrong >= (rule.cutoff if plain else np.inf))
    unsure = (confidence < SURE) & np.isin(rule.action, ["soften", "downweight"])
    doubtful = disagrees | (p_wrong > 0.5) | unsure
    reached = "another_class_above_cutoff" if plain else "another_class_reaches_precision"
    conditions = [relabel, drop, doubtful]
    decision = np.select(conditions, ["relabel", "drop", rule.action], "keep").astype(object)
    return decision, np.select(conditions, [reached, "wrong_but_no_replacement", "doubtful"], "agrees").astype(object)


def precision_cutoffs(belief: np.ndarray, given: np.ndarray, precision: float | None) -> np.ndarray:
    """(K,) the lowest belief in a class at which the labels turned into that class reach an estimated precision.

    The estimate is the mean belief of all rows from there on, which is right as far as the beliefs are calibrated;
    only SAFETY of the errors that `precision` allows are used. Infinite where nothing can be turned into a class.
    """
    best, confidence = belief.argmax(1), belief.max(1)
    cutoffs = np.full(belief.shape[1], np.inf)
    if precision is None:
        return cutoffs
    for k in range(belief.shape[1]):
        falling = np.sort(confidence[(best == k) & (best != given)])[::-1]
        errors = np.cumsum(1 - falling) / np.arange(1, len(falling) + 1)
        reached = np.flatnonzero(errors <= SAFETY * (1 - precision))
        if len(reached):
            cutoffs[k] = falling[reached[-1]]
    return cutoffs


def _protect_classes(given, p_wrong, decision, label, reason) -> None:
    """In place: give a class back its least certain rows where fewer than CLASS_FLOOR of its labels would be left."""
    k = int(max(given.max(), label.max())) + 1
    floor = np.ceil(CLASS_FLOOR * np.bincount(given[given >= 0], minlength=k))
    while (short := np.flatnonzero(np.bincount(label[label >= 0], minlength=k) < floor)).size:
        lost = np.flatnonzero((given == short[0]) & (label != short[0]))
        back = lost[p_wrong[lost].argmin()]  # one at a time: it may be taken from another class at its floor
        decision[back], label[back], reason[back] = "keep", short[0], "class_floor"
