"""The loss curve of a network in training: history.csv."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pandas as pd
import torch

HISTORY_ROWS = 20  # about as many points as a loss curve needs


class TrainingHistory:
    """Mean losses, without a wait for the device at every step, and how long the network waited for images.

    lost: how many steps in a row, up to the last one, were left out.
    """

    def __init__(self, steps: int, bar):
        self._waited, self._skipped, self.lost = 0.0, 0, 0
        self._every, self._steps, self._bar = max(1, steps // HISTORY_ROWS), steps, bar
        self._step, self._losses, self._rows, self._start = 0, [], [], time.monotonic()

    def add(self, loss: torch.Tensor, lr: float, finite: bool) -> None:
        self._step += 1
        self._losses += [loss] if finite else []
        self.lost = 0 if finite else self.lost + 1
        self._skipped += not finite
        if self._bar is not None:
            self._bar.update(1)
        if self._step % self._every == 0 or self._step == self._steps:
            mean = torch.stack(self._losses).mean().item() if self._losses else math.nan
            seconds = time.monotonic() - self._start
            self._rows.append((self._step, mean, lr, round(seconds, 3), round(self._waited, 3), self._skipped))
            self._losses = []

    def waited_for(self, batches: Iterator) -> Iterator:
        while True:
            start = time.monotonic()
            batch = next(batches)
            self._waited += time.monotonic() - start
            yield batch

    def table(self, epochs_a_step: float) -> pd.DataFrame:
        rows = pd.DataFrame(self._rows, columns=["epoch", "loss", "lr", "seconds", "waited", "skipped"])
        return rows.assign(epoch=(rows.epoch * epochs_a_step).round(3))

    def state_dict(self) -> dict:
        return {
            "step": self._step,
            "losses": self._losses,
            "rows": self._rows,
            "waited": self._waited,
            "skipped": self._skipped,
            "lost": self.lost,
            "seconds": time.monotonic() - self._start,
        }

    def load_state_dict(self, state: dict) -> None:
        self._step, self._losses, self._rows, self._waited = (state[k] for k in ("step", "losses", "rows", "waited"))
        self._skipped, self.lost = state["skipped"], state["lost"]
        self._start = time.monotonic() - state["seconds"]
        if self._bar is not None:
            self._bar.update(self._step)
