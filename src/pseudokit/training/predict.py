"""The one inference loop."""

from __future__ import annotations

import numpy as np
import torch

from ..data.transforms import build
from .device import autocast, pick_amp_dtype, pick_device, to_input
from .losses import log_probs_of
from .models import TrainedModel

PIXELS = {"cpu": 1 << 19, "cuda": 1 << 24, "mps": 1 << 22}
"""Of all images of a batch: beyond, a CPU's caches overflow, and photos fill the memory."""
MOST = 4096


def batch_size(size: int, device: torch.device) -> int:
    """How many images of this side are predicted at once."""
    return min(max(1, PIXELS[device.type] // size**2), MOST)


@torch.inference_mode()
def log_probs(
    model: TrainedModel,
    pixels: np.ndarray,
    rows: np.ndarray,
    *,
    amp_dtype=None,
    device="auto",
    tta=1,
    spec="auto",
    first=0,
    bar=None,
) -> np.ndarray:
    """(len(rows), K) float32 log-probabilities of pixels[rows]; multi-label: (len(rows), C, 2), see data/encoding.py.

    precision: default that of its training. tta: views a sample; the first is the image itself, the others are draws of
    the augmentation `spec`. Their probabilities are averaged. first: which of all rows rows[0] is, a multiple of
    batch_size, where several processes share them: what is drawn depends on it.
    """
    where = pick_device(device)
    network = model.network.to(where).eval()
    dtype = pick_amp_dtype(amp_dtype or model.format.amp_dtype, where, model.format.size, network)
    images, at_once = torch.from_numpy(pixels), batch_size(model.format.size, where)
    out = []
    for view in range(tta):
        augment = build(spec, model.format.size, seed=view) if view else None
        out.append([])
        for start in range(0, len(rows), at_once):
            batch = images[torch.from_numpy(rows[start : start + at_once])]
            batch = augment(batch, first + start) if augment else batch
            with autocast(where, dtype):
                logits = network(to_input(batch, model.format, where))
            out[-1].append(log_probs_of(logits.float(), model.format.multi_label).cpu().numpy())
            if bar is not None:
                bar.update(len(batch))
    nothing = log_probs_of(torch.zeros(0, len(model.format.classes)), model.format.multi_label).numpy()
    views = np.stack([np.concatenate(view or [nothing]) for view in out])
    return views[0] if tta == 1 else np.logaddexp.reduce(views, axis=0) - np.float32(np.log(tta))
