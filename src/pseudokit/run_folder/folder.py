"""The run folder: who holds it, what its config and status are, and how a run is resumed."""

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.keys import USES_UNLABELED, Config
from ..config.load import differences, dump_config, load_config
from ..config.types import UserError
from ..system.environment import CONFIGS
from ..system.faults import fault, held
from ..system.files import TimeBudgetExceeded, atomic_write, log, logged, read_json, write_json
from ..system.memory import peak_memory, reset_peak
from ..system.progress import progress

DEFAULT_CONFIG = CONFIGS / "default.yaml"
FREE_KEYS = {
    "time_budget",
    "tensorboard",
    "data.memory",
    "train.num_workers",
    "train.checkpoint_every",
    "out",
    "name",
}
"""Keys that may change while a run goes on, also by moving its folder: no byte depends on them."""
OTHER_CUTOFF = {
    "denoise": ("pseudo.cutoff", "pseudo.relabel_cutoff"),
    "augment": ("pseudo.relabel_cutoff", "pseudo.cutoff"),
}
"""By mode: the cutoff that decides nothing in it, and the one that was probably meant."""


@dataclass
class Run:
    """An open run folder.

    Attributes:
        mode: augment, denoise, joint or train.
        started: when this process opened it, as time.monotonic() says.
        seconds: wall-clock seconds by stage, and in total those of the processes before this one.
        closing: seconds that are kept for what comes after training, where there is a time budget.
        peaks: MiB of memory by stage, see peak_memory.
    """

    path: Path
    mode: str
    config: Config
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    closing: float = 0.0
    peaks: dict[str, Counter] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Keep status.json true during a stage, add up its seconds, and note its peak of memory."""
        self.write_status("running", name)
        progress.enter(name)
        reset_peak()
        start = time.monotonic()
        try:
            try:
                yield
            finally:
                seconds = self.seconds.get(name, 0) + time.monotonic() - start
                self.seconds[name] = round(seconds, 3)
                peak = peak_memory()
                for key in (name, "total"):
                    self.peaks[key] = peak | Counter(self.peaks.get(key))
        except BaseException as error:
            is_stopped = isinstance(error, KeyboardInterrupt | TimeBudgetExceeded)
            state = "stopped" if is_stopped else "failed"
            reason = fault(error) or str(error) or type(error).__name__
            with suppress(OSError):  # the disk may be full; then the next process says so
                self.write_status(state, name, reason)
            raise

    def write_status(self, state: str, stage: str, reason: str = "") -> None:
        """Write status.json; while a run is running, also which process it is."""
        status = {"state": state, "stage": stage, "reason": reason, "mode": self.mode}
        status |= self.costs()
        if state == "running":
            status |= {"pid": os.getpid(), "host": platform.node()}
        write_json(self.path / "status.json", status)

    def time_for(self, seconds: float) -> bool:
        """Whether `seconds` more of work, and what comes after training, fit into the time budget."""
        if self.config.time_budget is None:
            return True
        spent = time.monotonic() - self.started
        return spent + seconds + self.closing <= self.config.time_budget

    def times(self) -> dict[str, float]:
        """Wall-clock seconds by stage, and in total, of all processes that have worked on this run."""
        total = self.seconds.get("total", 0) + time.monotonic() - self.started
        return self.seconds | {"total": round(total, 3)}

    def costs(self) -> dict[str, dict]:
        """What metrics.json and status.json say of every stage and of all together."""
        return {"seconds": self.times(), "peak_mib": self.peaks}

    def recall_costs(self) -> None:
        """Go on from the costs of the processes before this one."""
        status = read_status(self.path)
        self.seconds = status.get("seconds", {})
        self.peaks = status.get("peak_mib", {})

    def has_begun(self) -> bool:
        """Whether any network has been begun."""
        return any(self.path.glob("round_*")) or (self.path / "student").exists()

    @property
    def trains(self) -> bool:
        """Whether any network is trained; none is where predictions from outside judge given labels, and no more."""
        return self.mode in USES_UNLABELED or not self.config.predictions.labeled

    def is_whole(self) -> bool:
        """Whether all is there that labels and models come from: the student, or where none is trained the round."""
        if self.trains:
            return self.has_student()
        return (self.path / "round_1" / "round.json").exists()

    def has_student(self) -> bool:
        """Whether the student is trained, and not put aside by corrections."""
        return (self.path / "student" / "model.json").exists()

    def finished(self) -> bool:
        """Whether this very run has been done before; says so."""
        is_done = self.is_whole() and read_status(self.path)["state"] == "done"
        if is_done:
            log.info(f"done already (--fresh starts over); see {self.path / 'report.html'}")
        return is_done


@contextmanager
def open_run(
    config_file: Path, overrides: list[str], mode: str, fresh: bool = False
) -> Iterator[Run]:
    """Make or reopen the run folder that a config and `a.b=value` name; held by this process until it is closed.

    Raises:
        UserError: the config is wrong, or the folder cannot be written, is in use, or holds another config.
    """
    run = new_run(config_file, overrides, mode)
    path = run.path
    with held(path):
        if fresh:
            _empty(path)
        killed = mend_after_kill(path)
        goes_on = ""
        if run.has_begun():
            _refuse_other_config(run)
            run.recall_costs()
            goes_on = " · goes on where it stopped"
        else:  # a run that was refused for its input may be mended under its name
            run.write_status("running", "start")
            atomic_write(path / "config.yaml", dump_config(run.config))
            (path / "plan.json").unlink(missing_ok=True)
        with logged(path / "log.txt"), progress.shown():
            log.info(f"{mode} · run folder {path}{goes_on}{killed}")
            yield run


@contextmanager
def reopen_run(path: Path) -> Iterator[Run]:
    """A finished run, to be worked on again; held by this process until it is closed.

    Raises:
        UserError: it is no run folder, is not finished, or is held by another process.
    """
    config = run_config(path)
    run = Run(path, run_mode(path), config)
    if not student_models(path) and (run.trains or not run.is_whole()):
        raise UserError(f"--run {path} is no finished run; pseudo.py makes one under runs/")
    with held(path), logged(path / "log.txt"), progress.shown():
        log.info(f"run folder {path}{mend_after_kill(path)}")
        run.recall_costs()
        yield run


def student_models(path: Path) -> list[Path]:
    """model.json of the student, and of those that corrections have put aside."""
    return [*path.glob("student/model.json"), *path.glob("corrections/*/student/model.json")]


def run_classes(path: Path) -> list[str]:
    """The classes of the student, also while it is put aside; without one, those of the rounds."""
    files = [*student_models(path), *path.glob("round_*/round.json")]
    return read_json(files[0], "classes")["classes"]


def planned_changes(path: Path) -> dict[str, Any]:
    """The keys that a time budget has changed in a run, and their values."""
    file = path / "plan.json"
    return read_json(file, "changes")["changes"] if file.exists() else {}


def new_run(config_file: Path, overrides: list[str], mode: str) -> Run:
    """The run that a config and `a.b=value` name; by default after the file and the mode. Nothing is written.

    A cutoff on the command line that decides nothing in this mode was meant for the other key. In a config file it may
    stand: one file serves several modes.

    Raises:
        UserError: the config is wrong, or an override decides nothing in this mode.
    """
    config = load_config(find_config(config_file), overrides)
    idle, meant = OTHER_CUTOFF.get(mode, (None, None))
    if idle and any(override.startswith(f"{idle}=") for override in overrides):
        raise UserError(f"{idle} decides nothing in --mode {mode}; use {meant}, or leave it out")
    name = config.name or f"{config_file.stem}-{mode}"
    config = config.model_copy(update={"name": name})
    return Run(Path(config.out) / name, mode, config)


def run_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a run folder, with overrides.

    Raises:
        UserError: it is no run folder, or an override is wrong.
    """
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(
            f"--run {path} is no run folder; train.py and pseudo.py make one under runs/"
        )
    return load_config(file, list(overrides))


