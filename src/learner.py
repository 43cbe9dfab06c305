"""The arguments of the loop, on the material of a run: what trains, what predicts, what look-alikes say."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from .config import Config
from .data.images import load_images
from .data.samples import USES_POOL
from .data.transforms import is_whole_batch
from .judging import Second
from .learn.batches import Lesson
from .learn.compute import pick_device
from .learn.fit import can_share, fit, step_budget
from .learn.frozen import alike_features, embed, embeddings_file, fit_head, head_log_probs, width, with_head
from .learn.graph import gradient_features, neighbour_graph, spread
from .learn.infer import batch_size, log_probs
from .learn.models import Format, Trained, create_model, load_model, save_model
from .processes import ALONE, Team, each, follow, hear, rank, size, tell
from .run import Run, log, seed_of, write_csv
from .seats import Seat

if TYPE_CHECKING:
    from .workflow import Material

LONG = 0.1
"""Share of the time that the network may wait for images before something is said."""


@dataclass(frozen=True)
class Task:
    """What a network in the folder `where` is to learn, see Learner.fit, and the rows that it then judges."""

    where: str
    rows: np.ndarray
    labels: np.ndarray
    pool: tuple[np.ndarray, np.ndarray | None] | tuple[()] = ()
    steps: int | None = None
    judged: np.ndarray | None = None


class Done(NamedTuple):
    """What a task came to. said: (len(judged), K) log-probabilities."""

    network: torch.nn.Module
    format: Format
    history: pd.DataFrame
    steps: int
    seconds: float
    said: np.ndarray | None


class Question(NamedTuple):
    """What a model is to say of rows, the first of which is the `first` of all that are asked about."""

    model: Trained
    rows: np.ndarray
    views: int
    first: int = 0


@dataclass(frozen=True)
class Stock:
    """What every process has at hand. pixels: (N, H, W, C) uint8; given: (n,), of the judged ones, the first n."""

    config: Config
    pixels: np.ndarray
    given: np.ndarray
    classes: tuple[str, ...]

    def serve(self, job: Task | Question, team: Team) -> Done | np.ndarray:
        """What a process does for the first one; nothing is written."""
        return self.work(job, team) if isinstance(job, Task) else self.answer(job)

    def work(self, task: Task, team: Team = ALONE) -> Done | None:
        """Train the network of a task, and let it judge; None in a team that does better without this process.

        Raises:
            UserError: see fit.
        """
        train, start = self.config.train_of(task.where), time.monotonic()
        steps, seed = task.steps or step_budget(len(task.rows), train), seed_of(self.config.seed, task.where)
        lesson = Lesson(self.pixels, task.rows, task.labels, steps, seed, self.given[task.rows] < 0, *task.pool)
        network, form = self.fresh_network(task.where, seed)
        if team.size > 1 and not can_share(network, train):
            if team.index:
                return None
            team = ALONE
        with _bar(steps, f"{_title(self.config, task.where)} · train") as bar:
            network, history = fit(network, form, lesson, train, bar, team)
        model, seconds = Trained(network, form, ""), time.monotonic() - start
        said = None
        if task.judged is not None:
            said = self.answer(Question(model, task.judged, self.config.pseudo.views))
        return Done(network, form, history, steps, seconds, said)

    def predict(self, model: Trained, rows: np.ndarray, views: int) -> np.ndarray:
        """(len(rows), K) log-probabilities; each process takes its share of the batches."""
        at_once = batch_size(model.format.size, pick_device(self.config.train.device))
        share = at_once * -(-len(rows) // (at_once * size())) or 1
        asked = [Question(model, rows[i : i + share], views, i) for i in range(0, len(rows), share)]
        said = each(self.serve, asked) if len(asked) > 1 else map(self.answer, asked or [Question(model, rows, views)])
        return np.concatenate(list(said))

    def answer(self, asked: Question) -> np.ndarray:
        """(len(asked.rows), K) log-probabilities."""
        model, rows, views, first = asked
        options = {"device": self.config.train.device, "tta": views, "spec": self.config.view, "first": first}
        with _bar(len(rows) * views, "predict") as bar:
            return log_probs(model, self.pixels, rows, bar=bar, **options)

    def fresh_network(self, where: str, seed: int):
        torch.manual_seed(seed)
        size, channels = self.pixels.shape[1], self.pixels.shape[3]
        network, form = create_model(self.config.model_of(where), self.classes, size, channels)
        return network, replace(form, precision=self.config.train_of(where).precision)


@dataclass(frozen=True)
class Frozen:
    """Heads on the embeddings of one frozen network, which is kept in the folder `body` of the run."""

    path: Path
    stock: Stock
    files: np.ndarray

    @cached_property
    def body(self) -> Trained:
        if (self.path / "body" / "model.json").exists():
            return load_model(self.path / "body")
        return save_model(
            self.path / "body", *self.stock.fresh_network("body", seed_of(self.stock.config.seed, "body"))
        )

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D), in a file of the run: made once, whole or not at all."""
        file, start, n = embeddings_file(self.path, self.body, self.files), time.monotonic(), len(self.files)
        if not file.exists():
            part = file.with_name(file.name + ".part")
            out = np.lib.format.open_memmap(part, "w+", np.float32, (n, width(self.body.network)))
            with _bar(n, "embed") as bar:
                images = self.stock.pixels, np.arange(n)
                embed(self.body.network, self.body.format, images, self.stock.config.train_of("body"), out, bar).flush()
            part.replace(file)
            log.info(f"embedded {n:,} images, {time.monotonic() - start:.1f} s")
        return np.load(file, mmap_mode="r")

    def work(self, task: Task) -> Done:
        rows, start = self.embeddings[task.rows], time.monotonic()
        head, history = fit_head(rows, task.labels, len(self.stock.classes))
        network = with_head(self.body.network, head)
        return Done(network, self.body.format, history, len(history), time.monotonic() - start, None)

    def predict(self, model: Trained, rows: np.ndarray) -> np.ndarray:
        return head_log_probs(model, self.embeddings[rows])


