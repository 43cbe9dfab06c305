"""How a process ends: by a signal, by a fault of the machine, by one of ours."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from pseudokit.cli import main
from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import Run
from pseudokit.system.faults import SAME_SIGNAL_SECONDS, OnSignal, fault
from pseudokit.system.files import log, logged, read_json
from tests.conftest import ROOT, run_script
from tests.training.test_checkpoint import learn

WAIT = """
import os, signal
from contextlib import nullcontext
from pseudokit.cli import main
from pseudokit.system import faults

signals, written_by_signals = os.pipe()
os.set_blocking(written_by_signals, False)
signal.set_wakeup_fd(written_by_signals)
faults.SAME_SIGNAL_SECONDS = 0

def work():
    with faults.finishing() if {busy} else nullcontext():
        for _ in range({times}):
            print("ready", flush=True)
            os.read(signals, 1)

main(work)
"""
"""It waits for signals, that many, inside a block that the first does not interrupt, or outside of one."""


def signalled(number: int, busy: bool = True, times: int = 1) -> tuple[int, str]:
    """Exit code and stderr of a process that gets a signal whenever it is ready for one."""
    command = [sys.executable, "-c", WAIT.format(busy=busy, times=times)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(times):
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
        stderr = process.communicate(timeout=20)[1]
    return process.returncode, stderr


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code_and_says_how_to_go_on(number, code, busy):
    ended, error_text = signalled(number, busy)
    assert ended == code
    assert error_text.count("\n") == 1
    assert number.name in error_text


def test_a_second_signal_ends_it_at_once():
    assert signalled(signal.SIGINT, times=2) == (130, "")


def test_a_signal_that_comes_twice_in_a_moment_is_one(monkeypatch):
    """`timeout` and torchrun send each of theirs twice."""
    now, exit_codes = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "_exit", exit_codes.append)
    handler = OnSignal(is_busy=True)
    for seconds in (0, SAME_SIGNAL_SECONDS):
        now[0] += seconds
        handler(signal.SIGTERM, None)
    assert exit_codes == []
    now[0] += 0.01
    handler(signal.SIGTERM, None)
    assert exit_codes == [143]


FAULTS = {
    "disk": (OSError(errno.ENOSPC, "No space left on device", "runs/x/oof.csv"), "runs/x/oof.csv"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "runs/x/a"), "runs/x/a"),
    "vanished": (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.npy"), "a.npy"),
    "memory": (MemoryError(), "memory"),
    "torch": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] can't allocate memory: you tried"),
        "train.batch_size",
    ),
    "gpu": (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), "train.batch_size"),
    "gloo": (
        RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1"),
        "torchrun",
    ),
    "worker": (EOFError(), "train.num_workers=0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_the_machine_refuses_is_one_line_and_code_1(name, capsys, tmp_path):
    error, named = FAULTS[name]

    def broken():
        with Run(tmp_path, "joint", None).stage("rounds"):
            raise error

    with pytest.raises(SystemExit) as ended:
        main(broken)
    assert ended.value.code == 1
    error_text = capsys.readouterr().err
    assert error_text.count("\n") == 1
    assert named in error_text
    assert (
        read_json(tmp_path / "status.json")["reason"] == error_text.removeprefix("error: ").strip()
    )


def test_other_errors_are_not_explained_away():
    assert fault(ValueError("x")) is None
    assert fault(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert fault(UserError("a.csv is gone")) is None


MURDER = """
import multiprocessing, os, sys
from pathlib import Path
from pseudokit.cli import main
from tests.training.test_checkpoint import Bar, learn
class Murder(Bar):
    def update(self, steps):
        self.at -= steps
        if self.at == 0:
            os.kill(multiprocessing.active_children()[0].pid, 9)
main(lambda: learn(Path(sys.argv[1]), {"augment": "small", "num_workers": 1}, Murder(3)))
"""


def test_a_data_worker_that_dies_is_named_and_the_training_goes_on_from_its_checkpoint(tmp_path):
    (tmp_path / "murder.py").write_text(MURDER)
    done = run_script(tmp_path / "murder.py", tmp_path)
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "train.num_workers=0" in line
    assert (tmp_path / "checkpoint.pt").exists()
    alone = {"augment": "small", "num_workers": 0}
    assert learn(tmp_path, alone)[0] == learn(None, alone)[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_log_that_cannot_be_written_is_no_reason_to_stop(tmp_path, capsys):
    os.symlink("/dev/full", tmp_path / "log.txt")
    level = log.level
    log.setLevel(logging.INFO)
    try:
        with logged(tmp_path / "log.txt"):
            log.info("a line")
    finally:
        log.setLevel(level)
    assert capsys.readouterr().err == ""


def test_the_log_keeps_the_traceback_of_which_the_terminal_shows_one_line(tmp_path):
    with pytest.raises(MemoryError), logged(tmp_path / "log.txt"):
        raise MemoryError
    assert "test_faults.py" in (tmp_path / "log.txt").read_text()
