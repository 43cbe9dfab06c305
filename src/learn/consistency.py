"""The consistency term: unlabelled images should be answered alike from a weak and from a strong view."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

MEMORY = 0.99
"""Share of the running means that a step keeps."""
WIDTH = 0.5
"""The weight falls to 1/√e this many standard deviations below the mean confidence."""


class Consistency:
    """The answer to the weak view, where the network is sure of it, is the label of the strong view.

    FixMatch (Sohn et al. 2020), with the weights of SoftMatch (Chen et al. 2023) in place of a cutoff: how sure is sure
    enough follows the running mean and spread of the confidence. Answers are aligned with the class shares of the
    labels, so that no class floods the pool.

    views: endless (weak, strong) batches of pixels; forward: pixels → (B, K) logits; prior: (K,) class shares.
    """

    def __init__(self, views: Iterator[tuple[torch.Tensor, torch.Tensor]], prior: torch.Tensor):
        self._views, self._prior, k = views, prior, len(prior)
        self._mean, self._variance, self._shares = torch.tensor(1 / k), torch.tensor(1.0), prior.clone()

    def loss(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The mean weighted cross-entropy of one batch of strong views."""
        weak, strong = next(self._views)
        with torch.no_grad():
            labels, weights = self.judge(forward(weak).float().softmax(1))
        return (F.cross_entropy(forward(strong).float(), labels, reduction="none") * weights).mean()

    def judge(self, probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, K) answers to weak views → (B,) labels and (B,) weights; moves the running means."""
        self._shares = self._blend(self._shares.to(probs), probs.mean(0))
        aligned = probs * (self._prior.to(probs) / self._shares.clamp(min=1e-6))
        confidence, labels = (aligned / aligned.sum(1, keepdim=True)).max(1)
        self._mean = self._blend(self._mean.to(probs), confidence.mean())
        self._variance = self._blend(self._variance.to(probs), confidence.var(correction=0))
        below = (self._mean - confidence).clamp(min=0) / (WIDTH * self._variance.sqrt()).clamp(min=1e-6)
        return labels, torch.exp(-(below**2) / 2)

    @staticmethod
    def _blend(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return MEMORY * old + (1 - MEMORY) * new
