"""Which unlabeled rows a person should label next, and whether that choice beat chance. Arrays only."""

import math

import numpy as np
import pandas as pd
from numpy import ndarray

from .metrics import share_interval

ROWS_PER_RANDOM_ROW = 10
"""One suggested row of ten is random: as few as still show, over several batches, what the unlabeled rows are like."""
MAX_COMPARED_ROWS = 4000
"""Rows that are compared with each other: 64 MB of similarities. Of more, a random part is looked at."""
ENOUGH_ERROR = 0.05
"""Labeling may end where the error on unlabeled images is, with 95 % confidence, below this."""


def suggest_rows(
    log_probs: ndarray, features: ndarray, labeled: ndarray, pool: ndarray, n: int
) -> tuple[ndarray, ndarray]:
    """A tenth of n rows at random, then uncertain ones that are like many others and unlike the labeled ones.

    Greedy coverage: a row covers the others by how similar they are, an uncertain row counts more than a certain one,
    and the next row is the one that adds most to what labeled and suggested rows cover. So few labels bring typical
    rows, and many bring uncertain ones (Bae et al. 2025, "Uncertainty herding"); with few labels, uncertainty alone
    is worse than chance (Hacohen et al. 2022, TypiClust).

    Args:
        log_probs: (N, K), or (N, C, 2) of label sets. The mean of teachers that disagree is uncertain.
        features: (N, D). Rows are similar by the cosine around the mean.
        labeled, pool: row numbers of which those are labeled and these may be suggested, both in random order.

    Returns:
        (M,) row numbers, M ≤ n; (M,) random or chosen.
    """
    from sklearn.preprocessing import normalize

    n_random = math.ceil(n / ROWS_PER_RANDOM_ROW)
    random = pool[:n_random]
    rest = pool[n_random:][:MAX_COMPARED_ROWS]
    compared = np.concatenate([rest, random, labeled[:MAX_COMPARED_ROWS]])
    x = features[compared].astype(np.float32)
    x, known = np.split(normalize(x - x.mean(0)), [len(rest)])
    similar = np.maximum(x @ x.T, 0)
    covered = (x @ known.T).max(1, initial=0)
    weight = uncertainty(log_probs[rest])
    chosen = []
    for _ in range(min(n - n_random, len(rest))):
        gain = np.maximum(similar - covered, 0) @ weight
        gain[chosen] = -1
        chosen.append(gain.argmax())
        covered = np.maximum(covered, similar[chosen[-1]])
    source = np.repeat(["random", "chosen"], [len(random), len(chosen)])
    return np.concatenate([random, rest[chosen]]), source


def uncertainty(log_probs: ndarray) -> ndarray:
    """(M,) 1 − (p₁ − p₂) of the two likeliest classes; the mean over the answers of label sets."""
    margin = np.diff(np.sort(np.exp(log_probs)))[..., -1]
    return 1 - margin.reshape(len(margin), -1).mean(1)


def compare_with_chance(labeled: pd.DataFrame) -> dict:
    """The error of the predictions on random and on chosen rows, and the difference, with 95 % intervals.

    Random rows are a sample of all unlabeled ones. Where the choice beats chance, more predictions of chosen rows are
    wrong. The intervals are those of Wilson (1927), that of the difference of Newcombe (1998, method 10).

    Args:
        labeled: suggested rows that have a label: wrong (bool), source, and batch, a number that grows.

    Returns:
        random and chosen {n, error, low, high}; gain {gain, low, high}; stop: few_errors; no_gain = twice in a row no
        more errors than by chance; or "". Empty where no row is random, or none chosen.
    """
    shares = {}
    for source, wrong in labeled.groupby("source").wrong:
        n, error = len(wrong), float(wrong.mean())
        shares[source] = {"n": n, "error": error} | share_interval(error, n)
    if len(shares) < 2:
        return {}
    chosen, random = map(pd.Series, shares.values())
    gain = chosen.error - random.error
    down = np.hypot(chosen.error - chosen.low, random.high - random.error)
    up = np.hypot(chosen.high - chosen.error, random.error - random.low)
    errors = labeled.pivot_table("wrong", "batch", "source").dropna()[-2:]
    stop = "no_gain" if len(errors) == 2 and (errors.chosen <= errors.random).all() else ""
    if random.high < ENOUGH_ERROR:
        stop = "few_errors"
    of_gain = {"gain": gain, "low": gain - down, "high": gain + up}
    return shares | {"gain": of_gain, "stop": stop}
