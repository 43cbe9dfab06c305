"""The `fit` and `predict` of the loop for the networks of a run: trained, kept on disk, read back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..config.types import UserError
from ..data.cache import reserve
from ..data.transforms import is_whole_batch
from ..labels.out_of_fold import FoldJob, Second
from ..round_store import BACK
from ..system.distributed import map_jobs, size
from ..system.files import TimeBudgetExceeded, hash_of, log, read_json, seed_of, write_csv
from .checkpoint import forget
from .device import pick_device
from .history import progress_bar
from .linear_probe import fit_head, head_log_probs, linear_classifier, with_head
from .models import TrainedModel, load_model, save_model
from .predict import batch_size, embed
from .trainer import Trainer, TrainJob, TrainResult, title

BATCHES_PER_WRITE = 16
"""After how many of them embeddings are written down: a run that is stopped loses seconds."""
MAX_WAITING_SHARE = 0.1
"""Share of the time that the network may wait for images before the log says what helps."""


@dataclass(frozen=True)
class LinearProbe:
    """Heads on the embeddings of one frozen network, which is kept in the folder `backbone` of the run.

    input_hash: as that of the JobRunner.
    """

    path: Path
    trainer: Trainer
    input_hash: str

    @cached_property
    def backbone(self) -> TrainedModel:
        """The frozen network."""
        folder = self.path / "backbone"
        if (folder / "model.json").exists():
            return load_model(folder)
        seed = seed_of(self.trainer.config.seed, "backbone")
        return save_model(folder, *self.trainer.fresh_network("backbone", seed))

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D) of all images, in a file of the run. Its name has hashes of what it was made from, and of itself."""
        scored_only = self.trainer.pixels[
            len(self.trainer.given_labels) :
        ]  # input_hash has those of the others
        name = f"embeddings_{hash_of(self.backbone.hash, self.input_hash, scored_only)}"
        for file in self.path.glob(f"{name}_*.npy"):
            if file.stem == f"{name}_{hash_of(file)}":
                return np.load(file, mmap_mode="r")
            log.info(f"{file} is not as it was written; its images are embedded anew")
            file.unlink()
        part = self._embed(name)
        file = part.replace(self.path / f"{name}_{hash_of(part)}.npy")
        return np.load(file, mmap_mode="r")

    def _embed(self, name: str) -> Path:
        """Embed all images into NAME.<rows that are done>.rows, so that a process that was stopped goes on."""
        start = time.monotonic()
        network, spec = self.backbone.network, self.backbone.format
        train = self.trainer.config.train_of("backbone")
        n = len(self.trainer.pixels)
        part = next(self.path.glob(f"{name}.*.rows"), None)
        if part is None:
            part = self.path / f"{name}.0.rows"
            reserve(part, (n, linear_classifier(network).in_features), np.float32)
        done = int(part.name.split(".")[1])
        if done:
            log.info(f"embed: goes on after {done:,} of {n:,} images")
        embeddings = np.lib.format.open_memmap(part, "r+")
        step = BATCHES_PER_WRITE * batch_size(spec.size, pick_device(train.device))
        with progress_bar(n, "embed") as bar:
            bar.update(done)
            for first in range(done, n, step):
                last = min(first + step, n)
                rows = np.arange(first, last)
                embeddings[first:last] = embed(network, spec, self.trainer.pixels, rows, train)
                embeddings.flush()
                part = part.replace(self.path / f"{name}.{last}.rows")
                bar.update(last - first)
        log.info(f"embedded {n - done:,} images, {time.monotonic() - start:.1f} s")
        return part

    def train(self, job: TrainJob) -> TrainResult:
        """Fit a head on the embeddings of a job's rows."""
        start = time.monotonic()
        spec = self.backbone.format
        head, history = fit_head(
            self.embeddings[job.rows],
            job.labels,
            len(spec.classes),
            spec.multi_label,
            self.trainer.given_labels[job.rows],
        )
        network = with_head(self.backbone.network, head)
        model = TrainedModel(network, spec, hash="")
        return TrainResult(model, history, time.monotonic() - start)

    def predict(self, model: TrainedModel, rows: np.ndarray) -> np.ndarray:
        """(len(rows), K) log-probabilities."""
        return head_log_probs(model, self.embeddings[rows])


