"""The networks of a run: how every process trains and predicts, and how the first one keeps and reads them."""

import copy
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy import ndarray
from scipy import sparse
from torch import nn

from ..config.keys import STUDENTS, Config, member_folder, split_folder
from ..config.types import UserError
from ..data.cache import Ranges, reserve
from ..data.encoding import has_label, is_correct
from ..data.images import load_images
from ..labels.out_of_fold import FoldJob, Second
from ..round_store import BACK
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
from ..system.faults import handle_signals
from ..system.files import TimeBudgetExceeded, hash_of, log, read_json, seed_of, write_csv
from ..system.progress import progress
from .batches import TrainingSet
from .checkpoint import Checkpoints, forget
from .device import Division, pick_device
from .embedding_store import EmbeddingStore
from .history import TrainingHistory
from .label_propagation import gradient_features, graph_power, neighbor_graph, propagate_labels
from .linear_probe import alike_features, fit_head, head_log_probs, linear_classifier
from .loop import step_budget, train_model
from .models import (
    ModelSpec,
    TrainedModel,
    batch_norms,
    classifier_ids,
    create_model,
    load_model,
    save_model,
    with_head,
)
from .predict import batch_size, embed, log_probs

ROWS_PER_TRAINED_IMAGE = 0.03
"""Of data.val, that are scored five times a network: together less than a twentieth of the time of training."""
BATCHES_PER_STORE = 16
"""After how many of them embeddings are stored: a run that is stopped loses seconds."""
EMBEDDING_VERSION = 2
"""Raise it with every change of what an image is embedded to, or runs go on with the old embeddings."""
STORE = ".embeddings"
"""Folder of embeddings that all runs share, in that of the decoded images if there is one, else among the runs."""


@dataclass(frozen=True)
class TrainJob:
    """One network to train.

    where: its folder in the run, as `round_1/fold_0` or `student`.
    rows, labels: what it learns; labels (n,) or soft targets (n, K).
    unlabeled: rows for the consistency term, and (M, K) log-probabilities of teachers for them, or None.
    steps: 0 = by the number of rows, which a JobRunner fills in.
    input_hash: of the images, the labels and the keys that it depends on.
    """

    where: str
    rows: ndarray
    labels: ndarray
    unlabeled: tuple = ()
    steps: int = 0
    input_hash: str = ""


def planned_steps(config: Config, given_labels: ndarray) -> dict[str, int]:
    """Steps of every network by its folder, in the order of their training; a head takes one.

    At most: every unlabeled image that may get a pseudo-label is counted as one that does.
    """
    pseudo = config.pseudo
    n_labeled = int(has_label(given_labels).sum())
    n_unlabeled = len(given_labels) - n_labeled
    n_learned = n_labeled + math.ceil((pseudo.top_fraction or 1) * n_unlabeled)
    arms = {}
    for number in range(1, 1 + (0 if config.predictions.labeled else pseudo.rounds)):
        n_rows = n_learned if number > 1 else n_labeled
        n_in_other_folds = n_rows * (pseudo.folds - 1) // pseudo.folds
        arms |= {f"round_{number}/fold_{fold}": n_in_other_folds for fold in range(pseudo.folds)}
    has_baseline = pseudo.train_baseline and pseudo.rounds > 0
    arms |= dict.fromkeys(STUDENTS[: 1 + has_baseline], n_learned)
    steps = {}
    for arm, n_rows in arms.items():
        models = [*enumerate(config.models_of(arm))]
        for member, model in models[::-1] if arm in STUDENTS else models:
            n_steps = 1 if model.freeze_backbone else step_budget(n_rows, config.train)
            steps[member_folder(arm, member)] = n_steps
    return steps


class PredictJob(NamedTuple):
    """Rows that a model predicts. tta: views of an image. first: how many rows come before these, see log_probs."""

    model: TrainedModel
    rows: ndarray
    tta: int
    first: int = 0


