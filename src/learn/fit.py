"""The one training loop."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pandas as pd
import torch
import torch.nn.functional as F

from ..config import Train
from ..processes import ALONE, Team
from ..values import UserError
from .batches import Lesson, stream, views
from .compute import autocast, pick_device, pick_precision, to_input
from .consistency import Consistency, statistics_kept
from .frozen import embed, fit_head, with_head
from .losses import class_weights, criterion, mass, targets_of
from .models import Format, has_batch_norm

HISTORY_ROWS = 20  # about as many points as a loss curve needs
LOST_STEPS = 20
"""Steps in a row without a finite gradient after which training has failed."""


def step_budget(n: int, train: Train) -> int:
    """Steps for n rows: the epochs, but at least train.min_steps."""
    return max(round(train.epochs * n / train.batch_size), train.min_steps, 1)


def can_share(network: torch.nn.Module, train: Train) -> bool:
    """Whether a team that trains it, each on a part of every batch, comes to what one process would: not where batch
    norms take their statistics from what they see."""
    return train.head_first or not has_batch_norm(network)


def fit(
    network: torch.nn.Module, form: Format, lesson: Lesson, train: Train, bar=None, team: Team = ALONE
) -> tuple[torch.nn.Module, pd.DataFrame]:  # fmt: skip
    """Train a fresh network; returns it with its last (averaged) weights and the history (epoch, loss, lr, seconds;
    waited: how many of them for images).

    team: of processes that do the same, each on its part of every batch, by the mean of their gradients.
    head_first: from the best head on the body as it is (Kumar et al. 2022, "Fine-tuning can distort pretrained
    features"), whose batch norms keep the statistics under which that head is right.
    Nothing is chosen on the way: no row is held out here, and the last weights are the result.
    """
    device = pick_device(train.device)
    dtype = pick_precision(train.precision, device, form.size, network)
    torch.manual_seed(lesson.seed)  # dropout, drop path, mixup
    network = network.to(device).train() if not train.head_first else _head_first(network, form, lesson, train)
    k, sets = len(form.classes), form.multi_label
    weight = class_weights(lesson.labels, k, sets).to(device) if train.class_weights == "balanced" else None
    mix, loss_of = _mixer(train, k), criterion(sets, weight, train.label_smoothing)
    lesson = replace(lesson, labels=targets_of(lesson.labels, sets))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device, dtype):
            return network(to_input(pixels, form, device)).float()

    def supervised() -> torch.Tensor:
        pixels, labels = mix(*next(batches))
        mine = team.part(labels).to(device)
        share = mass(mine, weight, sets) / mass(labels.to(device), weight, sets) * team.size
        return loss_of(forward(team.part(pixels)), mine) * share

    history = _History(lesson.steps, bar)
    batches = history.waited_for(stream(lesson, train, form.size, lesson.steps))
    loss = supervised
    if train.consistency and lesson.pool is not None and len(lesson.pool):
        term = Consistency(history.waited_for(views(lesson, train, form.size)), train.consistency_prior, team)

        def loss() -> torch.Tensor:
            labelled = supervised()
            with statistics_kept(network):
                return labelled + train.consistency * term.loss(forward)

    network = _descend(network, loss, (lesson.steps, dtype), train, history, team)
    return network.eval(), history.table(train.batch_size / len(lesson.rows))


def _head_first(network: torch.nn.Module, form: Format, lesson: Lesson, train: Train) -> torch.nn.Module:
    found = embed(network, form, (lesson.pixels, lesson.rows), train)
    network = with_head(network, fit_head(found, lesson.labels, len(form.classes), form.multi_label)[0]).train()
    for module in network.modules():
        if getattr(module, "track_running_stats", False):
            module.eval()
    return network


def _descend(network, next_loss, budget: tuple[int, torch.dtype], train: Train, history: _History, team: Team):
    """`budget` = (optimiser steps, their precision), with a schedule of their own; returns the network to be kept."""
    steps, dtype = budget
    optimizer = _optimizer(network, train)
    schedule = _schedule(optimizer, train, steps)
    average = _Average(network, train.ema) if train.ema else None
    device = pick_device(train.device)
    scaler, lost = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16), 0
    for _ in range(steps):
        loss = next_loss()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        team.average([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip_grad or math.inf)
        lost = 0 if torch.isfinite(norm) else lost + 1
        if lost > LOST_STEPS:
            raise UserError(f"no finite gradient for {lost} steps; lower train.lr={train.lr:g} or set "
                            "train.precision=fp32")  # fmt: skip
        if not lost or scaler.is_enabled():  # a step without a finite gradient is left out; the scaler does it itself
            scaler.step(optimizer)
            scaler.update()
        schedule.step()
        if average:
            average.update(network)
        history.add(loss.detach(), optimizer.param_groups[-1]["lr"])
    return average.network if average else network


class _History:
    """The loss curve, without a wait for the device at every step, and how long the network waited for images."""

    def __init__(self, steps: int, bar):
        self._waited = 0.0
        self._every, self._steps, self._bar = max(1, steps // HISTORY_ROWS), steps, bar
        self._step, self._losses, self._rows, self._start = 0, [], [], time.monotonic()

    def add(self, loss: torch.Tensor, lr: float) -> None:
        self._step += 1
        self._losses.append(loss)
        if self._bar is not None:
            self._bar.update(1)
        if self._step % self._every == 0 or self._step == self._steps:
            mean = torch.stack(self._losses).mean().item()
            seconds = time.monotonic() - self._start
            self._rows.append((self._step, mean, lr, round(seconds, 3), round(self._waited, 3)))
            self._losses = []

    def waited_for(self, batches: Iterator) -> Iterator:
        while True:
            start = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - start
            yield batch

    def table(self, epochs_a_step: float) -> pd.DataFrame:
        rows = pd.DataFrame(self._rows, columns=["epoch", "loss", "lr", "seconds", "waited"])
        return rows.assign(epoch=(rows.epoch * epochs_a_step).round(3))


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
