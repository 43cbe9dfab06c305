"""What a network sees at each step: rows drawn into batches, and their augmented images."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader

from ..config.keys import Train
from ..data.transforms import Spec, build, is_whole_batch, to_device
from .device import pick_device, pick_workers

WEAK_AUGMENT = "gentle"
"""The view whose answer is learned. A stronger or no augmentation was worse (docs/log.md)."""


@dataclass(frozen=True)
class TrainingSet:
    """What is learned: rows of `pixels` (N, H, W, C) uint8 and their labels, for `steps` steps.

    labels: (len(rows),) classes, or (len(rows), K) soft targets; a row that sums to less than 1 weighs less.
    pseudo: (len(rows),) bool, which labels are pseudo-labels; None = none.
    unlabeled: (M,) rows without a label, which the consistency term alone sees.
    teacher_log_probs: (len(unlabeled), K), what out-of-fold teachers predict of them; None = nothing.
    """

    pixels: ndarray
    rows: ndarray
    labels: ndarray
    steps: int
    seed: int
    pseudo: ndarray | None = None
    unlabeled: ndarray | tuple = ()
    teacher_log_probs: ndarray | None = None


def labeled_batches(
    training_set: TrainingSet,
    train: Train,
    size: int,
    start: int = 0,
) -> Iterator:
    """Batches (pixels (B, H, W, C), labels (B,) or (B, K)) on the device, from number `start` on.

    They are drawn from shuffled passes, one after the other. A batch may run over the end of a pass, so that a set
    smaller than a batch still fills it.
    """
    views = _Views(
        training_set.pixels,
        training_set.rows,
        training_set.labels,
        [train.augment],
        size,
        training_set.seed,
    )
    return _load(views, _labeled_positions(training_set, train), start, training_set.steps, train)


def unlabeled_batches(
    training_set: TrainingSet,
    train: Train,
    size: int,
    start: int = 0,
) -> Iterator:
    """Batches (weak views, strong views, teacher_log_probs) of the unlabeled images, see Consistency."""
    rows, log_probs = training_set.unlabeled, training_set.teacher_log_probs
    if log_probs is None:
        log_probs = np.zeros((len(rows), 1), np.float32)
    seed = training_set.seed + 1  # another order than that of the labeled rows
    specs = [WEAK_AUGMENT, train.strong_augment]
    views = _Views(training_set.pixels, rows, log_probs, specs, size, seed)
    images_per_batch = round(train.unlabeled_ratio * train.batch_size)
    positions = _shuffled(len(rows), images_per_batch, seed)
    return _load(views, positions, start, training_set.steps, train)


@dataclass
class _Views:
    """A dataset of torch whose items are whole batches, by (number, positions): augmented images, and their targets.

    There is one view of the images for each augmentation of specs, with a seed of its own. What is drawn depends on
    that seed and on the number of the batch alone.
    """

    pixels: ndarray
    rows: ndarray
    targets: ndarray
    specs: list[Spec]
    size: int
    seed: int
    device: str | torch.device = "cpu"

    def __post_init__(self):
        numbered = enumerate(self.specs, self.seed)
        self.augments = [build(spec, self.size, seed) for seed, spec in numbered]
        self.are_whole_batch = all(is_whole_batch(spec, self.size) for spec in self.specs)

    def __getitem__(self, key: tuple[int, ndarray]) -> list[Tensor]:
        number, positions = key
        images = torch.from_numpy(self.pixels[self.rows[positions]])
        pixels = to_device(images, self.device)
        views = [augment(pixels, number) if augment else pixels for augment in self.augments]
        return [*views, torch.from_numpy(self.targets[positions])]


def _load(
    views: _Views, positions: Iterator[Tensor], start: int, stop: int, train: Train
) -> Iterator:
    """The batches at these positions on the network's device, in order, from number `start` to before `stop`.

    Augmentations of whole batches run on the network's device in this process; those of single images on the CPU, in
    other processes ahead of time (see pick_workers).
    """
    device = pick_device(train.device)
    if views.are_whole_batch:
        views.device = device
    workers = 0 if views.are_whole_batch else pick_workers(train.num_workers, device)
    # Arrays: a thread of torch hands tensors to other processes, and complains aloud where one has died.
    arrays = (batch.numpy() for batch in positions)
    keys = islice(enumerate(arrays), start, stop)
    batches = (views[key] for key in keys)
    if workers:
        batches = DataLoader(
            views,
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # its own, so that dropout does not depend on the number of processes
            pin_memory=device.type == "cuda",
            multiprocessing_context="fork",
        )
    return ([to_device(tensor, device) for tensor in batch] for batch in batches)


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the first one decides what becomes of the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _labeled_positions(training_set: TrainingSet, train: Train) -> Iterator[Tensor]:
    """Positions in training_set.rows of each batch: as they come, or in a fixed ratio of given and pseudo-labels."""
    n, seed, pseudo = len(training_set.rows), training_set.seed, training_set.pseudo
    size, ratio = train.batch_size, train.unlabeled_per_batch
    if ratio is None or pseudo is None or pseudo.all() or not pseudo.any():
        yield from _shuffled(n, size, seed)
    n_given = min(max(round(size / (1 + ratio)), 1), size - 1)
    given = torch.from_numpy(np.flatnonzero(~pseudo))
    others = torch.from_numpy(np.flatnonzero(pseudo))
    given_draws = _shuffled(len(given), n_given, seed)
    other_draws = _shuffled(len(others), size - n_given, seed + 1)
    for given_draw, other_draw in zip(given_draws, other_draws, strict=True):
        yield torch.cat([given[given_draw], others[other_draw]])


def _shuffled(n: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of 0 … n - 1 from shuffled passes."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch_size]
        left = left[batch_size:]
