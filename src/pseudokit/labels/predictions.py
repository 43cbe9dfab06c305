"""What held-out models predict of every row, and how several of them are averaged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..data.encoding import likeliest


@dataclass(frozen=True)
class FoldPredictions:
    """What one model says: rows, their (len(rows), K) log-probabilities, its hash, the fold that it did not learn."""

    rows: np.ndarray
    log_probs: np.ndarray
    hash: str
    fold: int


def mix(parts: list[FoldPredictions], n: int, chained: bool = False) -> OutOfFoldPredictions:
    """Predictions of n rows from those of each model: the mean probabilities; chained: those of each fold's too."""
    logs, judge, votes = _mean(parts, n)
    folds = sorted({part.fold for part in parts}) if chained else ()
    chains = [_mean([part for part in parts if part.fold == fold], n)[0] for fold in folds]
    return OutOfFoldPredictions(logs, judge, votes=votes, chains=np.stack(chains) if chained else None)


def _mean(parts: list[FoldPredictions], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


@dataclass(frozen=True)
class OutOfFoldPredictions:
    """Held-out log-probabilities (N, K) or (N, C, 2) float32, and for each row the hash of the weights that judged it.

    votes: uint8 of that shape, how many judges predicted each class; chains: stacked, what the models of each fold say
    by themselves, NaN where they judged nothing; models: of this round, hash → the fold that it did not
    learn, and by which models it was taught; calibration: what it came to.
    """

    log_probs: np.ndarray
    judge: np.ndarray
    votes: np.ndarray | None = None
    chains: np.ndarray | None = None
    models: dict[str, dict] = field(default_factory=dict)
    calibration: dict = field(default_factory=dict)

    @property
    def likeliest_rate(self) -> float | None:
        """See calibration.calibrated."""
        return self.calibration.get("likeliest_rate")

    @property
    def agreement(self) -> np.ndarray | float:
        """(N,) or (N, C) share of the models that predict the likeliest class."""
        if self.votes is None:
            return 1.0
        at = np.take_along_axis(self.votes, likeliest(self.log_probs)[..., None], -1)[..., 0]
        return at / np.maximum(self.votes.sum(-1, dtype=np.int64), 1)