@dataclass(frozen=True)
class Learner:
    """The arguments of the loop: fit and predict; second, see held_out_probs, None where no look-alike is asked.

    Models are kept in the folder path / where; one that is already there is read, which is how a stopped run goes on.
    """

    path: Path
    stock: Stock
    frozen: Frozen
    second: Second | None
    said: dict[str, np.ndarray] = field(default_factory=dict)
    """By hash, what models said of the rows of their task."""

    def fit(self, where: str, rows: np.ndarray, labels: np.ndarray, pool=(), steps: int | None = None) -> Trained:
        """pool: rows that the consistency term looks at, and what teachers said of them. steps: default by the number
        of rows."""
        if self._has(where):
            return load_model(self.path / where)
        task = Task(where, rows, labels, pool, steps)
        if self._freezes(where):
            return self._keep(task, self.frozen.work(task), self.frozen.body.hash)
        return self._keep(task, self.stock.work(task))

    def predict(self, model: Trained, rows: np.ndarray, views: int = 1) -> np.ndarray:
        """Log-probabilities averaged over views of a sample: itself, and others drawn from predict.augment."""
        if model.hash in self.said:
            return self.said.pop(model.hash)
        return self.frozen.predict(model, rows) if model.body else self.stock.predict(model, rows, views)

    def ahead(self, tasks: list[Task]) -> None:
        """Where there are several processes, have them work on these at once; fit and predict find the results."""
        if size() > 1:
            places = [None if self._has(task.where) else task for task in tasks if not self._freezes(task.where)]
            for task, done in zip(filter(None, places), each(self.stock.serve, places), strict=True):
                self._keep(task, done)

    def ahead_of(self, seats: list[Seat]) -> None:
        """The same of the seats of a round."""
        self.ahead([Task(seat.where, seat.learned, seat.targets, judged=seat.judged) for seat in seats])

    def _has(self, where: str) -> bool:
        return (self.path / where / "model.json").exists()

    def _freezes(self, where: str) -> bool:
        return self.stock.config.model_of(where).freeze

    def _keep(self, task: Task, done: Done, body: str | None = None) -> Trained:
        write_csv(self.path / task.where / "history.csv", done.history)
        model, last = save_model(self.path / task.where, done.network, done.format, body), done.history.iloc[-1]
        title, counts = _title(self.stock.config, task.where), f"{len(task.rows):,} labels, {done.steps:,} steps"
        log.info(f"{title}: {counts}, loss {last.loss:.3f}, {done.seconds:.1f} s{self._wait(task, last)}")
        if done.said is not None:
            self.said[model.hash] = done.said
        return model

    def _wait(self, task: Task, last: pd.Series) -> str:
        """How long the network waited for images, where that is long, and what helps."""
        share, size = last.waited / max(last.seconds, 1e-9), self.stock.pixels.shape[1]
        if share <= LONG:
            return ""
        at_once = is_whole_batch(self.stock.config.train_of(task.where).augment, size)
        return f"; {100 * share:.0f} % of it waiting for images" + ("" if at_once else ": try train.workers=2 or more")


