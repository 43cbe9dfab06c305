"""A network in training, on disk. A process that is killed loses seconds of it, and no byte of the result changes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from ..config.keys import Train
from ..system.distributed import ALONE, ProcessGroup
from ..system.files import atomic_write, log

MIN_SECONDS_PER_SECOND_OF_WRITING = 50
"""Writing checkpoints takes at most 2 % of the time of training."""


class Checkpoints:
    """The checkpoint of one network: checkpoint_<steps>.pt in its folder. Without a folder there is none.

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
        self._folder = folder if process_group.index == 0 else None
        self._key = key
        self._process_group = process_group
        self._seconds = train.checkpoint_every
        self._next_time = time.monotonic() + self._seconds
        self._loaded = process_group.gather(self._read_newest())[0]

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self._loaded["step"] if self._loaded else 0

    def restore(self, parts: dict[str, Any]) -> int:
        """Bring the parts and the random numbers to the state of the checkpoint, if there is one; returns its step."""
        if not self._loaded:
            return 0
        for name, part in parts.items():
            part.load_state_dict(self._loaded["parts"][name])
        random, random_cuda = self._loaded["random"][self._process_group.index]
        torch.set_rng_state(random)
        if random_cuda is not None:
            torch.cuda.set_rng_state(random_cuda)
        step = self.step
        self._loaded = None  # frees its tensors
        return step

    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self._folder is not None and time.monotonic() >= self._next_time

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Write the state after so many steps, whole or not at all; older files go."""
        random_cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        random = self._process_group.gather((torch.get_rng_state(), random_cuda))
        if self._folder is None:
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
        file = self._folder / f"checkpoint_{step:08d}.pt"
        atomic_write(file, buffer.getbuffer())
        forget(self._folder, but=file)
        end = time.monotonic()
        if self._seconds:
            pause = MIN_SECONDS_PER_SECOND_OF_WRITING * (end - start)
            self._next_time = end + max(self._seconds, pause)

    def _read_newest(self) -> dict[str, Any] | None:
        if self._folder is None:
            return None
        for file in sorted(self._folder.glob("checkpoint_*.pt"), reverse=True):
            try:
                state = torch.load(file, weights_only=True, map_location="cpu")
            except Exception as error:  # cut off or edited: torch raises many types
                log.info(
                    f"{file} cannot be read ({type(error).__name__}); its network is trained anew"
                )
                continue
            if state.get("key") == self._key:
                return state
        return None


def forget(folder: Path, but: Path | None = None) -> None:
    """Remove the checkpoints in a folder, but one."""
    for file in folder.glob("checkpoint_*.pt"):
        if file != but:
            file.unlink()
