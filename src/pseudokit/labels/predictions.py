"""What held-out models predict of every row, and how several of them are averaged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class FoldPredictions:
    """What one model says: rows, their (len(rows), K) log-probabilities, its hash, the fold that it did not learn."""

    rows: np.ndarray
    log_probs: np.ndarray
    hash: str
    fold: int


def mix(parts: list[FoldPredictions], n: int, chained: bool = False) -> OutOfFoldPredictions:
    """Predictions of n rows from those of each model: the mean probabilities; chained: those of each fold's too."""
    logs, judge = _mean(parts, n)
    folds = sorted({part.fold for part in parts}) if chained else ()
    chains = [_mean([part for part in parts if part.fold == fold], n)[0] for fold in folds]
    return OutOfFoldPredictions(logs, judge, chains=np.stack(chains) if chained else None)


def _mean(parts: list[FoldPredictions], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, …) log of the mean probabilities, NaN where nobody judged; (n,) who judged."""
    shape = (n, *parts[0].log_probs.shape[1:])
    probs, judge = np.zeros(shape), np.full(n, "", object)
    judges = np.zeros((n, *[1] * (len(shape) - 1)))
    for part in parts:
        probs[part.rows] += np.exp(part.log_probs)
        judge[part.rows] = together(judge[part.rows], np.full(len(part.rows), part.hash, object))
        judges[part.rows] += 1
    with np.errstate(invalid="ignore"):
        logs = np.log(np.maximum(probs / judges, 1e-30))
    return logs.astype(np.float32), judge


def together(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(N,) hashes of who judged each row, joined; rows of the same judges share one string."""
    (a, firsts), (b, thens) = pd.factorize(first), pd.factorize(then)
    pairs, at = np.unique(a * len(thens) + b, return_inverse=True)
    names = [(firsts[pair // len(thens)], thens[pair % len(thens)]) for pair in pairs]
    return np.array(["+".join(filter(None, name)) for name in names], object)[at]


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Held-out log-probabilities (N, K) or (N, C, 2) float32, and for each row the hash of the weights that judged it.

    chains: stacked, what the models of each fold say
    by themselves, NaN where they judged nothing; models: of this round, hash → the fold that it did not
    learn, and by which models it was taught; calibration: what it came to.
    """

    log_probs: np.ndarray
    judge: np.ndarray
    chains: np.ndarray | None = None
    models: dict[str, dict] = field(default_factory=dict)
    calibration: dict = field(default_factory=dict)

    @property
    def likeliest_rate(self) -> float | None:
        """See calibration.calibrated."""
        return self.calibration.get("likeliest_rate")
