"""The one training loop."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.keys import Train
from ..config.types import UserError
from ..system.distributed import ALONE, ProcessGroup
from ..system.faults import Interrupted, finishing
from ..system.files import log
from .batches import TrainingSet, names_of_batch, stream, views
from .checkpoint import Checkpoints
from .device import autocast, pick_amp_dtype, pick_device, to_input
from .history import TrainingHistory
from .linear_probe import embed, fit_head, with_head
from .losses import Consistency, class_weights, criterion, mass, statistics_kept, targets_of
from .models import ModelSpec, has_batch_norm

MAX_STATISTICS_IMAGES = 4096
"""Images from which batch-norm statistics are estimated; more change no prediction, and cost time."""
LOST_STEPS = 20
"""Steps in a row without a finite gradient after which training has failed."""
SHOWN = 10
"""Rows of its batch that the message then names."""


def step_budget(n: int, train: Train) -> int:
    """Steps for n rows: the epochs, but at least train.min_steps."""
    return max(round(train.epochs * n / train.batch_size), train.min_steps, 1)


def can_share(network: torch.nn.Module, train: Train) -> bool:
    """Whether a team that trains it, each on a part of every batch, comes to what one process would: not where batch
    norms take their statistics from what they see."""
    return train.linear_probe_first or not has_batch_norm(network)


def train_model(
    network: torch.nn.Module,
    spec: ModelSpec,
    lesson: TrainingSet,
    train: Train,
    bar=None,
    *,
    team: ProcessGroup = ALONE,
    saved: Checkpoints | None = None,
) -> tuple[torch.nn.Module, pd.DataFrame]:
    """Train a fresh network; returns it with its last (averaged) weights and the history (epoch, loss, lr, seconds;
    waited: how many of them for images; skipped: steps so far that were left out for want of a finite gradient).

    saved: what a process that was stopped has left of this training; it goes on to the same bytes.
    team: of processes that do the same, each on its part of every batch, by the mean of their gradients.
    linear_probe_first: from the best head on the body as it is (Kumar et al. 2022, "Fine-tuning can distort pretrained
    features"), whose batch norms keep the statistics under which that head is right.
    Nothing is chosen on the way: no row is held out here, and the last weights are the result.

    Raises:
        UserError: the gradient, or what became of the weights, is not finite any more.
        Stopped: by a signal, after a checkpoint.
    """
    saved = saved or Checkpoints(None, "", train, team)
    device = pick_device(train.device)
    dtype = pick_amp_dtype(train.amp_dtype, device, spec.size, network)
    torch.manual_seed(lesson.seed)  # dropout, drop path, mixup
    network = network.to(device).train() if not train.linear_probe_first else _head_first(network, spec, lesson, train)
    lesson = replace(lesson, labels=targets_of(lesson.labels, spec.multi_label))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device, dtype):
            return network(to_input(pixels, spec, device)).float()

    history = TrainingHistory(lesson.steps, bar)
    batches = history.waited_for(stream(lesson, train, spec.size, lesson.steps, saved.step))
    loss = supervised = _supervised(forward, batches, lesson, train, spec=spec, team=team)
    parts = {"network": network, "history": history}
    if train.consistency_weight and lesson.pool is not None and len(lesson.pool):
        pool = history.waited_for(views(lesson, train, spec.size, saved.step))
        term = parts["consistency"] = Consistency(pool, train.consistency_teacher_weight, team)
        loss = _with_term(supervised, lambda: train.consistency_weight * term.loss(forward), network)
    network = _descend(loss, lesson, train, dtype=dtype, team=team, saved=saved, parts=parts)
    if not train.linear_probe_first:  # its head is right under the statistics that the backbone came with
        estimate_statistics(network, spec, lesson, train.batch_size, device=device, dtype=dtype)
    return network.eval(), history.table(train.batch_size / len(lesson.rows))


@torch.no_grad()
def estimate_statistics(
    network: torch.nn.Module,
    spec: ModelSpec,
    lesson: TrainingSet,
    batch_size: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Estimate the statistics of batch norms anew, over the network's own training images without augmentation.

    What a training leaves are moving averages: of augmented images, and after few steps of weights that are gone. Each
    image counts alike (cumulative average), in a fixed order, so that the same weights get the same bytes.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    # Shuffled, or batches of a folder sorted by class would miss what classes differ by.
    rows = np.random.default_rng(0).permutation(lesson.rows)[:MAX_STATISTICS_IMAGES]
    if not norms or len(rows) < 2:
        return
    network.eval()  # without dropout
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for start in range(0, max(len(rows) - batch_size, 0) + 1, batch_size):  # whole batches: equal weights
        pixels = torch.from_numpy(lesson.pixels[rows[start : start + batch_size]])
        with autocast(device, dtype):
            network(to_input(pixels, spec, device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _supervised(
    forward: Callable, batches, lesson: TrainingSet, train: Train, *, spec: ModelSpec, team: ProcessGroup
) -> Callable:
    """loss() of the next batch on its labels; of a team this process's share in it."""
    k, sets, device = len(spec.classes), spec.multi_label, pick_device(train.device)
    weight = class_weights(lesson.labels, k, sets).to(device) if train.class_weights == "balanced" else None
    mix, loss_of = _mixer(train, k), criterion(sets, weight, train.label_smoothing)

    def loss() -> torch.Tensor:
        pixels, labels = mix(*next(batches))
        mine = team.part(labels).to(device)
        share = mass(mine, weight, sets) / mass(labels.to(device), weight, sets) * team.size
        return loss_of(forward(team.part(pixels)), mine) * share

    return loss


def _with_term(supervised: Callable, term: Callable, network: torch.nn.Module) -> Callable:
    """loss() of both; batch statistics are those of labelled images alone."""

    def loss() -> torch.Tensor:
        labelled = supervised()
        with statistics_kept(network):
            return labelled + term()

    return loss


def _head_first(network: torch.nn.Module, spec: ModelSpec, lesson: TrainingSet, train: Train) -> torch.nn.Module:
    """The network with the best head on its backbone as it is."""
    found = lesson.embeddings
    if found is None:
        found = embed(network, spec, (lesson.pixels, lesson.rows), train)
    soft = lesson.labels.ndim == 2 and not spec.multi_label
    given = lesson.labels.argmax(1) if soft else lesson.labels.copy()
    if lesson.pseudo is not None:
        given[lesson.pseudo] = -1
    head, _ = fit_head(found, lesson.labels, len(spec.classes), spec.multi_label, given)
    network = with_head(network, head).train()
    for module in network.modules():
        if getattr(module, "track_running_stats", False):
            module.eval()
    return network


def _descend(
    next_loss, lesson: TrainingSet, train: Train, *, dtype: torch.dtype, team: ProcessGroup, saved: Checkpoints, parts
):
    """All steps that are left, with a schedule of their own; returns the network to be kept.

    parts: {"network", "history", …} of the training; those that begin here are added, and all are restored.
    """
    network, history = parts["network"], parts["history"]
    parts["optimizer"] = optimizer = _optimizer(network, train)
    parts["schedule"] = schedule = _schedule(optimizer, train, lesson.steps)
    parts["scaler"] = scaler = torch.amp.GradScaler(pick_device(train.device).type, enabled=dtype == torch.float16)
    average = _Average(network, train.ema_decay) if train.ema_decay else None
    parts |= {"average": average} if average else {}
    start = saved.restore(parts)
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in statistics]
    warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")  # where the first step is left out
    with finishing() as asked:
        for number in range(start, lesson.steps):
            loss = next_loss()
            finite = _step(network, loss, (optimizer, scaler), train.clip_grad, team)
            if statistics:
                torch._foreach_copy_(*((before, statistics) if finite else (statistics, before)))
            schedule.step()
            if average:
                average.update(network)
            history.add(loss.detach(), optimizer.param_groups[-1]["lr"], finite)
            if history.lost > LOST_STEPS:
                raise _lost(lesson, train, number, f"no finite gradient for {history.lost} steps")
            signal, due = team.most(asked(), saved.due())
            if signal or due:
                saved.save(number + 1, parts)
            if signal:
                raise Interrupted(signal)
    if not all(parameter.isfinite().all() for parameter in network.parameters()):
        raise _lost(lesson, train, lesson.steps - 1, "no finite weights after the last step")
    return average.network if average else network


