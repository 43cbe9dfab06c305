"""Which samples of the pool receive a pseudo-label. Small rules over held-out probabilities, one after the other."""

from __future__ import annotations

import numpy as np

from ..config.keys import Pseudo
from .arrays import by_class, most_confident
from .posterior import PosteriorSummary

POOL_CUTOFF = 0.95
"""Default cutoff of the plain confidence."""
DRIFT = 0.25
"""Total variation between class shares of pseudo-labels and labels from which the run warns."""
COLLAPSE = 0.5
"""Pseudo-labels have collapsed when they are spread over fewer than this share of the classes that labels are on."""
ENOUGH = 2
"""Pseudo-labels a class from which a collapse can be told from chance."""
ACCEPTED = "above_cutoff"
"""The reason of a row that receives a pseudo-label; all others are reasons for which it does not."""


def select_pseudo_labels(
    pool: PosteriorSummary,
    known: tuple[PosteriorSummary, np.ndarray],
    prior: np.ndarray,
    policy: Pseudo,
    *,
    refused: np.ndarray | str = "",
    progress: float = 1.0,
) -> np.ndarray:
    """The reason (M,) for which each pool row receives a pseudo-label (ACCEPTED) or does not.

    The rules of `policy` in order: a cutoff (plain, or by precision), a growing share.

    pool: what is believed of M rows; known: the same of the labeled rows, and their classes (L,); prior: class shares
    (K,) of the labels; refused: (M,) reasons that stand above all rules; progress: share of the rounds that are run,
    0…1.
    """
    cutoffs = pool_cutoffs(known, len(prior), policy)
    reason = np.repeat(np.array(["below_cutoff"], object), len(pool.best))
    reason[pool.confidence >= cutoffs[pool.best]] = "above_cutoff"
    if policy.top_fraction is not None:
        counts = np.bincount(pool.best, minlength=len(prior))
        share = min(policy.top_fraction, max(policy.top_fraction * progress, policy.top_fraction_start))
        _keep_surest(reason, pool, share * counts, "beyond_share")
    refused = np.broadcast_to(np.asarray(refused, object), len(reason))
    return np.where(refused != "", refused, reason)


def pool_cutoffs(known: tuple[PosteriorSummary, np.ndarray], k: int, policy: Pseudo) -> np.ndarray:
    """(K,) cutoff of each class: as configured, or by `min_precision`."""
    said, labels = known
    if policy.min_precision is None:
        return np.full(k, plain_cutoff(policy))
    found = cutoffs_by_precision(said.best, said.confidence, labels, k, policy.min_precision)
    return np.maximum(found, policy.cutoff or 0.0)


def plain_cutoff(policy: Pseudo) -> float:
    """The configured cutoff on unlabeled images, else the default."""
    return POOL_CUTOFF if policy.cutoff is None else policy.cutoff


def lowest_cutoff(accepted: np.ndarray, policy: Pseudo) -> float | None:
    """What a report names as the cutoff: the plain one; by precision, the lowest confidence (A,) that was accepted."""
    if policy.min_precision is None:
        return plain_cutoff(policy)
    return float(accepted.min()) if len(accepted) else None


def cutoffs_by_precision(
    predicted: np.ndarray, confidence: np.ndarray, labels: np.ndarray, k: int, precision: float
) -> np.ndarray:
    """(K,) lowest confidence in a class at which the lower bound of the out-of-fold precision reaches `precision`.

    All (L,) over labeled rows. A class with too few rows for its own bound takes that of all classes together; where
    that does not reach it either, nothing is accepted (infinity).
    """
    right = predicted == labels
    together = _lowest(confidence, right, precision)
    own = [_lowest(confidence[rows], right[rows], precision) for rows in by_class(predicted, k)]
    return np.where(np.isinf(own), together, own)


def _lowest(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    """The lowest confidence from which on precision is, with 95 % confidence, at least this; inf where none is."""
    order = np.argsort(-confidence, kind="stable")
    n = np.arange(1, len(order) + 1)
    reached = np.flatnonzero(lower_bound(np.cumsum(right[order]), n) >= precision)
    return float(confidence[order[reached[-1]]]) if len(reached) else np.inf


def lower_bound(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """One-sided 95 % lower bound of a share from hits among n (Clopper & Pearson 1934); 0 without a hit."""
    from scipy.stats import beta

    return np.where(hits > 0, beta.ppf(0.05, np.maximum(hits, 1), n - hits + 1), 0.0)


def provable(n: int) -> float:
    """The precision that n out-of-fold rows prove at most, with 95 % confidence: all of them right."""
    return float(lower_bound(np.array([n]), np.array([n]))[0])


def _keep_surest(reason: np.ndarray, pool: PosteriorSummary, counts: np.ndarray, why: str) -> None:
    """In place: of the accepted rows of class k only the surest counts[k] (rounded up) stay."""
    taken = np.flatnonzero(reason == ACCEPTED)
    most = np.ceil(counts - 1e-9).astype(int)
    for own, n in zip(by_class(pool.best[taken], len(counts)), most, strict=True):
        rows = taken[own]
        reason[np.delete(rows, most_confident(pool.confidence[rows], n))] = why


def class_shares(labels: np.ndarray, k: int) -> np.ndarray:
    """(K,) shares of the classes among labels (L,); equal where there is none."""
    counts = np.bincount(labels, minlength=k).astype(float)
    return counts / counts.sum() if counts.any() else np.full(k, 1 / k)


def drift(accepted: np.ndarray, labels: np.ndarray, k: int) -> dict[str, float | bool]:
    """How far the classes of pseudo-labels (A,) are from those of the labels (L,).

    drift: total variation of the two distributions, 0…1. collapsed: the pseudo-labels are spread over fewer than half
    as many classes as the labels, counted by the exponential of the entropy.
    """
    shares, prior = class_shares(accepted, k), class_shares(labels, k)
    collapsed = len(accepted) >= ENOUGH * k and _classes(shares) < COLLAPSE * _classes(prior)
    distance = float(np.abs(shares - prior).sum() / 2) if len(accepted) else 0.0
    return {"drift": distance, "collapsed": bool(collapsed)}


def _classes(shares: np.ndarray) -> float:
    """Over how many classes these shares are spread (perplexity)."""
    some = shares[shares > 0]
    return float(np.exp(-(some * np.log(some)).sum()))
