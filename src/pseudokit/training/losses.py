"""What logits mean, and what they lose: softmax over the classes, or of a multi-label a sigmoid for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

from ..config.keys import Train
from ..system.distributed import ALONE, ProcessGroup
from .models import ModelSpec


def log_probs_of(logits: torch.Tensor, multi_label: bool) -> torch.Tensor:
    """(n, K) logits → (n, K) log-probabilities; multi-label: (n, K, 2), of no and yes."""
    return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], -1) if multi_label else logits.log_softmax(1)


def targets_of(labels: np.ndarray, multi_label: bool) -> np.ndarray:
    """Labels as a loss takes them; of a multi-label (n, K) float32 with NaN where it is unknown, which mixing keeps."""
    return np.where(labels < 0, np.nan, labels).astype(np.float32) if multi_label else labels


def criterion(multi_label: bool, weight: torch.Tensor | None = None, smoothing: float = 0.0) -> Callable:
    """loss(logits (n, K), labels): the mean over rows, or over the known answers. weight: (K,), see class_weights."""
    if not multi_label:
        return lambda logits, labels: F.cross_entropy(logits, labels, weight, label_smoothing=smoothing)

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        known = ~labels.isnan()
        targets = labels.nan_to_num() * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1)

    return loss


def mass(labels: torch.Tensor, weight: torch.Tensor | None, multi_label: bool) -> torch.Tensor | int:
    """What `criterion` divides by: labels (n,) count as much as their class, soft targets (n, K) one each, of a
    multi-label its known answers."""
    if multi_label:
        return (~labels.isnan()).sum().clamp(min=1)
    return len(labels) if weight is None or labels.ndim == 2 else weight[labels].sum()


def class_weights(labels: np.ndarray, k: int, multi_label: bool) -> torch.Tensor:
    """(K,) weights inverse to the counts, mean 1 over the rows, 0 for a class without rows; of a multi-label that of
    yes against no."""
    if multi_label:
        yes, known = np.where(labels > 0, labels, 0).sum(0), (labels >= 0).sum(0)
        return torch.from_numpy((known - yes) / np.maximum(yes, 1)).float()
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=k)
    weights = counts.sum() / (np.maximum(counts, 1) * np.count_nonzero(counts))
    return torch.from_numpy(np.where(counts > 0, weights, 0)).float()


class SupervisedLoss:
    """The loss of a batch on its labels. Of several processes each has a part of the batch, and its share in the mean.

    labels: all that are learned, for class_weights=balanced.
    """

    def __init__(
        self, labels: np.ndarray, spec: ModelSpec, train: Train, device: torch.device, process_group: ProcessGroup
    ):
        self._multi_label, self._device, self._process_group = spec.multi_label, device, process_group
        self._weight = None
        if train.class_weights == "balanced":
            self._weight = class_weights(labels, len(spec.classes), spec.multi_label).to(device)
        self._criterion = criterion(spec.multi_label, self._weight, train.label_smoothing)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """logits: (b, K) of this process's part of the batch; labels: of the whole batch, (B,) or (B, K)."""
        own = self._process_group.part(labels).to(self._device)
        all_mass = mass(labels.to(self._device), self._weight, self._multi_label)
        share = mass(own, self._weight, self._multi_label) / all_mass * self._process_group.size
        return self._criterion(logits, own) * share


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
    product (Hinton 2002) of both. process_group: see train_model.
    """

    def __init__(
        self,
        views: Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        prior: float = 0.0,
        process_group: ProcessGroup = ALONE,
    ):
        self._views, self._prior, self._team = views, prior, process_group
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
    """Within, batch norms normalize by the batch as ever, but it leaves no trace in their running statistics.

    What the term looks at is the hard rest of the pool, or foreign to the classes; a prediction is normalized by what
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
