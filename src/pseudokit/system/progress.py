"""How far a run is, while it runs: two bars on a terminal, elsewhere a line in the log every 15 seconds."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from threading import Event, Thread

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .distributed import size
from .files import log

SECONDS_PER_LINE = 15.0
"""The log of a night has two thousand lines then."""
SECONDS_PER_REFRESH = 1.0
"""Of a bar to which nothing is reported."""
BAR_FORMAT = "{percentage:3.0f}% |{bar:12}| "
RUN_LINE = "{desc}{postfix}, {elapsed} so far, {remaining} left to train"
"""Scores and pages come after that: in the demo, 5 of 40 seconds."""
STEPS_LINE = "{desc}{postfix}, {rate_noinv_fmt}, {remaining} left"
IMAGES_LINE = "{desc}, {n_fmt} of {total_fmt} images, {rate_noinv_fmt}, {remaining} left"


class Bar(tqdm):
    """Without tqdm's own thread, which cannot be started where a process ends, and without what is not known yet."""

    monitor_interval = 0

    def __str__(self) -> str:
        return re.sub(r", [^,|]*\?[^,|]*", "", super().__str__())


class Progress:
    """What everything reports to. Nothing is shown outside of `shown`.

    plan: steps of every network of the run by its folder, in the order of their training.
    """

    def __init__(self):
        self.plan: dict[str, int] = {}
        self._file = None
        self._run = self._bar("")
        self._parts: list[tuple[Bar, bool]] = []  # the innermost last

    def enter(self, stage: str) -> None:
        """A stage of the run begins."""
        self._run.desc = stage

    @contextmanager
    def part(
        self,
        title: str,
        total: int | None = None,
        done: int = 0,
        batch_size: int = 0,
        where: str = "",
    ) -> Iterator[None]:
        """A block that calls `advance` up to `total`: for each image, or for each step of `batch_size` images.

        where: the folder of the network that is trained.
        """
        networks = [*self.plan]
        is_network = where in networks
        if is_network:
            if not self._run.n:
                self._run.reset()  # what came before says nothing of the pace
            number = networks.index(where) + 1
            self._run.postfix = f"network {number} of {len(networks)}"
            later = sum(self.plan[name] for name in networks[number:])
            self._run.total = self._run.n + self.plan[where] - done + later / size()
        line = STEPS_LINE if batch_size else IMAGES_LINE
        options = {"position": 1, "unit": " images", "unit_scale": batch_size}
        with self._bar(line, desc=title, total=total, initial=done, **options) as bar:
            self._parts.append((bar, is_network))
            try:
                yield
            finally:
                self._parts.pop()

    def advance(self, n: int = 1, note: str = "") -> None:
        """So many more images or steps of the innermost part are done."""
        for bar, is_network in self._parts[-1:]:
            bar.postfix = note
            # a last batch may have been filled up
            bar.update(min(n, bar.total - bar.n) if bar.total else n)
            self._run.update(n * is_network)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show what a block reports."""
        is_terminal = sys.stdout.isatty()
        stop = Event()
        with (
            logging_redirect_tqdm() if is_terminal else nullcontext(),
            nullcontext(sys.stdout) if is_terminal else open(os.devnull, "w") as self._file,
            self._bar(RUN_LINE, desc="start", smoothing=0) as self._run,
        ):
            thread = Thread(target=self._show, args=[stop, is_terminal], daemon=True)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join(1)  # a process that ends has no other threads to wait for
                self.__init__()

    def _show(self, stop: Event, is_terminal: bool) -> None:
        while not stop.wait(SECONDS_PER_REFRESH if is_terminal else SECONDS_PER_LINE):
            if is_terminal:
                self._run.refresh()
            else:
                bars = [self._run, *(bar for bar, _ in self._parts[-1:])]
                log.info(" | ".join(map(str, bars)))

    def _bar(self, line: str, **options) -> Bar:
        options |= {"file": self._file, "leave": False, "dynamic_ncols": True}
        line = BAR_FORMAT + line if self._file is sys.stdout else line
        return Bar(bar_format=line, disable=self._file is None, **options)


progress = Progress()
"""Of this process."""
