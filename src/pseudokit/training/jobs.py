"""The `fit` and `predict` of the loop for the networks of a run: trained, kept on disk, read back."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..config.types import UserError
from ..data.transforms import is_whole_batch
from ..labels.out_of_fold import FoldJob, Second
from ..round_store import BACK
from ..system.distributed import map_jobs, size
from ..system.files import TimeBudgetExceeded, hash_of, log, read_json, write_csv
from .checkpoint import forget
from .linear_probe import head_log_probs
from .loop import step_budget
from .models import TrainedModel, load_model, save_model
from .trainer import Trainer, TrainJob, title

MAX_WAITING_SHARE = 0.1
"""Share of the time that the network may wait for images before the log says what helps."""


@dataclass
class JobRunner:
    """Trains and predicts for the loop. A model that is in its folder already is read: so a stopped run goes on.

    second: see predict_out_of_fold; None = no second opinion. time_for: whether so many seconds are left.
    seconds_per_step: of the slowest network that this process has trained.
    """

    trainer: Trainer
    second: Second | None
    time_for: Callable[[float], bool]
    seconds_per_step: float = 0.0

    def fit(self, where: str, rows: np.ndarray, labels: np.ndarray) -> TrainedModel:
        """The model of a folder that learns these labels, see `run`."""
        return self.run(TrainJob(where, rows, labels))

    def run(self, job: TrainJob) -> TrainedModel:
        """The model of a job, trained or read.

        Raises:
            UserError: it was trained from something else.
            TimeBudgetExceeded: its training would not end in time.
        """
        job = self._complete(job)
        if self._is_trained(job):
            return load_model(self.trainer.folder / job.where)
        if not self.trainer.is_frozen(job.where):
            self._refuse_late([job])
        return self._keep(job, *self.trainer.train(job))

    def predict(self, model: TrainedModel, rows: np.ndarray, views: int = 1) -> np.ndarray:
        """(len(rows), K) log-probabilities; views: of each image: itself, and others drawn from predict.augment."""
        if model.backbone:
            return head_log_probs(model, self.trainer.embeddings[rows])
        return self.trainer.predict(model, rows, views)

    def ahead(self, jobs: list[TrainJob]) -> None:
        """Let several processes, if there are any, do these jobs at once; `run` then finds the models."""
        if size() == 1:
            return
        jobs = [self._complete(job) for job in jobs if not self.trainer.is_frozen(job.where)]
        to_do = [None if self._is_trained(job) else job for job in jobs]
        left = [job for job in to_do if job]
        self._refuse_late(left)
        for job, result in zip(left, map_jobs(self.trainer.run_job, to_do), strict=True):
            self._keep(job, *result)

    def run_fold_jobs_ahead(self, fold_jobs: list[FoldJob]) -> None:
        """The same for the fold jobs of a round."""
        self.ahead([TrainJob(job.where, job.learned, job.targets) for job in fold_jobs])

    def _complete(self, job: TrainJob) -> TrainJob:
        """The job with its steps, and with the hash of what it depends on.

        The hash is not that of its steps, too: those of a baseline follow the student's.
        """
        config = self.trainer.config
        train = config.train_of(job.where)
        no_effect = {"num_workers", "checkpoint_every"}
        input_hash = hash_of(
            self.trainer.input_hash,
            config.model_of(job.where).model_dump(exclude_defaults=True),
            train.model_dump(exclude_defaults=True, exclude=no_effect),
            config.seed,
            job.rows,
            job.labels,
            *job.unlabeled,
        )
        steps = job.steps or step_budget(len(job.rows), train)
        return replace(job, steps=steps, input_hash=input_hash)

    def _is_trained(self, job: TrainJob) -> bool:
        """Whether its model is in its folder. Raises UserError if that was trained from something else."""
        file = self.trainer.folder / job.where / "model.json"
        if not file.exists():
            return False
        if read_json(file, "input_hash")["input_hash"] != job.input_hash:
            raise UserError(
                f"{file} was made from other images, labels or keys than this run has now; {BACK}"
            )
        return True

    def _refuse_late(self, jobs: list[TrainJob]) -> None:
        """Raises TimeBudgetExceeded where jobs would not end in time.

        The first network of a process is always trained, so that the same command makes progress every time.
        """
        steps = max((job.steps for job in jobs), default=0)
        waves = math.ceil(len(jobs) / size())
        seconds = waves * steps * self.seconds_per_step
        if seconds and not self.time_for(seconds):
            raise TimeBudgetExceeded

    def _keep(self, job: TrainJob, model: TrainedModel, history: pd.DataFrame) -> TrainedModel:
        """Write a network into its folder, and what it cost into the log."""
        folder, last = self.trainer.folder / job.where, history.iloc[-1]
        write_csv(folder / "history.csv", history)
        model = save_model(folder, model.network, model.spec, model.backbone, job.input_hash)
        forget(folder)
        steps = job.steps
        if model.backbone:
            steps = len(history)
        else:
            self.seconds_per_step = max(self.seconds_per_step, last.seconds / steps)
        line = f"{title(self.trainer.config, job.where)}: {len(job.rows):,} labels, {steps:,} steps"
        if last.skipped:
            line += f", {last.skipped:,.0f} of them left out (no finite gradient)"
        line += f", loss {last.loss:.3f}, {last.seconds:.1f} s"
        augment = self.trainer.config.train_of(job.where).augment
        has_waited = last.waited > MAX_WAITING_SHARE * last.seconds
        if has_waited and not is_whole_batch(augment, model.spec.size):
            percent = f"{100 * last.waited / last.seconds:.0f} %"
            line += f"; {percent} of it waiting for images: try train.num_workers=2 or more"
        log.info(line)
        return model
