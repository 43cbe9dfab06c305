"""The curves of a network in training: history.csv, TensorBoard, and what Weights & Biases is sent."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from ..system.files import write_csv

VALIDATIONS = 5
"""Points of the validation curve of a network."""
ROWS_PER_CURVE = 20
"""About as many points as a loss curve needs."""


class TrainingHistory:
    """What every step came to. The time runs from its making on.

    Args:
        validate: the accuracy of a network on validation images; called VALIDATIONS times. n_steps: of the training.
        writer: a SummaryWriter of TensorBoard.
        file: where the table lies while the network is in training, for live curves. epochs_per_step: in that table.

    Attributes:
        steps: for each its loss (NaN: it was left out), learning rate, seconds so far, and accuracy (NaN: not scored).
    """

    def __init__(
        self,
        validate: Callable[[nn.Module], float] = lambda network: math.nan,
        n_steps: int = 1,
        writer: Any = None,
        file: Path | None = None,
        epochs_per_step: float = 1.0,
    ):
        self.validate = validate
        self.steps_per_validation = math.ceil(n_steps / VALIDATIONS)
        self.steps_per_row = math.ceil(n_steps / ROWS_PER_CURVE)
        self.writer = writer
        self.file = file
        self.epochs_per_step = epochs_per_step
        self.start = time.monotonic()
        self.steps: list[tuple[float, ...]] = []

    def add(self, loss: float, lr: float, network: nn.Module) -> None:
        """Note one step, after which the network is as given."""
        number = len(self.steps) + 1
        accuracy = math.nan
        if number % self.steps_per_validation == 0:
            accuracy = self.validate(network)
        self.steps.append((loss, lr, time.monotonic() - self.start, accuracy))
        scalars = {"loss": loss, "lr": lr, "val_accuracy": accuracy} if self.writer else {}
        for name, value in scalars.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, number)
        if self.file and number % self.steps_per_row == 0:
            write_csv(self.file, self.table(self.epochs_per_step))

    def table(self, epochs_per_step: float) -> pd.DataFrame:
        """history.csv: one row for about every twentieth of the steps, with the mean loss of those steps.

        val_accuracy is there if anything was scored.
        """
        table = pd.DataFrame(self.steps, columns=["loss", "lr", "seconds", "val_accuracy"])
        table.insert(0, "epoch", (table.index + 1) * epochs_per_step)
        table["skipped"] = table["loss"].isna().cumsum()
        steps_per_row = max(1, len(table) // ROWS_PER_CURVE)
        rows = table.groupby(table.index // steps_per_row)
        curve = rows.tail(1).assign(
            loss=rows["loss"].mean().to_numpy(),
            val_accuracy=rows["val_accuracy"].last().to_numpy(),
        )
        if table["val_accuracy"].isna().all():
            del curve["val_accuracy"]
        return curve.round({"epoch": 3, "seconds": 3}).reset_index(drop=True)

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        """Go on where a checkpoint ends: the time runs on from its last step."""
        self.steps = state["steps"]
        _, _, seconds, _ = self.steps[-1]
        self.start = time.monotonic() - seconds
