"""The training step, from the images of a batch to the checkpoint, in one loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.keys import Train
from ..config.types import UserError
from ..system.distributed import ALONE, ProcessGroup
from ..system.faults import Interrupted, finishing
from .batches import TrainingSet, labeled_batches, unlabeled_batches
from .checkpoint import Checkpoints
from .device import Computation, pick_computation
from .history import TrainingHistory
from .linear_probe import fit_head, with_head
from .losses import Consistency, loss_kind, loss_of_part, make_criterion
from .models import ModelSpec
from .optimizer import make_mixup, make_optimizer, make_schedule
from .predict import embed

MAX_STATISTICS_IMAGES = 4096
"""Images from which batch-norm statistics are estimated. More change no prediction, and cost time."""
MAX_SKIPPED_STEPS = 20
"""Steps in a row without a finite gradient after which training has failed."""


def step_budget(n: int, train: Train) -> int:
    """Steps for n rows: the epochs, but at least train.min_steps."""
    steps = round(train.epochs * n / train.batch_size)
    return max(steps, train.min_steps, 1)


def train_model(  # noqa: C901  one visible loop, on purpose
    network: nn.Module,
    spec: ModelSpec,
    training_set: TrainingSet,
    train: Train,
    bar=None,
    *,
    process_group: ProcessGroup = ALONE,
    saved: Checkpoints | None = None,
) -> tuple[nn.Module, pd.DataFrame]:
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
        skipped, how many steps so far were left out because their gradient was not finite.

    Raises:
        UserError: gradients or weights are not finite any more.
        Interrupted: by a signal, after a checkpoint.
    """
    from timm.utils import ModelEmaV3

    saved = saved or Checkpoints(None, "", train, process_group)
    computation = pick_computation(network, spec, train.device, train.amp_dtype)
    device = computation.device
    torch.manual_seed(training_set.seed)  # dropout, drop path, mixup
    network.train()
    if train.linear_probe_first:
        network = _with_best_head(network, spec, training_set, train)
    targets = loss_kind(spec.multi_label).targets(training_set.labels)
    training_set = replace(training_set, labels=targets)

    history = TrainingHistory(training_set.steps, bar)
    batches = history.timed(labeled_batches(training_set, train, spec.size, saved.step))
    mix = make_mixup(train, len(spec.classes))
    criterion = make_criterion(targets, spec, train).to(device)
    optimizer = make_optimizer(network, train)
    schedule = make_schedule(optimizer, train, training_set.steps)
    is_fp16 = computation.dtype == torch.float16
    scaler = torch.amp.GradScaler(device.type, enabled=is_fp16)
    state = {
        "network": network,
        "history": history,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": scaler,
    }
    consistency = average = None
    if (
        train.consistency_weight
        and training_set.unlabeled is not None
        and len(training_set.unlabeled)
    ):
        unlabeled = history.timed(unlabeled_batches(training_set, train, spec.size, saved.step))
        consistency = Consistency(unlabeled, train.consistency_teacher_weight, process_group).to(
            device
        )
        state["consistency"] = consistency
    if (
        train.ema_decay
    ):  # the decay is warmed up, so that early weights fade in short trainings, too
        average = ModelEmaV3(network, decay=train.ema_decay, use_warmup=True)
        state["average"] = average
    first_step = saved.restore(state)

    def forward(pixels: Tensor) -> Tensor:
        return computation.run(network, pixels)

    with finishing() as asked_to_stop:
        for step in range(first_step, training_set.steps):
            pixels, labels = mix(*next(batches))
            logits = forward(process_group.part(pixels))
            loss = loss_of_part(criterion, logits, labels, process_group)
            if consistency:
                loss = loss + train.consistency_weight * consistency(forward)

            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            process_group.average_gradients(network)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(network.parameters(), train.clip_grad or math.inf)
            is_finite = bool(norm.isfinite())
            if is_finite or scaler.is_enabled():  # the scaler leaves the step out by itself
                scaler.step(optimizer)
                scaler.update()
            schedule.step()
            if average:
                average.update(network, step + 1)

            history.add(loss.detach(), optimizer.param_groups[-1]["lr"], is_finite)
            if history.skipped_in_a_row > MAX_SKIPPED_STEPS:
                raise _not_finite(f"no finite gradient for {history.skipped_in_a_row} steps", train)
            signals, are_due = zip(
                *process_group.gather((asked_to_stop(), saved.is_due())), strict=True
            )
            if any(signals) or any(are_due):
                saved.save(step + 1, state)
            if any(signals):
                raise Interrupted(max(signals))
    are_finite = [weight.isfinite().all() for weight in network.parameters()]
    if not all(are_finite):
        raise _not_finite("no finite weights after the last step", train)

    network = average.module if average else network
    if (
        not train.linear_probe_first
    ):  # there the head is right under the statistics that the backbone came with
        estimate_statistics(network, computation, training_set, train.batch_size)
    epochs_per_step = train.batch_size / len(training_set.rows)
    return network.eval(), history.table(epochs_per_step)


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, computation: Computation, training_set: TrainingSet, batch_size: int
) -> None:
    """Estimate the statistics of batch norms anew, from the network's own training images without augmentation.

    What a training leaves are moving averages: of augmented images, of unlabeled ones that may be foreign to the
    classes, of batches whose step was left out, and after few steps of weights that are gone. Here each image counts
    alike (cumulative average), in a fixed order, so that the same weights get the same bytes.
    """
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    # Shuffled, or batches of a folder sorted by class would miss what classes differ by.
    rows = np.random.default_rng(0).permutation(training_set.rows)
    rows = rows[:MAX_STATISTICS_IMAGES]
    if not norms or len(rows) < 2:
        return
    network.eval()  # without dropout
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    last_start = max(len(rows) - batch_size, 0)
    for start in range(0, last_start + 1, batch_size):  # whole batches: equal weights
        batch = rows[start : start + batch_size]
        pixels = torch.from_numpy(training_set.pixels[batch])
        computation.run(network, pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _with_best_head(
    network: nn.Module,
    spec: ModelSpec,
    training_set: TrainingSet,
    train: Train,
) -> nn.Module:
    """The network with the best head on its backbone as it is; its batch norms stay in eval mode."""
    embeddings = embed(network, spec, training_set.pixels, training_set.rows, train)
    given_labels = loss_kind(spec.multi_label).hard_labels(training_set.labels).copy()
    if training_set.pseudo is not None:
        given_labels[training_set.pseudo] = -1
    head, _ = fit_head(
        embeddings,
        training_set.labels,
        len(spec.classes),
        spec.multi_label,
        given_labels,
    )
    network = with_head(network, head).train()
    for module in network.modules():
        if getattr(module, "track_running_stats", False):
            module.eval()
    return network


def _not_finite(problem: str, train: Train) -> UserError:
    return UserError(f"{problem}; lower train.lr={train.lr:g} or set train.amp_dtype=fp32")
