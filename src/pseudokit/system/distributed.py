"""Several processes under torchrun: the first runs the script and writes; the others do the jobs that it hands out.

One process does what it would do alone, so decisions and files do not depend on how many there are.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from ..config.types import UserError
from .files import log
from .memory import note_peak, peak_memory, reset_peak


@dataclass(frozen=True)
class ProcessGroup:
    """Processes that train one network together, each on its part of every batch; by default one process alone."""

    size: int = 1
    index: int = 0
    group: Any = None

    def parts(self, n: int) -> list[slice]:
        """This process's rows of a batch in n parts; alone and in one part all of them."""
        step = n * self.size
        return [slice(start, None, step) for start in range(self.index, step, self.size)]

    def gather(self, value: Any) -> list:
        """The value of each process, in their order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        _join().all_gather_object(values, value, group=self.group)
        return values

    def sum(self, tensors: list) -> None:
        """Replace tensors by their sums over the processes."""
        if self.size == 1:
            return
        import torch

        # One message: one a tensor takes ten times as long for small networks.
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        _join().all_reduce(flat, group=self.group)
        sums = flat.split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view_as(tensor))


ALONE = ProcessGroup()
MAX_WAIT = timedelta(days=30)
"""How long a process waits for another. One that has died is noticed at once, by its closed connection."""


def rank() -> int:
    """Number of this process; 0 runs the script, and is the only one without torchrun."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes work: on one machine no more than it has cores, as more would take turns."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    is_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == str(started)
    return min(started, os.cpu_count()) if is_one_machine else started


def is_surplus() -> bool:
    """Whether this process has nothing to do."""
    return rank() >= size()


def cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()


@cache
def _join():
    """torch.distributed, after this process has joined the others. Jobs travel by gloo, also where GPUs train."""
    import torch
    import torch.distributed as dist

    processes_here = min(size(), int(os.environ.get("LOCAL_WORLD_SIZE", size())))
    if processes_here > 1:
        # torchrun gives each one thread; together they have as many as one alone would
        torch.set_num_threads(max(1, cores() // processes_here))
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    started = os.environ.get("WORLD_SIZE")
    if started != str(size()):
        log.info(f"{started} processes share {size()} cores: {size()} of them work")
    dist.init_process_group("gloo", timeout=MAX_WAIT, rank=rank(), world_size=size())
    return dist


def broadcast(message: Any) -> None:
    """Send a message from the first process to all others, which call `receive`."""
    _join().broadcast_object_list([message], 0)


def receive() -> Any:
    """Wait for the next message of the first process."""
    message = [None]
    _join().broadcast_object_list(message, 0)
    return message[0]


def dismiss() -> None:
    """Called by the first process: end the `worker_loop` of the others, and leave with them."""
    if size() > 1:
        broadcast(None)
        leave()


def leave() -> None:
    """Wait for all processes, then leave: a connection that is closed too early is an error at its other end."""
    _join().barrier()
    _join().destroy_process_group()


def map_jobs(work: Callable, jobs: list) -> Iterator:
    """Hand out jobs to all processes, and yield work(job, the processes that share it) of every job in order.

    Each process takes one job at a time. If there are fewer jobs than processes, several processes share a job. None
    stands for a job that is done already: it yields nothing, but keeps its place, so that a run that goes on shares the
    other jobs as before.

    Raises:
        Exception: what the work raised, in whatever process.
    """
    are_shared = len(jobs) < size()
    for start in range(0, len(jobs), size()):
        wave = jobs[start : start + size()]
        if any(job is not None for job in wave):
            broadcast((wave, are_shared))
            yield from _run_wave(work, wave, are_shared)


def worker_loop(work: Callable) -> None:
    """Take part in all that `map_jobs` of the first process hands out, until `dismiss`."""
    while (message := receive()) is not None:
        _run_wave(work, *message)
        reset_peak()


def _run_wave(work: Callable, jobs: list, are_shared: bool) -> list:
    """Do one job of these. Returns the results of all of them in the first process, [] in the others."""
    number, process_group = _share_of(len(jobs)) if are_shared else (rank(), ALONE)
    outcome = None
    if number < len(jobs) and jobs[number] is not None:
        try:
            outcome = work(jobs[number], process_group)
        except Exception as error:
            if process_group.size > 1 and not isinstance(error, UserError):
                raise  # the others of the group wait for this process: it has to die for them to notice
            outcome = error  # the first process raises it
    if process_group.index > 0:  # of those who share a job, the first sends the result
        outcome = None
    outcomes = [None] * size() if rank() == 0 else None
    _join().gather_object((outcome, peak_memory()), outcomes, 0)
    results = []
    for outcome, peak in outcomes or []:
        note_peak(peak)
        if outcome is not None:
            results.append(outcome)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


@cache
def _share_of(jobs: int) -> tuple[int, ProcessGroup]:
    """Which of fewer jobs than processes this process works on, and with whom."""
    import torch

    members = [[] for _ in range(jobs)]
    for process in range(size()):
        members[process * jobs // size()].append(process)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    group, _ = _join().new_subgroups_by_enumeration(members, backend=backend)
    job = rank() * jobs // size()
    return job, ProcessGroup(len(members[job]), members[job].index(rank()), group)
