"""The run folder: lock, whole-or-nothing writes, status, resume, time budget, seeds."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..config.keys import Config
from ..config.load import differences, dump_config, load_config
from ..config.types import UserError
from ..system.environment import CONFIGS, environment
from ..system.faults import fault, held
from ..system.files import TimeBudgetExceeded, atomic_write, log, logged, read_json, write_json

DEFAULT_CONFIG = CONFIGS / "default.yaml"
FREE = {"time_budget", "train.num_workers", "train.checkpoint_every", "out", "name"}
"""Keys that may change while a run goes on, also by moving its folder: no byte depends on them."""


@dataclass
class Run:
    """An open run folder. `mode` is augment, denoise, joint or train."""

    path: Path
    mode: str
    config: Config
    started: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)
    closing: float = 0.0
    """Seconds that are kept for what comes after training, where there is a time budget."""

    @contextmanager
    def stage(self, name: str):
        """Log a heading, keep status.json true and add up the seconds of the stage."""
        write_status(self.path, "running", name, mode=self.mode)
        start = time.monotonic()
        try:
            yield
        except BaseException as error:
            state = "stopped" if isinstance(error, KeyboardInterrupt | TimeBudgetExceeded) else "failed"
            with suppress(OSError):  # the disk may be full; then the next process says so
                write_status(self.path, state, name, fault(error) or str(error) or type(error).__name__, self.mode)
            raise
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - start, 3)

    def time_for(self, seconds: float) -> bool:
        """Whether `seconds` more of work, and what comes after training, fit into the time budget."""
        budget = self.config.time_budget
        return budget is None or time.monotonic() - self.started + seconds + self.closing <= budget

    def times(self) -> dict[str, float]:
        """Wall-clock seconds by stage, and in total, of this process."""
        return self.seconds | {"total": round(time.monotonic() - self.started, 3)}

    def finished(self) -> bool:
        """Whether this very run has been done before; says so."""
        student = self.path / "student" / "model.json"
        if read_status(self.path)["state"] != "done" or not student.exists():
            return False
        log.info(f"done already (--fresh starts over); see {self.path / 'report.html'}")
        return True


def read_status(path: Path) -> dict[str, str]:
    """status.json of a run, all of it empty where there is none."""
    file, keys = path / "status.json", ("state", "stage", "reason")
    return read_json(file, *keys) if file.exists() else dict.fromkeys(keys, "")


def write_status(path: Path, state: str, stage: str, reason: str = "", mode: str = "") -> None:
    who = {"pid": os.getpid(), "host": platform.node()} if state == "running" else {}
    write_json(path / "status.json", {"state": state, "stage": stage, "reason": reason, "mode": mode} | who)


@contextmanager
def open_run(config_file: Path, overrides: list[str], mode: str, fresh: bool = False) -> Iterator[Run]:
    """Make or reopen the run folder that a config and `a.b=value` name; held by this process until it is closed.

    Raises:
        UserError: the config is wrong, or the folder cannot be written, is in use, or holds another config.
    """
    config = named_config(config_file, overrides, mode)
    path = Path(config.out) / config.name
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written ({error.strerror}); choose another out=") from None
    with held(path):
        try:
            if fresh:
                _empty(path)
            killed = _mend(path)
            _resume_or_begin(path, config, mode)
        except OSError as error:
            raise UserError(f"run folder {path} cannot be written ({error.strerror}); choose another out=") from None
        with logged(path / "log.txt"):
            on = " · goes on where it stopped" if trained(path) else ""
            log.info(f"{mode} · run folder {path}{on}{killed}")
            yield Run(path, mode, config)


def named_config(config_file: Path, overrides: list[str], mode: str) -> Config:
    """The config with the name of its run folder; the default is that of the file and the mode.

    Raises:
        UserError: the config is wrong, or an override decides nothing in this mode.
    """
    config = load_config(find_config(config_file), overrides)
    _refuse_idle_cutoff(overrides, mode)
    return config.model_copy(update={"name": config.name or f"{config_file.stem}-{mode}"})


def _refuse_idle_cutoff(overrides: list[str], mode: str) -> None:
    """A cutoff on the command line that decides nothing in this mode was meant for the other key.

    In a config file it may stand: one file serves several modes.
    """
    other_key = {
        "denoise": ("pseudo.cutoff", "pseudo.relabel_cutoff"),
        "augment": ("pseudo.relabel_cutoff", "pseudo.cutoff"),
    }
    idle, meant = other_key.get(mode, ("", ""))
    if idle and any(override.partition("=")[0] == idle for override in overrides):
        raise UserError(f"{idle} decides nothing in --mode {mode}; use {meant}, or leave it out")


def find_config(name: Path) -> Path:
    """A file as it is; or by its name alone one of those that come with the kit, from anywhere: photos, photos.yaml."""
    own = CONFIGS / name.with_suffix(".yaml").name
    is_bare_name = name.parent == Path() and name.suffix in ("", ".yaml")
    return own if is_bare_name and not name.exists() and own.exists() else name


@contextmanager
def reopen_run(path: Path) -> Iterator[Run]:
    """A finished run, to be worked on again; held by this process until it is closed.

    Raises:
        UserError: it is no run folder, has no student yet, or is held by another process.
    """
    if not (path / "student" / "model.json").is_file() and not (path / "corrections").is_dir():
        raise UserError(f"--run {path} is no finished run; pseudo.py makes one under runs/")
    with held(path), logged(path / "log.txt"):
        log.info(f"run folder {path}{_mend(path)}")
        yield Run(path, read_json(path / "status.json", "mode")["mode"], load_config(path / "config.yaml", []))


def _mend(path: Path) -> str:
    """Put right what a killed process left: a status that is not true any more, files that were not finished; returns
    what is to be said of it."""
    for part in path.rglob("*.part"):
        if part.is_file():
            part.unlink()
    for model in path.rglob("model.json"):
        for checkpoint in model.parent.glob("checkpoint_*.pt"):
            checkpoint.unlink()
    about = read_status(path)
    if about["state"] != "running":
        return ""
    reason = f"process {about.get('pid', '')}".strip() + " was killed, or its machine went away"
    write_status(path, "stopped", about["stage"], reason, about.get("mode", ""))
    return f" · {reason}, at {about['stage']}"


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name not in (".lock", ".holder"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _resume_or_begin(path: Path, config: Config, mode: str) -> None:
    stored = path / "config.yaml"
    if not stored.exists() or not trained(path):  # a run that was refused for its input may be mended under its name
        write_status(path, "running", "start", mode=mode)
        write_json(path / "env.json", environment())
        atomic_write(stored, dump_config(config))
        (path / "plan.json").unlink(missing_ok=True)
        return
    changed = [one for one in differences(load_config(stored, []), config) if one.partition(":")[0] not in FREE]
    old_mode = read_status(path).get("mode", mode)
    changed += [f"mode: {old_mode} → {mode}"] if old_mode != mode else []
    if changed:
        raise UserError(
            f"run folder {path} holds another config ({'; '.join(changed)}); choose another name= or add --fresh"
        )


def trained(path: Path) -> bool:
    """Whether any network of a run has been begun."""
    return any(path.glob("round_*")) or (path / "student").exists()
