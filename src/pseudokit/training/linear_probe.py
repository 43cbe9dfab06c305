"""A frozen backbone: every image is embedded once, and what learns are linear heads on the embeddings."""

from __future__ import annotations

import copy
import time

import numpy as np
import pandas as pd
import torch

from ..config.keys import Train
from ..config.types import UserError
from ..data.encoding import has_label
from ..data.folds import make_folds
from .device import autocast, pick_amp_dtype, pick_device, to_input
from .losses import criterion, log_probs_of, targets_of
from .models import ModelSpec, TrainedModel
from .predict import batch_size


@torch.inference_mode()
def embed(
    network: torch.nn.Module,
    spec: ModelSpec,
    images: tuple[np.ndarray, np.ndarray],
    train: Train,
    out: np.ndarray | None = None,
    bar=None,
) -> np.ndarray:
    """(n, D) float32: what the network makes of each image before its classifier.

    images: pixels (N, H, W, C) uint8 and the numbers of n of them; out: an array to be filled, of `width` columns.
    """
    pixels, rows = images
    where = pick_device(train.device)
    dtype = pick_amp_dtype(train.amp_dtype, where, spec.size, network)
    network = network.to(where).eval()
    out = np.empty((len(rows), width(network)), np.float32) if out is None else out
    at_once = batch_size(spec.size, where)
    for start in range(0, len(rows), at_once):
        batch = torch.from_numpy(pixels[rows[start : start + at_once]])
        with autocast(where, dtype):
            features = network.forward_features(to_input(batch, spec, where))
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
        raise UserError(
            f"model.freeze_backbone=true needs a linear last layer, and that of {type(network).__name__} is a "
            f"{type(last).__name__}; choose another model.name"
        )
    return last


