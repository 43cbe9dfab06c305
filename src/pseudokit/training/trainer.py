"""What every process of a run has at hand: images, and how to train and ask a network on them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from ..config.keys import STUDENTS, Config, Train
from ..data.encoding import has_label
from ..data.images import load_images
from ..system.distributed import ALONE, ProcessGroup, broadcast, map_jobs, rank, receive, size, worker_loop
from ..system.environment import code_hash
from ..system.files import hash_of, log, seed_of
from .batches import TrainingSet
from .checkpoint import Checkpoints
from .device import pick_device
from .loop import can_share, step_budget, train_model
from .models import ModelSpec, TrainedModel, create_model
from .predict import batch_size, log_probs


@dataclass(frozen=True)
class TrainJob:
    """What a network in the folder `where` is to learn, see JobRunner.fit, and the rows that it then judges."""

    where: str
    rows: np.ndarray
    labels: np.ndarray
    pool: tuple[np.ndarray, np.ndarray | None] | tuple[()] = ()
    steps: int | None = None
    judged: np.ndarray | None = None
    input_hash: str = ""
    """Hash of the images, the labels and the keys that it depends on."""

    def budget(self, train: Train) -> int:
        """How many steps it takes."""
        return self.steps or step_budget(len(self.rows), train)


class TrainResult(NamedTuple):
    """What a task came to. said: log-probabilities of them."""

    network: torch.nn.Module
    format: ModelSpec
    history: pd.DataFrame
    steps: int
    seconds: float
    said: np.ndarray | None


class PredictJob(NamedTuple):
    """What a model is to say of rows, the first of which is the `first` of all that are asked about."""

    model: TrainedModel
    rows: np.ndarray
    views: int
    first: int = 0


@dataclass(frozen=True)
class Trainer:
    """What every process has at hand. pixels: (N, H, W, C) uint8; given: labels of the judged ones, the first n.

    names: (N,) for messages. folder: of the run, where checkpoints are to be.
    """

    config: Config
    pixels: np.ndarray
    given_labels: np.ndarray
    classes: tuple[str, ...]
    names: np.ndarray | None = None
    folder: Path | None = None

    def serve(self, job: TrainJob | PredictJob, process_group: ProcessGroup) -> TrainResult | np.ndarray:
        """What a process does for the first one; nothing is written."""
        return self.work(job, process_group) if isinstance(job, TrainJob) else self.answer(job)

    def work(self, task: TrainJob, process_group: ProcessGroup = ALONE) -> TrainResult | None:
        """Train the network of a task, and let it judge; None in a team that does better without this process.

        Student and baseline have one seed. So they start from the same weights and draw the same augmentation for each
        place in each batch. Where they learn as many rows the order is the same too, and labels are all that differs;
        where the student learns fewer rows (dropped labels) or more (pseudo-labels) its shuffled order is another one.

        Raises:
            UserError: see train_model.
        """
        train, start = self.config.train_of(task.where), time.monotonic()
        steps, seed = task.budget(train), seed_of(self.config.seed, seed_name(task.where))
        pool, said = task.pool or (None, None)
        training_set = TrainingSet(
            self.pixels,
            task.rows,
            task.labels,
            steps,
            seed,
            ~has_label(self.given_labels[task.rows]),
            pool,
            said,
            self.names,
        )
        network, spec = self.fresh_network(task.where, seed)
        if process_group.size > 1 and not can_share(network, train):
            if process_group.index:
                return None
            process_group = ALONE
        saved, what = self._checkpoints(task, train, process_group), title(self.config, task.where)
        if saved.step:
            log.info(f"{what}: goes on after {saved.step:,} of {steps:,} steps")
        with bar(steps, f"{what} · train") as shown:
            network, history = train_model(
                network, spec, training_set, train, shown, process_group=process_group, saved=saved
            )
        model, seconds = TrainedModel(network, spec, ""), time.monotonic() - start
        said = None
        if task.judged is not None:
            said = self.answer(PredictJob(model, task.judged, self.config.pseudo.tta))
        return TrainResult(network, spec, history, steps, seconds, said)

    def _checkpoints(self, task: TrainJob, train: Train, process_group: ProcessGroup) -> Checkpoints:
        """None where this process does not see the run folder, as one of another machine may not."""
        seen = task.input_hash and self.folder and self.folder.exists()
        key = hash_of(task.input_hash, task.budget(train), code_hash(), torch.__version__, process_group.size)
        return Checkpoints(self.folder / task.where if seen else None, key, train, process_group)

    def predict(self, model: TrainedModel, rows: np.ndarray, views: int) -> np.ndarray:
        """(len(rows), K) log-probabilities; each process takes its share of the batches."""
        at_once = batch_size(model.format.size, pick_device(self.config.train.device))
        share = at_once * -(-len(rows) // (at_once * size())) or 1
        asked = [PredictJob(model, rows[i : i + share], views, i) for i in range(0, len(rows), share)]
        said = (
            map_jobs(self.serve, asked)
            if len(asked) > 1
            else map(self.answer, asked or [PredictJob(model, rows, views)])
        )
        return np.concatenate(list(said))

    def answer(self, asked: PredictJob) -> np.ndarray:
        """(len(asked.rows), K) log-probabilities."""
        model, rows, views, first = asked
        options = {"device": self.config.train.device, "tta": views, "spec": self.config.view, "first": first}
        with bar(len(rows) * views, "predict") as shown:
            return log_probs(model, self.pixels, rows, bar=shown, **options)

    def fresh_network(self, where: str, seed: int):
        torch.manual_seed(seed)
        size, channels = self.pixels.shape[1], self.pixels.shape[3]
        network, spec = create_model(self.config.model_of(where), self.classes, size, channels)
        more = {"amp_dtype": self.config.train_of(where).amp_dtype, "multi_label": self.given_labels.ndim == 2}
        return network, replace(spec, **more)


def seed_name(where: str) -> str:
    """What the seed of a network is drawn from: its own folder, but the arms that are compared share one."""
    return "student" if where in STUDENTS else where


def offer(trainer: Trainer, paths: np.ndarray) -> None:
    """Tell the other processes, where there are any, what they need to make the same trainer; paths: of its images."""
    if size() > 1:
        broadcast((trainer.config, paths, trainer.given_labels, trainer.classes, trainer.names, trainer.folder))


def run_worker() -> None:
    """The part of the other processes: do what the first one hands out."""
    import timm  # noqa: F401  it takes seconds, in which the first process reads

    if (heard := receive()) is None:
        return
    config, paths, *others = heard
    pixels, _ = load_images(paths, config.data)
    worker_loop(Trainer(config, pixels, *others).serve)


def bar(total: int, title: str):
    """A progress bar on a terminal (and in a notebook), silence elsewhere."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=title, disable=True if rank() else None, leave=False)


def title(config: Config, where: str) -> str:
    """`round_1/fold_0` → `round 1/2 · fold 1/2`."""
    policy = config.pseudo
    parts = [part.partition("_") for part in where.split("/")]
    k = policy.folds  # a fold whose pool is in two halves has a second model, see leak_free_fold_jobs
    names = {
        "round": lambda n: f"round {n}/{policy.rounds}",
        "fold": lambda n: f"fold {int(n) % k + 1}/{k}" + ("" if int(n) < k else " (2nd half)"),
    }
    return " · ".join(names[word](n) if word in names else word for word, _, n in parts)
