"""Held-out log-probabilities → calibrated ones of the true class, from labels part of which are wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .arrays import TINY
from .difficulty import PREFERRED_Z, RATE_CORRECTION, compare
from .noise import OF_THE_CLASS, count_parameters, deconvolve, estimate_noise
from .posterior import Posterior
from .predictions import FoldPredictions, mix

BLOCK_ROWS = 100_000
"""Rows whose likelihood is computed at once: bounded memory."""


def calibrated(
    parts: list[FoldPredictions],
    given_labels: np.ndarray,
    labels: np.ndarray,
    *,
    choose: bool = True,
    likeliest_rate: float | None = None,
) -> tuple[list[FoldPredictions], dict]:
    """What each model says, turned into log-probabilities of the true class; given labels may be wrong.

    Where no T describes the noise, the identity stands in, and a temperature is all that is changed. Of label sets
    every question has its own. Noise by difficulty is estimated from what the models say as it is: then nothing is
    changed here.

    choose: which of the two it is, the likelihood of the given labels decides. Models of later rounds have learned
    repaired labels and cannot tell; they are told likeliest_rate by the first round, None = class-conditional noise.
    """
    if given_labels.ndim == 2:
        return _by_question(parts, given_labels, labels)
    if likeliest_rate is not None:
        return parts, {"likeliest_rate": likeliest_rate}
    known, k = given_labels >= 0, parts[0].log_probs.shape[1]
    plain = mix(parts, len(given_labels)).log_probs
    matrix, noise = estimate_noise(Posterior(plain, given_labels).said(), given_labels, k)
    if noise not in OF_THE_CLASS:
        matrix = np.eye(k)
    learned_noise = np.array_equal(labels[known], given_labels[known])
    found = [calibrate(part.log_probs, given_labels[part.rows], matrix, learned_noise) for part in parts]
    scaled = [replace(part, log_probs=logs) for part, (logs, _) in zip(parts, found, strict=True)]
    about = {"temperatures": [round(t, 4) for _, t in found]}
    if not choose:
        return scaled, about
    of_class = noise in OF_THE_CLASS
    parameters = count_parameters(noise, k) + len(parts) * (1 + k * of_class)
    likelihood, class_rate = _class_noise(mix(scaled, len(given_labels)).log_probs, given_labels, of_class)
    z, rate = compare(plain, given_labels, likelihood, parameters)
    preferred = {"difficulty_z": round(z, 2) if np.isfinite(z) else None}
    if z > PREFERRED_Z:
        # Both rates are too low; where noise follows the image closely, the likeliest one by far.
        return parts, preferred | {"likeliest_rate": max(rate, of_class * class_rate / RATE_CORRECTION)}
    return scaled, about | preferred


def _class_noise(log_probs: np.ndarray, given_labels: np.ndarray, of_class: bool) -> tuple[np.ndarray, float]:
    """(N,) log-probability of each given label (N,) under the class-conditional noise that is found in calibrated
    log-probabilities, or without any; NaN where there is no label. And the rate of wrong labels."""
    k = log_probs.shape[1]
    to_given = (
        estimate_noise(Posterior(log_probs, given_labels).said(), given_labels, k)[0].T.copy()
        if of_class
        else np.eye(k)
    )
    likelihood, wrong = np.full(len(given_labels), np.nan), 0.0
    rows = np.flatnonzero(given_labels >= 0)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        joint = np.exp(log_probs[part].astype(np.float64)) * to_given[given_labels[part]]
        total = np.maximum(joint.sum(1), TINY)
        likelihood[part] = np.log(total)
        wrong += (1 - joint[np.arange(len(part)), given_labels[part]] / total).sum()
    return likelihood, wrong / len(rows)


def _by_question(
    parts: list[FoldPredictions], given_labels: np.ndarray, labels: np.ndarray
) -> tuple[list[FoldPredictions], dict]:
    found = []
    for c in range(given_labels.shape[1]):
        asked = [replace(part, log_probs=part.log_probs[:, c]) for part in parts]
        found.append(calibrated(asked, given_labels[:, c], labels[:, c]))
    logs = [np.stack([asked[i].log_probs for asked, _ in found], 1) for i in range(len(parts))]
    scaled = [replace(part, log_probs=said) for part, said in zip(parts, logs, strict=True)]
    return scaled, {"temperatures": [t for _, about in found for t in about["temperatures"]]}


ROWS = 20_000
"""Rows that a temperature is fitted on; more do not change its second digit."""
BIAS_SD = 0.3
"""Sd of the prior of the bias a class, in log-probability: few rows hardly move it (1.0 is no better: docs/log.md)."""
LOG_BOUNDS = (np.log(0.05), np.log(10))


def normalized(logs: np.ndarray) -> np.ndarray:
    """(…, K) logs as log-probabilities; NaN stays NaN."""
    return logs - np.logaddexp.reduce(logs, axis=-1, keepdims=True)


def scale(log_probs: np.ndarray, temperature: float, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """(N, K) log-probabilities divided by the temperature, with a bias a class (K,) added, and normalized."""
    return normalized(log_probs.astype(np.float64) / temperature + bias)


def fit_scale(
    log_probs: np.ndarray,
    given_labels: np.ndarray,
    matrix: np.ndarray,
    seed: int = 0,
) -> tuple[float, np.ndarray]:
    """The temperature and the bias a class (Guo et al. 2017) under which the labels, seen through T, are most likely.

    Biases are shrunk by a normal prior of sd BIAS_SD. Where T is the identity it describes no noise, and a bias would
    follow the wrong labels: then it is zero.

    log_probs: (N, K) of one model on rows it did not learn; given: (N,) class index; matrix: T[true, given] (K, K).
    """
    from scipy.optimize import minimize

    rows = np.random.default_rng(seed).permutation(len(given_labels))[:ROWS]
    logs, to_given, k = log_probs[rows].astype(np.float64), matrix[:, given_labels[rows]].T, log_probs.shape[1]
    bias_bounds = (None, None) if np.any(matrix != np.eye(k)) else (0, 0)
    precision = 1 / BIAS_SD**2 / len(rows)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        cold, bias = np.exp(-x[0]), x[1:]
        q = np.exp(scale(logs, 1 / cold, bias))
        of_given = (q * to_given).sum(1, keepdims=True) + TINY
        slope = q - q * to_given / of_given  # with respect to the scaled log-probabilities
        value = -np.log(of_given).mean() + precision * (bias**2).sum() / 2
        return value, np.r_[-cold * (slope * logs).sum(1).mean(), slope.mean(0) + precision * bias]

    bounds = [LOG_BOUNDS, *[bias_bounds] * k]
    found = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(np.exp(found[0])), found[1:]


def calibrate(
    log_probs: np.ndarray, given_labels: np.ndarray, matrix: np.ndarray, noisy: bool
) -> tuple[np.ndarray, float]:
    """One model's (N, K) log-probabilities → those of the true class, and the temperature that this took.

    given: (N,) class index, -1 = none; matrix: T[true, given]; noisy: the model learned the given labels, so that it
    predicts their noise too, which is deconvolved.
    """
    if noisy:
        log_probs = np.log(np.maximum(deconvolve(np.exp(log_probs.astype(np.float64)), matrix), TINY))
    known = given_labels >= 0
    temperature, bias = fit_scale(log_probs[known], given_labels[known], matrix)
    return scale(log_probs, temperature, bias), temperature


def reliability(said: np.ndarray, was: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share that came true, rows) of each of equally wide bins that has rows. Arguments: (N,)."""
    at = np.minimum((said * bins).astype(int), bins - 1)
    return [(float(said[at == b].mean()), float(was[at == b].mean()), int((at == b).sum())) for b in np.unique(at)]


def expected_error(bins: list[tuple[float, float, int]]) -> float:
    """How far probability and share are apart in the bins of `reliability`, the mean over rows."""
    return float(sum(n * abs(p - s) for p, s, n in bins) / max(sum(n for *_, n in bins), 1))
