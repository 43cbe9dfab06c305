"""A network in training on the disk, so that a process that is killed loses seconds of it, and no byte changes."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import Any

import torch

from ..config.keys import Train
from ..system.distributed import ALONE, ProcessGroup
from ..system.files import atomic_write

log = logging.getLogger("kit")
SHARE = 50
"""A checkpoint is written at most once in so many times of what the last one took: 2 % of the time of training."""


class Checkpoints:
    """Those of one network, checkpoint_<steps>.pt in its folder; without a folder there are none.

    key: of all that the training depends on; a checkpoint of another key is none of ours. What is written are parts
    with state_dict and load_state_dict (weights, optimizer, schedule, averages, loss curve) and the random numbers;
    the order of the data follows from the seed and the step. Of several processes the first process reads and writes;
    the others have the same state but for their random numbers, and take part in all of it but `due`.
    """

    def __init__(self, folder: Path | None, key: str, train: Train, process_group: ProcessGroup = ALONE):
        self._folder, self._key = folder if not process_group.index else None, key
        self._every, self._team = train.checkpoint_every, process_group
        self._next = time.monotonic() + self._every
        self._found = process_group.all(next(filter(None, map(self._read, self._files()[::-1])), None))[0]

    @property
    def step(self) -> int:
        """How many steps are done."""
        return self._found["step"] if self._found else 0

    def restore(self, parts: dict[str, Any]) -> int:
        """Bring the parts, and the random numbers, where the checkpoint has them, if there is one; returns its step."""
        if not self._found:
            return 0
        for name, part in parts.items():
            part.load_state_dict(self._found["parts"][name])
        random, random_cuda = self._found["random"][self._team.index]
        torch.set_rng_state(random)
        if random_cuda is not None:
            torch.cuda.set_rng_state(random_cuda)
        step, self._found = self.step, None  # its tensors are not needed any more
        return step

    def due(self) -> bool:
        return self._folder is not None and time.monotonic() >= self._next

    def save(self, step: int, parts: dict[str, Any]) -> None:
        """Write the state after so many steps, whole or not at all; then older ones go."""
        random = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
        random = self._team.all(random)
        if self._folder is None:
            return
        start = time.monotonic()
        state = {name: part.state_dict() for name, part in parts.items()}
        new, whole = self._folder / f"checkpoint_{step:08d}.pt", io.BytesIO()  # into a full disk torch says nonsense
        torch.save({"key": self._key, "step": step, "parts": state, "random": random}, whole)
        atomic_write(new, whole.getbuffer())
        files = self._files()
        at = files.index(new) + 1  # what is later is of another key, or was not readable
        for old in [*files[: at - 1], *files[at:]]:
            old.unlink()
        end = time.monotonic()
        self._next = end + max(self._every, SHARE * (end - start) if self._every else 0)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint_*.pt")) if self._folder else []

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            found = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:  # cut off or edited: torch raises many types
            log.info(
                f"{file} cannot be read ({type(error).__name__}); this network is trained from an earlier one, "
                "or from its start"
            )
            return None
        return found if found.get("key") == self._key else None


def forget(folder: Path) -> None:
    """Remove the checkpoints of a network that is finished."""
    for file in folder.glob("checkpoint_*.pt"):
        file.unlink()
