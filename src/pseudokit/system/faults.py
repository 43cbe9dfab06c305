"""How a process holds a run folder, and how it ends: by a signal, or by a fault of the machine."""

import errno
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..config.types import UserError
from .files import read_json, write_json

SAME_SIGNAL_SECONDS = 0.25
"""A second signal within this time is the first one again: `timeout` and torchrun send each of theirs twice."""
LOCK_WAIT_SECONDS = 10.0
"""The data workers of a process that died hold its lock until they notice; they look every five seconds."""
BROKEN_PIPE = (ConnectionError, EOFError)
"""Raised when the other end of a pipe is a data worker that has died."""


# ---- signals


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; args[0] is its number."""

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name


@dataclass
class OnSignal:
    """The handler of SIGINT and SIGTERM. The first signal ends the process in good order, a second one at once."""

    is_busy: bool = False
    number: int = 0
    received_at: float = 0.0

    def __call__(self, number: int, frame) -> None:
        if self.number:
            if time.monotonic() - self.received_at > SAME_SIGNAL_SECONDS:
                os._exit(128 + number)
            return
        self.number = number
        self.received_at = time.monotonic()
        if not self.is_busy:
            raise Interrupted(number)


def handle_signals() -> None:
    """From here on SIGINT and SIGTERM end the process in good order."""
    handler = OnSignal()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a job in the background ignores them
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[Callable[[], int]]:
    """A block that the first signal does not interrupt.

    Yields:
        A function that returns the number of the signal that was received, 0 if there was none.

    Raises:
        Interrupted: at the end of the block, if a signal was received.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not isinstance(handler, OnSignal):  # a notebook or a test has handlers of its own
        yield lambda: 0
        return
    handler.is_busy = True
    try:
        yield lambda: handler.number
    except (RuntimeError, *BROKEN_PIPE):
        if hasattr(signal, "SIGCHLD"):  # torch reports a dead data worker again and again
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not handler.number:  # otherwise the same signal ended the worker
            raise
    finally:
        handler.is_busy = False
    if handler.number:
        raise Interrupted(handler.number)


# ---- faults of the machine

HOW_TO_GO_ON = "what is finished is kept, and the same command goes on from here"
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make it writable",
    errno.ENOENT: "bring it back",
}
MEMORY_FULL = (
    "the memory is full; end what else uses it, or take a smaller train.batch_size (or more parts of it, "
    "train.accumulate) or data.size"
)
WORKER_DIED = (
    "a process that augments images died, often for want of memory or of /dev/shm; "
    "train.num_workers=0 does without, to the same bytes"
)
PEER_DIED = "another process of torchrun died"
TORCH_ERRORS = {
    "out of memory": MEMORY_FULL,
    "allocate memory": MEMORY_FULL,
    "DataLoader worker": WORKER_DIED,
    "Connection closed": PEER_DIED,
    "Connection reset": PEER_DIED,
}
"""Words in a RuntimeError of torch, and what they mean."""


def fault(error: BaseException) -> str | None:
    """What the machine refused, in one line with its remedy; None for any other error."""
    reason = None
    if isinstance(error, BROKEN_PIPE):
        reason = WORKER_DIED
    elif isinstance(error, OSError):
        file = error.filename2 or error.filename or "a file"
        reason = f"{file}: {error.strerror or error}"
        if error.errno in REMEDIES:
            reason += f"; {REMEDIES[error.errno]}"
    elif isinstance(error, MemoryError):
        reason = MEMORY_FULL
    elif isinstance(error, RuntimeError):
        meanings = [meaning for words, meaning in TORCH_ERRORS.items() if words in str(error)]
        reason = next(iter(meanings), None)
    return reason and f"{reason}; {HOW_TO_GO_ON}"


# ---- one process a run folder


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Make the folder and hold it for this process; the operating system lets go when the process dies.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, holder_file = FileLock(path / ".lock"), path / ".holder"
    try:
        path.mkdir(parents=True, exist_ok=True)
        has_died = _has_died(_read_holder(holder_file))
        lock.acquire(timeout=LOCK_WAIT_SECONDS if has_died else 0)
        holder = {
            "pid": os.getpid(),
            "host": platform.node(),
            "command": " ".join(sys.argv),
        }
        write_json(holder_file, holder)
    except Timeout:
        holder = _read_holder(holder_file)
        who = " ({pid} on {host}: {command})".format(**holder) if holder else ""
        raise UserError(
            f"run folder {path} is in use by another process{who}; wait for it or choose another name="
        ) from None
    except OSError as error:
        lock.release()
        raise UserError(
            f"run folder {path} cannot be written ({error.strerror}); choose another out="
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):
            holder_file.unlink()
        lock.release()


def _read_holder(file: Path) -> dict:
    with suppress(OSError, UserError):
        return read_json(file, "pid", "host", "command")
    return {}


def _has_died(holder: dict) -> bool:
    """Whether the process that wrote the file is gone; on another machine, and on Windows, nobody knows."""
    if holder.get("host") != platform.node() or os.name == "nt":
        return False
    try:
        os.kill(holder["pid"], 0)  # sends nothing
    except OSError as error:
        return error.errno == errno.ESRCH  # no such process
    return False
