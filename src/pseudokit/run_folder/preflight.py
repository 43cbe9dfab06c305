"""--check: what can be known before a run. It reads and decodes everything, and times a few steps; no model is kept."""

import shutil
from pathlib import Path

from ..system.faults import held
from ..system.files import log, show_log
from ..system.progress import progress
from .folder import new_run
from .prepare import prepare
from .time_budget import PROBE_IMAGES, PROBE_STEPS, costs, probe


def check(config_file: Path, overrides: list[str], mode: str) -> None:
    """Print what a run would find, and what it would cost.

    The tables that come before training (duplicates.csv, samples.csv) stay in OUT/NAME-check for a look; the folder of
    the run itself is left alone.

    Raises:
        UserError: as the run would, or its folder could not be written.
    """
    show_log()
    run = new_run(config_file, overrides, mode)
    folder, config = run.path, run.config
    run.path = folder.with_name(f"{folder.name}-check")
    with held(run.path), progress.shown():
        prepared = prepare(run)
        if run.trains:
            for model in config.model.members:
                log.info(f"model: {model.name} from {model.checkpoint or 'random weights'}")
            free_gb = shutil.disk_usage(run.path).free / 1e9
            log.info(f"run folder: {folder}; {free_gb:,.1f} GB are free")
            seconds = costs(run.config, prepared, probe(run, prepared))
            parts = (f"{name} {value / 60:.1f}" for name, value in seconds.items() if value)
            log.info(
                f"timed {PROBE_STEPS} training steps of each kind of network and {PROBE_IMAGES} predictions, nothing "
                f"kept\ntime: about {sum(seconds.values()) / 60:.1f} minutes at most on this machine "
                f"({', '.join(parts)})"
            )
        else:
            log.info(f"run folder: {folder}; nothing is trained, so this takes seconds")
        run.write_status("done", "check")
    log.info("check: nothing stands in the way; leave out --check to begin")
