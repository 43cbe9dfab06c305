"""From out-of-fold probabilities to decisions. The only place where a label changes."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import USES_UNLABELED, Pseudo
from ..data.encoding import counts
from ..data.votes import Votes
from .annotators import estimate_vote_noise
from .arrays import by_class, last_where, most_confident
from .decisions import DECISIONS, REASONS, Decisions, one_of_two
from .difficulty import estimate_difficulty_noise
from .multilabel import decide_images
from .noise import (
    DIFFICULTY,
    EXPLAINED,
    LOOK_ALIKE,
    OF_THE_CLASS,
    VOTES,
    estimate_noise,
    mean_matrix,
)
from .posterior import Posterior, PosteriorSummary, align
from .pseudo_labels import class_shares, select_pseudo_labels
from .sanity import learned_nothing
from .soft_targets import SoftTargets

REPAIRS = ("denoise", "joint")
"""Modes in which given labels may change."""
MIN_CLEAR_CONFIDENCE = 0.9
"""A label is in doubt where no class is this likely."""
USED_ERRORS = 0.5
"""Share of the allowed errors that is used: real ones were up to twice the estimated ones (benchmarks/noise.py)."""
CLEAR_CONTRADICTION = 0.8
"""Mean p_wrong of the labels that models contradict, from which on a student gained more from their probabilities:
digits have 0.83 to 0.87, Fashion-MNIST has 0.78 (docs/log.md)."""
CLEAR_SHARPNESS = 4.0
"""Exponent of the probabilities that are taught there. Their temperature was fitted to labels some of which are wrong
without a noise model that explains it, so it is too high. A student gained 0.7 to 0.9 points by it (docs/log.md)."""
MIN_REPAIRED_SHARE = 0.05
"""Nothing is relabeled where less than this share of the estimated wrong labels could be: so few rows are the tail of
the estimate, where it errs most. On labels by people, where 3 % could be, 70 % of the changes were right and 99 % had
been estimated; from 8 % on, 94 to 100 % were right (benchmarks/human_noise.py)."""
CLASS_FLOOR = 0.5
"""Least share of a class's given labels that is still learned after decisions."""


def decide_labels(
    log_probs: ndarray,
    given_labels: ndarray,
    mode: str,
    policy: Pseudo,
    *,
    refused: ndarray | str = "",
    progress: float = 1.0,
    likeliest_rate: float | None = None,
    votes: Votes | None = None,
) -> Decisions:
    """Decide for every sample which label is learned: kept, changed, softened, dropped, reviewed, or a pseudo-label.

    Where the predictions are no better than chance, nothing is changed. Of label sets, (N, C) with (N, C, 2)
    log-probabilities, every class has cutoffs, noise and decisions of its own.

    Args:
        log_probs: (N, K) out-of-fold log-probabilities of the true class. They may lie in a memory-mapped file, and are
            read in blocks.
        given_labels: (N,) class index, -1 = unlabeled. Decisions always start from these.
        mode: which rows may change their label: the given ones (denoise, joint), the unlabeled (augment, joint).
        policy: the section `pseudo` of the config.
        refused: (N,) reason for which an unlabeled row may not receive a label; empty = it may.
        progress: fraction of the rounds that are run, this one included.
        likeliest_rate: of wrong labels, where noise is by difficulty, see calibration.py; None = of the class; 0 = it
            follows the images.
        votes: what the given labels come from, if it is more than one label a row.

    Returns:
        One decision a sample, with its reason.
    """
    refused = np.broadcast_to(np.asarray(refused, object), len(given_labels))
    rules = (mode, policy, refused, progress, likeliest_rate, votes)
    if given_labels.ndim == 2:
        questions = [
            _decide(log_probs[:, c], given_labels[:, c], *rules)
            for c in range(given_labels.shape[1])
        ]
        return decide_images(questions, log_probs, given_labels)
    decisions = _decide(log_probs, given_labels, *rules)
    rows = decisions.posterior.sample_rows()
    problem = learned_nothing(decisions.predicted[rows], given_labels[rows], log_probs.shape[1])
    return decisions.keep_given(problem) if problem else decisions


