"""The training step, from the images of a batch to the checkpoint, in one loop."""

import math
from dataclasses import replace
from functools import partial
from itertools import repeat

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..config.keys import Train
from ..config.types import UserError
from ..system.distributed import ALONE, ProcessGroup
from ..system.faults import Interrupted, finishing
from ..system.progress import progress
from .batches import TrainingSet, labeled_batches, unlabeled_batches
from .checkpoint import Checkpoints
from .device import Computation, Division, compiled
from .history import TrainingHistory
from .losses import Consistency, make_criterion
from .models import ModelSpec, batch_norms
from .optimizer import make_mixup, make_optimizer, make_schedule

MAX_STATISTICS_IMAGES = 4096
"""Images from which batch-norm statistics are estimated. More change no prediction, and cost time."""
MAX_SKIPPED_STEPS = 20
"""Steps in a row without a finite gradient after which training has failed."""


def step_budget(n: int, train: Train) -> int:
    """Steps for n rows: the epochs, but at least train.min_steps."""
    return max(round(train.epochs * n / train.batch_size), train.min_steps, 1)


def train_model(  # noqa: C901  one visible loop, on purpose
    network: nn.Module,
    spec: ModelSpec,
    training_set: TrainingSet,
    train: Train,
    *,
    process_group: ProcessGroup = ALONE,
    division: Division | None = None,
    saved: Checkpoints | None = None,
    history: TrainingHistory | None = None,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train a fresh network on a training set, to the last step of its schedule.

    Nothing is chosen on the way: no row is held out here, and the last (averaged) weights are the result.

    Args:
        network: as create_model makes it. spec: its size, channels and classes.
        training_set: rows, labels and the number of steps. train: the section `train` of the config.
        process_group: processes that do the same, each on its part of every batch; gradients are summed.
        division: of batches, as networks before have found it; by default that of train.accumulate.
        saved: what a process that was stopped has left of this training. It goes on to the same bytes.
        history: what notes every step.

    Returns:
        The network in eval mode, and its history: epoch, loss, lr, seconds; val_accuracy, see TrainingHistory;
        skipped, how many steps so far were left out because their gradient was not finite.

    Raises:
        UserError: gradients or weights are not finite any more.
        Interrupted: by a signal, after a checkpoint.
    """
    from timm.utils import ModelEmaV3

    history = history or TrainingHistory()
    saved = saved or Checkpoints(None, "", train, process_group)
    computation = Computation(network, spec, train.device, train.amp_dtype)
    device = computation.device
    torch.manual_seed(training_set.seed)  # dropout, drop path, mixup
    network.train()
    if train.linear_probe_first:
        for norm in batch_norms(network):
            norm.eval()  # the head was fitted under the statistics of the pretrained backbone
    forward = partial(computation.run, compiled(network) if train.compile else network)
    criterion = make_criterion(training_set.labels, spec, train).to(device)
    training_set = replace(training_set, labels=criterion.targets(training_set.labels))

    batches = labeled_batches(training_set, train, spec.size, saved.step)
    mix = make_mixup(train, len(spec.classes))
    optimizer = make_optimizer(network, train)
    schedule = make_schedule(optimizer, train, training_set.steps)
    scaler = torch.amp.GradScaler(device.type, enabled=computation.dtype == torch.float16)
    division = division or Division(train.accumulate)
    state = {
        "division": division,
        "network": network,
        "history": history,
        "optimizer": optimizer,
        "schedule": schedule,
        "scaler": scaler,
    }
    consistency = average = None
    unlabeled = repeat(None)
    if train.consistency_weight and len(training_set.unlabeled):
        unlabeled = unlabeled_batches(training_set, train, spec.size, saved.step)
        consistency = Consistency(train.consistency_weight, process_group)
        state["consistency"] = consistency.to(device)
    batches = zip(batches, unlabeled, strict=False)
    if train.ema_decay:
        # The decay is warmed up, so that early weights fade in short trainings, too.
        average = ModelEmaV3(network, decay=train.ema_decay, use_warmup=True)
        state["average"] = average
    saved.restore(state)
    weights = [*network.parameters()]
    # Each part has an image, or two where batch norms take their variance.
    images = 2 if any(norm.training for norm in batch_norms(network)) else 1
    max_parts = max(1, train.batch_size // (images * process_group.size))
    skipped = 0  # steps in a row whose gradient was not finite
    remedy = f"lower train.lr={train.lr:g} or set train.amp_dtype=fp32"

    def forward_backward(pixels: Tensor, labels: Tensor, views: list, n_parts: int) -> Tensor:
        """Set the gradients of a batch, part by part. Nothing of it is left in the memory when it fails."""
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for rows in process_group.parts(n_parts):
            loss = criterion.of_part(forward(pixels[rows]), labels, rows)
            scaler.scale(loss).backward()  # scaled for fp16 alone, which has no small numbers
            total += loss.detach()
        for loss in consistency.losses(forward, views, n_parts) if consistency else ():
            scaler.scale(loss).backward()
            total += loss.detach()
        return total

    with finishing() as asked_to_stop:  # a signal waits for the end of its step
        upcoming = next(batches, None)
        for step in range(saved.step, training_set.steps):
            (pixels, labels), views = upcoming
            attempt = partial(forward_backward, *mix(pixels, labels), views)
            loss = division.fit(attempt, max_parts)
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            process_group.sum([loss, *gradients])
            scaler.unscale_(optimizer)
            total_norm = nn.utils.get_total_norm(gradients)
            measured = torch.stack([total_norm, loss])
            upcoming = next(batches, None)  # while the device computes
            # Both at once: each wait for the device costs time.
            norm, value = measured.tolist()
            is_finite = math.isfinite(norm)
            if norm > (train.clip_grad or math.inf):  # to multiply all by 1 costs time too
                nn.utils.clip_grads_with_norm_(weights, train.clip_grad, total_norm)
            if is_finite or scaler.is_enabled():  # the scaler leaves the step out by itself
                scaler.step(optimizer)
                scaler.update()
            schedule.step()
            if average:
                average.update(network, step + 1)

            lr = optimizer.param_groups[-1]["lr"]
            model = average.module if average else network
            history.add(value if is_finite else math.nan, lr, model)
            progress.advance(1, f"step {step + 1:,} of {training_set.steps:,}, loss {value:.3f}")
            skipped = 0 if is_finite else skipped + 1
            if skipped in (MAX_SKIPPED_STEPS + 1, training_set.steps):
                raise UserError(f"no finite gradient for {skipped} steps; {remedy}")
            # All processes save and stop after the same step.
            of_processes = process_group.gather((asked_to_stop(), saved.is_due()))
            signal, is_due = map(max, zip(*of_processes, strict=True))
            if signal or is_due:
                saved.save(step + 1, state)
            if signal:
                raise Interrupted(signal)
    if not all(weight.isfinite().all() for weight in weights):
        raise UserError(f"no finite weights after the last step; {remedy}")

    network = average.module if average else network
    if not train.linear_probe_first:  # else the head is right under the backbone's own statistics
        part_size = train.batch_size // division.n_parts
        estimate_statistics(network, computation, training_set, part_size)
    return network.eval(), history.table(train.batch_size / len(training_set.rows))


@torch.no_grad()
def estimate_statistics(
    network: nn.Module, computation: Computation, training_set: TrainingSet, batch_size: int
) -> None:
    """Estimate the statistics of batch norms anew, from the network's own training images without augmentation.

    What a training leaves are moving averages: of augmented images, of unlabeled ones that may be foreign to the
    classes, of batches whose step was left out, and after few steps of weights that are gone. Here each image counts
    alike (cumulative average), in a fixed order, so that the same weights get the same bytes.
    """
    norms = batch_norms(network)
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
    # Whole batches, which have equal weights.
    for start in range(0, max(len(rows) - batch_size, 0) + 1, batch_size):
        pixels = training_set.pixels[rows[start : start + batch_size]]
        computation.run(network, torch.from_numpy(pixels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
