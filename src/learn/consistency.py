"""The consistency term: unlabelled images should be answered alike from a weak and from a strong view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from ..processes import ALONE, Team

MEMORY = 0.99
"""Share of the running means that a step keeps."""
WIDTH = 0.5
"""The weight falls to 1/√e this many standard deviations below the mean confidence."""


class Consistency:
    """The answer to the weak view, where it is sure, is the label of the strong view.

    FixMatch (Sohn et al. 2020), with the weights of SoftMatch (Chen et al. 2023) in place of a cutoff: how sure is sure
    enough follows the running mean and spread of the confidence. The answer is that of the network as it is: averaged
    weights change their mind too slowly, and confirm what was wrong at first. Answers are not aligned with any class
    shares: those of a pool are not known.

    views: endless (weak, strong, said) batches: two views of the same images, (B, H, W, C) pixels each, and the
    log-probabilities (B, K) of held-out teachers. prior: the power to which what they say counts in the answer, a
    product (Hinton 2002) of both. team: see fit.
    """

    def __init__(
        self, views: Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], prior: float = 0.0, team: Team = ALONE
    ):
        self._views, self._prior, self._team = views, prior, team
        self._mean, self._variance = torch.tensor(0.0), torch.tensor(1.0)

    def loss(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The mean weighted cross-entropy of one batch of strong views; forward: pixels → (B, K) logits."""
        batch = next(self._views)
        n, (weak, strong, said) = len(batch[0]), map(self._team.part, batch)
        with torch.no_grad():
            answers = forward(weak).log_softmax(1)
            confidence, labels = (answers + self._prior * said.to(answers)).softmax(1).max(1)
            weights = self._team.part(self.weigh(self._team.whole(confidence, n)))
        mean = (F.cross_entropy(forward(strong), labels, reduction="none") * weights).mean()
        return mean * (len(labels) * self._team.size / n)

    def weigh(self, confidence: torch.Tensor) -> torch.Tensor:
        """Confidences (B,) → weights (B,) in 0…1; moves the running mean and spread."""
        self._mean = self._blend(self._mean.to(confidence), confidence.mean())
        self._variance = self._blend(self._variance.to(confidence), confidence.var(correction=0))
        below = (self._mean - confidence).clamp(min=0) / (WIDTH * self._variance.sqrt()).clamp(min=1e-6)
        return torch.exp(-(below**2) / 2)

    @staticmethod
    def _blend(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.where(new.isfinite(), MEMORY * old + (1 - MEMORY) * new, old)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"mean": self._mean, "variance": self._variance}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self._mean, self._variance = state["mean"], state["variance"]


@contextmanager
def statistics_kept(network: torch.nn.Module) -> Iterator[None]:
    """Within, batch norms normalise by the batch as ever, but it leaves no trace in their running statistics.

    What the term looks at is the hard rest of the pool, or foreign to the classes; a prediction is normalised by what
    was learned with labels. With a fifth of clothes in a pool of digits the student was lost otherwise (docs/log.md).
    """
    norms = [module for module in network.modules() if getattr(module, "track_running_stats", False)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
