"""Processes that start at once: forks of one that has the large packages loaded, which takes a cold one seconds.

Each is a process of its own, with its own arguments, output and end, and can be killed; only the imports are shared.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "pseudokit.cli",
        "pseudokit.pipeline",
        "pseudokit.report.label_studio",
        "pseudokit.report.report",
        "pseudokit.report.review",
        "pseudokit.report.tracking",
        "pseudokit.run_folder.predict_runs",
        "pseudokit.run_folder.preflight",
        "pseudokit.run_folder.reselect",
        "albumentations",
        "matplotlib.pyplot",
        "sklearn.linear_model",
        "timm",
        "torch.distributed.launcher.api",
        "tests.warm",
    ]
)


class Script:
    """`python ARGS` at the root of the kit, started: a script, or -m and a module. more: environment variables."""

    def __init__(self, *args, **more: str):
        self.args = [str(arg) for arg in args]
        self._said = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115  open as long as this is
        told = self.args, os.environ | more, [file.name for file in self._said]
        self.process = FORKED.Process(target=_play, args=told)
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.exitcode

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Its exit code and what it said, once it has ended; in time, or it is killed."""
        self.process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        out, err = (file.read().decode() for file in self._said)
        return subprocess.CompletedProcess(self.args, self.poll(), out, err)

    def kill(self) -> int:
        """SIGKILL; returns the exit code."""
        self.process.kill()
        self.process.join()
        return self.poll()


def _play(args: list[str], environment: dict[str, str], said: list[str]) -> None:
    for descriptor, name in enumerate(said, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    try:
        if args[0] == "-m":
            sys.argv = args[1:]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = args
            sys.path.insert(0, str((ROOT / args[0]).parent))
            runpy.run_path(args[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # as at the end of any process, but not of one that multiprocessing has made
