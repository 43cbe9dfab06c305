"""--check: what can be known before a run. It reads and decodes everything, times a few steps, and trains nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Config
from ..config.types import UserError
from ..data.encoding import likeliest
from ..system.environment import PACKAGE
from ..system.files import log, show_log
from ..training.models import create_model
from ..training.trainer import Trainer
from .folder import Run, named_config
from .predict_runs import configured_arm, finished_models, open_finished, read_targets
from .prepare import PreparedData, prepare
from .submission import predictions_table, submission
from .time_budget import costs, probe

ROW_BYTES = 200
"""Of a line of decisions.csv, and what else a round keeps of a row beside its logits."""
TROUBLE = {
    ("opencv-python", "opencv-python-headless"): "both write the package cv2: pip uninstall one of them",
    ("albumentations", "albumentationsx"): "both write the package albumentations: pip uninstall the second",
}
"""Packages that do not go together."""


def check(config_file: Path, overrides: list[str], mode: str) -> None:
    """Print what a run would find, and what it would cost.

    Raises:
        UserError: as the run would, or its folder could not be written.
    """
    show_log()
    config = named_config(config_file, overrides, mode)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), mode, config)
        prepared = prepare(run)
        config = run.config
        _check_submission(config, prepared.dataset.classes)
        for line in (*_packages(), *_weights(config), *_folder(config, prepared, mode), *_time(config, prepared, mode)):
            log.info(line)
    log.info("check: nothing stands in the way; leave out --check to begin")


def _check_submission(config: Config, classes: tuple[str, ...]) -> None:
    """Fill the sample submission with a prediction that says nothing."""
    if config.data.submission:
        blank = _blank(read_targets(config, None), classes, config.data.multi_label)
        filled = submission(Path(config.data.submission), blank, list(classes))
        log.info(f"submission: {len(filled):,} rows, all of them rows of data.test")


def _blank(targets: pd.DataFrame, classes: tuple[str, ...] | list[str], multi_label: bool) -> pd.DataFrame:
    """Predictions that say nothing."""
    n, k = len(targets), len(classes)
    probs = np.full((n, k, 2), 0.5) if multi_label else np.full((n, k), 1 / k)
    return predictions_table(targets, probs, likeliest(probs), list(classes))


def _packages() -> Iterator[str]:
    """Versions below requirements.txt, packages that are missing, and those that disturb each other: as warnings, for
    what prepare() needed was there, and some are for one option alone."""
    from packaging.requirements import Requirement

    file = PACKAGE.parents[1] / "requirements.txt"
    listed = file.read_text("utf-8").splitlines() if file.exists() else metadata.requires("pseudokit")
    lines = [line.partition("#")[0].strip() for line in listed]
    installed = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
    for wanted in map(Requirement, filter(None, lines)):
        version = installed.get(wanted.name.lower())
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            yield f"warning: {wanted} is wanted, {version or 'none'} is installed; pip install -r requirements.txt"
    yield f"packages: compared with requirements.txt; torch {installed['torch']}, timm {installed['timm']}"
    yield from (
        f"warning: {' and '.join(pair)} are both installed; {why}"
        for pair, why in TROUBLE.items()
        if all(name in installed for name in pair)
    )


def _weights(config: Config) -> Iterator[str]:
    """What the networks begin from; prepare() has made each of them."""
    for arm in ("model", "student"):
        model = config.model_of("round_1/fold_0" if arm == "model" else arm)
        if arm == "model" or model != config.model:
            yield f"{arm}: {model.name} from {model.checkpoint or 'random weights'}" + (
                ", frozen" if model.freeze_backbone else ""
            )


def _folder(config: Config, prepared: PreparedData, mode: str) -> Iterator[str]:
    """Whether the run folder can be written, and what it will hold.

    Raises:
        UserError: it can not.
    """
    path = Path(config.out) / config.name
    above = next(up for up in (path, *path.absolute().parents) if up.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise UserError(f"run folder {path} cannot be written ({error.strerror}); choose another out=") from None
    size, channels = prepared.pixels.shape[1], prepared.pixels.shape[3]
    bytes_of = {}
    for arm in ("teacher", "student"):
        network, _ = create_model(config.model_of(arm), prepared.dataset.classes, size, channels)
        bytes_of[arm] = sum(p.numel() * p.element_size() for p in network.state_dict().values())
    n, k, pseudo = len(prepared.judged), len(prepared.judged.classes), config.pseudo
    models = bytes_of["teacher"] * (1 if config.model.freeze_backbone else pseudo.rounds * pseudo.folds)
    needed = models + 2 * bytes_of["student"] + pseudo.rounds * n * (5 * k + ROW_BYTES)
    free = shutil.disk_usage(above).free
    yield f"run folder: {path}, about {needed / 2**20:,.0f} MB; {free / 2**20:,.0f} MB are free"
    if needed > free:
        raise UserError(
            f"run folder {path} needs about {needed / 2**20:,.0f} MB, {free / 2**20:,.0f} MB are free; "
            "choose another out=, fewer folds or rounds"
        )


def _time(config: Config, prepared: PreparedData, mode: str) -> Iterator[str]:
    """Minutes, from a few steps of each network."""
    trainer = Trainer(config, prepared.pixels, prepared.judged.given_labels, prepared.dataset.classes)
    seconds = costs(config, prepared, mode, probe(trainer))
    parts = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items() if value)
    total = sum(seconds.values())
    yield f"time: about {total / 60:.1f} minutes at most on this machine ({parts})"
    if config.time_budget and total > config.time_budget:
        yield (
            f"warning: that is more than time_budget={config.time_budget / 60:.0f} minutes; the run will be planned "
            "to fit, with fewer epochs, rounds or folds"
        )


def check_prediction(runs: list[Path], data: str | None, sample: Path | None, arm: str | None = None) -> None:
    """Print whether the models, the rows and the sample submission of predict.py fit together.

    Raises:
        UserError: as predict.py would, but for images that cannot be decoded.
    """
    configs = [open_finished(run) for run in runs]
    for run, config in zip(runs, configs, strict=True):
        models = finished_models(run, arm or configured_arm(run, config))
        log.info(f"{run}: {len(models)} model(s), {models[0].format.name} at {models[0].format.size} px")
    classes, targets = models[0].format.classes, read_targets(configs[0], data)
    missing = [path for path in targets.path if not os.path.exists(path)]
    if missing:
        raise UserError(
            f"{len(missing):,} of {len(targets):,} images are missing, for example {missing[0]}; check "
            "data.image_dir and data.image_suffix of the run"
        )
    blank = _blank(targets, classes, models[0].format.multi_label)
    rows = len(submission(sample, blank, classes)) if sample else 0
    filled = f"; {rows:,} rows of {sample} can be filled" if sample else ""
    log.info(f"check: {len(targets):,} images to predict{filled}")
