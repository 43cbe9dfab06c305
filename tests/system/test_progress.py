"""What a person sees while a run goes on: lines in a log, bars on a terminal; and that no result depends on it."""

import logging
import os
import pty
import re
import sys
import termios
from contextlib import suppress
from threading import Event, Thread

import pytest

from pseudokit.system import progress as progress_module
from pseudokit.system.files import log
from pseudokit.system.progress import Progress

PLAN = {"round_1/fold_0": 10, "student": 30}


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The seconds of the clock."""
    seconds = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
    return seconds


@pytest.fixture
def next_line(monkeypatch):
    """next_line(): waits for a line of which the clock has shown nothing yet."""
    lines, is_there = [], Event()

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
            is_there.set()

    monkeypatch.setattr(progress_module, "SECONDS_PER_LINE", 1e-3)
    handler = Handler()
    log.addHandler(handler)
    monkeypatch.setattr(log, "level", logging.INFO)

    def wait() -> str:
        for _ in range(2):  # the first one may have been begun before
            is_there.clear()
            assert is_there.wait(10)
        return lines[-1]

    yield wait
    log.removeHandler(handler)


def test_a_log_says_stage_network_step_loss_pace_and_the_time_left(now, next_line):
    progress = Progress()
    with progress.shown():
        progress.enter("read")
        with progress.part("decode", 500):
            assert "?" not in next_line(), "what is not known yet is left out"
            now[0] += 10
            progress.advance(200)
            line = next_line()
            assert re.search(r"read.*decode.*200.*500.*00:15 left", line)
        progress.enter("rounds")
        progress.plan = PLAN
        with progress.part("round 1/1 · fold 1", 10, 0, 64, "round_1/fold_0"):
            for step in range(5):
                now[0] += 2
                progress.advance(1, f"step {step + 1} of 10, loss 0.25")
            line = next_line()
            # 5 steps in 10 s: the other 5 and the student's 30 take 70 s
            assert re.search(
                r"rounds.*1 of 2.*01:10 left.*step 5 of 10.*0\.25.*32.*/s.*00:10", line
            )
            with progress.part("predict", 100):
                assert "predict" in next_line(), "the innermost"
            progress.advance(5)
        with progress.part("propagate labels"):
            assert "propagate labels" in next_line(), "also where nothing is counted"


def test_a_run_that_goes_on_counts_the_networks_before_it_and_the_steps_left(now, next_line):
    progress = Progress()
    with progress.shown():
        progress.plan = PLAN
        with progress.part("student", 30, 10, 64, "student"):
            now[0] += 5
            progress.advance(10)
            assert re.search(r"2 of 2.*00:05 left", next_line()), "10 of the 20 steps that are left"


def test_nothing_is_said_outside_of_a_run_or_after_it(next_line):
    progress = Progress()
    with progress.shown():
        next_line()
    heard = Event()
    handler = logging.Handler()
    handler.emit = lambda record: heard.set()
    log.addHandler(handler)
    with progress.part("predict", 3):
        progress.advance(3)
    assert not heard.wait(0.02)
    log.removeHandler(handler)


def screen(text: str) -> list[list[str]]:
    """Every state of the rows of a terminal, as it is after each carriage return."""
    rows, y, x, states = [""], 0, 0, []
    for token in re.findall(r"\x1b\[A|.|\n", text, re.DOTALL):
        if token == "\r":
            states.append([row.rstrip() for row in rows])
            x = 0
        elif token == "\n":
            y += 1
            rows += [""] * (y + 1 - len(rows))
        elif token == "\x1b[A":
            y -= 1
        else:
            rows[y] = rows[y][:x].ljust(x) + token + rows[y][x + 1 :]
            x += 1
    return [*states, [row.rstrip() for row in rows]]


def test_a_terminal_has_two_bars_and_nothing_of_them_is_left(now, monkeypatch):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    printed = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while True:
                printed.append(os.read(master, 4096))

    reader = Thread(target=read)
    reader.start()
    terminal = open(slave, "w", buffering=1)  # noqa: SIM115  closed below
    monkeypatch.setattr(sys, "stdout", terminal)
    handler = logging.StreamHandler(terminal)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(log, "level", logging.INFO)
    progress = Progress()
    with progress.shown():
        progress.enter("rounds")
        progress.plan = PLAN
        with progress.part("fold 1", 10, 0, 64, "round_1/fold_0"):
            for step in range(10):
                now[0] += 1
                progress.advance(1, f"step {step + 1} of 10, loss 0.25")
                if step == 4:
                    log.info("a line of the log")
        log.info("fold 1 is done")
    terminal.close()
    reader.join()
    os.close(master)
    states = screen(b"".join(printed).decode())
    both = r"%.*rounds.*1 of 2.*left to train\n.*%.*fold 1.*step \d of 10.*left"
    assert any(re.search(both, "\n".join(state)) for state in states)
    assert [row for row in states[-1] if row] == ["a line of the log", "fold 1 is done"]
