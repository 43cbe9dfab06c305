"""How a process holds a run folder, and how it ends: by a signal, or by a fault of the machine."""

from __future__ import annotations

import errno
import json
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

TWICE = 0.25
"""Seconds in which a second signal is the same one: `timeout` and torchrun send each of theirs twice."""
ORPHANS = 15.0
"""Seconds that the data workers of a process that died may still hold its lock; they look for it every five."""
BROKEN_PIPE = (ConnectionError, EOFError)
"""What is raised where the other end is a data worker that has died."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; args[0] is its number."""

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name


@dataclass
class OnSignal:
    """The handler of SIGINT and SIGTERM: the first ends the process in good order, a second one at once."""

    busy: bool = False
    asked: int = 0
    since: float = 0.0

    def __call__(self, number: int, frame) -> None:
        if self.asked:
            if time.monotonic() - self.since > TWICE:
                os._exit(128 + number)
            return
        self.asked, self.since = number, time.monotonic()
        if not self.busy:
            raise Interrupted(number)


def handle_signals() -> None:
    handler = OnSignal()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[Callable[[], int]]:
    """Within, a first signal cuts nothing in two: asked() tells its number, 0 without one.

    Raises:
        Interrupted: at the end of the block, where nobody has asked since.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not isinstance(handler, OnSignal):  # a notebook, a test: theirs stay
        yield lambda: 0
        return
    handler.busy = True
    try:
        yield lambda: handler.asked
    except (RuntimeError, *BROKEN_PIPE):
        if hasattr(signal, "SIGCHLD"):  # torch tells of a dead data worker again and again
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not handler.asked:  # else it was the same signal that ended it
            raise
    finally:
        handler.busy = False
    if handler.asked:
        raise Interrupted(handler.asked)


GOES_ON = "what is finished is kept, and the same command goes on from here"
REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make it writable",
    errno.ENOENT: "bring it back",
}
MEMORY = "the memory is full; end what else uses it, or take a smaller train.batch_size or data.size"
OF_TORCH = {
    "out of memory": MEMORY,
    "allocate memory": MEMORY,
    "DataLoader worker": "a process that augments images died, often for want of memory or of /dev/shm; "
    "train.num_workers=0 does without, to the same bytes",
    "Connection closed": "another process of torchrun died",
    "Connection reset": "another process of torchrun died",
}
"""What torch says in its errors, and what that means."""


def fault(error: BaseException) -> str | None:
    """What the machine refused, in one line with its remedy; None where the error is another."""
    if isinstance(error, UserError):
        return None
    if isinstance(error, OSError) and not isinstance(error, BROKEN_PIPE):
        what = f"{error.filename2 or error.filename or 'a file'}: {error.strerror or error}"
        remedy = REMEDIES.get(error.errno)
        return "; ".join(filter(None, [what, remedy, GOES_ON]))
    said = {MemoryError: "out of memory", RuntimeError: str(error)} | dict.fromkeys(BROKEN_PIPE, "DataLoader worker")
    said = next((text for kind, text in said.items() if isinstance(error, kind)), "")
    meaning = next((meaning for sign, meaning in OF_TORCH.items() if sign in said), None)
    return meaning and f"{meaning}; {GOES_ON}"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the folder for this process; the operating system lets go when the process dies.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock, holder = FileLock(path / ".lock"), path / ".holder"
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            lock.acquire(timeout=0 if _lives(_read(holder)) else ORPHANS)
        part = path / ".holder.part"
        part.write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "command": sys.argv}))
        os.replace(part, holder)
    except Timeout:
        raise UserError(
            f"run folder {path} is in use by another process{_who(_read(holder))}; wait for it or choose another name="
        ) from None
    except OSError as error:
        lock.release()
        raise UserError(f"run folder {path} cannot be written ({error.strerror}); choose another out=") from None
    try:
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _read(holder: Path) -> dict:
    try:
        return json.loads(holder.read_text())
    except (OSError, ValueError):
        return {}


def _who(about: dict) -> str:
    return f" ({about['pid']} on {about['host']}: {' '.join(about['command'])})" if about else ""


def _lives(about: dict) -> bool:
    """Whether that process may still be there: of another machine nobody knows."""
    if not about or about["host"] != platform.node() or os.name == "nt":  # where os.kill(…, 0) is no question
        return True
    try:
        os.kill(about["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