def _decide(
    log_probs: ndarray,
    given_labels: ndarray,
    mode: str,
    policy: Pseudo,
    refused: ndarray,
    progress: float,
    likeliest_rate: float | None,
    votes: Votes | None,
) -> Decisions:
    """decide_labels for one class an image."""
    k = log_probs.shape[1]
    labeled = given_labels >= 0

    # What the models say of every row (predicted), and what that and the given label say together (believed)
    posterior = Posterior(log_probs, given_labels)
    if policy.distribution_alignment:
        posterior = align(posterior, class_shares(counts(given_labels, k)))
    matrix = noise = None
    if mode in REPAIRS and policy.relabel_cutoff is None:
        if votes is not None:
            noise = VOTES
            estimate = estimate_vote_noise(log_probs, votes)
            posterior = replace(posterior, sharpness=estimate.sharpness, votes=estimate)
            matrix = mean_matrix(posterior)
        elif likeliest_rate:
            noise = DIFFICULTY
            estimate, matrix = estimate_difficulty_noise(log_probs, given_labels, likeliest_rate)
            posterior = replace(posterior, sharpness=estimate.sharpness, difficulty=estimate)
        else:
            sampled = posterior.sample_summary()
            matrix, noise = estimate_noise(sampled, k, likeliest_rate == 0)
            # Of other noise the given label is no evidence: models and label say no more than the models alone.
            posterior = replace(posterior, matrix=matrix if noise in OF_THE_CLASS else None)
    predicted, believed = posterior.summaries()
    clear = noise == LOOK_ALIKE and _contradicts_clearly(believed)

    # Which label is learned, and why: at first every given label stays, and unlabeled rows stay unlabeled
    decision = one_of_two(labeled, "keep", "leave", DECISIONS)
    reason = one_of_two(labeled, "agrees" if mode in REPAIRS else "given_stands", "", REASONS)
    rows = defaultdict(lambda: np.empty(0, int))  # by decision
    if mode in REPAIRS:
        for (name, why), doubted in _decide_given(believed, mode, noise, clear, policy).items():
            decision[doubted], reason[doubted] = name, why
            rows[name] = np.concatenate([rows[name], doubted])
    accepted = ~labeled
    if accepted.any():
        accepted, why = select_pseudo_labels(posterior, predicted, policy, refused, progress)
        reason = reason.add_categories(why.categories.difference(reason.categories))
        reason[~labeled] = why[~labeled]
        accepted &= mode in USES_UNLABELED
        decision[accepted] = "accept"
    rows["accept"] = np.flatnonzero(accepted)
    changed = np.concatenate([rows["relabel"], rows["soften"], rows["accept"]])
    label = given_labels.copy()
    label[changed] = believed.best[changed]
    label[rows["drop"]] = -1
    touched = np.concatenate([changed, rows["drop"]])
    given_back = _protect_classes(believed, k, touched, decision, label, reason)
    for name in ("soften", "downweight"):
        rows[name] = np.setdiff1d(rows[name], given_back, assume_unique=True)

    taught = posterior
    if clear and mode == "denoise":
        taught = replace(posterior, sharpness=CLEAR_SHARPNESS)
    taught = SoftTargets(**vars(taught), power=policy.power, trim=policy.trim)
    soft, weight = _weigh(rows, label, believed, taught, policy)
    return Decisions(
        predicted=predicted.best,
        confidence=predicted.confidence,
        self_confidence=predicted.self_confidence,
        p_wrong=believed.p_wrong,
        decision=decision,
        label=label,
        reason=reason,
        weight=weight,
        soft=soft,
        posterior=posterior,
        best=believed.best,
        taught=taught,
        matrix=matrix,
        noise=noise,
    )


def _decide_given(
    believed: PosteriorSummary,
    mode: str,
    noise: str | None,
    clear: bool,
    policy: Pseudo,
) -> dict[tuple[str, str], ndarray]:
    """Rows whose given label is not certainly right, by decision and reason, from the posterior.

    relabel: another class reaches its cutoff. With a plain cutoff a label is dropped where it is wrong with that
    confidence and no class replaces it. What is then neither certainly right nor replaced is uncertain.

    clear: see _contradicts_clearly; of look-alike noise alone.
    """
    labeled = believed.labeled
    disagrees = believed.contradicted
    uncertain = disagrees | (believed.p_wrong > 0.5)
    turned = np.flatnonzero(disagrees)
    confidence = believed.confidence[turned]
    drop = turned[:0]
    if policy.relabel_cutoff is not None:
        reached = "another_class_above_cutoff"
        relabel = turned[confidence >= policy.relabel_cutoff]
        drop = turned[believed.p_wrong[turned] >= policy.relabel_cutoff]
    else:
        reached = "another_class_reaches_precision"
        cutoffs = precision_cutoffs(believed, policy.relabel_precision)
        is_certain = confidence >= cutoffs[believed.best[turned]]
        relabel = turned[is_certain & (noise in EXPLAINED)]
        if len(relabel) < MIN_REPAIRED_SHARE * believed.p_wrong.sum(where=labeled):
            relabel = turned[:0]
    action = policy.uncertain_labels
    if action is None:
        action = _default_action(mode, policy, noise, clear, len(relabel) > 0)
    if noise in (*OF_THE_CLASS, VOTES) and action in ("soften", "downweight"):
        # Not where noise lies on hard images: there, what the models do not know would be taught.
        uncertain |= labeled & (believed.confidence < MIN_CLEAR_CONFIDENCE)
    uncertain[relabel] = False
    uncertain[drop] = False
    return {
        ("relabel", reached): relabel,
        ("drop", "wrong_but_no_replacement"): np.setdiff1d(drop, relabel),
        (action, "doubtful"): np.flatnonzero(uncertain),
    }


