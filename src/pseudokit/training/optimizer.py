"""Parts of a training step: optimizer, learning rate, mixed batches."""

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.keys import Train
from ..config.types import UserError

WARMUP_FRACTION = 0.25
"""Share of the steps in which the learning rate rises: timm and fastai use about this for one-cycle."""
MIN_ONE_CYCLE_STEPS = 4
"""Below, the rise of torch's OneCycleLR has no step."""


def make_optimizer(network: nn.Module, train: Train) -> torch.optim.Optimizer:
    """timm's optimizer factory: no weight decay on norms and biases, lower rates for lower layers.

    Raises:
        UserError: timm has no such optimizer.
    """
    from timm.optim import create_optimizer_v2

    kwargs = {"fused": True} if train.optimizer in ("adam", "adamw") else {}
    try:
        optimizer = create_optimizer_v2(
            network,
            opt=train.optimizer,
            lr=train.lr,
            weight_decay=train.weight_decay,
            layer_decay=train.layer_decay if train.layer_decay < 1 else None,
            **kwargs,
        )
    except (ValueError, AssertionError) as error:
        raise UserError(
            f"train.optimizer={train.optimizer!r}: {' '.join(str(error).split())}"
        ) from None
    for group in optimizer.param_groups:
        group["lr"] = train.lr * group.get("lr_scale", 1.0)  # timm leaves this to its schedules
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, train: Train, steps: int):
    """Learning rate of each step: one-cycle (Smith & Topin 2017), or cosine or constant after a linear warm-up."""
    # Torch warns where the first step is left out.
    warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
    if train.schedule == "onecycle" and steps >= MIN_ONE_CYCLE_STEPS:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps + 1,
            pct_start=WARMUP_FRACTION,
            cycle_momentum=False,
        )
    warmup = max(1, round(WARMUP_FRACTION * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if train.schedule != "cosine":
            return 1.0
        progress = (step - warmup) / max(1, steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def make_mixup(train: Train, k: int) -> Callable:
    """mix(pixels (B, H, W, C), labels) → both mixed, by mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019).

    k: number of classes. Without train.mixup and train.cutmix both stay as they are.
    """
    if not (train.mixup or train.cutmix):
        return lambda pixels, labels: (pixels, labels)
    from torchvision.transforms import v2

    kinds = [(v2.MixUp, train.mixup), (v2.CutMix, train.cutmix)]
    transforms = [kind(alpha=alpha, num_classes=k) for kind, alpha in kinds if alpha]
    one_of_them = v2.RandomChoice(transforms)

    def mix(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        targets = labels if labels.ndim == 2 else F.one_hot(labels, k)
        images = pixels.permute(0, 3, 1, 2).float()
        images, targets = one_of_them(images, targets.float())
        return images.permute(0, 2, 3, 1), targets

    return mix
