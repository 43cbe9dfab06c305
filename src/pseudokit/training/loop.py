"""The training step, from the images of a batch to the checkpoint, in one loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
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
from .losses import Consistency, SupervisedLoss, statistics_kept, targets_of
from .models import ModelSpec, has_batch_norm
from .optimizer import AverageWeights, make_mixup, make_optimizer, make_schedule

MAX_STATISTICS_IMAGES = 4096
"""Images from which batch-norm statistics are estimated; more change no prediction, and cost time."""
MAX_SKIPPED_STEPS = 20
"""Steps in a row without a finite gradient after which training has failed."""
MAX_NAMED_ROWS = 10
"""Rows of its batch that the message then names."""


def step_budget(n: int, train: Train) -> int:
    """Steps for n rows: the epochs, but at least train.min_steps."""
    return max(round(train.epochs * n / train.batch_size), train.min_steps, 1)


def can_share(network: torch.nn.Module, train: Train) -> bool:
    """Whether a team that trains it, each on a part of every batch, comes to what one process would: not where batch
    norms take their statistics from what they see."""
    return train.linear_probe_first or not has_batch_norm(network)


def train_model(  # noqa: C901  one visible loop, on purpose
    network: torch.nn.Module,
    spec: ModelSpec,
    training_set: TrainingSet,
    train: Train,
    bar=None,
    *,
    process_group: ProcessGroup = ALONE,
    saved: Checkpoints | None = None,
) -> tuple[torch.nn.Module, pd.DataFrame]:
    """Train a fresh network on a training set, to the last step of its schedule.

    Nothing is chosen on the way: no row is held out here, and the last (averaged) weights are the result.

    Args:
        network: as create_model makes it. spec: its size, channels and classes.
        training_set: rows, labels and the number of steps. train: the section `train` of the config.
        bar: a tqdm bar that is moved by one a step.
        process_group: processes that do the same, each on its part of every batch; gradients are averaged.
        saved: what a process that was stopped has left of this training. It goes on to the same bytes.

    Returns:
        The network in eval mode, and its history: epoch, loss, lr, seconds; waited, how many of them for images;
        skipped, how many steps so far were left out as their gradient was not finite.

    Raises:
        UserError: gradients or weights are not finite any more.
        Interrupted: by a signal, after a checkpoint.
    """
    saved = saved or Checkpoints(None, "", train, process_group)
    device = pick_device(train.device)
    dtype = pick_amp_dtype(train.amp_dtype, device, spec.size, network)
    torch.manual_seed(training_set.seed)  # dropout, drop path, mixup
    if train.linear_probe_first:
        network = _with_best_head(network, spec, training_set, train)
    else:
        network = network.to(device).train()
    training_set = replace(training_set, labels=targets_of(training_set.labels, spec.multi_label))

    history = TrainingHistory(training_set.steps, bar)
    batches = history.waited_for(stream(training_set, train, spec.size, saved.step))
    mix = make_mixup(train, len(spec.classes))
    loss_of = SupervisedLoss(training_set.labels, spec, train, device, process_group)
    consistency = None
    if train.consistency_weight and training_set.pool is not None and len(training_set.pool):
        unlabeled = history.waited_for(views(training_set, train, spec.size, saved.step))
        consistency = Consistency(unlabeled, train.consistency_teacher_weight, process_group)
    optimizer = make_optimizer(network, train)
    schedule = make_schedule(optimizer, train, training_set.steps)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    average = AverageWeights(network, train.ema_decay) if train.ema_decay else None
    state = {"network": network, "history": history, "consistency": consistency, "optimizer": optimizer}
    state |= {"schedule": schedule, "scaler": scaler, "average": average}
    state = {name: part for name, part in state.items() if part is not None}
    first_step = saved.restore(state)
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    good_statistics = [buffer.clone() for buffer in statistics]

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        with autocast(device, dtype):
            return network(to_input(pixels, spec, device)).float()

    with finishing() as asked_to_stop:
        for step in range(first_step, training_set.steps):
            pixels, labels = mix(*next(batches))
            loss = loss_of(forward(process_group.part(pixels)), labels)
            if consistency:
                with statistics_kept(network):  # batch statistics are those of labeled images alone
                    loss = loss + train.consistency_weight * consistency.loss(forward)

            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            process_group.average([weight.grad for weight in network.parameters() if weight.grad is not None])
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip_grad or math.inf)
            is_finite = bool(norm.isfinite())
            if is_finite or scaler.is_enabled():  # the scaler leaves the step out itself
                scaler.step(optimizer)
                scaler.update()
            if statistics:  # a batch whose step is left out leaves no trace in the batch norms either
                source, target = (statistics, good_statistics) if is_finite else (good_statistics, statistics)
                torch._foreach_copy_(target, source)
            schedule.step()
            if average:
                average.update(network)

            history.add(loss.detach(), optimizer.param_groups[-1]["lr"], is_finite)
            if history.lost > MAX_SKIPPED_STEPS:
                raise _not_finite(training_set, train, step, f"no finite gradient for {history.lost} steps")
            signal, is_due = process_group.most(asked_to_stop(), saved.due())
            if signal or is_due:
                saved.save(step + 1, state)
            if signal:
                raise Interrupted(signal)
    if not all(weight.isfinite().all() for weight in network.parameters()):
        raise _not_finite(training_set, train, training_set.steps - 1, "no finite weights after the last step")

    network = average.network if average else network
    if not train.linear_probe_first:  # its head is right under the statistics that the backbone came with
        estimate_statistics(network, spec, training_set, train.batch_size, device=device, dtype=dtype)
    return network.eval(), history.table(train.batch_size / len(training_set.rows))


@torch.no_grad()
def estimate_statistics(
    network: torch.nn.Module,
    spec: ModelSpec,
    training_set: TrainingSet,
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
    rows = np.random.default_rng(0).permutation(training_set.rows)[:MAX_STATISTICS_IMAGES]
    if not norms or len(rows) < 2:
        return
    network.eval()  # without dropout
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for start in range(0, max(len(rows) - batch_size, 0) + 1, batch_size):  # whole batches: equal weights
        pixels = torch.from_numpy(training_set.pixels[rows[start : start + batch_size]])
        with autocast(device, dtype):
            network(to_input(pixels, spec, device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _with_best_head(
    network: torch.nn.Module, spec: ModelSpec, training_set: TrainingSet, train: Train
) -> torch.nn.Module:
    """The network with the best head on its backbone as it is."""
    embeddings = embed(network, spec, (training_set.pixels, training_set.rows), train)
    soft = training_set.labels.ndim == 2 and not spec.multi_label
    given_labels = training_set.labels.argmax(1) if soft else training_set.labels.copy()
    if training_set.pseudo is not None:
        given_labels[training_set.pseudo] = -1
    head, _ = fit_head(embeddings, training_set.labels, len(spec.classes), spec.multi_label, given_labels)
    network = with_head(network, head).train()
    for module in network.modules():
        if getattr(module, "track_running_stats", False):
            module.eval()
    return network


def _not_finite(training_set: TrainingSet, train: Train, number: int, what: str) -> UserError:
    names = names_of_batch(training_set, train, number)
    log.info(f"{what}; the last batch: {', '.join(names)}")
    first = ", ".join(names[:MAX_NAMED_ROWS]) + (", …" if len(names) > MAX_NAMED_ROWS else "")
    return UserError(
        f"{what}; the last batch holds {first} (all of it in log.txt); lower "
        f"train.lr={train.lr:g} or set train.amp_dtype=fp32"
    )
