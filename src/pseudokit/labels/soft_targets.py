"""What is learned in place of a hard label: probabilities, as the policy shapes them."""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .arrays import normalize, soften
from .posterior import Posterior


@dataclass(frozen=True)
class SoftTargets(Posterior):
    """The posterior as it is taught: of unlabeled rows sharper (pseudo.power) and without small probabilities
    (pseudo.trim)."""

    power: float = 1.0
    trim: float = 0.0

    def __call__(self, rows: ndarray) -> ndarray:
        probs = super().__call__(rows)
        unlabeled = self.given_labels[rows] < 0
        probs[unlabeled] = sharpen(probs[unlabeled], self.power, self.trim)
        return probs


def sharpen(probs: ndarray, power: float, trim: float) -> ndarray:
    """(M, K) p^power, then 0 where it is below `trim`; rows sum to 1. The likeliest class always stays."""
    if power != 1:
        probs = soften(probs, 1 / power)
    if trim:
        least = np.minimum(trim, probs.max(1, keepdims=True))
        probs = normalize(np.where(probs < least, 0.0, probs))
    return probs
