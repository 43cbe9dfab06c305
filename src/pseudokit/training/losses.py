"""The losses, and what logits mean under them.

A new loss is a subclass of `CrossEntropy`, and a function in `LOSSES` that makes it. `train.loss` takes its name there.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor, nn

from ..config.keys import Train
from ..config.types import UserError
from ..system.distributed import ALONE, ProcessGroup
from .models import ModelSpec


class CrossEntropy(nn.CrossEntropyLoss):
    """One label an image: softmax over K classes. Labels are (n,) classes, or (n, K) soft targets.

    A row of soft targets sums to its weight, at most 1. The mean divides by `count`.

    weight: (K,) of each class, see class_weights. label_smoothing: share of the target that all classes have alike.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over the rows. logits: (n, K)."""
        if labels.ndim == 1:
            return super().forward(logits, labels)
        # Smoothed like torch does it, but a row keeps its weight.
        row_weights = labels.sum(1, keepdim=True)
        uniform = row_weights / labels.shape[1]
        smooth = (1 - self.label_smoothing) * labels + self.label_smoothing * uniform
        return F.cross_entropy(logits, smooth, self.weight)

    def count(self, labels: Tensor) -> Tensor | int:
        """What the mean divides by."""
        if self.weight is None or labels.ndim == 2:
            return len(labels)
        return self.weight[labels].sum()

    def of_part(self, logits: Tensor, labels: Tensor, rows: slice) -> Tensor:
        """The share of some rows in the loss of a batch: over all parts of the batch it sums to that loss.

        logits: (b, K) of these rows. labels: of the whole batch, (B,) or (B, K).
        """
        part = labels[rows]
        return self(logits, part) * (self.count(part) / self.count(labels))

    @staticmethod
    def log_probs(logits: Tensor) -> Tensor:
        """(n, K) logits → (n, K) log-probabilities."""
        return logits.log_softmax(1)

    @staticmethod
    def targets(labels: ndarray) -> ndarray:
        """Labels as the loss takes them."""
        return labels

    @staticmethod
    def class_weights(labels: ndarray, k: int) -> Tensor:
        """(K,) weights inverse to the counts, with mean 1 over the rows; 0 for a class without rows."""
        counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=k)
        n_classes = np.count_nonzero(counts)
        weights = counts.sum() / (np.maximum(counts, 1) * n_classes)
        return torch.from_numpy(np.where(counts > 0, weights, 0)).float()


class BinaryCrossEntropy(CrossEntropy):
    """Several labels an image: for each of K classes a sigmoid. Labels (n, K) are 1 = yes, 0 = no, -1 = unknown.

    In targets unknown is NaN, which stays NaN where images are mixed. Unknown answers have no part in the loss.
    weight: (K,) of yes against no.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the known answers. logits, targets: (n, K)."""
        is_known = ~targets.isnan()
        smooth = targets.nan_to_num() * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(
            logits, smooth, pos_weight=self.weight, reduction="none"
        )
        return (losses * is_known).sum() / self.count(targets)

    def count(self, targets: Tensor) -> Tensor:
        """What the mean divides by: known answers, at least 1."""
        return (~targets.isnan()).sum().clamp(min=1)

    @staticmethod
    def log_probs(logits: Tensor) -> Tensor:
        """(n, K) logits → (n, K, 2) log-probabilities of no and yes."""
        no, yes = F.logsigmoid(-logits), F.logsigmoid(logits)
        return torch.stack([no, yes], -1)

    @staticmethod
    def targets(labels: ndarray) -> ndarray:
        """Labels as the loss takes them: float32, NaN = unknown."""
        return np.where(labels < 0, np.nan, labels).astype(np.float32)

    @staticmethod
    def class_weights(labels: ndarray, k: int) -> Tensor:
        """(K,) weight of yes against no, so that both count alike."""
        yes = np.maximum(labels, 0).sum(0)
        known = (labels >= 0).sum(0)
        weights = (known - yes) / np.maximum(yes, 1)
        return torch.from_numpy(weights).float()


def loss_kind(multi_label: bool) -> type[CrossEntropy]:
    """The loss for one label an image, or for several."""
    return BinaryCrossEntropy if multi_label else CrossEntropy


def cross_entropy(labels: ndarray, spec: ModelSpec, train: Train) -> CrossEntropy:
    """The loss, see make_criterion."""
    return loss_kind(spec.multi_label)(label_smoothing=train.label_smoothing)


def balanced_cross_entropy(labels: ndarray, spec: ModelSpec, train: Train) -> CrossEntropy:
    """The loss under which all classes count alike, see make_criterion."""
    kind = loss_kind(spec.multi_label)
    weight = kind.class_weights(labels, len(spec.classes))
    return kind(weight, label_smoothing=train.label_smoothing)


LOSSES = {
    "cross_entropy": cross_entropy,
    "balanced_cross_entropy": balanced_cross_entropy,
}


def check_loss(train: Train) -> None:
    """Raises UserError where there is no loss of the name that a config asks for."""
    if train.loss not in LOSSES:
        raise UserError(f"train.loss={train.loss}: no such loss; choose {' or '.join(LOSSES)}")


def make_criterion(labels: ndarray, spec: ModelSpec, train: Train) -> CrossEntropy:
    """The loss that a config asks for.

    labels: all that are learned, (n,) classes or (n, K), soft targets or yes and no.
    """
    return LOSSES[train.loss](labels, spec, train)


MEAN_DECAY = 0.99
"""Share of the running mean and variance of the confidence that a step keeps."""
WIDTH_IN_SDS = 0.5
"""The weight falls to 1/√e this many standard deviations below the mean confidence."""


class Consistency(nn.Module):
    """The answer to the weak view, where it is confident, is the label of the strong view.

    FixMatch (Sohn et al. 2020), with the weights of SoftMatch (Chen et al. 2023) in place of a cutoff: what counts as
    confident follows the running mean and variance of the confidence. The answer is that of the network as it is.
    Averaged weights change their mind too slowly, and confirm early mistakes. Answers are not aligned with any class
    shares, because those of unlabeled images are not known.

    Out-of-fold teachers may share in the answer: it is then that of the product of their probabilities and those of the
    network (Hinton 2002).
    """

    def __init__(self, weight: float, process_group: ProcessGroup = ALONE):
        super().__init__()
        self.weight = weight
        self.process_group = process_group
        self._views = None
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("variance", torch.tensor(1.0))

    def losses(
        self, network: Callable[[Tensor], Tensor], views: list[Tensor], n_parts: int
    ) -> Iterator[Tensor]:
        """The share of each part of a batch in its loss: the mean weighted cross-entropy of the strong views.

        network: pixels → (b, K) logits. views: weak, strong: (B, H, W, C) of the same images; and what the teachers
        predict of them, (B, K) log-probabilities.
        """
        weak, strong, teacher_log_probs = views
        # One image alone has no variance for batch norms.
        max_parts = max(1, len(weak) // (2 * self.process_group.size))
        parts = self.process_group.parts(min(n_parts, max_parts))
        labels = torch.zeros(len(weak), dtype=torch.long, device=weak.device)
        confidence = torch.zeros(len(weak), device=weak.device)
        with torch.no_grad():
            for rows in parts:
                log_probs = network(weak[rows]).log_softmax(1)
                log_probs += teacher_log_probs[rows].to(log_probs)
                confidence[rows], labels[rows] = log_probs.softmax(1).max(1)
            # Once a batch, also where its step is repeated: other processes wait for each sum.
            if views is not self._views:
                self.process_group.sum([confidence])
                self._views, self._weights = views, self.weigh(confidence)
        for rows in parts:
            losses = F.cross_entropy(network(strong[rows]), labels[rows], reduction="none")
            yield self.weight * ((losses * self._weights[rows]).sum() / len(weak))

    def weigh(self, confidence: Tensor) -> Tensor:
        """Confidences (B,) → weights (B,) in 0…1; moves the running mean and variance."""
        seen = [(self.mean, confidence.mean()), (self.variance, confidence.var(correction=0))]
        for running, new in seen:
            blend = MEAN_DECAY * running + (1 - MEAN_DECAY) * new
            running.copy_(torch.where(new.isfinite(), blend, running))
        width = WIDTH_IN_SDS * self.variance.sqrt()
        widths_below = (self.mean - confidence).clamp(min=0) / width.clamp(min=1e-6)
        return torch.exp(-(widths_below**2) / 2)
