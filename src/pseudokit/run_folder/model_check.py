"""Before any training: every model and augmentation is made once, and the machine is written down."""

from __future__ import annotations

import numpy as np
import torch

from ..config.types import UserError
from ..data.dataset import Dataset
from ..data.transforms import Spec, build
from ..system.environment import environment
from ..system.files import log, read_json, write_json
from ..training.batches import TrainingSet
from ..training.device import not_repeatable, pick_device
from ..training.loop import train_model
from ..training.models import create_model
from .folder import Run, trained

DECIDE_BITS = ("packages", "code", "device", "threads")
"""What of env.json the last bits of a training hang on."""


def _note_machine(run: Run, pixels: np.ndarray, network, spec) -> None:
    """Complete env.json; where the run began with something else, say so: then the last bits may differ."""
    train, rows = run.config.train, np.resize(np.arange(len(pixels)), 16)
    device = pick_device(train.device)
    training_set = TrainingSet(pixels, rows, rows % len(spec.classes), 2, 0)
    unsafe = not_repeatable(lambda: train_model(network, spec, training_set, train)) if device.type == "cuda" else []
    kernels = ["all of mps"] if device.type == "mps" else unsafe
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    now = environment() | {"device": name, "threads": torch.get_num_threads(), "not_repeatable": kernels}
    file = run.path / "env.json"
    if not trained(run.path):
        return write_json(file, now)
    before = read_json(file) if file.exists() else {}
    if changed := [key for key in DECIDE_BITS if before.get(key, now[key]) != now[key]]:
        log.info(
            f"warning: this run began with other {', '.join(changed)} (env.json): what is made from here on may "
            "differ in its last bits"
        )


def check_models(run: Run, dataset: Dataset, pixels: np.ndarray) -> None:
    """Make each model and augmentation: what is wrong with them is said now."""
    config, size, channels = run.config, pixels.shape[1], pixels.shape[3]
    _note_machine(run, pixels, *create_model(config.model, dataset.classes, size, channels))
    if config.model_of("student") != config.model:
        create_model(config.model_of("student"), dataset.classes, size, channels, "student")
    for key, spec in {
        "train.augment": config.train.augment,
        "student.augment": config.student.augment,
        "train.strong_augment": config.train.strong_augment,
        "predict.augment": config.predict.augment,
    }.items():
        if spec is not None:
            _try(key, spec, pixels[:2])


def _try(key: str, spec: Spec, pixels: np.ndarray) -> None:
    """Raises UserError where the augmentation `spec` does not work on such images, or changes their size."""
    import torch

    augment = build(spec, pixels.shape[1], seed=0)
    if not augment:
        return
    try:
        out = augment(torch.from_numpy(pixels), 0)
    except Exception as error:  # every transform raises its own types
        what = type(error).__name__
        raise UserError(f"{key}={spec} does not work: {what}: {' '.join(str(error).split())}") from error
    if out.shape[1:] != pixels.shape[1:]:
        raise UserError(
            f"{key} changes images from {pixels.shape[1:3]} to {tuple(out.shape[1:3])}; "
            "give its crop or resize the value `size`"
        )
