"""What a network sees at each step: rows drawn into batches, and their augmented images."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..config.keys import Train
from ..data.transforms import Spec, build, is_whole_batch
from .device import pick_device, pick_workers, to_device

WEAK_AUGMENT = "gentle"
"""The view whose answer is learned. A stronger or no augmentation was worse (docs/log.md)."""


@dataclass(frozen=True)
class TrainingSet:
    """What is learned: rows of `pixels` (N, H, W, C) uint8 and their labels, for `steps` steps.

    labels: (len(rows),) class index, or (len(rows), K) soft targets; a row that sums to less than 1 weighs less.
    pseudo: (len(rows),) bool, which labels are pseudo-labels; None = none. pool: rows without a label, which only the
    consistency term sees; said: (len(pool), K) what held-out teachers say of them, log-probabilities; None = nothing.
    names: (N,) of the images, for messages.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    steps: int
    seed: int
    pseudo: np.ndarray | None = None
    pool: np.ndarray | None = None
    said: np.ndarray | None = None
    names: np.ndarray | None = None


def stream(
    training_set: TrainingSet, train: Train, size: int, start: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches (pixels (B, H, W, C), labels (B,)): shuffled passes, one after the other.

    Batches run over the end of a pass, so that a set smaller than a batch still fills it. start: number of the first
    batch.
    """
    rows, labels = (torch.from_numpy(a) for a in (training_set.rows, training_set.labels))
    device, workers = _place((train.augment,), size, train)
    draw = _views_of(training_set, (train.augment,), size, training_set.seed, device)
    batches = islice(enumerate(_batches(training_set, train)), start, None)
    return _made(lambda number, at: (*draw(number, rows[at]), labels[at]), batches, workers)


def names_of_batch(training_set: TrainingSet, train: Train, number: int) -> list[str]:
    """What is in a batch of the stream."""
    at = next(islice(_batches(training_set, train), number, None)).numpy()
    return [str(row if training_set.names is None else training_set.names[row]) for row in training_set.rows[at]]


def views(
    training_set: TrainingSet, train: Train, size: int, start: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Endless (weak, strong) views of batches of the pool from number `start` on, and what teachers say of them."""
    said = np.zeros((len(training_set.pool), 1), np.float32) if training_set.said is None else training_set.said
    pool, said = (torch.from_numpy(a) for a in (training_set.pool, said))
    specs = (WEAK_AUGMENT, train.strong_augment)
    device, workers = _place(specs, size, train)
    draw = _views_of(training_set, specs, size, training_set.seed + 1, device)
    batches = _positions(len(pool), round(train.unlabeled_ratio * train.batch_size), training_set.seed + 1)
    batches = islice(enumerate(batches), start, None)
    return _made(lambda number, at: (*draw(number, pool[at]), said[at]), batches, workers)


def _views_of(
    training_set: TrainingSet, specs: tuple[Spec, ...], size: int, seed: int, device: torch.device
) -> Callable:
    """draw(number of the batch, rows) → their augmented images, once for every spec."""
    images = torch.from_numpy(training_set.pixels)
    augments = [build(spec, size, seed + i) for i, spec in enumerate(specs)]

    def draw(number: int, rows: torch.Tensor) -> list[torch.Tensor]:
        pixels = to_device(images[rows], device)
        return [augment(pixels, number) if augment else pixels for augment in augments]

    return draw


def _place(specs: tuple[Spec, ...], size: int, train: Train) -> tuple[torch.device, int]:
    """Where views are made: on the network's device by this process; or, image by image, on the CPU by (0: this, else
    so many) others."""
    device = pick_device(train.device)
    if all(is_whole_batch(spec, size) for spec in specs):
        return device, 0
    return torch.device("cpu"), pick_workers(train.num_workers, device)


def _made(make: Callable, batches: Iterable[tuple[int, torch.Tensor]], workers: int) -> Iterator:
    """make(number, positions) of each of these batches, in order; by other processes ahead of time.

    What is drawn depends on the number of the batch alone, so that any number of processes makes the same.
    """
    if not workers:
        return (make(number, at) for number, at in batches)
    own = torch.Generator()  # the loader draws from it, so that no dropout hangs on whether there is a loader
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        worker_init_fn=_outlive,
        generator=own,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="fork",
    )
    return iter(loader)


def _outlive(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the first one decides what becomes of the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class _Made(Dataset):
    make: Callable

    def __getitem__(self, numbered: tuple[int, torch.Tensor]):
        return self.make(*numbered)


def _batches(training_set: TrainingSet, train: Train) -> Iterator[torch.Tensor]:
    """Positions in training_set.rows: as they come, or with a fixed share of given labels in each batch."""
    pseudo = np.zeros(len(training_set.rows), bool) if training_set.pseudo is None else training_set.pseudo
    if pseudo.all() or not pseudo.any() or not train.min_labeled_fraction:
        yield from _positions(len(training_set.rows), train.batch_size, training_set.seed)
    kinds = [torch.from_numpy(np.flatnonzero(kind)) for kind in (~pseudo, pseudo)]
    n = math.ceil(max(train.min_labeled_fraction, 1 - pseudo.mean()) * train.batch_size)
    mixed = [
        _positions(len(at), size, training_set.seed + i)
        for i, (at, size) in enumerate(zip(kinds, (n, train.batch_size - n), strict=True))
    ]
    while True:
        yield torch.cat([at[next(positions)] for at, positions in zip(kinds, mixed, strict=True)])


def _positions(n: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    assert n, "there is no row to be drawn"
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch]
        left = left[batch:]
