"""A stratified sample of the labeled rows for a person to judge, and what it says about a run. Arrays only."""

import numpy as np
from numpy import ndarray

from ..data.encoding import counts
from .arrays import by_class, most_confident

STRATA = ("flagged", "doubtful", "other")
SAMPLE_FRACTIONS = np.array([0.5, 0.2, 0.3])
"""Of the sample: half for the precision of the flags; the few rows that flags most likely missed count double."""
DOUBTFUL_FRACTION = 0.1
"""Of the rows without a flag: those with the highest p_wrong are called doubtful."""
MIN_ROWS_PER_STRATUM = 2
POSTERIOR_DRAWS = 10_000
"""Leaves an interval uncertain by about a hundredth of its width."""


def stratify(p_wrong: ndarray) -> ndarray:
    """(N,) index into STRATA. A row is flagged where its label is more likely wrong than right."""
    stratum = np.where(p_wrong > 0.5, 0, 2)
    rows = np.flatnonzero(stratum)
    n_doubtful = int(np.ceil(DOUBTFUL_FRACTION * len(rows)))
    stratum[rows[most_confident(p_wrong[rows], n_doubtful)]] = 1
    return stratum


def allocate(sizes: ndarray, n: int) -> ndarray:
    """How many rows of each stratum make a sample of n: one by one to the one furthest below its share."""
    taken = np.zeros(len(sizes), int)
    wanted = np.maximum(SAMPLE_FRACTIONS * n, MIN_ROWS_PER_STRATUM)
    for _ in range(min(n, sizes.sum())):
        shortage = np.where(taken < sizes, wanted - taken, -np.inf)
        taken[shortage.argmax()] += 1
    return taken


def draw_sample(stratum: ndarray, n: int, seed: int) -> tuple[ndarray, ndarray]:
    """Rows of a sample of n, each stratum sampled without replacement, in an order that says nothing about it.

    Returns:
        (M,) rows; (M,) how many rows of its stratum each of them stands for.
    """
    rng = np.random.default_rng(seed)
    sizes = counts(stratum, len(STRATA))
    taken = allocate(sizes, n)
    members = by_class(stratum, len(STRATA))
    drawn = [
        rng.choice(rows, size, replace=False) for rows, size in zip(members, taken, strict=True)
    ]
    rows = rng.permutation(np.concatenate(drawn))
    return rows, (sizes / np.maximum(taken, 1))[stratum[rows]]


def estimate(
    stratum: ndarray,
    rows: ndarray,
    wrong: ndarray,
    estimated_rate: float,
) -> dict[str, dict | None]:
    """Noise rate, precision of the flags, and the error of estimated_rate, each with a 95 % interval.

    In each stratum the rows that were not judged are drawn from the posterior of its rate under the prior of Jeffreys;
    where no judged row is wrong, none is at the lower bound, and where all are, all are at the upper one (Brown, Cai
    and DasGupta 2001, Interval estimation for a binomial proportion, Statistical Science 16). A stratum that was
    judged whole adds nothing to the interval.

    Args:
        stratum: (N,). rows: (M,) those a person judged. wrong: (M,) bool.

    Returns:
        {"value", "low", "high"} of each; None where a stratum has no judged row.
    """
    from scipy.stats import betabinom

    sizes = counts(stratum, len(STRATA))
    n_judged = counts(stratum[rows], len(STRATA))
    n_wrong = counts(stratum[rows[wrong]], len(STRATA))
    unseen = betabinom.rvs(
        sizes - n_judged,
        n_wrong + 0.5,
        n_judged - n_wrong + 0.5,
        size=(POSTERIOR_DRAWS, len(STRATA)),
        random_state=np.random.default_rng(0),
    )
    value = n_wrong * sizes / np.maximum(n_judged, 1)
    low = np.where(n_wrong == 0, 0, n_wrong + unseen)
    high = np.where(n_wrong == n_judged, sizes, n_wrong + unseen)

    def share_wrong(strata: ndarray) -> dict[str, float] | None:
        if not n_judged[strata].all():
            return None
        n = sizes[strata].sum()
        return {
            "value": float(value[strata].sum() / n),
            "low": float(np.quantile(low[:, strata].sum(1), 0.025) / n),
            "high": float(np.quantile(high[:, strata].sum(1), 0.975) / n),
        }

    rate = share_wrong(np.flatnonzero(sizes))
    error = None
    if rate:
        error = {
            "value": estimated_rate - rate["value"],
            "low": estimated_rate - rate["high"],
            "high": estimated_rate - rate["low"],
        }
    return {
        "noise_rate": rate,
        "flag_precision": share_wrong(np.array([0])),
        "estimate_error": error,
    }
