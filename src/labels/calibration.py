"""Held-out log-probabilities → calibrated ones of the true class, from labels part of which are wrong."""

from __future__ import annotations

import numpy as np

from .noise import TINY, deconvolve

ROWS = 20_000
"""Rows that a temperature is fitted on; more do not change its second digit."""
LOG_BOUNDS = (np.log(0.05), np.log(10))


def scale(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) log-probabilities divided by the temperature and normalised."""
    scaled = log_probs.astype(np.float64) / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


def temperature(log_probs: np.ndarray, given: np.ndarray, matrix: np.ndarray, seed: int = 0) -> float:
    """The temperature (Guo et al. 2017) under which the given labels, seen through T, are most likely.

    log_probs: (N, K) of one model on rows it did not learn; given: (N,) class index; matrix: T[true, given] (K, K).
    """
    from scipy.optimize import minimize_scalar

    rows = np.random.default_rng(seed).permutation(len(given))[:ROWS]
    logs, to_given = log_probs[rows], matrix[:, given[rows]].T

    def loss(log_temperature: float) -> float:
        return -np.log((np.exp(scale(logs, np.exp(log_temperature))) * to_given).sum(1) + TINY).mean()

    return float(np.exp(minimize_scalar(loss, bounds=LOG_BOUNDS, method="bounded", options={"xatol": 0.02}).x))


def calibrate(log_probs: np.ndarray, given: np.ndarray, matrix: np.ndarray, noisy: bool) -> tuple[np.ndarray, float]:
    """One model's (N, K) log-probabilities → those of the true class, and the temperature that this took.

    given: (N,) class index, -1 = none; matrix: T[true, given]; noisy: the model learned the given labels, so that it
    predicts their noise too, which is deconvolved.
    """
    if noisy:
        log_probs = np.log(np.maximum(deconvolve(np.exp(log_probs.astype(np.float64)), matrix), TINY))
    known = given >= 0
    found = temperature(log_probs[known], given[known], matrix)
    return scale(log_probs, found), found


def reliability(p_wrong: np.ndarray, wrong: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean p_wrong, share that is wrong, rows) of each of equally wide bins that has rows. Both arguments (N,)."""
    at = np.minimum((p_wrong * bins).astype(int), bins - 1)
    return [(float(p_wrong[at == b].mean()), float(wrong[at == b].mean()), int((at == b).sum())) for b in np.unique(at)]
