"""What logits mean, and what they lose: softmax over the classes, or of a multi-label a sigmoid for each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F


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
