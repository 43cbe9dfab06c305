"""Held-out log-probabilities → calibrated ones of the true class, from labels part of which are wrong."""

from __future__ import annotations

import numpy as np

from .belief import TINY
from .noise import deconvolve

ROWS = 20_000
"""Rows that a temperature is fitted on; more do not change its second digit."""
BIAS_SD = 0.3
"""Sd of the prior of the bias a class, in log-probability: few rows hardly move it (1.0 is no better: docs/log.md)."""
FEW = 0.5
"""temperature_sd where labels are few: a handful of rows that are all right would send the temperature to zero."""
LOG_BOUNDS = (np.log(0.05), np.log(10))


def normalised(logs: np.ndarray) -> np.ndarray:
    """(…, K) logs as log-probabilities; NaN stays NaN."""
    return logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)


def scale(log_probs: np.ndarray, temperature: float, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """(N, K) log-probabilities divided by the temperature, with a bias a class (K,) added, and normalised."""
    return normalised(log_probs.astype(np.float64) / temperature + bias)


def fit_scale(
    log_probs: np.ndarray, given: np.ndarray, matrix: np.ndarray, *, temperature_sd: float = np.inf, seed: int = 0
) -> tuple[float, np.ndarray]:
    """The temperature and the bias a class (Guo et al. 2017) under which the labels, seen through T, are most likely.

    Biases are shrunk by a normal prior of sd BIAS_SD, the log of the temperature by one of temperature_sd. Where T is
    the identity it describes no noise, and a bias would follow the wrong labels: then it is zero.

    log_probs: (N, K) of one model on rows it did not learn; given: (N,) class index; matrix: T[true, given] (K, K).
    """
    from scipy.optimize import minimize

    rows = np.random.default_rng(seed).permutation(len(given))[:ROWS]
    logs, to_given, k = log_probs[rows].astype(np.float64), matrix[:, given[rows]].T, log_probs.shape[1]
    bias_bounds = (None, None) if np.any(matrix != np.eye(k)) else (0, 0)
    precision, cool = 1 / BIAS_SD**2 / len(rows), 1 / temperature_sd**2 / len(rows)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        cold, bias = np.exp(-x[0]), x[1:]
        q = np.exp(scale(logs, 1 / cold, bias))
        of_given = (q * to_given).sum(1, keepdims=True) + TINY
        slope = q - q * to_given / of_given  # with respect to the scaled log-probabilities
        value = -np.log(of_given).mean() + precision * (bias**2).sum() / 2 + cool * x[0] ** 2 / 2
        return value, np.r_[-cold * (slope * logs).sum(1).mean() + cool * x[0], slope.mean(0) + precision * bias]

    bounds = [LOG_BOUNDS, *[bias_bounds] * k]
    found = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(np.exp(found[0])), found[1:]


def calibrate(log_probs: np.ndarray, given: np.ndarray, matrix: np.ndarray, noisy: bool) -> tuple[np.ndarray, float]:
    """One model's (N, K) log-probabilities → those of the true class, and the temperature that this took.

    given: (N,) class index, -1 = none; matrix: T[true, given]; noisy: the model learned the given labels, so that it
    predicts their noise too, which is deconvolved.
    """
    if noisy:
        log_probs = np.log(np.maximum(deconvolve(np.exp(log_probs.astype(np.float64)), matrix), TINY))
    known = given >= 0
    temperature, bias = fit_scale(log_probs[known], given[known], matrix)
    return scale(log_probs, temperature, bias), temperature


def reliability(said: np.ndarray, was: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share that came true, rows) of each of equally wide bins that has rows. Arguments: (N,)."""
    at = np.minimum((said * bins).astype(int), bins - 1)
    return [(float(said[at == b].mean()), float(was[at == b].mean()), int((at == b).sum())) for b in np.unique(at)]


def confidence_reliability(log_probs: np.ndarray, labels: np.ndarray) -> dict:
    """Is the confidence of (N, K) predictions what it says? Bins, and the expected calibration error (Guo et al.)."""
    said, was = np.exp(log_probs.max(1)).clip(0, 1), log_probs.argmax(1) == labels
    bins = reliability(said, was)
    return {"bins": bins, "error": expected_error(bins)}


def expected_error(bins: list[tuple[float, float, int]]) -> float:
    """How far probability and share are apart in the bins of `reliability`, the mean over rows."""
    return float(sum(n * abs(p - s) for p, s, n in bins) / max(sum(n for *_, n in bins), 1))
