"""From held-out probabilities to decisions. The only place where a label changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..config.keys import Pseudo
from ..data.dataset import USES_POOL
from .arrays import by_class, most_confident
from .difficulty import estimate_difficulty_noise, matrix_of
from .noise import DIFFICULTY, EXPLAINED, OF_THE_CLASS, estimate_noise
from .posterior import Posterior, PosteriorSummary, align
from .pseudo_labels import ACCEPTED, class_shares, select_pseudo_labels

REPAIRS = ("denoise", "joint")
NOTHING_LEARNED = "learned_nothing"
"""The reason of all decisions where held-out predictions are no better than chance, see sanity.py."""
SURE = 0.9
"""A label is in doubt where no class has this belief."""
SAFETY = 0.5
"""Share of the allowed errors that is used: real ones were up to twice the estimated ones (benchmarks/noise.py)."""
CLEAR_CONTRADICTION = 0.8
"""Mean p_wrong of the labels that judges contradict, from which on a student gained more from their probabilities:
digits have 0.83 to 0.87, Fashion-MNIST has 0.78 (docs/log.md)."""
CLASS_FLOOR = 0.5
"""Least share of a class's given labels that is still learned after decisions."""


@dataclass(frozen=True)
class Decisions:
    """One entry a judged sample, all (N,): see decisions.csv. label is the class index to learn, -1 = none.

    predicted, confidence and self_confidence are those of the held-out probabilities; p_wrong and label come from the
    belief in the true class that the policy forms. Of label sets predicted and label are (N, C), see multilabel.py.
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
    """(N,) where `posterior` is learned in place of the label."""
    posterior: Posterior
    """Probabilities of the true class; what a soft row learns."""
    matrix: np.ndarray | None
    """T[true, given] (K, K); None where no given label is judged for noise."""
    noise: str | None
    """The type of the noise, see labels/noise.py."""
    questions: tuple[Decisions, ...] = ()
    """Of label sets, the decisions on the answers to each of the C questions; all above is what they come to."""

    def each(self, name: str) -> np.ndarray:
        """One of the arrays above; of label sets (N, C), as each question has it."""
        if not self.questions:
            return getattr(self, name)
        return np.stack([getattr(asked, name) for asked in self.questions], 1)

    def targets(self) -> np.ndarray:
        """What is learned: `label` (N,) where that says it all, else (N, K) targets with soft and weighted rows. Of
        label sets the probability of yes, (N, C), -1 = unknown: a label counts for less the nearer that is to 0.5."""
        if self.questions:
            return np.stack([asked.share_of_yes() for asked in self.questions], 1)
        if (self.weight == 1).all():
            return self.label
        targets = np.zeros(self.posterior.log_probs.shape, np.float32)
        hard = np.flatnonzero(~self.soft & (self.label >= 0))
        targets[hard, self.label[hard]] = self.weight[hard]
        for rows, probs in self.posterior.blocks(np.flatnonzero(self.soft)):
            targets[rows] = probs
        return targets

    def share_of_yes(self) -> np.ndarray:
        """(N,) float32: of a question of no and yes the probability of yes that is learned, -1 = none."""
        weight = np.maximum(self.weight, 0.5)  # less would say the opposite
        share = np.where(self.label == 1, weight, 1 - weight)
        for rows, probs in self.posterior.blocks(np.flatnonzero(self.soft)):
            share[rows] = probs[:, 1]
        return np.where(self.label < 0, -1, share).astype(np.float32)


def decide_labels(
    log_probs: np.ndarray,
    given_labels: np.ndarray,
    mode: str,
    policy: Pseudo,
    *,
    refused: np.ndarray | str = "",
    progress: float = 1.0,
    likeliest_rate: float | None = None,
) -> Decisions:
    """Decide for every sample which label is learned: kept, changed, softened, dropped, reviewed, or a pseudo-label.

    Args:
        log_probs: (N, K) out-of-fold log-probabilities of the true class. They may lie in a memory-mapped file, and are
            read in blocks.
        given_labels: (N,) class index, -1 = unlabeled. Decisions always start from these.
        mode: which rows may change their label: the given ones (denoise, joint), the unlabeled (augment, joint).
        policy: the section `pseudo` of the config.
        refused: (N,) reason for which an unlabeled row may not receive a label; empty = it may.
        progress: see select_pseudo_labels.
        likeliest_rate: of wrong labels, where noise is by difficulty, see calibration.calibrated; None = of the class.

    Returns:
        One decision a sample, with its reason.
    """
    (n, k), rows, pool = log_probs.shape, np.flatnonzero(given_labels >= 0), np.flatnonzero(given_labels < 0)
    posterior, matrix, noise = Posterior(log_probs, given_labels), None, None
    prior = class_shares(given_labels[rows], k)
    if policy.distribution_alignment:
        posterior = align(posterior, prior)
    said = final = posterior.said()
    if policy.relabel_cutoff is None and mode in REPAIRS:
        if likeliest_rate is None:
            matrix, noise = estimate_noise(said, given_labels, k)
            posterior = replace(posterior, matrix=matrix if noise in OF_THE_CLASS else None)
        else:
            estimate, noise = estimate_difficulty_noise(log_probs, given_labels, likeliest_rate), DIFFICULTY
            posterior = replace(posterior, sharpness=estimate.sharpness)
            said, matrix = posterior.said(), matrix_of(estimate, log_probs, given_labels)
            posterior = replace(posterior, difficulty=estimate)
        final = posterior.said() if noise in EXPLAINED else said

    decision, reason = (np.repeat(np.array([word], object), n) for word in ("keep", "given_stands"))
    if mode in REPAIRS:
        rule = _rule(mode, noise, policy, final.take(rows), given_labels[rows])
        decision[rows], reason[rows] = _judge_given(final.take(rows), given_labels[rows], k, rule)
    refused = np.broadcast_to(np.asarray(refused), n)[pool].astype(object)
    reason[pool] = select_pseudo_labels(
        said.take(pool), (said.take(rows), given_labels[rows]), prior, policy, refused=refused, progress=progress
    )
    accepted = (reason[pool] == ACCEPTED) & (mode in USES_POOL)
    decision[pool[accepted]], decision[pool[~accepted]] = "accept", "leave"

    label = np.where(np.isin(decision, ["relabel", "accept", "soften"]), final.best, given_labels)
    label[decision == "drop"] = -1
    _protect_classes(given_labels, final.wrong, decision, label, reason)
    soft, weight = _soft_targets(decision, policy, posterior, final)
    return Decisions(
        said.best,
        said.confidence,
        said.own,
        final.wrong,
        decision,
        label,
        reason,
        weight,
        soft,
        posterior,
        matrix,
        noise,
    )


def keep_given(d: Decisions, given_labels: np.ndarray) -> Decisions:
    """Decisions of judges that know nothing: every given label stands, none is suspected, nothing is accepted."""
    labeled, n = given_labels >= 0, len(given_labels)
    return replace(
        d,
        decision=np.where(labeled, "keep", "leave").astype(object),
        reason=np.full(n, NOTHING_LEARNED, object),
        label=given_labels,
        p_wrong=np.where(labeled, 0.0, np.nan),
        weight=np.ones(n),
        soft=np.zeros(n, bool),
        matrix=None,
        noise=None,
        posterior=Posterior(d.posterior.log_probs, given_labels),
    )


def _soft_targets(
    decision: np.ndarray, policy: Pseudo, posterior: Posterior, said: PosteriorSummary
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) which rows are soft; (N,) how much each label counts."""
    accepted = decision == "accept"
    soft = (decision == "soften") | (accepted & (policy.targets == "soft"))
    best = said.confidence.copy()
    if policy.targets == "soft":
        for rows, probs in posterior.blocks(np.flatnonzero(accepted)):
            best[rows] = probs.max(1)
    shared = soft | (accepted & (policy.targets == "weighted"))
    return soft, np.select([shared, decision == "downweight"], [best, 1 - said.wrong], 1.0)


