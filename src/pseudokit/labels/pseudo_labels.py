"""Which unlabeled images receive a pseudo-label: small rules over out-of-fold probabilities, one after the other.

A new rule for the cutoffs of the classes is a function in `CUTOFF_RULES`. `pseudo.cutoff` takes its name there.
"""

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Pseudo
from ..config.types import UserError
from .arrays import by_class, last_where, most_confident
from .decisions import REASONS, one_of_two
from .posterior import Posterior, PosteriorSummary

DEFAULT_CUTOFF = 0.95
"""Of the plain confidence."""
ERROR = 0.05
"""One-sided error of a precision that is proved by out-of-fold rows."""
MAX_DRIFT = 0.25
"""Total variation between class shares of pseudo-labels and labels from which the run warns."""
MIN_CLASS_RATIO = 0.5
"""Pseudo-labels have collapsed when they are spread over fewer than this share of the classes that labels are on."""
MIN_ROWS_PER_CLASS = 2
"""Pseudo-labels a class from which a collapse can be told from chance."""


def select_pseudo_labels(
    posterior: Posterior,
    predicted: PosteriorSummary,
    policy: Pseudo,
    refused: ndarray,
    progress: float,
) -> tuple[ndarray, pd.Categorical]:
    """Which unlabeled rows receive their likeliest class as label, and why.

    Each class has a cutoff on the confidence, see class_cutoffs. Of the rows above it a class keeps at most a share.

    Args:
        posterior: out-of-fold probabilities of N rows, with their given labels; predicted: its summary.
        refused: (N,) reasons that stand above all rules; empty = none.
        progress: fraction of the rounds that are run, this one included.

    Returns:
        (N,) bool accepted; (N,) reasons, which mean nothing for labeled rows.
    """
    unlabeled = posterior.given_labels < 0
    best = predicted.best
    confidence = predicted.confidence
    cutoffs = class_cutoffs(posterior, predicted, policy)
    accepted = unlabeled & (confidence >= cutoffs[best])
    reason = one_of_two(accepted, "above_cutoff", "below_cutoff", REASONS)
    if policy.top_fraction is not None:
        fraction = min(
            policy.top_fraction, max(policy.top_fraction * progress, policy.top_fraction_start)
        )
        for c in range(len(cutoffs)):
            of_class = unlabeled & (best == c)
            limit = int(np.ceil(fraction * of_class.sum() - 1e-9))
            rows = np.flatnonzero(accepted & of_class)
            beyond = np.delete(rows, most_confident(confidence[rows], limit))
            accepted[beyond] = False
            reason[beyond] = "beyond_share"
    is_refused = refused != ""
    if is_refused.any():
        others = {*refused[is_refused]} - {*REASONS}
        reason = reason.add_categories(sorted(others))
        reason[is_refused] = refused[is_refused]
    return accepted & ~is_refused, reason


def class_cutoffs(posterior: Posterior, predicted: PosteriorSummary, policy: Pseudo) -> ndarray:
    """(K,) the lowest confidence of each class with which an unlabeled row gets a pseudo-label."""
    k = posterior.log_probs.shape[1]
    if isinstance(policy.cutoff, str):
        cutoffs = CUTOFF_RULES[policy.cutoff](posterior, predicted)
    else:
        cutoffs = np.full(k, plain_cutoff(policy))
    if policy.min_precision is None:
        return cutoffs
    rows = posterior.given_labels >= 0
    proof = predicted.best[rows], predicted.confidence[rows], posterior.given_labels[rows]
    proved = cutoffs_by_precision(*proof, k, policy.min_precision)
    return proved if policy.cutoff is None else np.maximum(proved, cutoffs)


def adaptive_cutoffs(posterior: Posterior, predicted: PosteriorSummary) -> ndarray:
    """(K,) FreeMatch (Wang et al. 2023): the mean confidence of all unlabeled rows, lower for classes that are rare.

    A class has its mean probability, divided by that of the likeliest class, as factor.
    """
    unlabeled = np.flatnonzero(posterior.given_labels < 0)
    total = posterior.total(unlabeled)
    if not total.any():  # no unlabeled row
        return total
    return predicted.confidence[unlabeled].mean() * total / total.max()


