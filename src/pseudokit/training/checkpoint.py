"""A network in training, on disk. A process that is killed loses seconds of it, and no byte of the result changes."""

import io
import time
from pathlib import Path
from typing import Any

import torch

from ..config.keys import Train
from ..system.distributed import ALONE, ProcessGroup
from ..system.files import atomic_write, log
from .device import random_state, set_random_state

FILE = "checkpoint.pt"
MIN_SECONDS_PER_SECOND_OF_WRITING = 50
"""Writing checkpoints takes at most 2 % of the time of training."""


class Checkpoints:
    """The checkpoint of one network: checkpoint.pt in its folder. Without a folder there is none.

    It holds the parts of a training that have a state_dict (weights, optimizer, schedule, averages, loss curve), and
    the state of the random numbers. The order of the data follows from the seed and the step. Of several processes the
    first reads and writes. The others have the same state, but random numbers of their own.

    key: hash of all that the training depends on. A checkpoint of another key is not used.
    """

    def __init__(
        self,
        folder: Path | None,
        key: str,
        train: Train,
        process_group: ProcessGroup = ALONE,
    ):
        self._file = folder / FILE if folder and process_group.index == 0 else None
        self._key = key
        self._process_group = process_group
        self._seconds = train.checkpoint_every
        self._next_time = time.monotonic() + self._seconds
        self._loaded = process_group.gather(self._read())[0]
        self.step = self._loaded["step"] if self._loaded else 0
        """How many steps are done."""

    def restore(self, parts: dict[str, Any]) -> None:
        """Bring the parts and the random numbers to the state of the checkpoint, if there is one."""
        state, self._loaded = self._loaded, None  # frees its tensors
        if not state:
            return
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        set_random_state(state["random"][self._process_group.index])

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self._file is not None and time.monotonic() >= self._next_time

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Write the state after so many steps, whole or not at all."""
        random = self._process_group.gather(random_state())
        if self._file is None:
            return
        start = time.monotonic()
        state = {
            "key": self._key,
            "step": step,
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "random": random,
        }
        buffer = io.BytesIO()  # torch.save to a full disk fails without saying so
        torch.save(state, buffer)
        atomic_write(self._file, buffer.getbuffer())
        end = time.monotonic()
        if self._seconds:
            pause = max(self._seconds, MIN_SECONDS_PER_SECOND_OF_WRITING * (end - start))
            self._next_time = end + pause

    def _read(self) -> dict[str, Any] | None:
        if self._file is None or not self._file.exists():
            return None
        try:
            state = torch.load(self._file, weights_only=True, map_location="cpu")
        except Exception as error:  # cut off or edited: torch raises many types
            log.info(
                f"{self._file} cannot be read ({type(error).__name__}); its network is trained anew"
            )
            return None
        return state if state.get("key") == self._key else None


def forget(folder: Path) -> None:
    """Remove the checkpoint of a network that is finished."""
    (folder / FILE).unlink(missing_ok=True)
