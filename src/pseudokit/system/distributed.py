"""Several processes under torchrun: the first runs the script and writes, the others do what it hands out.

One process does as it would alone, so that decisions and files are the same however many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from ..config.types import UserError


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that train one network together, each on its part of every batch."""

    size: int = 1
    index: int = 0
    group: Any = None

    def part(self, batch):
        """Every size-th row of a tensor."""
        return batch[self.index :: self.size]

    def whole(self, part, n: int):
        """The tensor (n,) of which each process has its part."""
        if self.size == 1:
            return part
        full = part.new_zeros(n)
        full[self.index :: self.size] = part
        _group().all_reduce(full, group=self.group)
        return full

    def all(self, value: Any) -> list:
        """What each process says, in the order of the team."""
        if self.size == 1:
            return [value]
        said = [None] * self.size
        _group().all_gather_object(said, value, group=self.group)
        return said

    def most(self, *numbers: int) -> list[int]:
        """Of each number the largest that any of the team has."""
        if self.size == 1:
            return [*numbers]
        import torch

        device = "cuda" if _group().get_backend(self.group) == "nccl" else "cpu"
        largest = torch.tensor(numbers, device=device)
        _group().all_reduce(largest, _group().ReduceOp.MAX, group=self.group)
        return largest.tolist()

    def average(self, tensors: list) -> None:
        """Replace each tensor by its mean over the team; in place."""
        if self.size == 1 or not tensors:
            return
        import torch

        flat = torch.cat([tensor.flatten().float() for tensor in tensors])
        _group().all_reduce(flat, group=self.group)
        for tensor, mean in zip(tensors, flat.div_(self.size).split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))


ALONE = ProcessGroup()
PATIENCE = timedelta(days=30)
"""How long a process waits for another; one that has died is noticed at once, by its closed connection."""


def rank() -> int:
    """Number of this process; 0 runs the script, and is the only one without torchrun."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@cache
def _group():
    """torch.distributed, joined. Objects travel by gloo, whatever the networks are trained on."""
    import torch
    import torch.distributed as dist

    here = int(os.environ.get("LOCAL_WORLD_SIZE", size()))
    if here > 1:  # torchrun gives each one thread; alone on a machine a process has what it would have without
        torch.set_num_threads(max(1, cores() // here))
    if torch.cuda.is_available():  # a GPU for each, as far as there are
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group("gloo", timeout=PATIENCE)
    return dist


def broadcast(message: Any) -> None:
    """From the first process to the others."""
    _group().broadcast_object_list([message], 0)


def receive() -> Any:
    """What the first process tells the others."""
    message = [None]
    _group().broadcast_object_list(message, 0)
    return message[0]


def dismiss() -> None:
    """The first process lets the others end, in good order; see leave."""
    if size() > 1:
        broadcast(None)
        leave()


def leave() -> None:
    """Wait until all have heard that it is over: a connection that is closed too early is an error at its other end."""
    _group().barrier()
    _group().destroy_process_group()


def map_jobs(work: Callable[[Any, ProcessGroup], Any], tasks: list) -> Iterator:
    """work(task, team) of every task, in order, in waves of one a process; the others hear of the tasks, and know the
    work. Where there are more processes than tasks, teams of them share one. None holds the place of a task that has
    been done, so that who works with whom does not depend on it.

    Raises what the work raises, wherever it does.
    """
    for start in range(0, len(tasks), size()):
        wave = tasks[start : start + size()], len(tasks) < size()
        if any(task is not None for task in wave[0]):
            broadcast(wave)
            yield from _gathered(work, *wave)


def worker_loop(work: Callable[[Any, ProcessGroup], Any]) -> None:
    """Take part in every wave that is handed out, until this process is dismissed."""
    while (wave := receive()) is not None:
        _gathered(work, *wave)


def _gathered(work: Callable[[Any, ProcessGroup], Any], tasks: list, in_teams: bool) -> list:
    """What this wave came to, in the first process; [] in the others."""
    turn, process_group = _team(len(tasks)) if in_teams else (rank(), ALONE)
    mine = [_tried(work, task, process_group) for task in tasks[turn : turn + 1] if task is not None]
    found = [None] * size() if rank() == 0 else None
    _group().gather_object(mine if process_group.index == 0 else [], found, 0)
    done = [one for of_rank in found or [] for one in of_rank]
    for _, error in done:
        if error:
            raise error
    return [result for result, _ in done]


@cache
def _team(tasks: int) -> tuple[int, ProcessGroup]:
    """Which of fewer tasks than processes this one works on, and with whom."""
    import torch

    backend, found = "nccl" if torch.cuda.is_available() else "gloo", None
    for turn in range(tasks):
        members = [one for one in range(size()) if one * tasks // size() == turn]
        group = _group().new_group(members, backend=backend)  # every process takes part in making every group
        if rank() in members:
            found = turn, ProcessGroup(len(members), members.index(rank()), group)
    return found


def _tried(
    work: Callable[[Any, ProcessGroup], Any], task: Any, process_group: ProcessGroup
) -> tuple[Any, Exception | None]:
    try:
        return work(task, process_group), None
    except Exception as error:
        if process_group.size > 1 and not isinstance(error, UserError):
            raise  # the rest of the team waits for this process, and would wait for ever
        return None, error  # told to the first process, which ends the run with it
