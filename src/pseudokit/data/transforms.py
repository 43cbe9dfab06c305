"""Augmentation: affine and elastic for whole batches of small images, albumentations pipelines for the rest.

The only file that imports albumentations. augmentations.yaml has the presets.
"""

import math
import os
import warnings
from collections.abc import Callable
from functools import cache
from inspect import isclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml

from ..config.load import nearest
from ..config.types import UserError
from ..system.files import seed_of

MAX_SMALL_SIDE = 64
"""Pixels. Larger images need crops and colors rather than small rotations."""
PRESETS = yaml.safe_load(Path(__file__).with_name("augmentations.yaml").read_text(encoding="utf-8"))
WARP_KNOTS = 5
"""A side: the displacements of a digit's strokes differ, and stay smooth."""
Spec = str | list[dict[str, Any]]
"""Name of a preset, or an albumentations pipeline."""
Augment = Callable[[torch.Tensor, int], torch.Tensor]
"""(B, H, W, C) uint8 and the number of the draw → (B, H, W, C) uint8 or float in 0…255."""


def build(spec: Spec, size: int, seed: int) -> Augment | None:
    """Make an augmentation that depends on its seed and the number of the draw only.

    Args:
        spec: see Spec.
        size: side of the images in pixels.
        seed: of all draws.
    Returns:
        The augmentation; None for `none`.
    Raises:
        UserError: a transform or one of its arguments is unknown.
    """
    preset = resolve(spec, size)
    if preset is None:
        return None
    pipeline = compose(preset, size) if isinstance(preset, list) else None

    def augment(batch: torch.Tensor, number: int) -> torch.Tensor:
        draw_seed = seed_of(seed, number)
        if pipeline is None:
            generator = torch.Generator().manual_seed(draw_seed)
            return batch_affine(batch, generator, **preset)
        pipeline.set_random_seed(draw_seed)
        images = [pipeline(image=image)["image"] for image in batch.numpy()]
        return torch.from_numpy(np.stack(images))

    return augment


def resolve(spec: Spec, size: int) -> dict[str, float] | list[dict[str, Any]] | None:
    """Arguments of batch_affine, or an albumentations pipeline; None for `none`."""
    if isinstance(spec, list):
        return spec
    return PRESETS["small" if size <= MAX_SMALL_SIDE else "large"][spec]


def is_whole_batch(spec: Spec, size: int) -> bool:
    """Whether it works on a batch at once, on any device (or does nothing); else image by image, on the CPU."""
    return not isinstance(resolve(spec, size), list)


def compose(spec: list[dict[str, Any]], size: int):
    """[{Name: {argument: value}}, …] → albumentations.Compose. The value `size` stands for (size, size).

    Raises:
        UserError: see build.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    known = {
        name: value
        for name, value in vars(A).items()
        if isclass(value) and issubclass(value, A.BasicTransform)
    }
    steps = []
    for entry in spec:
        name = next(iter(entry), None)
        arguments = entry.get(name) or {}
        if len(entry) != 1 or not isinstance(arguments, dict):
            raise UserError(
                f"train.augment: {entry} is not one transform {{Name: {{argument: value}}}}"
            )
        if name not in known:
            raise UserError(
                f"train.augment: albumentations has no transform {name!r}{nearest(name, list(known))}"
            )
        sizes = {key: (size, size) for key, value in arguments.items() if value == "size"}
        try:
            with warnings.catch_warnings():
                # That is how albumentations reports an unknown argument.
                warnings.simplefilter("error", UserWarning)
                steps.append(known[name](**arguments | sizes))
        except (TypeError, ValueError, UserWarning) as error:
            raise UserError(f"train.augment: {name}: {' '.join(str(error).split())}") from None
    return A.Compose(steps)


def to_device(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """The tensor on a device. Nothing waits for the copy to a GPU, as it is made from pinned memory."""
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda and tensor.is_cpu:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=is_cuda)


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

    Args:
        batch: (B, H, W, C) uint8.
        generator: of all draws, on the CPU, so that every device draws the same.
        degrees: bound of the rotation. Bounds are those of uniform draws.
        shift: bound, as a share of the side.
        scale: bound of the logarithm.
        shear: bound.
        warp: standard deviation of smooth displacements, in half sides (elastic distortion: Simard et al. 2003).
        stroke: bound of how far lines become thicker or thinner, in pixels on either side.
        cutout: side of a square that is blanked, as a share of the image's (DeVries & Taylor 2017).
    Returns:
        (B, H, W, C) float in 0…255.
    """
    n, height, width, _ = batch.shape

    def draw(*bounds: float) -> torch.Tensor:
        uniform = torch.rand(len(bounds), n, generator=generator) * 2 - 1
        return to_device(uniform * torch.tensor(bounds)[:, None], batch.device)

    angle, log_zoom, slant, right, down = draw(
        math.radians(degrees), scale, shear, 2 * shift, 2 * shift
    )
    zoom = torch.exp(log_zoom)
    cos = torch.cos(angle) / zoom
    sin = torch.sin(angle) / zoom
    first_row = [cos, slant * cos - sin, right]
    second_row = [sin, cos + slant * sin, down]
    matrices = torch.stack([*first_row, *second_row], 1).view(-1, 3)
    images = batch.permute(0, 3, 1, 2).float()
    # One product for all images: F.affine_grid has one for each, and takes as long again as the sampling.
    grid = matrices @ _pixel_places(height, width).T.to(matrices)
    grid = grid.view(n, 2, height, width).permute(0, 2, 3, 1)
    if warp:
        knots = torch.randn(n, 2, WARP_KNOTS, WARP_KNOTS, generator=generator) * warp
        displacements = F.interpolate(
            to_device(knots, batch.device),
            (height, width),
            mode="bicubic",
            align_corners=True,
        )
        grid += displacements.permute(0, 2, 3, 1)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if stroke:
        amount = draw(stroke).view(-1, 1, 1, 1)
        thicker = F.max_pool2d(images, 3, 1, 1)
        thinner = -F.max_pool2d(-images, 3, 1, 1)
        target = torch.where(amount > 0, thicker, thinner)
        images = images + amount.abs() * (target - images)
    if cutout:
        half = cutout * max(height, width) / 2
        center_y = torch.rand(n, 1, 1, 1, generator=generator) * height
        center_x = torch.rand(n, 1, 1, 1, generator=generator) * width
        rows = torch.arange(height).view(-1, 1)
        columns = torch.arange(width)
        is_near_y = (rows - center_y).abs() < half
        is_near_x = (columns - center_x).abs() < half
        images.masked_fill_(to_device(is_near_y & is_near_x, batch.device), 0)
    return images.permute(0, 2, 3, 1)


@cache
def _pixel_places(height: int, width: int) -> torch.Tensor:
    """(H · W, 3) x, y and 1 of the pixels of an image from -1 to 1."""
    identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
    return F.pad(identity.view(-1, 2), (0, 1), value=1.0)
