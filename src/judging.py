"""The one rule: no row is ever judged by a model that learned a label for that row, or for a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from .data.samples import Samples
from .labels.belief import TINY, Belief
from .labels.calibration import FEW, calibrate, confidence_reliability, fit_scale, normalised, scale
from .labels.difficulty import PREFERRED_Z, RATE_CORRECTION, compare
from .labels.ledger import Verdict
from .labels.noise import OF_THE_CLASS, count_parameters, find_noise
from .labels.sets import likeliest
from .seats import Seat

BLOCK_ROWS = 100_000
"""Rows whose likelihood is computed at once: bounded memory."""
Fit = Callable[..., object]
"""fit(where, rows, labels or soft targets of those rows) → a model with a `hash`."""
Predict = Callable[[object, np.ndarray], np.ndarray]
"""predict(model, rows) → (len(rows), K) log-probabilities; of label sets (len(rows), C, 2), see labels/sets.py."""

Second = Callable[[Seat], np.ndarray]
"""second(seat) → (len(seat.judged), K) log of what else speaks for each class, by what the seat learned alone."""


@dataclass(frozen=True)
class Part:
    """What one model says: rows, their (len(rows), K) log-probabilities, its hash, the fold that it did not learn."""

    rows: np.ndarray
    log_probs: np.ndarray
    hash: str
    fold: int


def held_out_probs(
    samples: Samples, seats: list[Seat], fit: Fit, predict: Predict, *,
    clusters: np.ndarray, chained: bool = False, calibrate: Callable | None = None, second: Second | None = None,
    ahead: Callable[[list[Seat]], None] = lambda seats: None,
) -> Verdict:  # fmt: skip
    """Log-probabilities, (N, K) or (N, C, 2), of every sample, judged only by models that saw neither it nor a copy.

    What several models judged is averaged. The one rule of this project lives here and nowhere else.
    chained: see mix. calibrate: parts → (calibrated parts, facts), before they are mixed. second: a second opinion on
    what each model judges, from what that model learned; the product of both counts. ahead: told of all seats at first,
    so that several processes can share them.
    """
    parts, models = [], {}
    for seat in seats:
        assert not np.isin(clusters[seat.judged], clusters[seat.learned]).any(), "a row would be judged from memory"
    ahead(seats)
    for seat in seats:
        model = fit(seat.where, seat.learned, seat.targets)
        said = predict(model, seat.judged)
        said = normalised(said + second(seat)) if second else said
        parts.append(Part(seat.judged, said, model.hash, seat.fold))
        models[model.hash] = {"fold": seat.fold, "taught_by": list(seat.taught_by)}
    parts, about = calibrate(parts) if calibrate else (parts, {})
    return replace(mix(parts, len(samples), chained), calibration=about, models=models)


def calibrated(
    parts: list[Part],
    given: np.ndarray,
    labels: np.ndarray,
    *,
    choose: bool = True,
    likeliest_rate: float | None = None,
) -> tuple[list[Part], dict]:
    """What each model says, turned into log-probabilities of the true class; given labels may be wrong.

    Where no T describes the noise, the identity stands in, and a temperature is all that is changed. Of label sets
    every question has its own. Noise by difficulty is estimated from what the models say as it is: then nothing is
    changed here.

    choose: which of the two it is, the likelihood of the given labels decides. Models of later rounds have learned
    repaired labels and cannot tell; they are told likeliest_rate by the first round, None = class-conditional noise.
    """
    if given.ndim == 2:
        return _by_question(parts, given, labels)
    if likeliest_rate is not None:
        return parts, {"likeliest_rate": likeliest_rate}
    known, k = given >= 0, parts[0].log_probs.shape[1]
    plain = mix(parts, len(given)).log_probs
    matrix, noise = find_noise(Belief(plain, given).said(), given, k)
    if noise not in OF_THE_CLASS:
        matrix = np.eye(k)
    learned_noise = np.array_equal(labels[known], given[known])
    found = [calibrate(part.log_probs, given[part.rows], matrix, learned_noise) for part in parts]
    scaled = [replace(part, log_probs=logs) for part, (logs, _) in zip(parts, found, strict=True)]
    about = {"temperatures": [round(t, 4) for _, t in found]}
    if not choose:
        return scaled, about
    of_class = noise in OF_THE_CLASS
    parameters = count_parameters(noise, k) + len(parts) * (1 + k * of_class)
    likelihood, class_rate = _class_noise(mix(scaled, len(given)).log_probs, given, of_class)
    z, rate = compare(plain, given, likelihood, parameters)
    preferred = {"difficulty_z": round(z, 2) if np.isfinite(z) else None}
    if z > PREFERRED_Z:
        # Both rates are too low; where noise follows the image closely, the likeliest one by far.
        return parts, preferred | {"likeliest_rate": max(rate, of_class * class_rate / RATE_CORRECTION)}
    return scaled, about | preferred


def _class_noise(log_probs: np.ndarray, given: np.ndarray, of_class: bool) -> tuple[np.ndarray, float]:
    """(N,) log-probability of each given label (N,) under the class-conditional noise that is found in calibrated
    log-probabilities, or without any; NaN where there is no label. And the rate of wrong labels."""
    k = log_probs.shape[1]
    to_given = find_noise(Belief(log_probs, given).said(), given, k)[0].T.copy() if of_class else np.eye(k)
    likelihood, wrong = np.full(len(given), np.nan), 0.0
    rows = np.flatnonzero(given >= 0)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        joint = np.exp(log_probs[part].astype(np.float64)) * to_given[given[part]]
        total = np.maximum(joint.sum(1), TINY)
        likelihood[part] = np.log(total)
        wrong += (1 - joint[np.arange(len(part)), given[part]] / total).sum()
    return likelihood, wrong / len(rows)


def _by_question(parts: list[Part], given: np.ndarray, labels: np.ndarray) -> tuple[list[Part], dict]:
    found = []
    for c in range(given.shape[1]):
        asked = [replace(part, log_probs=part.log_probs[:, c]) for part in parts]
        found.append(calibrated(asked, given[:, c], labels[:, c]))
    logs = [np.stack([asked[i].log_probs for asked, _ in found], 1) for i in range(len(parts))]
    scaled = [replace(part, log_probs=said) for part, said in zip(parts, logs, strict=True)]
    return scaled, {"temperatures": [t for _, about in found for t in about["temperatures"]]}


def tempered(parts: list[Part], given: np.ndarray) -> tuple[list[Part], dict]:
    """What each model says at one temperature, that of all out-of-fold predictions: labels are few, but right."""
    owned = [given[part.rows] >= 0 for part in parts]
    logs = np.concatenate([part.log_probs[own] for part, own in zip(parts, owned, strict=True)])
    labels = np.concatenate([given[part.rows[own]] for part, own in zip(parts, owned, strict=True)])
    temperature, _ = fit_scale(logs, labels, np.eye(logs.shape[-1]), temperature_sd=FEW)
    ends = {"before": logs, "after": scale(logs, temperature)}
    about = {"reliability": {name: confidence_reliability(said, labels) for name, said in ends.items()}}
    scaled = [replace(part, log_probs=scale(part.log_probs, temperature)) for part in parts]
    return scaled, {"temperatures": [round(temperature, 4)]} | about


def mix(parts: list[Part], n: int, chained: bool = False) -> Verdict:
    """One verdict on n rows from what each model says: the mean probabilities; chained: those of each fold's too."""
    logs, judge, votes = _mean(parts, n)
    folds = sorted({part.fold for part in parts}) if chained else ()
    chains = [_mean([part for part in parts if part.fold == fold], n)[0] for fold in folds]
    return Verdict(logs, judge, votes=votes, chains=np.stack(chains) if chained else None)


def _mean(parts: list[Part], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, …) log of the mean probabilities, NaN where nobody judged; (n,) who judged; (n, …) votes."""
    shape = (n, *parts[0].log_probs.shape[1:])
    probs, votes, judge = np.zeros(shape), np.zeros(shape, np.uint8), np.full(n, "", object)
    judges = np.zeros((n, *[1] * (len(shape) - 1)))
    for part in parts:
        probs[part.rows] += np.exp(part.log_probs)
        votes[part.rows] += likeliest(part.log_probs)[..., None] == np.arange(shape[-1])
        judge[part.rows] = together(judge[part.rows], np.full(len(part.rows), part.hash, object))
        judges[part.rows] += 1
    with np.errstate(invalid="ignore"):
        logs = np.log(np.maximum(probs / judges, 1e-30))
    return logs.astype(np.float32), judge, votes


def together(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(N,) hashes of who judged each row, joined; rows of the same judges share one string."""
    (a, firsts), (b, thens) = pd.factorize(first), pd.factorize(then)
    pairs, at = np.unique(a * len(thens) + b, return_inverse=True)
    names = [(firsts[pair // len(thens)], thens[pair % len(thens)]) for pair in pairs]
    return np.array(["+".join(filter(None, name)) for name in names], object)[at]
