"""A stratified sample of the labeled set for a person to judge, and what it says about a run. Arrays only."""

from __future__ import annotations

import numpy as np

STRATA = ("flagged", "doubtful", "other")
SHARES = np.array([0.5, 0.2, 0.3])
"""Of the sample: half for the precision of the flags; the few rows that flags most likely missed count double."""
DOUBTFUL = 0.1
"""Share of the rows without a flag that is called doubtful: those with the highest p_wrong."""
FEWEST = 2
DRAWS = 10_000


def strata(p_wrong: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """(N,) index into STRATA, of labeled rows with p_wrong (N,) and a flag (N,) or none."""
    stratum = np.where(flagged, 0, 2)
    rows = np.flatnonzero(~flagged)
    doubtful = rows[np.argsort(-p_wrong[rows], kind="stable")][: int(np.ceil(DOUBTFUL * len(rows)))]
    stratum[doubtful] = 1
    return stratum


def allocate(sizes: np.ndarray, n: int) -> np.ndarray:
    """How many rows of each stratum make a sample of n: one by one to the one furthest below its share."""
    take = np.zeros(len(sizes), int)
    wanted = np.maximum(SHARES * n, FEWEST)
    for _ in range(min(n, sizes.sum())):
        take[np.where(take < sizes, wanted - take, -np.inf).argmax()] += 1
    return take


def draw(stratum: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Rows of a sample of n, each stratum sampled without replacement, in an order that says nothing about it."""
    rng = np.random.default_rng(seed)
    take = allocate(np.bincount(stratum, minlength=len(STRATA)), n)
    rows = [rng.choice(np.flatnonzero(stratum == k), m, replace=False) for k, m in enumerate(take)]
    return rng.permutation(np.concatenate(rows))


def weights(stratum: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) how many rows of its stratum each sampled row stands for."""
    sizes, taken = (np.bincount(s, minlength=len(STRATA)) for s in (stratum, stratum[rows]))
    return sizes[stratum[rows]] / taken[stratum[rows]]


def estimate(stratum: np.ndarray, rows: np.ndarray, wrong: np.ndarray, estimated_rate: float) -> dict:
    """Noise rate, precision of the flags, and the error of estimated_rate: {"value", "low", "high"}, or None.

    stratum: (N,); rows: (M,) those a person judged; wrong: (M,) bool. None where a stratum has no judged row.
    The intervals are 95 %: in each stratum the rows that were not judged are drawn from the posterior of its rate under
    the prior of Jeffreys; where no judged row is wrong, none is at the lower bound, and where all are, all are at the
    upper one (Brown, Cai and DasGupta 2001, Interval estimation for a binomial proportion, Statistical Science 16). A
    stratum that was judged whole adds nothing to them.
    """
    sizes, seen, bad = (np.bincount(s, minlength=len(STRATA)) for s in (stratum, stratum[rows], stratum[rows][wrong]))
    rng, shape = np.random.default_rng(0), (DRAWS, len(STRATA))
    unseen = rng.binomial(sizes - seen, rng.beta(bad + 0.5, seen - bad + 0.5, shape))
    low = np.where(bad == 0, 0, bad + unseen)
    high = np.where(bad == seen, sizes, bad + unseen)
    found: dict = {"noise_rate": None, "flag_precision": None, "estimate_error": None}
    if seen[0]:
        found["flag_precision"] = _interval(bad[0] / seen[0], low[:, 0] / sizes[0], high[:, 0] / sizes[0])
    if (seen[sizes > 0] > 0).all():
        n, value = len(stratum), (bad * sizes / np.maximum(seen, 1)).sum() / len(stratum)
        found["noise_rate"] = rate = _interval(value, low.sum(1) / n, high.sum(1) / n)
        error = {"value": "value", "low": "high", "high": "low"}
        found["estimate_error"] = {key: estimated_rate - rate[other] for key, other in error.items()}
    return found


def _interval(value: float, low: np.ndarray, high: np.ndarray) -> dict[str, float]:
    return {"value": float(value), "low": float(np.quantile(low, 0.025)), "high": float(np.quantile(high, 0.975))}
