"""The `fit` and `predict` of the loop for the networks of a run: trained, kept on disk, read back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import STUDENTS
from ..config.types import UserError
from ..data.cache import reserve
from ..data.transforms import is_whole_batch
from ..labels.out_of_fold import FoldJob, Second
from ..round_store import BACK
from ..system.distributed import map_jobs, size
from ..system.files import TimeBudgetExceeded, hash_of, log, read_json, seed_of, write_csv
from .checkpoint import forget
from .device import pick_device
from .linear_probe import embed, fit_head, head_log_probs, width, with_head
from .models import TrainedModel, load_model, save_model
from .predict import batch_size
from .trainer import Trainer, TrainJob, TrainResult, bar, title

BATCHES = 16
"""After how many of them embeddings are written down."""
LONG = 0.1
"""Share of the time that the network may wait for images before something is said."""


@dataclass(frozen=True)
class LinearProbe:
    """Heads on the embeddings of one frozen network, which is kept in the folder `body` of the run."""

    path: Path
    trainer: Trainer
    input_hash: str
    """As that of the JobRunner."""

    @cached_property
    def backbone(self) -> TrainedModel:
        if (self.path / "backbone" / "model.json").exists():
            return load_model(self.path / "backbone")
        return save_model(
            self.path / "backbone",
            *self.trainer.fresh_network("backbone", seed_of(self.trainer.config.seed, "backbone")),
        )

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D), in a file of the run that is named by hashes of what it was made from, and of itself; made once."""
        n = len(self.trainer.given_labels)  # made_from has a hash of these already
        name = f"embeddings_{hash_of(self.backbone.hash, self.input_hash, self.trainer.pixels[n:])}"
        for file in self.path.glob(f"{name}_*.npy"):
            if file.stem == f"{name}_{hash_of(file)}":
                return np.load(file, mmap_mode="r")
            log.info(f"{file} is not as it was written; embedded anew")
            file.unlink()
        part = self._embed(self.path / name)
        return np.load(part.replace(self.path / f"{name}_{hash_of(part)}.npy"), mmap_mode="r")

    def _embed(self, file: Path) -> Path:
        """The file's suffix says how many of its rows are on the disk: a process that was stopped goes on."""
        network, spec, train = self.backbone.network, self.backbone.format, self.trainer.config.train_of("backbone")
        n, start, begun = len(self.trainer.pixels), time.monotonic(), next(self.path.glob(f"{file.name}.*.rows"), None)
        part, done = begun or file.with_suffix(".0.rows"), int(begun.suffixes[0][1:]) if begun else 0
        if done:
            log.info(f"embed: goes on after {done:,} of {n:,} images")
        else:
            reserve(part, (n, width(network)), np.float32)
        out = np.lib.format.open_memmap(part, "r+")
        at_once = BATCHES * batch_size(spec.size, pick_device(train.device))
        with bar(n, "embed") as shown:
            shown.update(done)
            for first in range(done, n, at_once):
                rows = np.arange(first, min(first + at_once, n))
                embed(network, spec, (self.trainer.pixels, rows), train, out[rows[0] : rows[-1] + 1], shown)
                out.flush()
                part = part.replace(file.with_suffix(f".{rows[-1] + 1}.rows"))
        log.info(f"embedded {n - done:,} images, {time.monotonic() - start:.1f} s")
        return part

    def work(self, task: TrainJob) -> TrainResult:
        rows, start = self.embeddings[task.rows], time.monotonic()
        spec, given_labels = self.backbone.format, self.trainer.given_labels[task.rows]
        head, history = fit_head(rows, task.labels, len(spec.classes), spec.multi_label, given_labels)
        network = with_head(self.backbone.network, head)
        return TrainResult(network, self.backbone.format, history, len(history), time.monotonic() - start, None)

    def predict(self, model: TrainedModel, rows: np.ndarray) -> np.ndarray:
        return head_log_probs(model, self.embeddings[rows])


