"""Processes that start at once: forks of one that has the large packages loaded, which takes a cold one seconds.

Each is a process of its own, with its own arguments, output and end, and can be killed; only the imports are shared.
"""

import atexit
import ctypes
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "pseudokit.cli",
        "pseudokit.pipeline",
        "pseudokit.report.label_studio",
        "pseudokit.report.pictures",
        "pseudokit.report.report",
        "pseudokit.report.review",
        "pseudokit.report.tracking",
        "pseudokit.run_folder.predict_runs",
        "pseudokit.run_folder.preflight",
        "pseudokit.run_folder.reselect",
        "albumentations",
        "jinja2",
        "matplotlib.pyplot",
        "narwhals._pandas_like.dataframe",
        "PIL.JpegImagePlugin",
        "pandas.io.formats.html",
        "pyarrow.pandas_compat",
        "sklearn.linear_model",
        "timm.optim",
        "torch.distributed.launcher.api",
        "tests.warm",
    ]
)


class Script:
    """`python ARGS` at the root of the kit, started: a script, -m and a module, or -c and code.

    pause_at: a file. When the process has put it in place for the first time, it waits; see `until_paused`.
    host: the network namespace that it runs in.
    more: environment variables.
    """

    def __init__(self, *args, pause_at: Path | None = None, host: str = "", **more: str):
        self.args = [str(arg) for arg in args]
        self._outputs = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115  open as long as this is
        self._pause, theirs = FORKED.Pipe()
        arguments = (
            self.args,
            os.environ | more,
            [file.name for file in self._outputs],
            pause_at,
            theirs,
            host,
        )
        self.process = FORKED.Process(target=_play, args=arguments)
        self.process.start()
        theirs.close()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.exitcode

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Its exit code and what it printed, once it has ended; in time, or it is killed."""
        self.process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        out, err = (Path(file.name).read_text() for file in self._outputs)
        return subprocess.CompletedProcess(self.args, self.poll(), out, err)

    def until_paused(self, timeout: float = 300) -> None:
        """Wait until it waits behind its file.

        Raises:
            EOFError: it ended without such a file.
        """
        if not self._pause.poll(timeout):
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout)
        self._pause.recv()

    def go_on(self) -> None:
        """End its pause."""
        self._pause.send("go on")

    def kill(self) -> int:
        """SIGKILL; returns the exit code."""
        self.process.kill()
        self.process.join()
        return self.poll()


def kill_behind(file: Path, command: list) -> int:
    """Start the script, and SIGKILL it when it has put this file in place. Returns its process id."""
    script = Script(*command, pause_at=file)
    script.until_paused()
    assert script.kill() == -signal.SIGKILL
    return script.pid


def _play(
    args: list[str],
    environment: dict[str, str],
    outputs: list[str],
    pause_at: Path | None,
    pause: Connection,
    host: str,
) -> None:
    gc.freeze()  # what it inherits is not looked through again and again
    if host:
        with open(f"/run/netns/{host}") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0
    if pause_at:
        _pause_once(pause_at, pause)
    for descriptor, name in enumerate(outputs, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    try:
        if args[0] == "-m":
            sys.argv = args[1:]
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        elif args[0] == "-c":
            sys.argv = ["-c", *args[2:]]
            exec(args[1], {"__name__": "__main__"})
        else:
            sys.argv = args
            sys.path.insert(0, str((ROOT / args[0]).parent))
            runpy.run_path(args[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # as at the end of any process, but not of one that multiprocessing has made


def _pause_once(file: Path, pause: Connection) -> None:
    """Wait for a word of the parent behind the first os.replace to this file. So all files of the kit are written."""
    replace = os.replace

    def replace_and_pause(source, target):
        replace(source, target)
        if Path(target) == file:
            os.replace = replace
            pause.send(str(target))
            pause.recv()

    os.replace = replace_and_pause
