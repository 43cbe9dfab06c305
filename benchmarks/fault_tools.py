"""Small runs of the kit in forked processes, and faults that are injected into them; see faults.py."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from common import ROOT

from tests.same_bytes import contents

MODES = {
    "augment": ["train.mixup=0.2", "train.ema_decay=0.9", "pseudo.cutoff=0.5"],
    "denoise": ["simulate.noise=pairflip", "pseudo.audit_size=20"],
    "joint": ["simulate.noise=symmetric", "train.consistency_weight=1", "pseudo.cutoff=0.5"],
}
SMALL = [
    "train.epochs=0.1",
    "train.min_steps=4",
    "train.batch_size=32",
    "train.amp_dtype=fp32",
    "train.checkpoint_every=0",
]


def make_data(folder: Path) -> list[str]:
    """Real digits as files; returns their data.* arguments."""
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    tables = {"train": range(160), "unlabeled": range(160, 220), "test": range(220, 260)}
    for split, rows in tables.items():
        lines = ["id" if split == "unlabeled" else "id,label"]
        for i in rows:
            cv2.imwrite(
                str(folder / f"{i:04d}.png"),
                cv2.resize((digits.images[i] * 15.9).astype("uint8"), (16, 16)),
            )
            lines.append(f"{i:04d}" if split == "unlabeled" else f"{i:04d},d{digits.target[i]}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return [f"data.{split}={folder / split}.csv" for split in tables] + [
        "data.image_suffix=.png",
        f"data.cache={folder / 'root'}",
    ]


def child(script: str, arguments: list[str], output: Path, fault: Callable = lambda: None) -> int:
    """Fork a process that runs a script of the kit; its output goes to a file. Returns its process id."""
    if number := os.fork():
        return number
    code = 1
    try:
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        os.chdir(ROOT)
        from importlib import import_module

        from pseudokit.cli import main

        run_script = getattr(import_module("pseudokit.cli"), f"{script}_command")
        fault()
        main(lambda: run_script(arguments))
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(number: int) -> int:
    """Its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def warm_up() -> None:
    """Import what every child needs; nothing is computed, so that no thread is lost in a fork."""
    import albumentations, matplotlib.pyplot, sklearn.decomposition, sklearn.isotonic, timm  # noqa: E401, F401, I001

    import pseudokit.pipeline, pseudokit.report.report, pseudokit.report.review, pseudokit.report.metrics_log  # noqa: E401, F401


class Renames:
    """A fault: count the renames of files, and die by SIGKILL just before the n-th."""

    def __init__(self, n: int = 0, count_in: Path | None = None):
        self.n, self.count, self.file = n, 0, count_in

    def __call__(self) -> None:
        os.replace, os.rename = self._counted(os.replace), self._counted(os.rename)

    def _counted(self, real: Callable) -> Callable:
        def rename(*args, **kwargs):
            self.count += 1
            if self.count == self.n:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.file:
                self.file.write_text(str(self.count))
            return real(*args, **kwargs)

        return rename


class Full:
    """A fault: from the n-th write on the disk is full. Half of what that write should write is written."""

    def __init__(self, n: int = 0, count_in: Path | None = None):
        self.n, self.count, self.file = n, 0, count_in

    def __call__(self) -> None:
        import pseudokit.system.files

        fault, real = self, os.fsync

        class Raw(io.FileIO):
            def write(self, data):
                if fault.happens():
                    super().write(bytes(data)[: len(data) // 2])
                    fault.strike(str(self.name))
                return super().write(data)

        def fsync(number: int) -> None:
            if fault.happens():
                fault.strike()
            real(number)

        def opened(path, mode, **more):
            return io.BufferedWriter(Raw(path, mode)) if mode == "wb" else open(path, mode, **more)

        pseudokit.system.files.open = opened
        os.fsync = fsync

    def happens(self) -> bool:
        self.count += 1
        if self.file:
            self.file.write_text(str(self.count))
        return 0 < self.n <= self.count

    def strike(self, file: str | None = None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)


class HalfWritten(Full):
    """A fault: die by SIGKILL half-way through the n-th write."""

    def strike(self, file: str | None = None) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Bench:
    """A folder for tries, and the files of a run that is never stopped, for each mode."""

    def __init__(self, folder: Path):
        self.folder, self.data, self.whole = folder, make_data(folder), {}
        self.run, self.output = folder / "run", folder / "output.txt"

    def command(self, mode: str) -> list[str]:
        return ["--mode", mode, *self.data, *SMALL, *MODES[mode], f"out={self.folder}", "name=run"]

    def reference(self, mode: str) -> dict:
        """{"seconds", "renames", "writes", "contents"} of a run of this mode."""
        if mode not in self.whole:
            renames, writes = self.folder / "renames", self.folder / "writes"

            def count_both() -> None:
                Renames(0, renames)()
                Full(0, writes)()

            start = time.monotonic()
            code = ended(child("pseudo", self.command(mode), self.output, count_both))
            assert code == 0, self.output.read_text()
            self.whole[mode] = {
                "seconds": time.monotonic() - start,
                "renames": int(renames.read_text()),
                "writes": int(writes.read_text()),
                "contents": contents(self.run),
            }
            shutil.rmtree(self.run)
        return self.whole[mode]

    def goes_on(self, mode: str) -> dict:
        """Give the same command again, and compare; the folder is then removed."""
        whole = self.reference(mode)["contents"]
        code = ended(child("pseudo", self.command(mode), self.output))
        now = contents(self.run) if code == 0 else {}
        other = sorted(
            file for file in whole.keys() | now.keys() if whole.get(file) != now.get(file)
        )
        left = [str(file) for file in leftovers(self.folder)]
        if code or other or left:
            print(
                f"FAILED {mode}: {other[:5]} {left[:5]}\n{self.output.read_text()[-2000:]}",
                flush=True,
            )
        shutil.rmtree(self.run)
        return {"resumed": code == 0, "identical": code == 0 and not other, "left": len(left)}


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders below a folder."""
    signs = ("*.part", "*.part.*", "checkpoint.pt", ".holder", "tmp*", "*.undo")
    return [file for sign in signs for file in folder.rglob(sign)]
