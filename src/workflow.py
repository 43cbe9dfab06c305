"""The steps that train.py and pseudo.py are made of: prepare, learn, score, write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from .config import Config
from .corrections import with_corrections
from .data.duplicates import count_duplicates, duplicates_table, find_links, refused_reasons
from .data.folds import find_clusters
from .data.images import load_images
from .data.samples import SCORED_ROLES, USES_POOL, Samples, check_samples, prepare_samples
from .data.transforms import Spec, build
from .history import applied
from .labels.ledger import Ledger, refuse_changed_samples
from .labels.pool import provable
from .labels.selection import REPAIRS
from .learn.compute import pick_device
from .learn.fit import step_budget
from .learn.models import Trained, create_model, load_model
from .learner import Learner, Task
from .run import Run, log, read_json, write_csv, write_json
from .scoring import score_arms, score_trusted, write_results
from .selftrain import Outcome, self_train
from .values import UserError


@dataclass(frozen=True)
class Material:
    """Everything that is learned from or judged. pixels: (N, H, W, C) uint8, row i ↔ sample i; the first
    len(judged) samples are the judged ones. clusters, refused: (len(judged),), see find_clusters, refused_reasons.
    truths: tables by file name, for scoring."""

    samples: Samples
    judged: Samples
    pixels: np.ndarray
    clusters: np.ndarray
    refused: np.ndarray
    truths: dict[str, pd.DataFrame]


def prepare(run: Run) -> Material:
    """Read, decode and check everything, so that wrong input ends the run before any training.

    Raises:
        UserError: see prepare_samples, load_images, create_model, build.
    """
    if run.mode == "train":  # judges once, changes nothing
        once = run.config.pseudo.model_copy(update={"rounds": 1})
        run.config = run.config.model_copy(update={"pseudo": once})
    with run.stage("read"):
        return _prepare(run)


def _prepare(run: Run) -> Material:
    config = run.config
    if config.pseudo.fold_safe and run.mode in REPAIRS:
        raise UserError(f"pseudo.fold_safe=true needs --mode augment: in mode {run.mode} every fold's labels decide "
                        "about those of the others; leave it out")  # fmt: skip
    if config.pseudo.graph and run.mode in REPAIRS:
        raise UserError(f"pseudo.graph={config.pseudo.graph:g} needs --mode augment: labels that may be wrong are not "
                        "spread; leave it out")  # fmt: skip
    samples, truths = prepare_samples(config, run.mode)
    is_judged = np.isin(samples.role, ["train", "pool"] if run.mode in USES_POOL else ["train"])
    samples = samples.take(is_judged | (np.isin(samples.role, SCORED_ROLES) & (samples.given >= 0)))
    pixels, good = load_images(samples.path, config.data)
    if not good.all():
        samples = samples.take(good)
        pixels = load_images(samples.path, config.data)[0] if isinstance(pixels, np.memmap) else pixels[good]
        check_samples(samples, config, run.mode)
    judged = samples.take(np.isin(samples.role, ["train", "pool"]))
    _preflight(config, samples, pixels)
    refuse_changed_samples(run.path, judged)
    write_csv(run.path / "samples.csv", samples.table())
    for name, table in truths.items():
        write_csv(run.path / name, table)
    links = find_links(pixels, len(judged))
    copies = duplicates_table(samples, pixels, links)
    write_csv(run.path / "duplicates.csv", copies)
    clusters, refused = find_clusters(judged.group, links), refused_reasons(copies, judged.id, config.data)
    if len(np.unique(clusters[judged.given >= 0])) < 2:
        raise UserError("all rows with a label share one group or are copies of one image; check data.group_col")
    _announce(samples, clusters)
    _announce_duplicates(run, copies, refused)
    if config.pseudo.pool_precision is not None and run.mode in USES_POOL:
        _announce_bound(int((judged.given >= 0).sum()), config.pseudo.pool_precision)
    return Material(samples, judged, pixels, clusters, refused, truths)


def _preflight(config: Config, samples: Samples, pixels: np.ndarray) -> None:
    """Make each model and augmentation: what is wrong with them is said now."""
    size, channels = pixels.shape[1], pixels.shape[3]
    pick_device(config.train.device)
    create_model(config.model, samples.classes, size, channels)
    if config.model_of("student") != config.model:
        create_model(config.model_of("student"), samples.classes, size, channels, "student")
    for key, spec in {"train.augment": config.train.augment, "student.augment": config.student.augment,
                      "train.weak": config.train.weak, "train.strong": config.train.strong,
                      "predict.augment": config.predict.augment}.items():  # fmt: skip
        if spec is not None:
            _try(key, spec, pixels[:2])


def _try(key: str, spec: Spec, pixels: np.ndarray) -> None:
    """Raises UserError where the augmentation `spec` does not work on such images, or changes their size."""
    import torch

    augment = build(spec, pixels.shape[1], seed=0)
    if not augment:
        return
    try:
        out = augment(torch.from_numpy(pixels), 0)
    except Exception as error:  # every transform raises its own types
        what = type(error).__name__
        raise UserError(f"{key}={spec} does not work: {what}: {' '.join(str(error).split())}") from error
    if out.shape[1:] != pixels.shape[1:]:
        raise UserError(f"{key} changes images from {pixels.shape[1:3]} to {tuple(out.shape[1:3])}; "
                        "give its crop or resize the value `size`")  # fmt: skip


def _announce(samples: Samples, clusters: np.ndarray) -> None:
    counts = {role: int((samples.role == role).sum()) for role in dict.fromkeys(samples.role)}
    log.info(
        "samples: " + ", ".join(f"{n:,} {role}" for role, n in counts.items()) + f"; {len(samples.classes)} classes"
    )
    twins = len(clusters) - len(np.unique(clusters))
    if twins:
        log.info(f"folds: {twins:,} rows share the fold of their group or duplicate")


def _announce_duplicates(run: Run, copies: pd.DataFrame, refused: np.ndarray) -> None:
    counts = count_duplicates(copies)
    listed = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    none = f"; {(refused != '').sum():,} pool rows get no pseudo-label" if (refused != "").any() else ""
    log.info(f"duplicates: {listed}{none}; see {run.path / 'duplicates.csv'}" if len(copies) else "duplicates: none")


def _announce_bound(n: int, wanted: float) -> None:
    """Say how loose a bound on the precision n labels give."""
    most = provable(n)
    log.info(f"pool_precision: {n:,} labels, even if all are predicted right, prove {100 * most:.1f} % and no more"
             + (f"; {100 * wanted:g} % is out of reach and no pseudo-label will be given. Lower it, or use "
                "pseudo.pool_share in its place" if most < wanted else ""))  # fmt: skip


def run_rounds(run: Run, material: Material, learner: Learner) -> Outcome:
    """The loop on this run's material, with its ledger in the run folder; human decisions outrank what it decides."""
    with run.stage("rounds"):
        outcome = self_train(
            material.judged, learner.fit, partial(learner.predict, views=run.config.pseudo.views), run.config.pseudo,
            Ledger(run.path), mode=run.mode, clusters=material.clusters, refused=material.refused,
            seed=run.config.seed, second=learner.second, ahead=learner.ahead_of, time_for=_time_for(run),
        )  # fmt: skip
    return with_corrections(run, material.judged, outcome)