def make_learner(run: Run, material: Material) -> Learner:
    """What trains and predicts on this material."""
    stock = Stock(run.config, material.pixels, material.judged.given, material.samples.classes)
    frozen = Frozen(run.path, stock, material.samples.path)
    offer(stock, material.samples.path)
    return Learner(run.path, stock, frozen, _neighbours(run, material, frozen))


def offer(stock: Stock, paths: np.ndarray) -> None:
    """Tell the other processes, where there are any, what they need to have such a stock too; paths: of its images."""
    if size() > 1:
        tell((stock.config, paths, stock.given, stock.classes))


def follow_learner() -> None:
    """The part of the other processes: do what the first one hands out."""
    if (heard := hear()) is None:
        return
    config, paths, given, classes = heard
    pixels, _ = load_images(paths, config.data)
    follow(Stock(config, pixels, given, classes).serve)


def _neighbours(run: Run, material: Material, frozen: Frozen) -> Second | None:
    """The opinion of look-alikes on a pool, where pseudo.graph asks for it (train.py's out-of-fold rows are the
    models' own). The graph is made when it is first needed: a run that goes on after its rounds does without."""
    weight, judged = run.config.pseudo.graph, material.judged
    if not weight or run.mode not in USES_POOL:
        return None

    @cache
    def graph():
        start, n = time.monotonic(), len(judged)
        if run.config.model.freeze:
            found = neighbour_graph(alike_features(frozen.embeddings[:n]))
        else:
            found = neighbour_graph(gradient_features(material.pixels[:n]))
        log.info(f"neighbours of {n:,} images, {time.monotonic() - start:.1f} s")
        return found

    return lambda seat: weight * spread(graph(), seat.learned, seat.targets, len(judged.classes))[seat.judged]


def _bar(total: int, title: str):
    """A progress bar on a terminal (and in a notebook), silence elsewhere."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=title, disable=True if rank() else None, leave=False)


def _title(config: Config, where: str) -> str:
    """`round_1/fold_0` → `round 1/2 · fold 1/2`."""
    policy = config.pseudo
    parts = [part.partition("_") for part in where.split("/")]
    k = policy.folds  # a fold whose pool is in two halves has a second model, see chained_seats
    names = {"round": lambda n: f"round {n}/{policy.rounds}",
             "fold": lambda n: f"fold {int(n) % k + 1}/{k}" + ("" if int(n) < k else " (2nd half)")}  # fmt: skip
    return " · ".join(names[word](n) if word in names else word for word, _, n in parts)
