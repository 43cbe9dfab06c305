"""What a run will cost, from a short probe, and what is left out of it where the time budget is smaller."""

import timeit
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from ..config.keys import STUDENTS, Config, member_folder, split_folder
from ..config.load import differences, with_changes
from ..data.encoding import has_label
from ..report.load_run import read_dict
from ..system.files import log, read_json, write_json
from ..training.models import TrainedModel
from ..training.trainer import Trainer, TrainJob, planned_steps
from .folder import Run, run_config
from .prepare import PreparedData

PROBE_STEPS, WARM_UP_STEPS = 12, 4
"""Steps that are timed, and how many of them do not count: the first are slower. More would take minutes on a CPU."""
PROBE_IMAGES = 128
"""Images whose prediction is timed: one batch."""
PLANNED_FRACTION = 0.95
"""Of the budget; the rest is for what a probe cannot foresee."""
CLOSING = "scores, tables and pages"
"""What comes after training, in plan.json."""
CLOSING_SECONDS = 20.0
"""Of that, what does not depend on the number of images."""
EPOCH_FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25)
"""Below a quarter of the epochs a network learns too little: then there are fewer rounds and folds."""


@dataclass(frozen=True)
class Pace:
    """Seconds a step of a teacher and of the student, and seconds an image that is predicted; of all in a council."""

    teacher: float
    student: float
    image: float


def probe(run: Run, prepared: PreparedData) -> Pace:
    """Time a few training steps, and the prediction of a few images, of fresh networks; nothing is kept."""
    config = with_changes(run.config, {"train.linear_probe_first": False})
    trainer = Trainer(
        config, prepared.pixels, prepared.judged.given_labels, prepared.dataset.classes
    )
    teachers, students = (
        [member_folder(arm, member) for member in range(len(config.models_of(arm)))]
        for arm in ("round_1/fold_0", "student")
    )
    with run.stage("plan"):
        return Pace(
            sum(_seconds_a_step(trainer, where) for where in teachers),
            sum(_seconds_a_step(trainer, where) for where in students),
            sum(_seconds_an_image(trainer, where) for where in teachers),
        )


def _seconds_an_image(trainer: Trainer, where: str) -> float:
    """That the network of this folder takes to predict one."""
    rows = np.arange(min(len(trainer.pixels), PROBE_IMAGES))
    model = TrainedModel(*trainer.fresh_network(where, 0))
    predict = partial(trainer.predict, model, rows, tta=1, alone=True)
    _, seconds = timeit.repeat(predict, number=1, repeat=2)  # the first one warms up
    return seconds / len(rows)


def _seconds_a_step(trainer: Trainer, where: str) -> float:
    """Of the network of this folder; 0 if it is a head on a frozen backbone, which takes seconds."""
    config = trainer.config
    if trainer.is_frozen(where):
        return 0.0
    labeled = np.flatnonzero(has_label(trainer.given_labels))
    rows = np.resize(labeled, config.train.batch_size)
    arm, _ = split_folder(where)
    unlabeled = (rows, None) if arm == "student" and config.train.consistency_weight else ()
    job = TrainJob(where, rows, trainer.given_labels[rows], unlabeled, PROBE_STEPS)
    seconds = np.diff(trainer.train(job)[1].seconds)
    return float(np.median(seconds[WARM_UP_STEPS - 1 :]))


def costs(config: Config, prepared: PreparedData, pace: Pace) -> dict[str, float]:
    """Seconds of teachers, judging, student, baseline, and of what comes after; at most, see planned_steps."""
    pseudo, judged = config.pseudo, prepared.judged
    n_labeled = int(has_label(judged.given_labels).sum())
    n_unlabeled = len(judged) - n_labeled
    rounds = 0 if config.predictions.labeled else pseudo.rounds
    steps = planned_steps(config, judged.given_labels)
    of_teachers = [n for where, n in steps.items() if where.startswith("round")]
    teacher_steps = sum(of_teachers) / len(config.model.members)
    n_predicted = rounds * pseudo.tta * (n_labeled + pseudo.folds * n_unlabeled)
    if config.model.freeze_backbone:  # each image is embedded once
        n_predicted = len(prepared.dataset)
    n_models = pseudo.folds + 2  # that are scored: the first teachers, student and baseline
    n_scored = n_models * (len(prepared.dataset) - len(judged) + prepared.tested)
    student = steps["student"] * pace.student
    return {
        "teachers": teacher_steps * pace.teacher,
        "predictions": n_predicted * pace.image,
        "student": student,
        "baseline": student if pseudo.train_baseline else 0.0,
        CLOSING: CLOSING_SECONDS + n_scored * config.predict.tta * pace.image,
    }


def planned(run: Run, prepared: PreparedData) -> Config:
    """The config as the time budget allows it; the same every time the run goes on. Also sets run.closing.

    The first of ever cheaper plans that fits, else the last. Kept in plan.json: which keys were changed, and the
    seconds that each part is to take.
    """
    file = run.path / "plan.json"
    if run.config.time_budget and not run.has_begun():  # what has been begun is not changed
        budget = PLANNED_FRACTION * run.config.time_budget
        pace = probe(run, prepared)
        for changes in cheaper_plans(run.config):
            seconds = costs(with_changes(run.config, changes), prepared, pace)
            if sum(seconds.values()) <= budget:
                break
        write_json(file, {"changes": changes, "seconds": seconds})
    if not file.exists():
        return run.config
    plan = read_json(file)
    run.closing = plan["seconds"][CLOSING]
    for key, value in plan["changes"].items():
        log.info(f"time budget: {key}={value} (plan.json)")
    return with_changes(run.config, plan["changes"])


def budget_facts(run: Run, prepared: PreparedData, reason: str) -> dict:
    """What a time budget left out, for metrics.json; {} where there was none.

    Returns:
        untrained: how many networks, by what they are for; changes: keys that the plan has changed; plan: its seconds.
    """
    plan = read_dict(run.path / "plan.json")
    if not plan and reason != "time_budget":
        return {}
    networks = planned_steps(run.config, prepared.judged.given_labels)
    untrained = Counter(
        where.partition("/")[0].replace("_", " ")
        for where in networks
        if not (run.path / where / "model.json").exists()
        and (reason == "time_budget" or where.startswith(STUDENTS))
    )
    asked = run_config(run.path)
    changes = differences(asked, with_changes(asked, plan.get("changes", {})))
    return {"untrained": untrained, "changes": changes, "plan": plan.get("seconds", {})}


def cheaper_plans(config: Config) -> Iterator[dict]:
    """Changed keys, ever cheaper: none, without the baseline, fewer epochs, fewer rounds, fewer folds."""
    yield {}
    all_folds = range(config.pseudo.folds, 1, -1)
    all_rounds = range(config.pseudo.rounds, 0, -1) or [0]
    for folds, rounds, fraction in product(all_folds, all_rounds, EPOCH_FRACTIONS):
        yield {
            "pseudo.train_baseline": False,
            "pseudo.folds": folds,
            "pseudo.rounds": rounds,
            "train.epochs": round(config.train.epochs * fraction, 3),
            "train.min_steps": int(config.train.min_steps * fraction),
        }
