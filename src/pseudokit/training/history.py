"""The loss curve of a network in training, history.csv, and progress bars."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..system.distributed import rank

ROWS_PER_CURVE = 20
"""About as many points as a loss curve needs."""
COLUMNS = ["epoch", "loss", "lr", "seconds", "waited", "skipped"]


@dataclass
class TrainingHistory:
    """Mean losses (the device is waited for once a row, not at every step), and how long training waited for images.

    steps: how many there will be. bar: a tqdm bar, moved by one a step. skipped: steps that were left out;
    skipped_in_a_row: how many up to the last one.
    """

    steps: int
    bar: Any = None
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    rows: list[tuple] = field(default_factory=list)
    waited: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    start: float = field(default_factory=time.monotonic)

    def add(self, loss: Tensor, lr: float, is_finite: bool) -> None:
        """Note one step. is_finite: whether the weights moved by it."""
        self.step += 1
        if is_finite:
            self.losses.append(loss)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        if self.bar is not None:
            self.bar.update(1)
        steps_per_row = max(1, self.steps // ROWS_PER_CURVE)
        if self.step % steps_per_row == 0 or self.step == self.steps:
            loss = torch.stack(self.losses).mean().item() if self.losses else math.nan
            seconds = round(time.monotonic() - self.start, 3)
            waited = round(self.waited, 3)
            self.rows.append((self.step, loss, lr, seconds, waited, self.skipped))
            self.losses = []

    def timed(self, batches: Iterator) -> Iterator:
        """The same batches; the time that each takes to come is counted."""
        while True:
            start = time.monotonic()
            batch = next(batches)
            self.waited += time.monotonic() - start
            yield batch

    def table(self, epochs_per_step: float) -> pd.DataFrame:
        """history.csv: one row for about every twentieth of the steps."""
        table = pd.DataFrame(self.rows, columns=COLUMNS)
        table["epoch"] = (table.epoch * epochs_per_step).round(3)
        return table

    def state_dict(self) -> dict:
        """What a checkpoint keeps; of the start, how long ago it was."""
        seconds = time.monotonic() - self.start
        return vars(self) | {"bar": None, "start": seconds}

    def load_state_dict(self, state: dict) -> None:
        """Go on where a checkpoint ends."""
        start = time.monotonic() - state["start"]
        vars(self).update(state | {"bar": self.bar, "start": start})
        if self.bar is not None:
            self.bar.update(self.step)


def progress_bar(total: int, title: str):
    """A tqdm bar on a terminal or in a notebook; it shows nothing elsewhere, and in other processes of torchrun."""
    from tqdm.auto import tqdm

    unless_terminal = None
    return tqdm(
        total=total,
        desc=title,
        disable=True if rank() else unless_terminal,
        leave=False,
    )
