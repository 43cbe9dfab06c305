"""The loss curve of a network in training, history.csv, and progress bars."""

import time

import pandas as pd

from ..system.distributed import rank

ROWS_PER_CURVE = 20
"""About as many points as a loss curve needs."""


class TrainingHistory:
    """What every step lost. The time runs from its making on.

    steps: for each its loss (NaN: it was left out), learning rate, and seconds so far.
    """

    def __init__(self):
        self.start = time.monotonic()
        self.steps: list[tuple[float, float, float]] = []

    def add(self, loss: float, lr: float) -> None:
        """Note one step."""
        self.steps.append((loss, lr, time.monotonic() - self.start))

    def table(self, epochs_per_step: float) -> pd.DataFrame:
        """history.csv: one row for about every twentieth of the steps, with the mean loss of those steps."""
        table = pd.DataFrame(self.steps, columns=["loss", "lr", "seconds"])
        table.insert(0, "epoch", (table.index + 1) * epochs_per_step)
        table["skipped"] = table["loss"].isna().cumsum()
        steps_per_row = max(1, len(table) // ROWS_PER_CURVE)
        rows = table.groupby(table.index // steps_per_row)
        curve = rows.tail(1).assign(loss=rows["loss"].mean().to_numpy())
        return curve.round({"epoch": 3, "seconds": 3}).reset_index(drop=True)

    def state_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        """Go on where a checkpoint ends: the time runs on from its last step."""
        self.steps = state["steps"]
        *_, seconds = self.steps[-1]
        self.start = time.monotonic() - seconds


def progress_bar(total: int, title: str, done: int = 0):
    """A tqdm bar on a terminal or in a notebook; it shows nothing elsewhere, and in other processes of torchrun."""
    from tqdm.auto import tqdm

    return tqdm(
        total=total,
        desc=title,
        initial=done,
        disable=True if rank() else None,  # None: unless there is a terminal
        leave=False,
    )