def alike_features(embeddings: np.ndarray) -> np.ndarray:
    """(N, D) embeddings around their mean, of unit length: what look-alikes are found by, see neighbor_graph."""
    x = embeddings - embeddings.mean(0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def with_head(backbone: torch.nn.Module, head: torch.nn.Linear) -> torch.nn.Module:
    """The network with this head; every other tensor is shared with the body."""
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    for tensor in linear_classifier(backbone).parameters():
        del shared[id(tensor)]
    network = copy.deepcopy(backbone, shared)
    with torch.no_grad():
        for own, learned in zip(linear_classifier(network).parameters(), head.parameters(), strict=True):
            own.copy_(learned)
    return network


@torch.inference_mode()
def head_log_probs(model: TrainedModel, embeddings: np.ndarray) -> np.ndarray:
    """(n, D) embeddings → float32 log-probabilities, see log_probs."""
    head = linear_classifier(model.network)
    logits = head(torch.from_numpy(np.asarray(embeddings, np.float32)).to(head.weight))
    return log_probs_of(logits, model.format.multi_label).cpu().numpy()


PRIORS = (3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Inverse variances of a weight that are tried, from the strongest on: each begins where the one before it ended. Clean
labels choose 3 to 30 of them, labels a fifth of which are wrong 300 to 1000."""
DEFAULT_PRIOR = 30.0
"""Where the labels are too few to choose by."""
PSEUDO_LABEL_PRIOR = 600.0
"""The weakest where pseudo-labels are learned: they agree with each other more than with the truth (docs/log.md)."""
FEW_LABELS, MANY_FOLDS, FEW_FOLDS = 300, 5, 3
"""Up to so many labels the prior is chosen on five held-out parts of them, beyond on three."""
MAX_ROWS = 3000
"""Rows that the prior is chosen on, so that a choice takes seconds."""
PATIENCE = 1
"""Weaker priors in a row that are no better, after which no weaker one is tried."""
ITERATIONS = 100
"""Most steps of L-BFGS; each may try several step lengths."""


def fit_head(
    embeddings: np.ndarray,
    labels: np.ndarray,
    k: int,
    multi_label: bool = False,
    given_labels: np.ndarray | None = None,
) -> tuple[torch.nn.Linear, pd.DataFrame]:
    """The logistic regression of k classes on embeddings (n, D) float32, and its history.

    By L-BFGS on embeddings with one scale for all units, with a normal prior on the weights; the scale is then put into
    the weights. The loss is convex: there is one best head, whatever the seed.

    labels: (n,) class index or (n, k) soft targets; multi-label: (n, k), -1 = unknown.
    given: labels by which the prior is chosen, -1 = a row that has a pseudo-label; default: labels.
    """
    start = time.monotonic()
    mean, scale = _mean_and_scale(embeddings)
    x = torch.from_numpy((embeddings - mean) / scale)
    targets = torch.from_numpy(targets_of(labels, multi_label))
    given_labels = labels if given_labels is None else given_labels
    known = np.flatnonzero(has_label(given_labels))
    prior = _choose_prior(x[known], given_labels[known], k, multi_label)
    if (has_label(labels) & ~has_label(given_labels)).any():
        prior = max(prior, PSEUDO_LABEL_PRIOR)
    head, losses = _solve(x, targets, k, multi_label, prior)
    with torch.no_grad():
        head.weight /= scale
        head.bias -= head.weight @ torch.from_numpy(mean)
    history = pd.DataFrame({"loss": losses, "lr": 1.0, "waited": 0.0, "skipped": 0, "prior": prior})
    history["epoch"] = np.arange(1, len(history) + 1)
    history["seconds"] = round(time.monotonic() - start, 3)
    return head, history[["epoch", "loss", "lr", "seconds", "waited", "skipped", "prior"]]


def _mean_and_scale(embeddings: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """(D,) mean, and the root mean square of the sds of all units.

    With a scale for each unit, one that hardly varies among a handful of labeled rows is far out of scale elsewhere.
    """
    scale = np.sqrt(embeddings.var(0).mean())
    return embeddings.mean(0), np.float32(scale if scale > 0 else 1)


def _solve(
    x: torch.Tensor, targets: torch.Tensor, k: int, multi_label: bool, prior: float, head: torch.nn.Linear | None = None
) -> tuple[torch.nn.Linear, list[float]]:
    """The best head under a prior, and the losses on the way. head: where to begin; it is changed."""
    loss_of = criterion(multi_label)
    questions = k if multi_label else 1  # that loss is a mean over classes, and each of them has the prior
    if head is None:
        head = torch.nn.Linear(x.shape[1], k)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")
    losses = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = questions * loss_of(head(x), targets) + prior / (2 * len(x)) * head.weight.square().sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return head, losses


def _choose_prior(x: torch.Tensor, given_labels: np.ndarray, k: int, multi_label: bool) -> float:
    """The prior under which heads that did not learn some of the given labels predict those best, by log loss.

    All rows are those of the head itself: none is looked at that it does not learn.
    """
    if len(x) > MAX_ROWS:
        rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MAX_ROWS])
        x, given_labels = x[rows], given_labels[rows]
    parts = _held_out(given_labels)
    if not parts:
        return DEFAULT_PRIOR
    targets, loss_of = torch.from_numpy(targets_of(given_labels, multi_label)), criterion(multi_label)
    heads, losses = [None] * len(parts), []
    for prior in PRIORS:
        total = 0.0
        for i, (learned, held_out) in enumerate(parts):
            heads[i], _ = _solve(x[learned], targets[learned], k, multi_label, prior, heads[i])
            with torch.no_grad():
                total += float(loss_of(heads[i](x[held_out]), targets[held_out])) * len(held_out)
        losses.append(total)
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return PRIORS[int(np.argmin(losses))]


def _held_out(given_labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(learned, held out) rows of each part. Rows of a class that the others lack are not asked: nobody could know."""
    folds = MANY_FOLDS if len(given_labels) <= FEW_LABELS else FEW_FOLDS
    if given_labels.ndim == 2 and given_labels.dtype.kind == "f":
        given_labels = given_labels.argmax(1)
    if len(given_labels) < 2 * folds:
        return []
    part, pairs = make_folds(given_labels, np.arange(len(given_labels)), folds, seed=0), []
    for fold in range(folds):
        learned, held_out = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
        if given_labels.ndim == 1:
            held_out = held_out[np.isin(given_labels[held_out], given_labels[learned])]
        if len(held_out):
            pairs.append((learned, held_out))
    return pairs
