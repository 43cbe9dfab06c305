"""Augmentation: whole-batch affine for small images, albumentations pipelines for the rest.

The only file that imports albumentations.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..config import UserError, nearest

AFFINE_UP_TO = 64  # pixels; above this `auto` means `photo`

SMALL = [{"Affine": {"rotate": [-10, 10], "translate_percent": [-0.08, 0.08], "scale": [0.9, 1.1], "p": 1.0}}]
PHOTO = [
    {"RandomResizedCrop": {"size": "size", "scale": [0.5, 1.0], "p": 1.0}},
    {"HorizontalFlip": {"p": 0.5}},
    {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "p": 0.5}},
]

Spec = str | list[dict[str, Any]]
Augment = Callable[[torch.Tensor], torch.Tensor]
"""(B, H, W, C) uint8 → (B, H, W, C) uint8 or float in 0…255."""


def resolve(spec: Spec, size: int) -> Spec:
    """`auto` → what fits images of this size."""
    if spec != "auto":
        return spec
    return "affine" if size <= AFFINE_UP_TO else "photo"


def build(spec: Spec, size: int, seed: int) -> Augment | None:
    """An augmentation with its own random stream; None for `none`.

    Raises:
        UserError: a transform or one of its arguments is unknown.
    """
    spec = resolve(spec, size)
    if spec == "none":
        return None
    if spec == "affine":
        generator = torch.Generator().manual_seed(seed)
        return lambda batch: batch_affine(batch, generator)
    pipeline = compose({"small": SMALL, "photo": PHOTO}.get(spec, spec) if isinstance(spec, str) else spec, size)
    pipeline.set_random_seed(seed)
    return lambda batch: torch.from_numpy(np.stack([pipeline(image=image)["image"] for image in batch.numpy()]))


def compose(spec: list[dict[str, Any]], size: int):
    """[{Name: {arg: value}}, …] → albumentations.Compose. The value `size` stands for (size, size)."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    steps = []
    known = [n for n in dir(A) if isinstance(getattr(A, n), type) and issubclass(getattr(A, n), A.BasicTransform)]
    for entry in spec:
        [(name, kwargs)] = entry.items() if len(entry) == 1 else [(str(entry), None)]
        if not (isinstance(getattr(A, name, None), type) and issubclass(getattr(A, name), A.BasicTransform)):
            raise UserError(f"train.augment: albumentations has no transform {name!r}{nearest(name, known)}")
        if not isinstance(kwargs or {}, dict):
            raise UserError(f"train.augment: {name}: give its arguments as {{argument: value}}, not {kwargs!r}")
        kwargs = {k: (size, size) if v == "size" else tuple(v) if isinstance(v, list) else v
                  for k, v in (kwargs or {}).items()}  # fmt: skip
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # that is how an unknown argument is reported
                steps.append(getattr(A, name)(**kwargs))
        except (TypeError, ValueError, UserWarning) as error:
            raise UserError(f"train.augment: {name}: {' '.join(str(error).split())}") from None
    return A.Compose(steps)


def batch_affine(
    batch: torch.Tensor, generator: torch.Generator, *, degrees=10.0, shift=0.08, scale=0.1, shear=0.1
) -> torch.Tensor:
    """Rotate, shift, scale and shear each image of a batch on its own, in one call.

    batch: (B, H, W, C) uint8; degrees, shift (share of the side), scale (log) and shear bound uniform draws.
    Returns (B, H, W, C) float in 0…255.
    """

    def draw(bound: float) -> torch.Tensor:
        return (torch.rand(len(batch), generator=generator) * 2 - 1) * bound

    angle, zoom, slant = draw(math.radians(degrees)), torch.exp(draw(scale)), draw(shear)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack([cos, slant * cos - sin, draw(2 * shift), sin, cos + slant * sin, draw(2 * shift)], 1)
    images = batch.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