@dataclass(frozen=True)
class _Rule:
    """How given labels are decided: by `cutoff`, else by `precision` (None: nothing is relabeled); the action where a
    label is in doubt; and whether agreeing labels of unsure models are in doubt too. Where noise lies on hard images
    they are not: what the models do not know there would be taught."""

    cutoff: float | None
    precision: float | None
    action: str
    doubts_unsure: bool


def _rule(mode: str, noise: str | None, policy: Pseudo, said: PosteriorSummary, given_labels: np.ndarray) -> _Rule:
    """What the policy comes to in this mode and for this type of noise; said, given: of the labeled rows, (M,)."""
    cutoff = policy.relabel_cutoff
    by_noise = {"none": "review", "look-alike": _on_look_alikes(said, given_labels)}.get(noise, "soften")
    action = policy.uncertain_labels or ("review" if cutoff is not None else "drop" if mode == "joint" else by_noise)
    return _Rule(cutoff, policy.relabel_precision if noise in EXPLAINED else None, action, noise in OF_THE_CLASS)


def _on_look_alikes(said: PosteriorSummary, given_labels: np.ndarray) -> str:
    """What doubtful labels on look-alikes teach: probabilities, where judges that contradict a label leave little for
    it, as good judges do; else the label, as far as it may be right."""
    contradicted = said.wrong[said.best != given_labels]
    return "soften" if len(contradicted) and contradicted.mean() > CLEAR_CONTRADICTION else "downweight"