@dataclass(frozen=True)
class JobRunner:
    """The arguments of the loop: fit and predict; second, see predict_out_of_fold, None where no look-alike is asked.

    Models are kept in the folder path / where; one that is already there is read, which is how a stopped run goes on.
    """

    path: Path
    trainer: Trainer
    frozen: LinearProbe
    second: Second | None
    time_for: Callable[[float], bool]
    input_hash: str
    """Hash of the judged images, the classes and the files of weights: what is large is read once."""
    said: dict[str, np.ndarray] = field(default_factory=dict)
    """By hash, what models said of the rows of their task."""
    pace: dict[str, float] = field(default_factory=dict)
    """Seconds a step of the networks that this process has trained: of `student` and `baseline`, of teachers ("")."""

    def fit(self, where: str, rows: np.ndarray, labels: np.ndarray, pool=(), steps: int | None = None) -> TrainedModel:
        """pool: rows that the consistency term looks at, and what teachers said of them. steps: default by the number
        of rows."""
        task = self._named(TrainJob(where, rows, labels, pool, steps))
        if self._has(where):
            self._refuse_foreign(task)
            return load_model(self.path / where)
        if self._freezes(where):
            return self._keep(task, self.frozen.work(task), self.frozen.backbone.hash)
        self._refuse_late([task])
        return self._keep(task, self.trainer.work(task))

    def predict(self, model: TrainedModel, rows: np.ndarray, views: int = 1) -> np.ndarray:
        """Log-probabilities averaged over views of a sample: itself, and others drawn from predict.augment."""
        if model.hash in self.said:
            return self.said.pop(model.hash)
        return self.frozen.predict(model, rows) if model.backbone else self.trainer.predict(model, rows, views)

    def ahead(self, tasks: list[TrainJob]) -> None:
        """Where there are several processes, have them work on these at once; fit and predict find the results."""
        if size() > 1:
            places = [
                None if self._has(task.where) else self._named(task) for task in tasks if not self._freezes(task.where)
            ]
            self._refuse_late([task for task in places if task is not None])
            for task, done in zip(filter(None, places), map_jobs(self.trainer.serve, places), strict=True):
                self._keep(task, done)

    def run_fold_jobs_ahead(self, fold_jobs: list[FoldJob]) -> None:
        """The same for the fold jobs of a round."""
        self.ahead(
            [
                TrainJob(fold_job.where, fold_job.learned, fold_job.targets, judged=fold_job.judged)
                for fold_job in fold_jobs
            ]
        )

    def _named(self, task: TrainJob) -> TrainJob:
        """The task with the hash of what it depends on; not its steps: those of a baseline follow the student's."""
        config, free = self.trainer.config, {"num_workers", "checkpoint_every"}
        model, train = config.model_of(task.where), config.train_of(task.where)
        keys = [section.model_dump(exclude_defaults=True, exclude=free) for section in (model, train)]
        made = hash_of(self.input_hash, *keys, config.seed, task.rows, task.labels, *task.pool)
        return replace(task, input_hash=made)

    def _refuse_foreign(self, task: TrainJob) -> None:
        """Raises UserError where a finished model was made from something else; one of an earlier version may be."""
        file = self.path / task.where / "model.json"
        if read_json(file).get("input_hash", task.input_hash) != task.input_hash:
            raise UserError(f"{file} was made from other images, labels or keys than this run has now; {BACK}")

    def _refuse_late(self, tasks: list[TrainJob]) -> None:
        """Raises TimeBudgetExceeded where these would not end in time. The first network of a process is always
        trained, so that running again leads somewhere."""
        slowest, config = max(self.pace.values(), default=0), self.trainer.config
        seconds = [task.budget(config.train_of(task.where)) * self.pace.get(_arm(task), slowest) for task in tasks]
        waves = -(-len(tasks) // size())
        if self.pace and tasks and not self.time_for(waves * max(seconds)):
            raise TimeBudgetExceeded

    def _has(self, where: str) -> bool:
        return (self.path / where / "model.json").exists()

    def _freezes(self, where: str) -> bool:
        return self.trainer.config.model_of(where).freeze_backbone

    def _keep(self, task: TrainJob, done: TrainResult, backbone: str | None = None) -> TrainedModel:
        folder, last = self.path / task.where, done.history.iloc[-1]
        write_csv(folder / "history.csv", done.history)
        model = save_model(folder, done.network, done.format, backbone, task.input_hash)
        forget(folder)
        what, counts = title(self.trainer.config, task.where), f"{len(task.rows):,} labels, {done.steps:,} steps"
        lost = f", {last.skipped:,.0f} of them left out (no finite gradient)" if last.skipped else ""
        log.info(f"{what}: {counts}{lost}, loss {last.loss:.3f}, {done.seconds:.1f} s{self._wait(task, last)}")
        if done.said is not None:
            self.said[model.hash] = done.said
        if not backbone:
            self.pace[_arm(task)] = max(self.pace.get(_arm(task), 0), max(done.seconds, last.seconds) / done.steps)
        return model

    def _wait(self, task: TrainJob, last: pd.Series) -> str:
        """How long the network waited for images, where that is long, and what helps."""
        share, size = last.waited / max(last.seconds, 1e-9), self.trainer.pixels.shape[1]
        if share <= LONG:
            return ""
        at_once = is_whole_batch(self.trainer.config.train_of(task.where).augment, size)
        return f"; {100 * share:.0f} % of it waiting for images" + (
            "" if at_once else ": try train.num_workers=2 or more"
        )


def _arm(task: TrainJob) -> str:
    return task.where if task.where in STUDENTS else ""
