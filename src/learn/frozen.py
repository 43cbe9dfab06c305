"""A frozen backbone: every image is embedded once, and what learns are linear heads on the embeddings."""

from __future__ import annotations

import copy

import numpy as np
import torch

from ..config import Train
from ..values import UserError
from .compute import autocast, pick_device, pick_precision, to_input
from .infer import batch_size
from .losses import log_probs_of
from .models import Format, Trained


@torch.inference_mode()
def embed(network: torch.nn.Module, form: Format, images: tuple[np.ndarray, np.ndarray], train: Train,
          out: np.ndarray | None = None, bar=None) -> np.ndarray:  # fmt: skip
    """(n, D) float32: what the network makes of each image before its classifier.

    images: pixels (N, H, W, C) uint8 and the numbers of n of them; out: an array to be filled, of `width` columns.
    """
    pixels, rows = images
    where = pick_device(train.device)
    dtype = pick_precision(train.precision, where, form.size, network)
    network = network.to(where).eval()
    out = np.empty((len(rows), width(network)), np.float32) if out is None else out
    at_once = batch_size(form.size, where)
    for start in range(0, len(rows), at_once):
        batch = torch.from_numpy(pixels[rows[start : start + at_once]])
        with autocast(where, dtype):
            features = network.forward_features(to_input(batch, form, where))
            features = network.forward_head(features, pre_logits=True)
        out[start : start + at_once] = features.float().cpu().numpy()
        if bar is not None:
            bar.update(len(batch))
    return out


def width(network: torch.nn.Module) -> int:
    """Units before the classifier. Raises UserError, see linear_classifier."""
    return linear_classifier(network).in_features


def linear_classifier(network: torch.nn.Module) -> torch.nn.Linear:
    """The last layer of a timm model.

    Raises:
        UserError: it is not a linear one.
    """
    last = network.get_classifier()
    if not isinstance(last, torch.nn.Linear):
        raise UserError(f"model.freeze=true needs a linear last layer, and that of {type(network).__name__} is a "
                        f"{type(last).__name__}; choose another model.name")  # fmt: skip
    return last


def alike_features(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) embeddings around their mean, of unit length: what look-alikes are found by, see neighbour_graph."""
    x = embeddings - embeddings.mean(0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def with_head(body: torch.nn.Module, head: torch.nn.Linear) -> torch.nn.Module:
    """The network with this head; every other tensor is shared with the body."""
    shared = {id(tensor): tensor for tensor in (*body.parameters(), *body.buffers())}
    for tensor in linear_classifier(body).parameters():
        del shared[id(tensor)]
    network = copy.deepcopy(body, shared)
    with torch.no_grad():
        for own, learned in zip(linear_classifier(network).parameters(), head.parameters(), strict=True):
            own.copy_(learned)
    return network


@torch.inference_mode()
def head_log_probs(model: Trained, embeddings: np.ndarray) -> np.ndarray:
    """(n, D) embeddings → float32 log-probabilities, see log_probs."""
    head = linear_classifier(model.network)
    logits = head(torch.from_numpy(np.asarray(embeddings, np.float32)).to(head.weight))
    return log_probs_of(logits, model.format.multi_label).cpu().numpy()