def find_config(name: Path) -> Path:
    """A file as it is; or by its name alone one of those that come with the kit, from anywhere: photos, photos.yaml."""
    files = (name, CONFIGS / name, CONFIGS / f"{name}.yaml")
    return next((file for file in files if file.is_file()), name)


def _refuse_other_config(run: Run) -> None:
    changed = differences(run_config(run.path), run.config, FREE_KEYS)
    old_mode = run_mode(run.path)
    if old_mode != run.mode:
        changed.append(f"mode: {old_mode} → {run.mode}")
    if changed:
        keys = "; ".join(changed)
        raise UserError(
            f"run folder {run.path} holds another config ({keys}); choose another name= or add --fresh"
        )


def mend_after_kill(path: Path) -> str:
    """Put right what a killed process left: half-written files, and a status that is no longer true.

    Returns:
        What the log says of it; "" where no process was killed.
    """
    for part in path.rglob("*.part"):
        part.unlink()
    for checkpoint in path.rglob("checkpoint.pt"):
        if (checkpoint.parent / "model.json").exists():
            checkpoint.unlink()
    status = read_status(path)
    if status["state"] != "running":
        return ""
    reason = f"process {status.get('pid')} was killed, or its machine went away"
    # From its last status to its last line in the log it was in one stage.
    begun = (path / "status.json").stat().st_mtime
    last = begun
    for file in path.glob("log.txt"):
        last = max(begun, file.stat().st_mtime)
    times = status.setdefault("seconds", {})
    for name in (status["stage"], "total"):
        times[name] = round(times.get(name, 0) + last - begun, 3)
    write_json(path / "status.json", status | {"state": "stopped", "reason": reason})
    return f" · {reason}, at {status['stage']}"


def _empty(path: Path) -> None:
    for entry in path.glob("[!.]*"):  # the lock stays
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def run_mode(path: Path) -> str:
    """The mode of a run that is there."""
    return read_json(path / "status.json", "mode")["mode"]


def read_status(path: Path) -> dict[str, str]:
    """status.json of a run, all of it empty where there is none."""
    file, keys = path / "status.json", ("state", "stage", "reason", "mode")
    return read_json(file, *keys) if file.exists() else dict.fromkeys(keys, "")