def _judge_given(
    said: PosteriorSummary, given_labels: np.ndarray, k: int, rule: _Rule
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) decisions and reasons for given labels, from what is believed of them.

    relabel: another class reaches its cutoff. What is then neither certainly right nor replaced is in doubt: with a
    plain cutoff it is dropped where the given label is wrong with that confidence; else the rule's action is taken.
    """
    plain, disagrees = rule.cutoff is not None, said.best != given_labels
    at = np.full(k, rule.cutoff) if plain else precision_cutoffs(said, given_labels, k, rule.precision)
    relabel = disagrees & (said.confidence >= at[said.best])
    drop = disagrees & (said.wrong >= (rule.cutoff if plain else np.inf))
    unsure = (said.confidence < SURE) & rule.doubts_unsure & np.isin(rule.action, ["soften", "downweight"])
    doubtful = disagrees | (said.wrong > 0.5) | unsure
    reached = "another_class_above_cutoff" if plain else "another_class_reaches_precision"
    which = np.select([relabel, drop, doubtful], [0, 1, 2], 3)  # an index: rows share these strings
    decision = np.array(["relabel", "drop", rule.action, "keep"], object)[which]
    return decision, np.array([reached, "wrong_but_no_replacement", "doubtful", "agrees"], object)[which]


def precision_cutoffs(said: PosteriorSummary, given_labels: np.ndarray, k: int, precision: float | None) -> np.ndarray:
    """(K,) the lowest belief in a class at which the labels turned into that class reach an estimated precision.

    The estimate is the mean belief of all rows from there on, which is right as far as the beliefs are calibrated;
    only SAFETY of the errors that `precision` allows are used. Infinite where nothing can be turned into a class.
    """
    cutoffs = np.full(k, np.inf)
    if precision is None:
        return cutoffs
    turned = np.flatnonzero(said.best != given_labels)
    for c, rows in enumerate(by_class(said.best[turned], k)):
        falling = np.sort(said.confidence[turned[rows]])[::-1]
        errors = np.cumsum(1 - falling) / np.arange(1, len(falling) + 1)
        reached = np.flatnonzero(errors <= SAFETY * (1 - precision))
        if len(reached):
            cutoffs[c] = falling[reached[-1]]
    return cutoffs


def _protect_classes(given_labels, p_wrong, decision, label, reason) -> None:
    """In place: give a class back its least certain rows where fewer than CLASS_FLOOR of its labels would be left."""
    k = int(max(given_labels.max(), label.max())) + 1
    floor = np.ceil(CLASS_FLOOR * np.bincount(given_labels[given_labels >= 0], minlength=k)).astype(int)
    while (lacking := floor - np.bincount(label[label >= 0], minlength=k)).max() > 0:
        short = int((lacking > 0).argmax())  # class by class: a row may be taken from another one at its floor
        lost = np.flatnonzero((given_labels == short) & (label != short))
        back = lost[most_confident(-p_wrong[lost], lacking[short])]
        decision[back], label[back], reason[back] = "keep", short, "class_floor"
