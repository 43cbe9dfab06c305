"""What is learned in place of a hard label: probabilities, as the policy shapes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from ..config.keys import Pseudo
from .arrays import normalize, normalize_log, soften
from .posterior import Posterior


@dataclass(frozen=True)
class SoftTargets(Posterior):
    """The posterior as it is taught.

    Of unlabeled rows it is sharper (pseudo.power), without small probabilities (pseudo.trim). A given label that stands
    is mixed with the out-of-fold probabilities p alone: (1 - mix) · given label + mix · p (pseudo.mix_given).
    """

    power: float = 1.0
    trim: float = 0.0
    mix: float = 0.0
    stands: ndarray | None = None
    """(N,) rows that learn their given label."""

    @classmethod
    def of(cls, posterior: Posterior, policy: Pseudo, stands: ndarray) -> SoftTargets:
        """The posterior, shaped by the section `pseudo` of the config."""
        return cls(
            **vars(posterior),
            power=policy.power,
            trim=policy.trim,
            mix=policy.mix_given,
            stands=stands,
        )

    def __call__(self, rows: ndarray) -> ndarray:
        probs = super().__call__(rows)
        unlabeled = self.given_labels[rows] < 0
        probs[unlabeled] = sharpen(probs[unlabeled], self.power, self.trim)
        mixed = self.stands[rows]
        probs[mixed] = self._mixed(rows[mixed])
        return probs

    def _mixed(self, rows: ndarray) -> ndarray:
        """(len(rows), K) given labels, mixed with what the teachers say."""
        out_of_fold = np.exp(normalize_log(self.log_probs[rows].astype(float)))
        targets = self.mix * out_of_fold
        targets[np.arange(len(rows)), self.given_labels[rows]] += 1 - self.mix
        return targets


def sharpen(probs: ndarray, power: float, trim: float) -> ndarray:
    """(M, K) p^power, then 0 where it is below `trim`; rows sum to 1. The likeliest class always stays."""
    if power != 1:
        probs = soften(probs, 1 / power)
    if trim:
        least = np.minimum(trim, probs.max(1, keepdims=True))
        probs = normalize(np.where(probs < least, 0.0, probs))
    return probs
