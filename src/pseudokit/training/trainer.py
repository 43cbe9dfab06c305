"""What every process of a run has at hand: the images, and how to train and predict on them."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..config.keys import STUDENTS, Config, Train
from ..data.encoding import has_label
from ..data.images import load_images
from ..system.distributed import (
    ALONE,
    ProcessGroup,
    broadcast,
    map_jobs,
    receive,
    size,
    worker_loop,
)
from ..system.environment import code_hash
from ..system.files import hash_of, log, seed_of
from .batches import TrainingSet
from .checkpoint import Checkpoints
from .device import pick_device
from .history import progress_bar
from .loop import step_budget, train_model
from .models import ModelSpec, TrainedModel, create_model, has_batch_norm
from .predict import batch_size, log_probs


@dataclass(frozen=True)
class TrainJob:
    """One network to train, and what it then predicts.

    where: its folder in the run, as `round_1/fold_0` or `student`.
    rows, labels: what it learns; labels (n,) or soft targets (n, K).
    pool: unlabeled rows for the consistency term, and (M, K) log-probabilities of teachers for them, or None.
    steps: default: by the number of rows.
    input_hash: of the images, the labels and the keys that it depends on.
    """

    where: str
    rows: np.ndarray
    labels: np.ndarray
    pool: tuple[np.ndarray, np.ndarray | None] | tuple[()] = ()
    steps: int | None = None
    input_hash: str = ""

    def budget(self, train: Train) -> int:
        """How many steps it takes."""
        return self.steps or step_budget(len(self.rows), train)


class TrainResult(NamedTuple):
    """What a TrainJob gives. The hash of the model is not known yet. seconds: of this process."""

    model: TrainedModel
    history: pd.DataFrame
    seconds: float


class PredictJob(NamedTuple):
    """Rows that a model predicts. tta: views of an image. first: how many rows come before these, see log_probs."""

    model: TrainedModel
    rows: np.ndarray
    tta: int
    first: int = 0


@dataclass(frozen=True)
class Trainer:
    """What every process has at hand.

    pixels: (N, H, W, C) uint8. given_labels: of the first n of them, which a run learns or judges. folder: the run
    folder, for checkpoints; None = there are none.
    """

    config: Config
    pixels: np.ndarray
    given_labels: np.ndarray
    classes: tuple[str, ...]
    folder: Path | None = None

    def run_job(
        self, job: TrainJob | PredictJob, process_group: ProcessGroup
    ) -> TrainResult | np.ndarray | None:
        """Do a job that the first process hands out. Nothing but checkpoints is written."""
        if isinstance(job, TrainJob):
            return self.train(job, process_group)
        return self.run_predict_job(job)

    def train(self, job: TrainJob, process_group: ProcessGroup = ALONE) -> TrainResult | None:
        """Train the network of a job; None where the others of the group do better without this process.

        Student and baseline have one seed, so they start from the same weights and draw the same augmentation for each
        place in each batch. If they learn as many rows, the order is the same too, and they differ by their labels
        alone.

        Raises:
            UserError: see train_model.
        """
        start = time.monotonic()
        train = self.config.train_of(job.where)
        steps = job.budget(train)
        seed_name = "student" if job.where in STUDENTS else job.where
        seed = seed_of(self.config.seed, seed_name)
        unlabeled, teacher_log_probs = job.pool or (None, None)
        training_set = TrainingSet(
            self.pixels,
            job.rows,
            job.labels,
            steps,
            seed,
            pseudo=~has_label(self.given_labels[job.rows]),
            unlabeled=unlabeled,
            teacher_log_probs=teacher_log_probs,
        )
        network, spec = self.fresh_network(job.where, seed)
        if (
            has_batch_norm(network) and not train.linear_probe_first
        ):  # its statistics would be those of a part
            if process_group.index > 0:
                return None
            process_group = ALONE
        saved = self._checkpoints(job, steps, train, process_group)
        name = title(self.config, job.where)
        if saved.step:
            log.info(f"{name}: goes on after {saved.step:,} of {steps:,} steps")
        with progress_bar(steps, f"{name} · train") as bar:
            network, history = train_model(
                network, spec, training_set, train, bar, process_group=process_group, saved=saved
            )
        model = TrainedModel(network, spec, hash="")
        return TrainResult(model, history, time.monotonic() - start)

    def _checkpoints(
        self,
        job: TrainJob,
        steps: int,
        train: Train,
        process_group: ProcessGroup,
    ) -> Checkpoints:
        folder = None
        if (
            job.input_hash and self.folder and self.folder.exists()
        ):  # another machine may not see the run folder
            folder = self.folder / job.where
        key = hash_of(job.input_hash, steps, code_hash(), torch.__version__, process_group.size)
        return Checkpoints(folder, key, train, process_group)

    def predict(self, model: TrainedModel, rows: np.ndarray, tta: int) -> np.ndarray:
        """(len(rows), K) log-probabilities; each process takes its share of the batches."""
        device = pick_device(self.config.train.device)
        batch = batch_size(model.format.size, device)
        batches_per_process = math.ceil(len(rows) / (batch * size()))
        share = batch * max(1, batches_per_process)
        jobs = []
        for start in range(0, max(len(rows), 1), share):
            job = PredictJob(model, rows[start : start + share], tta, start)
            jobs.append(job)
        if len(jobs) == 1:
            return self.run_predict_job(jobs[0])
        return np.concatenate(list(map_jobs(self.run_job, jobs)))

    def run_predict_job(self, job: PredictJob) -> np.ndarray:
        """(len(job.rows), K) log-probabilities, by this process alone."""
        return log_probs(
            job.model,
            self.pixels,
            job.rows,
            device=self.config.train.device,
            tta=job.tta,
            spec=self.config.view,
            first=job.first,
        )

    def fresh_network(self, where: str, seed: int) -> tuple[nn.Module, ModelSpec]:
        """The network of this folder, before its training."""
        torch.manual_seed(seed)
        _, side, _, channels = self.pixels.shape
        network, spec = create_model(self.config.model_of(where), self.classes, side, channels)
        spec = replace(
            spec,
            amp_dtype=self.config.train_of(where).amp_dtype,
            multi_label=self.given_labels.ndim == 2,
        )
        return network, spec


def offer(trainer: Trainer, paths: np.ndarray) -> None:
    """Send the other processes, if there are any, what they need to make the same trainer. paths: of its images."""
    if size() > 1:
        broadcast((trainer.config, paths, trainer.given_labels, trainer.classes, trainer.folder))


def run_worker() -> None:
    """What the other processes do: the jobs that the first one hands out."""
    import timm  # noqa: F401  takes seconds, in which the first process reads the data

    message = receive()
    if message is None:
        return
    config, paths, *others = message
    pixels, _ = load_images(paths, config.data)
    worker_loop(Trainer(config, pixels, *others).run_job)


def title(config: Config, where: str) -> str:
    """`round_1/fold_0` → `round 1/2 · fold 1/2`; `student` stays."""
    match = re.fullmatch(r"round_(\d+)/fold_(\d+)", where)
    if not match:
        return where
    number, fold = map(int, match.groups())
    folds = config.pseudo.folds
    half = " (2nd half)" if fold >= folds else ""  # see leak_free_fold_jobs
    return f"round {number}/{config.pseudo.rounds} · fold {fold % folds + 1}/{folds}{half}"