@dataclass
class JobRunner:
    """Trains and predicts for the loop. A model that is in its folder already is read: so a stopped run goes on.

    path: the run folder. second: see predict_out_of_fold; None = no second opinion. time_for: whether so many seconds
    are left. input_hash: of the judged images, the classes and the files of weights: what is large is read once.
    seconds_per_step: of the slowest network that this process has trained.
    """

    path: Path
    trainer: Trainer
    frozen: LinearProbe
    second: Second | None
    time_for: Callable[[float], bool]
    input_hash: str
    seconds_per_step: float = 0.0

    def fit(
        self,
        where: str,
        rows: np.ndarray,
        labels: np.ndarray,
        pool=(),
        steps: int | None = None,
    ) -> TrainedModel:
        """The model of a folder, trained or read; the arguments are those of TrainJob.

        Raises:
            UserError: it was trained from something else.
            TimeBudgetExceeded: its training would not end in time.
        """
        job = self._with_hash(TrainJob(where, rows, labels, pool, steps))
        if self._is_trained(job):
            return load_model(self.path / where)
        if self._is_frozen(where):
            return self._keep(job, self.frozen.train(job), self.frozen.backbone.hash)
        self._refuse_late([job])
        return self._keep(job, self.trainer.train(job))

    def predict(self, model: TrainedModel, rows: np.ndarray, views: int = 1) -> np.ndarray:
        """(len(rows), K) log-probabilities; views: of each image: itself, and others drawn from predict.augment."""
        if model.backbone:
            return self.frozen.predict(model, rows)
        return self.trainer.predict(model, rows, views)

    def ahead(self, jobs: list[TrainJob]) -> None:
        """Let several processes, if there are any, do these jobs at once; `fit` then finds the models."""
        if size() == 1:
            return
        jobs = [self._with_hash(job) for job in jobs if not self._is_frozen(job.where)]
        to_do = [None if self._is_trained(job) else job for job in jobs]
        left = [job for job in to_do if job]
        self._refuse_late(left)
        for job, result in zip(left, map_jobs(self.trainer.run_job, to_do), strict=True):
            self._keep(job, result)

    def run_fold_jobs_ahead(self, fold_jobs: list[FoldJob]) -> None:
        """The same for the fold jobs of a round."""
        self.ahead([TrainJob(job.where, job.learned, job.targets) for job in fold_jobs])

    def _with_hash(self, job: TrainJob) -> TrainJob:
        """The job with the hash of what it depends on. Not of its steps: those of a baseline follow the student's."""
        config = self.trainer.config
        no_effect = {"num_workers", "checkpoint_every"}
        input_hash = hash_of(
            self.input_hash,
            config.model_of(job.where).model_dump(exclude_defaults=True),
            config.train_of(job.where).model_dump(exclude_defaults=True, exclude=no_effect),
            config.seed,
            job.rows,
            job.labels,
            *job.pool,
        )
        return replace(job, input_hash=input_hash)

    def _is_trained(self, job: TrainJob) -> bool:
        """Whether its model is in its folder. Raises UserError if that was trained from something else."""
        file = self.path / job.where / "model.json"
        if not file.exists():
            return False
        if read_json(file, "input_hash")["input_hash"] != job.input_hash:
            raise UserError(
                f"{file} was made from other images, labels or keys than this run has now; {BACK}"
            )
        return True

    def _is_frozen(self, where: str) -> bool:
        return self.trainer.config.model_of(where).freeze_backbone

    def _refuse_late(self, jobs: list[TrainJob]) -> None:
        """Raises TimeBudgetExceeded where jobs would not end in time.

        The first network of a process is always trained, so that the same command makes progress every time.
        """
        if not jobs or not self.seconds_per_step:
            return
        steps = max(job.budget(self.trainer.config.train_of(job.where)) for job in jobs)
        waves = math.ceil(len(jobs) / size())
        if not self.time_for(waves * steps * self.seconds_per_step):
            raise TimeBudgetExceeded

    def _keep(
        self,
        job: TrainJob,
        result: TrainResult,
        backbone: str | None = None,
    ) -> TrainedModel:
        """Write a network into its folder, and what it cost into the log."""
        config, folder, history = self.trainer.config, self.path / job.where, result.history
        write_csv(folder / "history.csv", history)
        model = save_model(
            folder, result.model.network, result.model.format, backbone, job.input_hash
        )
        forget(folder)
        last = history.iloc[-1]
        steps = len(history)
        if not backbone:
            steps = job.budget(config.train_of(job.where))
            seconds = max(
                result.seconds, last.seconds
            )  # the second counts those before a stop, too
            self.seconds_per_step = max(self.seconds_per_step, seconds / steps)
        skipped = (
            f", {last.skipped:,.0f} of them left out (no finite gradient)" if last.skipped else ""
        )
        log.info(
            f"{title(config, job.where)}: {len(job.rows):,} labels, {steps:,} steps{skipped}, "
            f"loss {last.loss:.3f}, {result.seconds:.1f} s{self._hint(job, last.waited / max(last.seconds, 1e-9))}"
        )
        return model

    def _hint(self, job: TrainJob, waiting_share: float) -> str:
        """What helps where the network waited long for images that loader processes can augment."""
        augment = self.trainer.config.train_of(job.where).augment
        side = self.trainer.pixels.shape[1]
        if waiting_share <= MAX_WAITING_SHARE or is_whole_batch(augment, side):
            return ""
        return f"; {100 * waiting_share:.0f} % of it waiting for images: try train.num_workers=2 or more"