@dataclass(frozen=True)
class Trainer:
    """What every process has at hand, and how it trains and predicts: whole networks, or heads on a frozen one.

    pixels: (N, H, W, C) uint8. given_labels: of the first n of them, which a run learns or predicts. folder: the run
    folder, for checkpoints and what is frozen; None = there are no checkpoints. input_hash: of the judged images, the
    classes and the files of weights: what is large is read once. ranges: of the pixels, see load_images. val: rows of
    data.val and their labels, for curves. divisions: of batches, by the name of the model.
    """

    config: Config
    pixels: ndarray
    given_labels: ndarray
    classes: tuple[str, ...]
    folder: Path | None = None
    input_hash: str = ""
    ranges: Ranges = field(default_factory=dict)
    val: tuple[ndarray, ndarray] = ((), ())
    divisions: dict[str, Division] = field(default_factory=dict)

    def run_job(self, job: TrainJob | PredictJob, process_group: ProcessGroup = ALONE) -> Any:
        """Do a job that the first process hands out. Nothing but checkpoints is written.

        Returns:
            See `train`; of a PredictJob (len(rows), K) log-probabilities, by this process alone.
        """
        if isinstance(job, TrainJob):
            return self.train(job, process_group)
        return log_probs(
            job.model,
            self.pixels,
            job.rows,
            device=self.config.train.device,
            tta=job.tta,
            spec=self.config.view,
            first=job.first,
        )

    def train(
        self, job: TrainJob, process_group: ProcessGroup = ALONE
    ) -> tuple[TrainedModel, pd.DataFrame] | None:
        """Train the network of a job; None where the others of the group do better without this process.

        Student and baseline have one seed, so they start from the same weights and draw the same augmentation for each
        place in each batch. If they learn as many rows, the order is the same too, and they differ by their labels
        alone.

        Returns:
            The model, whose hash is not known yet, and its history, see train_model.

        Raises:
            UserError: see train_model.
        """
        if self.is_frozen(job.where):
            embeddings = self.embeddings
            with progress.part(self.title(job.where), where=job.where):
                return self._train_head(job, embeddings)
        train = self.config.train_of(job.where)
        seed = self._seed(job.where)
        network, spec = self.fresh_network(job.where, seed)
        if batch_norms(network) and not train.linear_probe_first:
            # Statistics of a part of a batch are not those of the batch: one process trains alone.
            if process_group.index > 0:
                return None
            process_group = ALONE
        pseudo = ~has_label(self.given_labels[job.rows])
        training_set = TrainingSet(
            self.pixels, job.rows, job.labels, job.steps, seed, pseudo, *job.unlabeled
        )
        # Another machine may not see the run folder; there are no checkpoints then.
        folder = self.folder / job.where if self.folder and self.folder.exists() else None
        key = hash_of(job.input_hash, job.steps, code_hash(), torch.__version__, process_group.size)
        saved = Checkpoints(folder, key, train, process_group)
        name = self.title(job.where)
        if saved.step:
            log.info(f"{name}: goes on after {saved.step:,} of {job.steps:,} steps")
        if train.linear_probe_first and not saved.step:  # else the checkpoint has the head
            with progress.part("embed", len(job.rows)):
                embeddings = np.concatenate([*self._embed(network, spec, job.rows)])
            given_labels = job.labels.copy()
            given_labels[pseudo] = -1
            k, multi_label = len(spec.classes), spec.multi_label
            head, _ = fit_head(embeddings, job.labels, k, multi_label, given_labels)
            network = with_head(network, head.state_dict())
        writer = live = None
        is_first = folder and process_group.index == 0
        if is_first and self.config.wandb.mode != "disabled":
            live = folder / "history.csv"
        if is_first and self.config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            events = self.folder / "tensorboard" / job.where
            writer = SummaryWriter(events, purge_step=saved.step + 1, flush_secs=10)
        history = TrainingHistory(
            partial(self._val_accuracy, spec, job),
            job.steps,
            writer,
            live,
            train.batch_size / len(job.rows),
        )
        with progress.part(name, job.steps, saved.step, train.batch_size, job.where):
            network, curve = train_model(
                network,
                spec,
                training_set,
                train,
                process_group=process_group,
                division=self.divisions.setdefault(spec.name, Division(train.accumulate)),
                saved=saved,
                history=history,
            )
        if writer:
            writer.close()
        return TrainedModel(network, spec), curve

    def _val_accuracy(self, spec: ModelSpec, job: TrainJob, network: nn.Module) -> float:
        """Of a network in training, on a few rows of data.val; NaN where there are none.

        A copy of it predicts, so that the training goes on to the same bytes.
        """
        rows, labels = self.val
        n_rows = int(ROWS_PER_TRAINED_IMAGE * job.steps * self.config.train.batch_size)
        some = np.random.default_rng(0).permutation(len(rows))[:n_rows]
        if not len(some):
            return math.nan
        model = TrainedModel(copy.deepcopy(network), spec)
        try:
            answers = log_probs(model, self.pixels, rows[some], device=self.config.train.device)
        except UserError:  # not finite: training may recover
            return math.nan
        return float(is_correct(answers.argmax(-1), labels[some]).mean())

    def _seed(self, where: str) -> int:
        """Of a network: from its folder, so that it does not depend on what was trained before."""
        arm, member = split_folder(where)
        if arm in STUDENTS:
            where = member_folder("student", member)
        return seed_of(self.config.seed, where)

    def _train_head(
        self, job: TrainJob, embeddings: dict[str, ndarray]
    ) -> tuple[TrainedModel, pd.DataFrame]:
        _, member = split_folder(job.where)
        backbone = self.backbones[member]
        spec = backbone.spec
        head, history = fit_head(
            embeddings[backbone.hash][job.rows],
            job.labels,
            len(spec.classes),
            spec.multi_label,
            self.given_labels[job.rows],
            n_networks=len(self.backbones) + len(self.config.teachers or ()),
        )
        progress.advance()
        network = with_head(backbone.network, head.state_dict())
        return TrainedModel(network, spec, backbone=backbone.hash), history

    def predict(self, model: TrainedModel, rows: ndarray, tta: int, alone: bool = False) -> ndarray:
        """(len(rows), K) log-probabilities; each process takes its share of the batches, or this one alone all."""
        batch = batch_size(model.spec.size, pick_device(self.config.train.device))
        n_processes = 1 if alone else size()
        share = batch * max(1, math.ceil(len(rows) / (batch * n_processes)))
        jobs = [
            PredictJob(model, rows[start : start + share], tta, start)
            for start in range(0, max(len(rows), 1), share)
        ]
        if len(jobs) == 1:
            return self.run_job(jobs[0])
        return np.concatenate(list(map_jobs(self.run_job, jobs)))

    def fresh_network(self, where: str, seed: int) -> tuple[nn.Module, ModelSpec]:
        """The network of this folder, before its training."""
        torch.manual_seed(seed)
        config, train = self.config.model_of(where), self.config.train_of(where)
        network, spec = create_model(config, self.classes, *self.pixels.shape[2:])
        multi_label = self.given_labels.ndim == 2
        return network, replace(
            spec, amp_dtype=train.amp_dtype, multi_label=multi_label, ranges=self.ranges
        )

    def title(self, where: str) -> str:
        """`round_1/fold_0` → `round 1/2 · fold 1`; `student` stays. Of a council also which model it is."""
        arm, member = split_folder(where)
        title = arm
        if arm not in STUDENTS:
            number, fold = map(int, re.findall(r"\d+", arm))
            title = f"round {number}/{self.config.pseudo.rounds} · fold {fold + 1}"
        return f"{title} · model {member + 1}" if len(self.config.models_of(arm)) > 1 else title

    def is_frozen(self, where: str) -> bool:
        """Whether only a head is trained for this folder."""
        return self.config.model_of(where).freeze_backbone

    @cached_property
    def backbones(self) -> list[TrainedModel]:
        """The frozen network of each member, which is kept in the folder `backbone` of the run."""
        n_members = len(self.config.model.members)
        return [self._backbone(member_folder("backbone", member)) for member in range(n_members)]

    def _backbone(self, where: str) -> TrainedModel:
        folder = self.folder / where
        if (folder / "model.json").exists():
            return load_model(folder)
        return save_model(folder, *self.fresh_network(where, self._seed(where)))

    @cached_property
    def embeddings(self) -> dict[str, ndarray]:
        """(N, D) of all images, by the hash of the frozen network."""
        return {backbone.hash: self._embeddings(backbone) for backbone in self.backbones}

    def _embeddings(self, backbone: TrainedModel) -> ndarray:
        """(N, D) in a file of the run, for its report. Every process writes it anew from the store."""
        n = len(self.pixels)
        log.info(f"embed: {n:,} images with {backbone.spec.name}")
        file = self.folder / f"embeddings_{backbone.hash}.npy"
        part = file.with_suffix(".part.npy")
        units = linear_classifier(backbone.network).in_features
        embeddings = reserve(part, (n, units), np.float32)
        done = 0
        with progress.part("embed", n):
            for vectors in self._embed(backbone.network, backbone.spec, np.arange(n)):
                embeddings[done : done + len(vectors)] = vectors
                done += len(vectors)
        embeddings.flush()
        return np.load(part.replace(file), mmap_mode="r")

    @cached_property
    def graph(self) -> sparse.csr_array:
        """The similar ones among the images that a run learns or judges, see neighbor_graph; made when first needed."""
        n = len(self.given_labels)
        if self.config.model.freeze_backbone:
            of_members = [alike_features(x[:n]) for x in self.embeddings.values()]
            features = np.concatenate(of_members, axis=1)
        else:
            features = gradient_features(self.pixels[:n])
        return neighbor_graph(features)

    def _embed(self, network: nn.Module, spec: ModelSpec, rows: ndarray) -> Iterator[ndarray]:
        """(…, D) float32 embeddings of these images, part by part; those that any run has made before are read."""
        train = self.config.train_of("backbone")
        store = self._store(network, spec)
        step = BATCHES_PER_STORE * batch_size(spec.size, pick_device(train.device))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            images = self.pixels[part]
            known, vectors = store.find(images)
            embeddings = np.empty((len(part), vectors.shape[1]), np.float32)
            embeddings[known] = vectors
            progress.advance(int(known.sum()))
            if not known.all():
                new = embed(network, spec, self.pixels, part[~known], train)
                store.add(images[~known], new)
                embeddings[~known] = new
            yield embeddings

    def _store(self, network: nn.Module, spec: ModelSpec) -> EmbeddingStore:
        """Where embeddings of this backbone are kept: its name has hashes of all that their bytes depend on."""
        import timm

        config = self.config
        folder = Path(config.data.cache or config.out) / STORE
        head = classifier_ids(network)
        tensors = network.state_dict(keep_vars=True).values()
        weights = []
        for tensor in tensors:
            if id(tensor) not in head:
                weights.append(tensor.detach().cpu().numpy())
        view = (
            spec.name,
            spec.kwargs,
            spec.size,
            spec.mean,
            spec.std,
            spec.ranges,
        )
        device = pick_device(config.train.device).type
        versions = (EMBEDDING_VERSION, torch.__version__, timm.__version__)
        computed = (spec.amp_dtype, device, torch.get_num_threads(), *versions)
        name = hash_of(*weights, *view, *computed)
        return EmbeddingStore(folder, name, linear_classifier(network).in_features)


