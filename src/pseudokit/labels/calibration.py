"""Out-of-fold log-probabilities → calibrated ones of the true class, from labels some of which are wrong."""

from dataclasses import replace

import numpy as np
from numpy import ndarray

from .arrays import MIN_PROBABILITY, each_block, normalize_log, number_format
from .difficulty import LOOK_ALIKE_LEAD, PREFERRED_Z, RATE_CORRECTION, compare
from .difficulty import MAX_FIT_ROWS as MAX_COMPARED_ROWS
from .noise import LOOK_ALIKE, OF_THE_CLASS, avoids_confident_rows, deconvolve, estimate_noise
from .out_of_fold import FoldPredictions, OutOfFoldPredictions, average_models
from .posterior import Posterior

MAX_FIT_ROWS = 20_000
"""Rows that a temperature is fitted on; more do not change its second digit."""
BIAS_SD = 0.3
"""Sd of the prior of the bias a class, in log-probability: few rows hardly move it (1.0 is no better: docs/log.md)."""
TEMPERATURE_BOUNDS = (0.05, 10)
MAX_RETURNS = 0.12
"""Of the labels that the first models contradict, the share that the second ones return to, up to which the first ones
are believed. It was 0.07 to 0.09 where a weak model's confusions had drawn the labels, and 0.15 to 0.26 where people
had given them (docs/log.md)."""


def calibrate_models(
    models: list[FoldPredictions],
    given_labels: ndarray,
    learned_labels: ndarray,
    *,
    choose: bool = True,
    earlier: OutOfFoldPredictions | None = None,
) -> tuple[list[FoldPredictions], dict]:
    """The predictions of each model as log-probabilities of the true class; given labels may be wrong.

    Noise of the class: its matrix is deconvolved where the models learned the given labels, and then a temperature and
    a bias a class are fitted. Where no matrix describes the noise, a temperature is all that is changed. Noise by
    difficulty is estimated from the probabilities as they are: then nothing is changed here. Of the two, the one
    under which the given labels are likelier is chosen. Label sets: each class has its own.

    Args:
        given_labels: (N,) class index, -1 = unlabeled. learned_labels: (N,) the labels that the models learned.
        choose: whether to compare the two kinds of noise in the first round.
        earlier: predictions of the rounds before. Models of later rounds learned repaired labels and cannot compare, so
            the kind of noise is that of the first round; but see _follows_images.

    Returns:
        Calibrated predictions, and what round.json says about it.
    """
    if given_labels.ndim == 2:
        return _calibrate_each_class(models, given_labels, learned_labels)
    likeliest_rate = None if earlier is None else earlier.likeliest_rate
    if likeliest_rate:  # noise by difficulty
        return models, {"likeliest_rate": likeliest_rate}
    k = models[0].log_probs.shape[1]
    plain = average_models(models, len(given_labels)).log_probs
    if earlier is not None and _follows_images(earlier, plain, given_labels):
        likeliest_rate = 0.0

    predicted = Posterior(plain, given_labels).sample_summary()
    matrix, noise = estimate_noise(predicted, k, likeliest_rate == 0)
    compares = choose and earlier is None
    in_doubt = compares and noise in OF_THE_CLASS and avoids_confident_rows(predicted, k)
    del predicted  # of many rows it is large, and so is what follows
    if noise not in OF_THE_CLASS:
        matrix = np.eye(k)
    labeled = given_labels >= 0
    learned_noise = np.array_equal(learned_labels[labeled], given_labels[labeled])
    calibrated = []
    temperatures = []
    for model in models:
        labels = given_labels[model.rows]
        log_probs, temperature = calibrate(model.log_probs, labels, matrix, learned_noise)
        calibrated.append(replace(model, log_probs=log_probs))
        temperatures.append(round(temperature, 4))
    facts = {"temperatures": temperatures, "likeliest_rate": likeliest_rate}
    if not compares:
        return calibrated, facts
    compared = _compare_kinds(plain, calibrated, given_labels, noise)
    if "likeliest_rate" in compared:
        return models, compared
    return calibrated, facts | compared | {"class_noise_in_doubt": in_doubt}


def _compare_kinds(
    plain: ndarray, calibrated: list[FoldPredictions], given_labels: ndarray, noise: str
) -> dict:
    """What round.json says of the kind of noise, with a likeliest_rate where it is noise by difficulty.

    plain: (N, K) log-probabilities as the models give them; calibrated: for `noise`, a type of estimate_noise.
    """
    n, k = plain.shape
    of_class = noise in OF_THE_CLASS
    matrix = np.eye(k)
    log_probs = average_models(calibrated, n).log_probs
    parameters = len(calibrated)  # their temperatures
    if of_class:
        matrix, _ = estimate_noise(Posterior(log_probs, given_labels).sample_summary(), k)
        parameters += len(calibrated) * k + (1 if noise == "uniform" else k * (k - 1))
    seen_through = Posterior(log_probs, given_labels, matrix).summary()
    class_rate = np.nanmean(seen_through.p_wrong)
    log_likelihood = np.log(seen_through.likelihood)
    del log_probs, seen_through
    z, rate = compare(plain, given_labels, log_likelihood, parameters)
    compared = {"difficulty_z": round(z, 2) if np.isfinite(z) else None}
    least_z = PREFERRED_Z
    if noise == "uniform":  # people's is not: difficulty must be as clearly ahead
        least_z = -PREFERRED_Z
    elif noise == LOOK_ALIKE:
        n_compared = min((given_labels >= 0).sum(), MAX_COMPARED_ROWS)
        least_z -= LOOK_ALIKE_LEAD * np.sqrt(n_compared)
    if z > least_z:
        # Both rates are too low; where noise follows the image closely, the likeliest one by far.
        compared["likeliest_rate"] = max(rate, of_class * class_rate / RATE_CORRECTION)
    return compared