def _time_for(run: Run):
    """The time budget. Human decisions stand on finished rounds, so that there is never time for one more of those."""
    if not applied(run.path):
        return run.time_for
    known = iter(Ledger(run.path).rounds())
    return lambda seconds: next(known, None) is not None  # asked once a round


def train_arms(run: Run, material: Material, outcome: Outcome, learner: Learner) -> dict[str, list[Trained]]:
    """The student (every row with a label), the control (given labels only, as many steps), the first teachers."""
    tasks, arms = _arms(run, material, outcome), {}
    for task in tasks:
        with run.stage(task.where):
            learner.ahead(tasks)
            arms[task.where] = [learner.fit(task.where, task.rows, task.labels, task.pool, task.steps)]
    teachers = [load_model(file.parent) for file in sorted(run.path.glob("round_1/fold_*/model.json"))]
    return arms | ({"teacher": teachers} if teachers else {})


def _arms(run: Run, material: Material, outcome: Outcome) -> list[Task]:
    judged, learned = material.judged, np.flatnonzero(outcome.label >= 0)
    steps = step_budget(len(learned), run.config.train)
    pool = _looked_at(material, outcome) if run.mode in USES_POOL else ()
    tasks = [Task("student", learned, outcome.targets[learned], pool, steps)]
    if run.config.pseudo.control and run.mode != "train" and (outcome.round or outcome.reason == "collapse"):
        rows = np.flatnonzero(judged.given >= 0)
        tasks.append(Task("control", rows, judged.given[rows], steps=steps))
    return tasks


def _looked_at(material: Material, outcome: Outcome) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows (M,) without a label that the student may look at, and the log (M, K) of the beliefs that decided."""
    pool = np.flatnonzero((outcome.label < 0) & (material.refused == ""))
    if outcome.decisions is None:
        return pool, None
    return pool, np.log(np.maximum(outcome.decisions.belief(pool), 1e-30)).astype(np.float32)


def publish(run: Run, material: Material, outcome: Outcome, arms: dict[str, list[Trained]], learner: Learner) -> None:
    """Score the arms, write the tables and the pages, print the summary."""
    from .report.label_studio import write_label_studio
    from .report.report import write_report
    from .report.review import write_review
    from .report.rounds import write_metrics
    from .report.table import summary
    from .report.tracking import track

    predict = partial(learner.predict, views=run.config.predict.views)
    with run.stage("score"):
        scores, table = score_arms(material, arms, predict)
        write_csv(run.path / "scored.csv", table)
        trusted = score_trusted(run, material, predict)
        write_results(run, material, outcome, {"scores": scores} | ({"trusted": trusted} if trusted else {}))
    _write_seconds(run)  # so that the report can show what the stages before it took
    with run.stage("report"):
        write_metrics(run.path)
        write_report(run.path)
        write_review(run.path)
        write_label_studio(run.path)
    _write_seconds(run)
    track(run.path, run.config.wandb)
    run.finish(outcome.reason)
    log.info(summary(run.path))


def _write_seconds(run: Run) -> None:
    write_json(run.path / "metrics.json", read_json(run.path / "metrics.json") | {"seconds": run.times()})