@dataclass
class JobRunner:
    """Trains and predicts for the loop. A model that is in its folder already is read: so a stopped run goes on.

    time_for: whether so many seconds are left.
    seconds_per_step: of the slowest network that this process has trained, without making it and its statistics.
    """

    trainer: Trainer
    time_for: Callable[[float], bool]
    seconds_per_step: float = 0.0

    def fit(self, where: str, rows: ndarray, labels: ndarray) -> TrainedModel:
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

    def predict(self, model: TrainedModel, rows: ndarray, views: int = 1) -> ndarray:
        """(len(rows), K) log-probabilities; views: of each image: itself, and others drawn from predict.augment."""
        if model.backbone:
            return head_log_probs(model, self.trainer.embeddings[model.backbone][rows])
        return self.trainer.predict(model, rows, views)

    @property
    def second(self) -> Second | None:
        """What the labels of similar images say of unlabeled ones, where pseudo.label_propagation asks for it."""
        return self.second_opinion(self.trainer.config.pseudo.label_propagation)

    def second_opinion(self, power: float | str) -> Second | None:
        """The same with a power of its own."""
        trainer, n_classes = self.trainer, len(self.trainer.classes)
        if power == "auto":
            labels_per_class = has_label(trainer.given_labels).sum() / n_classes
            power = graph_power(labels_per_class, len(trainer.config.model.members))
        if not power:
            return None

        def log_probs(job: FoldJob) -> ndarray:
            with progress.part("propagate labels"):
                spread = propagate_labels(trainer.graph, job.learned, job.targets, n_classes)
            return power * spread[job.judged]

        return log_probs

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

        The hash leaves the steps out: those of a baseline follow the student's.
        """
        config = self.trainer.config
        train = config.train_of(job.where)
        input_hash = hash_of(
            self.trainer.input_hash,
            config.model_of(job.where).model_dump(exclude_defaults=True),
            # The two keys change no byte of the result.
            train.model_dump(exclude_defaults=True, exclude={"num_workers", "checkpoint_every"}),
            config.seed,
            job.rows,
            job.labels,
            *job.unlabeled,
        )
        return replace(
            job,
            steps=job.steps or step_budget(len(job.rows), train),
            input_hash=input_hash,
        )

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
        folder = self.trainer.folder / job.where
        last = history.iloc[-1]
        write_csv(folder / "history.csv", history)
        model = save_model(folder, model.network, model.spec, model.backbone, job.input_hash)
        forget(folder)
        steps = job.steps
        if model.backbone:
            steps = len(history)
        else:
            self.seconds_per_step = max(self.seconds_per_step, last.seconds / steps)
        left_out = f" ({last.skipped:,.0f} without a finite gradient)" if last.skipped else ""
        log.info(
            f"{self.trainer.title(job.where)}: {len(job.rows):,} labels, {steps:,} steps{left_out}, "
            f"loss {last.loss:.3f}, {last.seconds:.1f} s"
        )
        return model


def offer(trainer: Trainer, paths: ndarray) -> None:
    """Send the trainer to the other processes, if there are any. Its images travel as their paths."""
    if size() > 1:
        broadcast(replace(trainer, pixels=paths))


def run_worker() -> None:
    """What the other processes do: the jobs that the first one hands out."""
    import timm  # noqa: F401  takes seconds, in which the first process reads the data

    trainer = receive()
    if trainer is None:
        return
    handle_signals()  # not before: where it waits for the first process, it would not get to them
    pixels, _ = load_images(trainer.pixels, trainer.config.data, trainer.ranges)
    worker_loop(replace(trainer, pixels=pixels).run_job)