def _follows_images(
    earlier: OutOfFoldPredictions, log_probs: ndarray, given_labels: ndarray
) -> bool:
    """Whether what was called noise of the class follows the images instead, which the next models can tell.

    Either the models of the first round know little, or they are right to contradict a label. Where they know little,
    models of other folds often return to it. log_probs: (N, K) of the models of this round.
    """
    if not earlier.calibration.get("class_noise_in_doubt"):
        return False
    contradicted = (given_labels >= 0) & (earlier.log_probs.argmax(1) != given_labels)
    returned = log_probs.argmax(1) == given_labels
    return bool(returned[contradicted].mean() <= MAX_RETURNS)


def _calibrate_each_class(
    models: list[FoldPredictions], given_labels: ndarray, learned_labels: ndarray
) -> tuple[list[FoldPredictions], dict]:
    """calibrate_models for label sets, every class by itself."""
    calibrated = []
    temperatures = []
    for c in range(given_labels.shape[1]):
        of_class = [replace(model, log_probs=model.log_probs[:, c]) for model in models]
        # Noise by difficulty cannot be told from two answers, yes and no.
        of_class, facts = calibrate_models(
            of_class, given_labels[:, c], learned_labels[:, c], choose=False
        )
        calibrated.append([model.log_probs for model in of_class])
        temperatures += facts["temperatures"]
    models = [
        replace(model, log_probs=np.stack(log_probs, 1))
        for model, *log_probs in zip(models, *calibrated, strict=True)
    ]
    return models, {"temperatures": temperatures}


def calibrate(
    log_probs: ndarray,
    given_labels: ndarray,
    matrix: ndarray,
    noisy: bool,
) -> tuple[ndarray, float]:
    """One model's (N, K) log-probabilities → those of the true class, and the temperature that this took.

    Args:
        given_labels: (N,) class index, -1 = unlabeled. matrix: T[true, given] (K, K).
        noisy: the model learned the given labels, so that it predicts their noise too, which is deconvolved.
    """
    labeled = np.flatnonzero(given_labels >= 0)
    if not len(labeled):  # a model from outside of unlabeled rows: nothing to fit it to
        return log_probs, 1.0

    def without_noise(logs: ndarray) -> ndarray:
        if not noisy:
            return logs
        return np.log(np.maximum(deconvolve(np.exp(logs), matrix), MIN_PROBABILITY))

    rows = labeled[np.random.default_rng(0).permutation(len(labeled))[:MAX_FIT_ROWS]]
    some = without_noise(log_probs[rows].astype(float))
    temperature, bias = fit_scale(some, given_labels[rows], matrix)
    dtype, order = number_format(*log_probs.shape)
    matrix, bias = matrix.astype(dtype), bias.astype(dtype)
    calibrated = np.empty(log_probs.shape, dtype)

    def apply(block: slice) -> None:
        logs = log_probs[block].astype(dtype, order=order)
        calibrated[block] = scale(without_noise(logs), temperature, bias)

    each_block(apply, *log_probs.shape)
    return calibrated, temperature


def scale(log_probs: ndarray, temperature: float, bias: ndarray | float = 0.0) -> ndarray:
    """(N, K) log-probabilities divided by the temperature, with a bias a class (K,) added, and normalized."""
    return normalize_log(log_probs / temperature + bias)


def fit_scale(log_probs: ndarray, given_labels: ndarray, matrix: ndarray) -> tuple[float, ndarray]:
    """The temperature and the bias a class (Guo et al. 2017) under which the labels, seen through T, are most likely.

    Maximizes mean log Σ_k q_k T[k, given] - Σ bias² / (2 BIAS_SD² N) with q = softmax(log_probs / temperature + bias).
    Where T is the identity it describes no noise, and a bias would follow the wrong labels: then it is zero.

    log_probs: (N, K) of one model on rows it did not learn; given_labels: (N,) class index; matrix: T[true, given].
    """
    from scipy.optimize import minimize

    k = log_probs.shape[1]
    logs = log_probs.astype(float)
    to_given = matrix[:, given_labels].T
    penalty = 1 / BIAS_SD**2 / len(logs)

    def loss(x: ndarray) -> tuple[float, ndarray]:
        """Value and gradient at x = (log temperature, bias)."""
        inverse = np.exp(-x[0])
        bias = x[1:]
        q = np.exp(scale(logs, 1 / inverse, bias))
        joint = q * to_given
        p_given = joint.sum(1, keepdims=True) + MIN_PROBABILITY
        slope = q - joint / p_given  # with respect to the scaled log-probabilities
        value = -np.log(p_given).mean() + penalty * (bias**2).sum() / 2
        of_temperature = -inverse * (slope * logs).sum(1).mean()
        of_bias = slope.mean(0) + penalty * bias
        return value, np.r_[of_temperature, of_bias]

    bias_bounds = (None, None) if np.any(matrix != np.eye(k)) else (0, 0)
    bounds = [np.log(TEMPERATURE_BOUNDS), *[bias_bounds] * k]
    best = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(np.exp(best[0])), best[1:]
