"""--check: what can be known before a run. It reads and decodes everything, and times a few steps; no model is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..config.keys import Config
from ..system.files import log, show_log
from .folder import Run, must_be_writable, named_config, run_path, write_status
from .predict_runs import read_targets
from .prepare import PreparedData, prepare
from .submission import fill_submission
from .time_budget import PROBE_IMAGES, PROBE_STEPS, costs, probe


def check(config_file: Path, overrides: list[str], mode: str) -> None:
    """Print what a run would find, and what it would cost.

    The tables that come before training (duplicates.csv, samples.csv) stay in OUT/NAME-check for a look; the folder of
    the run itself is left alone.

    Raises:
        UserError: as the run would, or its folder could not be written.
    """
    show_log()
    config = named_config(config_file, overrides, mode)
    folder = run_path(config)
    check_folder = folder.with_name(f"{folder.name}-check")
    with must_be_writable(folder):
        check_folder.mkdir(parents=True, exist_ok=True)
    run = Run(check_folder, mode, config)
    prepared = prepare(run)
    if config.data.submission:
        _check_submission(config, prepared.dataset.classes)
    log.info(f"model: {config.model.name} from {config.model.checkpoint or 'random weights'}")
    free_gb = shutil.disk_usage(check_folder).free / 1e9
    log.info(f"run folder: {folder}; {free_gb:,.1f} GB are free")
    _announce_time(run, prepared)
    write_status(check_folder, "done", "check", mode=mode)
    log.info("check: nothing stands in the way; leave out --check to begin")


def _check_submission(config: Config, classes: tuple[str, ...]) -> None:
    """Fill the sample submission with predictions that say nothing.

    Raises:
        UserError: it does not fit data.test and the classes.
    """
    targets = read_targets(config, None)
    blank = targets.assign(label=classes[0], **{f"p_{name}": 0.5 for name in classes})
    filled = fill_submission(Path(config.data.submission), blank)
    log.info(f"submission: {len(filled):,} rows, all of them rows of data.test")


def _announce_time(run: Run, prepared: PreparedData) -> None:
    """Minutes, from a few steps of each network."""
    config = run.config
    seconds = costs(config, prepared, run.mode, probe(run, prepared))
    total = sum(seconds.values())
    parts = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items() if value)
    log.info(
        f"timed {PROBE_STEPS} training steps of each kind of network and {PROBE_IMAGES} predictions, nothing kept"
    )
    log.info(f"time: about {total / 60:.1f} minutes at most on this machine ({parts})")
    if config.time_budget and total > config.time_budget:
        log.info(
            f"warning: that is more than time_budget={config.time_budget / 60:.0f} minutes; the run will be planned "
            "to fit, with fewer epochs, rounds or folds"
        )
