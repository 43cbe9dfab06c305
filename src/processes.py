"""Several processes under torchrun: the first runs the script and writes, the others do what it hands out.

One process does as it would alone, so that decisions and files are the same however many there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any

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


def tell(message: Any) -> None:
    """From the first process to the others."""
    _group().broadcast_object_list([message], 0)


def hear() -> Any:
    """What the first process tells the others."""
    message = [None]
    _group().broadcast_object_list(message, 0)
    return message[0]


def dismiss() -> None:
    """The first process lets the others end, in good order; see leave."""
    if size() > 1:
        tell(None)
        leave()


def leave() -> None:
    """Wait until all have heard that it is over: a connection that is closed too early is an error at its other end."""
    _group().barrier()
    _group().destroy_process_group()


def each(work: Callable[[Any], Any], tasks: list) -> Iterator:
    """work(task) of every task, in order, in waves of one a process; the others hear of the tasks, and know the work.

    Raises what the work raises, wherever it does.
    """
    for start in range(0, len(tasks), size()):
        wave = tasks[start : start + size()]
        tell(wave)
        yield from _gathered(work, wave)


def follow(work: Callable[[Any], Any]) -> None:
    """Take part in every wave that is handed out, until this process is dismissed."""
    while (wave := hear()) is not None:
        _gathered(work, wave)


def _gathered(work: Callable[[Any], Any], wave: list) -> list:
    """What this wave came to, in the first process; [] in the others."""
    mine = [_tried(work, task) for task in wave[rank() : rank() + 1]]
    found = [None] * size() if rank() == 0 else None
    _group().gather_object(mine, found, 0)
    done = [one for of_rank in found or [] for one in of_rank]
    for _, error in done:
        if error:
            raise error
    return [result for result, _ in done]


def _tried(work: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
    try:
        return work(task), None
    except Exception as error:  # told to the first process, which ends the run with it
        return None, error