def _step(network, loss: torch.Tensor, optimizer_and_scaler: tuple, clip: float | None, team: ProcessGroup) -> bool:
    """One step down the gradient, left out where that is not finite; returns whether it is."""
    optimizer, scaler = optimizer_and_scaler
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    team.average([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
    finite = bool(torch.nn.utils.clip_grad_norm_(network.parameters(), clip or math.inf).isfinite())
    if finite or scaler.is_enabled():  # the scaler leaves the step out itself
        scaler.step(optimizer)
        scaler.update()
    return finite


def _lost(lesson: TrainingSet, train: Train, number: int, what: str) -> UserError:
    names = names_of_batch(lesson, train, number)
    log.info(f"{what}; the last batch: {', '.join(names)}")
    first = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return UserError(
        f"{what}; the last batch holds {first} (all of it in log.txt); lower "
        f"train.lr={train.lr:g} or set train.amp_dtype=fp32"
    )


def _optimizer(network: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """timm's optimiser factory: no weight decay on norms and biases, lower rates for lower layers."""
    from timm.optim import create_optimizer_v2

    fused = {"fused": True} if train.optimizer in ("adam", "adamw") else {}
    decay = train.layer_decay if train.layer_decay < 1 else None
    options = {"lr": train.lr, "weight_decay": train.weight_decay, "layer_decay": decay}
    try:
        return create_optimizer_v2(network, opt=train.optimizer, **options, **fused)
    except (ValueError, AssertionError) as error:
        raise UserError(f"train.optimizer={train.optimizer!r}: {' '.join(str(error).split())}") from None


def _schedule(optimizer: torch.optim.Optimizer, train: Train, steps: int):
    """Learning rate a step. One-cycle (Smith & Topin 2017), cosine with linear warm-up, or constant."""
    for group in optimizer.param_groups:
        group["lr"] = train.lr * group.get("lr_scale", 1.0)
    if train.schedule == "onecycle" and steps > 1:
        share = train.warmup + (1e-9 if train.warmup * (steps + 1) == 1 else 0)  # torch divides by zero there
        peaks = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, peaks, total_steps=steps + 1, pct_start=min(share, 1), cycle_momentum=False
        )
    rise = max(1, round(train.warmup * steps))
    fall = (lambda t: 0.5 * (1 + math.cos(math.pi * t))) if train.schedule == "cosine" else (lambda t: 1.0)

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else fall((step - rise) / max(1, steps - rise))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class _Average:
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


def _mixer(train: Train, k: int) -> Callable:
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
