"""What a training step is made of beside its loss: optimizer, learning rate, averaged weights, mixed batches."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..config.keys import Train
from ..config.types import UserError

WARMUP_SHARE = 0.25
"""Share of the steps in which the learning rate rises: timm and fastai use about this for one-cycle."""


def make_optimizer(network: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """timm's optimizer factory: no weight decay on norms and biases, lower rates for lower layers."""
    from timm.optim import create_optimizer_v2

    fused = {"fused": True} if train.optimizer in ("adam", "adamw") else {}
    decay = train.layer_decay if train.layer_decay < 1 else None
    options = {"lr": train.lr, "weight_decay": train.weight_decay, "layer_decay": decay}
    try:
        return create_optimizer_v2(network, opt=train.optimizer, **options, **fused)
    except (ValueError, AssertionError) as error:
        raise UserError(f"train.optimizer={train.optimizer!r}: {' '.join(str(error).split())}") from None


def make_schedule(optimizer: torch.optim.Optimizer, train: Train, steps: int):
    """Learning rate a step. One-cycle (Smith & Topin 2017), cosine with linear warm-up, or constant."""
    warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")  # where the first step is left out
    for group in optimizer.param_groups:
        group["lr"] = train.lr * group.get("lr_scale", 1.0)
    if train.schedule == "onecycle" and steps > 1:
        share = WARMUP_SHARE + (1e-9 if WARMUP_SHARE * (steps + 1) == 1 else 0)  # torch divides by zero there
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peaks, total_steps=steps + 1, pct_start=share, cycle_momentum=False
        )
    rise = max(1, round(WARMUP_SHARE * steps))
    fall = (lambda t: 0.5 * (1 + math.cos(math.pi * t))) if train.schedule == "cosine" else (lambda t: 1.0)

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else fall((step - rise) / max(1, steps - rise))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class AverageWeights:
    """Exponential moving average of the weights (timm), warmed up so that early weights fade in short runs."""

    def __init__(self, network: torch.nn.Module, decay: float):
        from timm.utils import ModelEmaV3

        self._ema = ModelEmaV3(network, decay=decay, use_warmup=True, warmup_power=2 / 3)
        self._step = 0

    def update(self, network: torch.nn.Module) -> None:
        self._step += 1
        self._ema.update(network, self._step)

    def state_dict(self) -> dict:
        return {"step": self._step, "network": self._ema.module.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self._step = state["step"]
        self._ema.module.load_state_dict(state["network"])

    @property
    def network(self) -> torch.nn.Module:
        return copy.deepcopy(self._ema.module)


def make_mixup(train: Train, k: int) -> Callable:
    """mix(pixels, labels) → both mixed (Zhang et al. 2018, Yun et al. 2019); as they are without mixup and cutmix."""
    if not (train.mixup or train.cutmix):
        return lambda pixels, labels: (pixels, labels)
    from torchvision.transforms import v2

    kinds = {v2.MixUp: train.mixup, v2.CutMix: train.cutmix}
    either = v2.RandomChoice([kind(alpha=alpha, num_classes=k) for kind, alpha in kinds.items() if alpha])

    def mix(pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        targets = labels if labels.ndim == 2 else F.one_hot(labels, k)
        images, targets = either(pixels.permute(0, 3, 1, 2).float(), targets.float())
        return images.permute(0, 2, 3, 1), targets

    return mix
