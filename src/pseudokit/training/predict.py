"""Networks without training: log-probabilities and embeddings of images."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from ..config.keys import Train
from ..config.types import UserError
from ..data.transforms import Spec, build
from ..system.progress import progress
from .device import Computation
from .losses import loss_kind
from .models import ModelSpec, TrainedModel

MAX_BATCH_PIXELS = {
    "cpu": 1 << 19,
    "cuda": 1 << 24,
    "mps": 1 << 22,
}
"""Of all images of a batch together. Beyond this, caches overflow on a CPU, and photos fill the memory."""
MAX_BATCH_IMAGES = 4096
"""More gain no speed."""
Predict = Callable[[TrainedModel, ndarray], ndarray]
"""(model, rows) → log-probabilities of the rows."""


def batch_size(size: int, device: torch.device) -> int:
    """How many images with this side in pixels are predicted at once."""
    return min(max(MAX_BATCH_PIXELS[device.type] // size**2, 1), MAX_BATCH_IMAGES)


@torch.inference_mode()
def log_probs(
    model: TrainedModel,
    pixels: ndarray,
    rows: ndarray,
    *,
    device: str = "auto",
    tta: int = 1,
    spec: Spec = "auto",
    first: int = 0,
) -> ndarray:
    """Log-probabilities of images.

    Args:
        model: it predicts. pixels: (N, H, W, C) uint8. rows: the numbers of n of them.
        tta: views of an image whose probabilities are averaged: the image itself, and draws of the augmentation `spec`.
        first: how many rows come before rows[0] where several processes share them, a multiple of batch_size: what is
            drawn depends on it.

    Returns:
        (n, K) float32; several labels an image: (n, K, 2), see data/encoding.py.

    Raises:
        UserError: they are not finite.
    """
    network = model.network.eval()
    computation = Computation(network, model.spec, device, model.spec.amp_dtype)
    kind = loss_kind(model.spec.multi_label)
    no_rows = kind.log_probs(torch.zeros(0, len(model.spec.classes))).numpy()
    views = []
    with progress.part("predict", len(rows) * tta):
        for view in range(tta):
            augment = build(spec, model.spec.size, seed=view) if view else None
            parts = [no_rows]
            for start, batch in _batches(pixels, rows, computation):
                if augment:
                    batch = augment(batch, first + start)
                logits = computation.run_in_parts(network, batch)
                parts.append(kind.log_probs(logits).cpu().numpy())
            views.append(np.concatenate(parts))
    if not np.isfinite(views).all():
        raise UserError(
            f"{model.spec.name} predicts no finite numbers, so its training has failed; lower train.lr or set "
            "train.amp_dtype=fp32"
        )
    if tta == 1:
        return views[0]
    total = np.logaddexp.reduce(views, axis=0)
    return total - np.float32(np.log(tta))


def mean_probs(models: list[TrainedModel], rows: ndarray, predict: Predict) -> ndarray:
    """The weighted mean of the probabilities of several models."""
    probs = [np.exp(predict(model, rows)) for model in models]
    # as float32, so that the mean is float32 too
    weights = np.float32([model.weight for model in models])
    return np.average(probs, axis=0, weights=weights)


@torch.inference_mode()
def embed(
    network: nn.Module, spec: ModelSpec, pixels: ndarray, rows: ndarray, train: Train
) -> ndarray:
    """(len(rows), D) float32: what a timm network makes of each image before its classifier.

    pixels: (N, H, W, C) uint8. rows: the numbers of those images that are embedded.
    """

    def features(images: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(images), pre_logits=True)

    computation = Computation(network.eval(), spec, train.device, train.amp_dtype)
    # In whole batches: else the last bits of an embedding depend on how many images are embedded with it.
    step = batch_size(spec.size, computation.device)
    whole = np.resize(rows, step * math.ceil(len(rows) / step))
    batches = _batches(pixels, whole, computation)
    parts = [computation.run_in_parts(features, batch).cpu().numpy() for _, batch in batches]
    return np.concatenate(parts)[: len(rows)]


def _batches(
    pixels: ndarray, rows: ndarray, computation: Computation
) -> Iterator[tuple[int, Tensor]]:
    """The images of these rows, in order, and how many came before."""
    step = batch_size(computation.spec.size, computation.device)
    for start in range(0, len(rows), step):
        batch = torch.from_numpy(pixels[rows[start : start + step]])
        yield start, batch
        progress.advance(len(batch))