def _contradicts_clearly(believed: PosteriorSummary) -> bool:
    """Whether models that contradict a label leave little for it, as good models do."""
    return believed.p_wrong[believed.contradicted].mean() > CLEAR_CONTRADICTION


def _default_action(
    mode: str, policy: Pseudo, noise: str | None, clear: bool, relabels: bool
) -> str:
    """What becomes of uncertain labels unless the policy says it: probabilities are taught where models know enough.

    They do not on similar classes unless they are clear; nor where they name noise of the class and can correct next to
    nothing of it. Then the label counts as far as it may be right.
    """
    if policy.relabel_cutoff is not None:
        return "review"
    if mode == "joint":
        return "drop"
    if noise == "none":
        return "review"
    if noise == LOOK_ALIKE:
        return "soften" if clear else "downweight"
    return "soften" if relabels or noise in (DIFFICULTY, VOTES) else "downweight"


def precision_cutoffs(believed: PosteriorSummary, precision: float) -> ndarray:
    """(K,) the lowest probability of a class at which the labels turned into it reach an estimated precision.

    The estimate is the mean probability of all rows from there on, which is right as far as probabilities are
    calibrated; only USED_ERRORS of the errors that `precision` allows are used. Infinite where no cutoff reaches it.
    """
    turned = believed.contradicted
    best, confidence = believed.best[turned], believed.confidence[turned]
    cutoffs = []
    for rows in by_class(best, believed.best.max() + 1):
        falling = np.sort(confidence[rows])[::-1]
        errors = np.cumsum(1 - falling) / np.arange(1, len(falling) + 1)
        cutoffs.append(last_where(falling, errors <= USED_ERRORS * (1 - precision)))
    return np.array(cutoffs)


def _weigh(
    rows: dict[str, ndarray],
    label: ndarray,
    believed: PosteriorSummary,
    taught: SoftTargets,
    policy: Pseudo,
) -> tuple[ndarray, ndarray]:
    """Which rows learn `taught` in place of their label, and how much each label counts; both (N,).

    rows: row numbers by decision.
    """
    soft = np.zeros(len(label), bool)
    soft[rows["soften"]] = True
    weight = np.ones_like(believed.p_wrong)
    weight[rows["downweight"]] = 1 - believed.p_wrong[rows["downweight"]]
    if policy.targets == "soft":
        soft[rows["accept"]] = True
    elif policy.targets == "weighted":
        weight[rows["accept"]] = believed.confidence[rows["accept"]]
    # The weight of a soft row is the probability of its label as it is taught.
    for block, probs in taught.blocks(np.flatnonzero(soft)):
        weight[block] = probs[np.arange(len(block)), label[block]]
    return soft, weight


def _protect_classes(
    believed: PosteriorSummary,
    k: int,
    changed: ndarray,
    decision: pd.Categorical,
    label: ndarray,
    reason: pd.Categorical,
) -> ndarray:
    """In place: give a class back its least doubtful rows where fewer than CLASS_FLOOR of its labels would be left.

    k: number of classes; changed: rows whose label may differ from the given one. Returns the rows given back.
    """
    given_labels = believed.given_labels
    n_given = counts(given_labels, k)
    floor = np.ceil(CLASS_FLOOR * n_given).astype(int)
    left = n_given - counts(given_labels[changed], k) + counts(label[changed], k)
    given_back = []
    while (lacking := floor - left).max(initial=0) > 0:
        # Class by class: a row may be taken from another one at its floor.
        short = (lacking > 0).argmax()
        lost = np.sort(changed[(given_labels[changed] == short) & (label[changed] != short)])
        back = lost[most_confident(-believed.p_wrong[lost], lacking[short])]
        left[short] += len(back)
        left -= counts(label[back], k)
        decision[back], label[back], reason[back] = "keep", short, "class_floor"
        given_back.append(back)
    return np.concatenate(given_back or [changed[:0]])
