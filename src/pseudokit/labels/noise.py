"""Which given labels are wrong: noise matrix, deconvolution, posterior. Arrays in, arrays out.

The model: the true class of row i is drawn from q_i, its given label from T[true], which all rows of a class share.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .arrays import TINY, by_class, most_confident
from .posterior import Posterior, PosteriorSummary

ANCHORS = 0.2
"""Share of the rows of each predicted class, the surest ones, whose prediction is taken for the truth."""
MIN_ANCHORS = 20
RATE_CELLS, RATE_ROWS = 200_000, (1_000, 10_000)
"""Probabilities on which each draw of the rate is computed, and the fewest and the most rows that they come from."""
DRAWS, FEWEST_DRAWS, DRAWN_CELLS = 200, 20, 20_000_000
"""Draws of the noise matrix; where it has hundreds of classes fewer, so that all draws fit into 160 MB."""
RATE_MODEL_SD = 0.02
"""Sd of the estimated rate, relative to it, by which the model of the noise is off (benchmarks/noise.py)."""
UNIFORM = 0.5
"""The noise is called uniform where the squared spread of its cells around their mean is below this share of it."""
MAINLY = 0.75
"""The noise is called pair noise where this share of the wrong labels of a class is one other class."""
ON_SUREST, LITTLE = 0.25, 0.02
"""Noise of the class shows on the surest rows at least this share of the disagreement that all rows show."""
OF_THE_CLASS = ("uniform", "pair", "class-dependent")
"""Types of noise that T describes."""
DIFFICULTY = "difficulty"
"""The type of noise that difficulty.py describes."""
EXPLAINED = (*OF_THE_CLASS, DIFFICULTY)
"""Of all other types the given label is no evidence, and nothing is relabeled unasked."""


def anchor_counts(said: PosteriorSummary, given_labels: np.ndarray, k: int) -> np.ndarray:
    """(K, K) counts [predicted, given] of the surest rows of each predicted class.

    given: (N,) class index, -1 where there is none. Among the surest rows a label that disagrees is wrong; among all
    rows it may be the prediction, and the counts would show the model's confusions as noise (anchor points: Liu & Tao
    2016; Patrini et al. 2017).
    """
    known = np.flatnonzero(given_labels >= 0)
    counts = np.zeros((k, k))
    for c, own in enumerate(by_class(said.best[known], k)):
        rows = known[own]
        anchors = rows[most_confident(said.confidence[rows], max(MIN_ANCHORS, int(ANCHORS * len(rows))))]
        counts[c] = np.bincount(given_labels[anchors], minlength=k)
    return counts


def shrink(counts: np.ndarray) -> np.ndarray:
    """T[true, given] (K, K), rows sum to 1, from counts: each cell as far from the mean of all as chance allows.

    James–Stein: the spread between the cells beyond that of chance decides how far a cell is believed. Where hardly any
    is left, the noise is uniform, all wrong classes alike at one rate.
    """
    k, off = len(counts), ~np.eye(len(counts), dtype=bool)
    n = np.maximum(counts.sum(1, keepdims=True), TINY)
    mean = max((counts / n)[off & (n > 0.5)].mean(), TINY)
    chance = np.broadcast_to(mean / n, counts.shape)
    between = spread(counts) * mean**2
    cells = mean + between / (between + chance) * (counts / n - mean) * (between > UNIFORM * mean**2)
    cells = np.where(off, np.maximum(cells, TINY), 0)
    matrix = cells + np.diag(np.maximum(1 - cells.sum(1), 1 / k))
    return matrix / matrix.sum(1, keepdims=True)


def spread(counts: np.ndarray) -> float:
    """Squared spread of the wrong cells of T beyond chance, relative to their squared mean; 0 = uniform noise."""
    off = ~np.eye(len(counts), dtype=bool)
    n = np.maximum(counts.sum(1, keepdims=True), TINY)
    used = off & np.broadcast_to(n > 0.5, off.shape)
    cells, mean = (counts / n)[used], max((counts / n)[used].mean(), TINY)
    chance = np.broadcast_to(mean / n, counts.shape)[used]
    return float(max(0, ((cells - mean) ** 2 - chance).mean()) / mean**2)


def estimate_noise(said: PosteriorSummary, given_labels: np.ndarray, k: int) -> tuple[np.ndarray, str]:
    """T[true, given] (K, K), how often each true class was given each label, and its type. Arguments: anchor_counts."""
    counts, known = anchor_counts(said, given_labels, k), given_labels >= 0
    return shrink(counts), noise_type(counts, (said.best != given_labels)[known].mean())


def count_parameters(noise: str, k: int) -> int:
    """How many numbers describe noise of this type among k classes."""
    if noise not in OF_THE_CLASS:
        return 0
    return 1 if noise == "uniform" else k * (k - 1)


def deconvolve(probs: np.ndarray, matrix: np.ndarray, steps: int = 10) -> np.ndarray:
    """(N, K) probabilities of the given label → (N, K) probabilities q of the true class, with probs ≈ q · T.

    A model that learned noisy labels predicts the noise too. Richardson–Lucy (Richardson 1972, Lucy 1974) undoes it and
    keeps q a distribution.
    """
    q = probs.copy()
    for _ in range(steps):
        q *= (probs / np.maximum(q @ matrix, TINY)) @ matrix.T
        q /= q.sum(1, keepdims=True)
    return q


def bootstrap(posterior: Posterior, counts: np.ndarray, draws: int | None = None, seed: int = 0):
    """95 % intervals: (low, high) of each cell of the noise matrix, (2, K, K); and the rate of wrong labels, (3,), with
    its own: value, low, high.

    The anchor rows of each class, `counts`, are drawn anew (percentile bootstrap, Efron 1979). The rate moves with the
    matrix, on a part of the rows, with the chance of each row to be wrong or not, and with what the model is off.
    """
    rng, k = np.random.default_rng(seed), len(counts)
    draws = draws or min(DRAWS, max(FEWEST_DRAWS, DRAWN_CELLS // k**2))
    totals = counts.sum(1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), 1 / k)
    drawn = [shrink(rng.multinomial(totals[:, 0].astype(int), shares)) for _ in range(draws)]

    known = np.flatnonzero(posterior.given_labels >= 0)
    every = replace(posterior, matrix=shrink(counts)).said().wrong[known]
    part = rng.permutation(len(known))[: np.clip(RATE_CELLS // k, *RATE_ROWS)]
    some = Posterior(posterior.log_probs[known[part]], posterior.given_labels[known[part]])
    found = [replace(some, matrix=matrix).said().wrong.mean() for matrix in drawn]
    rate, chance = every.mean(), np.sqrt((every * (1 - every)).sum()) / len(known)
    off = np.hypot(chance, RATE_MODEL_SD * rate)
    rates = np.array(found) + rate - every[part].mean() + off * rng.normal(size=draws)
    interval = np.clip(np.quantile(rates, (0.025, 0.975)), 0, 1)
    return np.quantile(drawn, (0.025, 0.975), axis=0), np.array([rate, *interval])


def noise_type(counts: np.ndarray, disagree: float) -> str:
    """What the noise looks like: `none`, `look-alike`, `pair`, `uniform` or `class-dependent`.

    counts: of anchor_counts; disagree: share of all given labels that are not what is predicted.

    Where the surest rows show hardly any of the disagreement that all rows show, it lies on rows that the models find
    hard: look-alike classes, wrongly labeled or only hard to tell (`none` where it is little). Else it is noise of the
    class: pair = nearly all wrong labels of a class are one other class; uniform = all other classes alike.
    """
    on_surest = 1 - np.trace(counts) / counts.sum()
    if on_surest < ON_SUREST * disagree or disagree == 0:
        return "none" if disagree < LITTLE else "look-alike"
    if spread(counts) < UNIFORM:
        return "uniform"
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    return "pair" if wrong.max(1).sum() > MAINLY * wrong.sum() else "class-dependent"
