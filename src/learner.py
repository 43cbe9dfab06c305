"""The arguments of the loop, on the material of a run: what trains, what predicts, what look-alikes say."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .config import Model
from .data.samples import USES_POOL
from .judging import Second
from .learn.batches import Lesson
from .learn.fit import fit, step_budget
from .learn.frozen import alike_features, embed, embeddings_file, fit_head, head_log_probs, width, with_head
from .learn.graph import gradient_features, neighbour_graph, spread
from .learn.infer import log_probs
from .learn.models import Trained, create_model, load_model, save_model
from .run import Run, log, seed_of, write_csv

if TYPE_CHECKING:
    from .workflow import Material

HINT = 0.1
"""Share of the time that the network may wait for images before something is said."""


class Learner(NamedTuple):
    """The arguments of the loop.

    fit(where, rows, labels, pool, steps) → model, kept in the folder `where`; one that is already there is read, which
    is how a stopped run goes on. pool: rows that the consistency term looks at, and what teachers said of them. steps:
    default by the number of rows.
    predict(model, rows, views) → log-probabilities, averaged over views of a sample: itself, and others drawn from
    `spec`.
    second: what look-alikes say, see held_out_probs; None where nobody asks them.
    """

    fit: Callable[..., Trained]
    predict: Callable[..., np.ndarray]
    second: Second | None


def make_learner(run: Run, material: Material) -> Learner:
    config, frozen = run.config, _Frozen(run, material)

    def fit_kept(where: str, rows: np.ndarray, labels: np.ndarray, pool=(), steps: int | None = None) -> Trained:
        folder = run.path / where
        if (folder / "model.json").exists():
            return load_model(folder)
        title, start = _title(run, where), time.monotonic()
        if config.model_of(where).freeze:
            model, history = frozen.fit(where, rows, labels)
            steps = len(history)
        else:
            steps = steps or step_budget(len(rows), config.train_of(where))
            seed, pseudo = seed_of(config.seed, where), material.judged.given[rows] < 0
            lesson = Lesson(material.pixels, rows, labels, steps, seed, pseudo, *pool)
            model, history = _train(run, where, lesson, material.samples.classes)
        write_csv(folder / "history.csv", history)
        seconds, last = time.monotonic() - start, history.iloc[-1]
        log.info(f"{title}: {len(rows):,} labels, {steps:,} steps, loss {last.loss:.3f}, {seconds:.1f} s"
                 + _hint(last.waited / max(last.seconds, 1e-9)))  # fmt: skip
        return model

    def predict(model: Trained, rows: np.ndarray, views: int = 1) -> np.ndarray:
        if model.body:
            return frozen.predict(model, rows)
        with _bar(len(rows) * views, f"{run.current} · predict") as bar:
            options = {"precision": config.train.precision, "device": config.train.device}
            return log_probs(model, material.pixels, rows, tta=views, spec=config.view, bar=bar, **options)

    return Learner(fit_kept, predict, _neighbours(run, material, frozen))


def _train(run: Run, where: str, lesson: Lesson, classes: tuple[str, ...]):
    """Raises UserError, see fit."""
    network, form = _fresh_network(run.config.model_of(where), classes, lesson.pixels, lesson.seed)
    with _bar(lesson.steps, f"{run.current} · train") as bar:
        network, history = fit(network, form, lesson, run.config.train_of(where), bar)
    return save_model(run.path / where, network, form), history


def _hint(share: float) -> str:
    return f"; {100 * share:.0f} % of it waiting for images: try train.workers" if share > HINT else ""


@dataclass(frozen=True)
class _Frozen:
    """Heads on the embeddings of one frozen network, which is kept in the run's folder `body`."""

    run: Run
    material: Material

    @cached_property
    def body(self) -> Trained:
        folder = self.run.path / "body"
        if (folder / "model.json").exists():
            return load_model(folder)
        config, material = self.run.config, self.material
        seed = seed_of(config.seed, "body")
        return save_model(folder, *_fresh_network(config.model, material.samples.classes, material.pixels, seed))

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, D), in a file of the run: made once, whole or not at all."""
        samples, body = self.material.samples, self.body
        file = embeddings_file(self.run.path, body, samples.path)
        if not file.exists():
            start, part, images = time.monotonic(), file.with_name(file.name + ".part"), self.material.pixels
            with _bar(len(samples), "embed") as bar:
                out = np.lib.format.open_memmap(part, "w+", np.float32, (len(samples), width(body.network)))
                rows = np.arange(len(samples))
                embed(body.network, body.format, (images, rows), self.run.config.train, out, bar).flush()
            part.replace(file)
            log.info(f"embedded {len(samples):,} images, {time.monotonic() - start:.1f} s")
        return np.load(file, mmap_mode="r")

    def fit(self, where: str, rows: np.ndarray, labels: np.ndarray):
        head, history = fit_head(self.embeddings[rows], labels, len(self.body.format.classes))
        network = with_head(self.body.network, head)
        return save_model(self.run.path / where, network, self.body.format, self.body.hash), history

    def predict(self, model: Trained, rows: np.ndarray) -> np.ndarray:
        return head_log_probs(model, self.embeddings[rows])


def _neighbours(run: Run, material: Material, frozen: _Frozen) -> Second | None:
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


def _fresh_network(model: Model, classes: tuple[str, ...], pixels: np.ndarray, seed: int):
    torch.manual_seed(seed)
    return create_model(model, classes, pixels.shape[1], pixels.shape[3])


def _bar(total: int, title: str):
    """A progress bar on a terminal (and in a notebook), silence elsewhere."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=title, disable=None, leave=False)


def _title(run: Run, where: str) -> str:
    """`round_1/fold_0` → `round 1/2 · fold 1/2`; also what the next prediction is called."""
    policy = run.config.pseudo
    parts = [part.partition("_") for part in where.split("/")]
    k = policy.folds  # a fold whose pool is in two halves has a second model, see chained_seats
    names = {"round": lambda n: f"round {n}/{policy.rounds}",
             "fold": lambda n: f"fold {int(n) % k + 1}/{k}" + ("" if int(n) < k else " (2nd half)")}  # fmt: skip
    run.current = " · ".join(names[word](n) if word in names else word for word, _, n in parts)
    return run.current
