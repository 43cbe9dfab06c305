"""What a run will cost, from a short probe, and what is left out of it where the time budget is smaller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..config.keys import Config
from ..data.dataset import USES_POOL
from ..data.encoding import has_label
from ..system.files import log, read_json, write_json
from ..training.batches import TrainingSet
from ..training.loop import step_budget, train_model
from ..training.models import TrainedModel
from ..training.trainer import PredictJob, Trainer
from .folder import Run, trained
from .prepare import PreparedData

PROBE, WARM_UP = 12, 4
"""Steps that are timed, the first of which do not count."""
IMAGES = 128
SLACK = 0.95
"""Share of the budget that is planned."""
CLOSING, PAGES = "scores, tables and pages", 20.0
"""The name of what comes after training, and seconds of it that do not depend on the number of images."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
"""Of the configured epochs."""


@dataclass(frozen=True)
class Pace:
    """Seconds a step of a teacher and of the student, and seconds an image that is predicted."""

    teacher: float
    student: float
    image: float


def probe(trainer: Trainer) -> Pace:
    """Train a few steps, and predict a few images, with fresh networks that are then forgotten."""
    config, rows = trainer.config, np.arange(min(len(trainer.pixels), IMAGES))
    teacher = 0.0 if config.model.freeze_backbone else _seconds_a_step(trainer, "round_1/fold_0")
    same = config.model_of("student") == config.model and config.train_of("student") == config.train
    alike = same and not config.train.consistency_weight
    student = teacher if alike or config.model_of("student").freeze_backbone else _seconds_a_step(trainer, "student")
    asked, seconds = PredictJob(TrainedModel(*trainer.fresh_network("round_1/fold_0", 0), ""), rows, 1), 0.0
    for _ in range(2):  # the first warms up
        start = time.monotonic()
        trainer.answer(asked)
        seconds = time.monotonic() - start
    return Pace(teacher, student, seconds / len(rows))


def _seconds_a_step(trainer: Trainer, where: str) -> float:
    train = trainer.config.train_of(where).model_copy(update={"linear_probe_first": False})
    rows = np.resize(np.arange(len(trainer.pixels)), train.batch_size)
    labels = np.resize(np.arange(len(trainer.classes)), train.batch_size)
    labels = labels if trainer.given_labels.ndim == 1 else np.eye(len(trainer.classes), dtype=np.float32)[labels]
    pool = rows if where == "student" and train.consistency_weight else None
    training_set = TrainingSet(trainer.pixels, rows, labels, PROBE, 0, pool=pool)
    seconds = train_model(*trainer.fresh_network(where, 0), training_set, train)[1].seconds.to_numpy()
    return float(np.median(np.diff(seconds)[WARM_UP - 1 :]))


def costs(config: Config, prepared: PreparedData, mode: str, pace: Pace) -> dict[str, float]:
    """Seconds of teachers, judging, student, baseline, and of what comes after; at most, with all of the pool
    that may be learned."""
    folds, rounds, judged = config.pseudo.folds, config.pseudo.rounds, prepared.judged
    labeled = int(has_label(judged.given_labels).sum())
    pool = (config.pseudo.top_fraction or 1) * (len(judged) - labeled) if mode in USES_POOL else 0
    learned = labeled + int(np.ceil(pool))
    each = [labeled if r == 0 else learned for r in range(rounds)]
    steps = sum(folds * step_budget(max(1, n * (folds - 1) // folds), config.train) for n in each)
    asked = (len(judged) - labeled) * folds + labeled
    views = 1 if config.model.freeze_backbone else config.pseudo.tta
    last = step_budget(learned, config.train)
    arms = {"student": last, "baseline": last if config.pseudo.train_baseline and mode != "train" else 0}
    of_arm = {arm: 0.0 if config.model_of(arm).freeze_backbone else n * pace.student for arm, n in arms.items()}
    scored = (len(prepared.dataset) - len(judged)) * (2 + folds) + prepared.tested * (1 + folds)
    embedded = len(prepared.dataset) * pace.image if config.model.freeze_backbone else 0.0
    return {
        "teachers": steps * pace.teacher + embedded,
        "judging": 0.0 if config.model.freeze_backbone else rounds * asked * views * pace.image,
        **of_arm,
        CLOSING: PAGES + scored * config.predict.tta * pace.image,
    }


def _cheaper(config: Config) -> Iterator[Config]:
    """The config, and ever cheaper ones: without the baseline, of fewer epochs, of fewer rounds, of fewer folds."""
    yield config
    pseudo = config.pseudo
    for folds in range(pseudo.folds, 1, -1):
        for rounds in range(pseudo.rounds, min(pseudo.rounds, 1) - 1, -1):
            for share in SHARES if (folds, rounds) == (pseudo.folds, pseudo.rounds) else SHARES[5:]:
                less = {"folds": folds, "rounds": rounds, "train_baseline": False}
                train = {
                    "epochs": round(config.train.epochs * share, 3),
                    "min_steps": int(config.train.min_steps * share),
                }
                yield config.model_copy(
                    update={"pseudo": pseudo.model_copy(update=less), "train": config.train.model_copy(update=train)}
                )


def planned(run: Run, prepared: PreparedData) -> Config:
    """The config as the time budget allows it; the same every time the run goes on. Also sets run.closing.

    Kept in plan.json: which keys were changed, and what each part is to take.
    """
    file = run.path / "plan.json"
    if not file.exists():
        if run.config.time_budget is None or trained(run.path):  # what has been begun is not changed
            return run.config
        write_json(file, _plan(run, prepared))
    found = read_json(file)
    run.closing = found["seconds"][CLOSING]
    if found["changes"]:
        said = ", ".join(f"{key}={value}" for key, value in found["changes"].items())
        log.info(f"time budget: {said}, so that the run ends in time (plan.json)")
    config = run.config
    for key, value in found["changes"].items():
        section, _, name = key.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return config


def _plan(run: Run, prepared: PreparedData) -> dict:
    budget = SLACK * run.config.time_budget
    pace = probe(Trainer(run.config, prepared.pixels, prepared.judged.given_labels, prepared.dataset.classes))
    options = list(_cheaper(run.config))
    fitting = (c for c in options if sum(costs(c, prepared, run.mode, pace).values()) <= budget)
    chosen = next(fitting, options[-1])
    seconds = costs(chosen, prepared, run.mode, pace)
    if sum(seconds.values()) > budget:
        log.info(
            f"time budget: even the least takes about {sum(seconds.values()):,.0f} s; what is finished by then is "
            "written, and the same command goes on"
        )
    changes = {
        f"{section}.{name}": value
        for section in ("pseudo", "train")
        for name, value in getattr(chosen, section).model_dump().items()
        if value != getattr(getattr(run.config, section), name)
    }
    return {"changes": changes, "seconds": {k: round(v, 1) for k, v in seconds.items()}}
