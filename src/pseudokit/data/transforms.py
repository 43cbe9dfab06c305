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

from ..config.load import nearest
from ..config.types import UserError
from ..system.files import seed_of

AFFINE_UP_TO = 64  # pixels; above this `auto` means `photo`
SMALL = [{"Affine": {"rotate": [-10, 10], "translate_percent": [-0.08, 0.08], "scale": [0.9, 1.1], "p": 1.0}}]
PHOTO = [
    {"RandomResizedCrop": {"size": "size", "scale": [0.5, 1.0], "p": 1.0}},
    {"HorizontalFlip": {"p": 0.5}},
    {"ColorJitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05, "p": 0.5}},
]
STRONG_PHOTO = [
    {"RandomResizedCrop": {"size": "size", "scale": [0.3, 1.0], "p": 1.0}},
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-20, 20], "shear": [-10, 10], "p": 0.5}},
    {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8}},
    {"GaussianBlur": {"p": 0.2}},
    {
        "CoarseDropout": {
            "num_holes_range": [1, 2],
            "hole_height_range": [0.1, 0.3],
            "hole_width_range": [0.1, 0.3],
            "p": 0.5,
        }
    },
]
GENTLE_PHOTO = [{"RandomResizedCrop": {"size": "size", "scale": [0.8, 1.0], "p": 1.0}}, {"HorizontalFlip": {"p": 0.5}}]
WHOLE_BATCH: dict[str, dict[str, float]] = {
    "gentle": {"degrees": 5, "shift": 0.04, "scale": 0.05, "shear": 0.05},
    "affine": {},
    "elastic": {"warp": 0.06},
    "written": {"degrees": 15, "scale": 0.2, "shear": 0.3, "warp": 0.08, "stroke": 0.8},
    "cutout": {"degrees": 20, "shift": 0.1, "scale": 0.15, "shear": 0.2, "cutout": 0.3},
    "strong": {"degrees": 20, "shift": 0.1, "scale": 0.15, "shear": 0.2, "warp": 0.06},
}
"""Presets for small images: arguments of batch_affine."""
ON_SMALL: dict[str, Any] = {"auto": "affine"}
ON_PHOTOS: dict[str, Any] = {"auto": "photo", "gentle": GENTLE_PHOTO, "strong": STRONG_PHOTO}
"""What the names that suit any size stand for."""
Spec = str | list[dict[str, Any]]
Augment = Callable[[torch.Tensor, int], torch.Tensor]
"""(B, H, W, C) uint8 and the number of the draw → (B, H, W, C) uint8 or float in 0…255."""


def resolve(spec: Spec, size: int) -> Spec:
    """`auto`, `gentle` and `strong` → what fits images of this size."""
    if not isinstance(spec, str):
        return spec
    return (ON_SMALL if size <= AFFINE_UP_TO else ON_PHOTOS).get(spec, spec)


def is_whole_batch(spec: Spec, size: int) -> bool:
    """Whether it is computed for a batch at once, on any device; else image by image, on the CPU."""
    spec = resolve(spec, size)
    return isinstance(spec, str) and spec in WHOLE_BATCH


def build(spec: Spec, size: int, seed: int) -> Augment | None:
    """An augmentation that depends on its seed and the number of the draw alone; None for `none`.

    Raises:
        UserError: a transform or one of its arguments is unknown.
    """
    spec = resolve(spec, size)
    if spec == "none":
        return None
    if is_whole_batch(spec, size):
        return lambda batch, number: batch_affine(
            batch, torch.Generator().manual_seed(seed_of(seed, number)), **WHOLE_BATCH[spec]
        )
    pipeline = compose({"small": SMALL, "photo": PHOTO}.get(spec, spec) if isinstance(spec, str) else spec, size)

    def augment(batch: torch.Tensor, number: int) -> torch.Tensor:
        pipeline.set_random_seed(seed_of(seed, number))
        return torch.from_numpy(np.stack([pipeline(image=image)["image"] for image in batch.numpy()]))

    return augment


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
        kwargs = {
            k: (size, size) if v == "size" else tuple(v) if isinstance(v, list) else v
            for k, v in (kwargs or {}).items()
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # that is how an unknown argument is reported
                steps.append(getattr(A, name)(**kwargs))
        except (TypeError, ValueError, UserWarning) as error:
            raise UserError(f"train.augment: {name}: {' '.join(str(error).split())}") from None
    return A.Compose(steps)


def batch_affine(
    batch: torch.Tensor,
    generator: torch.Generator,
    *,
    degrees=10.0,
    shift=0.08,
    scale=0.1,
    shear=0.1,
    warp=0.0,
    stroke=0.0,
    cutout=0.0,
) -> torch.Tensor:
    """Rotate, shift, scale, shear and bend each image of a batch on its own, in one call.

    batch: (B, H, W, C) uint8; degrees, shift (share of the side), scale (log) and shear bound uniform draws; warp: sd
    of smooth displacements, in half sides (elastic distortion: Simard et al. 2003); stroke: bounds how far lines become
    thicker or thinner, in pixels on either side; cutout: side of a square that is blanked, as a share of the image's
    (DeVries & Taylor 2017). Returns (B, H, W, C) float in 0…255.
    """

    def draw(bound: float) -> torch.Tensor:  # on the CPU, so that every device draws the same
        return ((torch.rand(len(batch), generator=generator) * 2 - 1) * bound).to(batch.device)

    angle, zoom, slant = draw(math.radians(degrees)), torch.exp(draw(scale)), draw(shear)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    theta = torch.stack([cos, slant * cos - sin, draw(2 * shift), sin, cos + slant * sin, draw(2 * shift)], 1)
    images = batch.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
    if warp:
        grid += _bends(images, warp, generator)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if stroke:
        moved = _thicker(moved, draw(stroke))
    if cutout:
        moved.masked_fill_(_squares(moved, cutout, generator), 0)
    return moved.permute(0, 2, 3, 1)


def _thicker(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) images, each a blend with its dilation, or where amount (B,) is negative with its erosion."""
    amount = amount.view(-1, 1, 1, 1)
    wide, narrow = F.max_pool2d(images, 3, 1, 1), -F.max_pool2d(-images, 3, 1, 1)
    return images + amount.abs() * (torch.where(amount > 0, wide, narrow) - images)


def _bends(images: torch.Tensor, sd: float, generator: torch.Generator, knots: int = 5) -> torch.Tensor:
    """(B, H, W, 2) smooth displacements: normal draws at knots × knots points, and splines between them."""
    coarse = (torch.randn(len(images), 2, knots, knots, generator=generator) * sd).to(images)
    return F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def _squares(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """(B, 1, H, W) bool: one square an image (B, C, H, W), its center anywhere."""
    n, _, height, width = images.shape
    half = share * max(height, width) / 2
    y, x = ((torch.rand(n, 1, 1, 1, generator=generator) * side).to(images.device) for side in (height, width))
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    rows, columns = rows.view(1, 1, -1, 1), columns.view(1, 1, 1, -1)
    return ((rows - y).abs() < half) & ((columns - x).abs() < half)