CUTOFF_RULES = {"adaptive": adaptive_cutoffs}
"""What `pseudo.cutoff` may name in place of a number: (posterior, predicted) → (K,) cutoffs of the classes."""


def check_cutoff(policy: Pseudo) -> None:
    """Raises UserError where `pseudo.cutoff` is neither a number nor the name of a rule."""
    name = policy.cutoff
    if isinstance(name, str) and name not in CUTOFF_RULES:
        rules = " or ".join(CUTOFF_RULES)
        raise UserError(f"pseudo.cutoff={name}: give a number from 0 on, or {rules}")


def plain_cutoff(policy: Pseudo) -> float:
    """The configured number, else the default."""
    return DEFAULT_CUTOFF if policy.cutoff is None else policy.cutoff


def reported_cutoff(accepted: ndarray, policy: Pseudo) -> float | None:
    """What a report names as the cutoff: the number, or the lowest confidence (A,) that a rule accepted."""
    if policy.min_precision is None and not isinstance(policy.cutoff, str):
        return plain_cutoff(policy)
    return float(accepted.min()) if len(accepted) else None


def cutoffs_by_precision(
    predicted: ndarray,
    confidence: ndarray,
    labels: ndarray,
    k: int,
    precision: float,
) -> ndarray:
    """(K,) lowest confidence in a class at which the lower bound of the out-of-fold precision reaches `precision`.

    All (L,) over labeled rows. A class with too few rows for its own bound takes that of all classes together; where
    that does not reach it either, nothing is accepted (infinity).
    """
    right = predicted == labels
    of_all = _lowest_cutoff(confidence, right, precision)
    of_classes = [
        _lowest_cutoff(confidence[rows], right[rows], precision) for rows in by_class(predicted, k)
    ]
    return np.where(np.isinf(of_classes), of_all, of_classes)


def _lowest_cutoff(confidence: ndarray, right: ndarray, precision: float) -> float:
    """The lowest confidence from which on precision is, with 95 % confidence, at least this; inf where none is."""
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(right[order])
    bounds = lower_bound(hits, np.arange(1, len(order) + 1))
    return last_where(confidence[order], bounds >= precision)


def lower_bound(hits: ndarray, n: ndarray) -> ndarray:
    """One-sided 95 % lower bound of a share from hits among n (Clopper & Pearson 1934); 0 without a hit."""
    from scipy.stats import beta

    bound = beta.ppf(ERROR, np.maximum(hits, 1), n - hits + 1)
    return np.where(hits > 0, bound, 0.0)


def class_shares(counts: ndarray) -> ndarray:
    """(K,) shares of the classes from how often each occurs; equal where none does."""
    if not counts.any():
        return np.full(len(counts), 1 / len(counts))
    return counts / counts.sum()


def drift(pseudo_counts: ndarray, label_counts: ndarray) -> dict[str, float | bool]:
    """How far the classes of pseudo-labels are from those of the labels. Both (K,): how many of each class.

    Returns:
        drift: total variation of the two distributions, 0…1. collapsed: the pseudo-labels are spread over fewer than
        half as many classes as the labels, counted by the exponential of the entropy (perplexity).
    """
    from scipy.stats import entropy

    shares = class_shares(pseudo_counts)
    prior = class_shares(label_counts)
    narrow = np.exp(entropy(shares)) < MIN_CLASS_RATIO * np.exp(entropy(prior))
    n = pseudo_counts.sum()
    enough = n >= MIN_ROWS_PER_CLASS * len(pseudo_counts)
    distance = np.abs(shares - prior).sum() / 2 if n else 0.0
    return {"drift": float(distance), "collapsed": bool(enough and narrow)}
