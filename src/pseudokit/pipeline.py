"""From the data to the report: what train.py, and pseudo.py in the modes that train, do one after the other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from .data.dataset import USES_POOL
from .data.encoding import has_label
from .round_store import RoundStore, model_files
from .run_folder.corrections import applied, store_corrections, with_corrections
from .run_folder.evaluate import difference, score_arms, score_trusted, write_results
from .run_folder.folder import Run, write_status
from .run_folder.predict_runs import finished_models, write_submission
from .run_folder.prepare import PreparedData, make_job_runner, prepare
from .run_folder.time_budget import planned
from .self_training import SelfTrainingResult, self_train
from .system.files import TimeBudgetExceeded, log, read_json, write_csv, write_json
from .training.jobs import JobRunner, TrainJob
from .training.loop import step_budget
from .training.models import TrainedModel, load_model


def run_pipeline(run: Run, corrections: pd.DataFrame | None = None) -> None:
    """All of a run, or what is left of it. corrections: human decisions, see new_decisions.

    Where the time budget ends before that, what is finished is scored and written, and the same command goes on.
    """
    prepared = prepare(run)
    if corrections is not None:
        with run.stage("put aside"):
            store_corrections(run, corrections)
    run.config = planned(run, prepared)
    job_runner = make_job_runner(run, prepared)
    result = SelfTrainingResult(prepared.judged.given_labels, None, 0, "time_budget")
    try:
        result = run_rounds(run, prepared, job_runner)
        arms = train_arms(run, prepared, result, job_runner)
    except TimeBudgetExceeded:
        result, arms = replace(result, reason="time_budget"), {"teacher": finished_models(run.path)}
    write_outputs(run, prepared, result, arms, job_runner)


def run_rounds(run: Run, prepared: PreparedData, job_runner: JobRunner) -> SelfTrainingResult:
    """The loop on the data of this run, with its round records in the run folder; human decisions outrank what it
    decides."""
    config = run.config
    with run.stage("rounds"):
        result = self_train(
            prepared.judged,
            job_runner.fit,
            partial(job_runner.predict, views=config.pseudo.tta),
            config.pseudo,
            RoundStore(run.path),
            mode=run.mode,
            clusters=prepared.clusters,
            refused=prepared.refused,
            seed=config.seed,
            metric=config.metric,
            second=job_runner.second,
            ahead=job_runner.run_fold_jobs_ahead,
            time_for=_time_for(run),
        )
    return with_corrections(run, prepared.judged, result)


def _time_for(run: Run):
    """The time budget. Human decisions and a student stand on finished rounds: there is never time for one more."""
    if not applied(run.path) and not (run.path / "student" / "model.json").exists():
        return run.time_for
    known = iter(RoundStore(run.path).rounds()[1:])
    return lambda seconds: next(known, None) is not None  # asked once a round, from the second on


def train_arms(
    run: Run, prepared: PreparedData, result: SelfTrainingResult, job_runner: JobRunner
) -> dict[str, list[TrainedModel]]:
    """The student (every row with a label), the baseline (given labels only, as many steps), the first teachers.

    Raises:
        TimeBudgetExceeded: there is none for the student; without a baseline, where there is none for that, a run is
        whole.
    """
    tasks, arms = _arms(run, prepared, result), {}
    files = model_files(run.path, 1)
    for task in tasks:
        try:
            with run.stage(task.where):
                job_runner.ahead(tasks)
                arms[task.where] = [job_runner.fit(task.where, task.rows, task.labels, task.pool, task.steps)]
        except TimeBudgetExceeded:
            if task.where == "student":
                raise
            log.info(f"time budget: no time is left for the {task.where}")
    return arms | ({"teacher": [load_model(file.parent) for file in files]} if files else {})


def _arms(run: Run, prepared: PreparedData, result: SelfTrainingResult) -> list[TrainJob]:
    """The student and, where rounds were run, the baseline: as many steps, and one seed, see Stock.work."""
    judged, learned = prepared.judged, np.flatnonzero(has_label(result.label))
    steps = step_budget(len(learned), run.config.train)
    pool = _looked_at(prepared, result) if run.mode in USES_POOL else ()
    tasks = [TrainJob("student", learned, result.targets[learned], pool, steps)]
    if run.config.pseudo.train_baseline and run.mode != "train" and (result.round or result.reason == "collapse"):
        rows = np.flatnonzero(has_label(judged.given_labels))
        tasks.append(TrainJob("baseline", rows, judged.given_labels[rows], steps=steps))
    return tasks


def _looked_at(prepared: PreparedData, result: SelfTrainingResult) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows (M,) without a label that the student may look at, and the log (M, K) of the beliefs that decided."""
    pool = np.flatnonzero(~has_label(result.label) & (prepared.refused == ""))
    if result.decisions is None or result.label.ndim == 2:
        return pool, None
    return pool, np.log(np.maximum(result.decisions.posterior(pool), 1e-30)).astype(np.float32)


def write_outputs(
    run: Run,
    prepared: PreparedData,
    result: SelfTrainingResult,
    arms: dict[str, list[TrainedModel]],
    job_runner: JobRunner,
) -> None:
    """Score the arms, write the tables, the pages and the submission, print the summary."""
    from .report.label_studio import write_label_studio
    from .report.report import write_report
    from .report.review import write_review
    from .report.round_tables import write_metrics
    from .report.terminal import summary
    from .report.tracking import track

    predict = partial(job_runner.predict, views=run.config.predict.tta)
    with run.stage("score"):
        scores, table = score_arms(prepared, arms, predict)
        write_csv(run.path / "scored.csv", table)
        trusted = score_trusted(run, prepared, predict)
        found = {"trusted": trusted, "difference": difference(table)}
        write_results(run, prepared, result, {"scores": scores} | {key: part for key, part in found.items() if part})
    _write_seconds(run)  # so that the report can show what the stages before it took
    with run.stage("report"):
        write_metrics(run.path)
        write_report(run.path)
        write_review(run.path)
        write_label_studio(run.path)
    if run.config.data.submission:
        with run.stage("submission"):
            write_submission(run.path, run.config)
    _write_seconds(run)
    track(run.path, run.config.wandb)
    whole = "student" in arms
    write_status(run.path, "done" if whole else "stopped", "done" if whole else "rounds", result.reason, run.mode)
    log.info(summary(run.path))
    if not whole:
        log.info(
            f"the time budget is spent: {len(arms['teacher'])} model(s) are finished, no student yet; the same "
            "command goes on from here"
        )


def _write_seconds(run: Run) -> None:
    write_json(run.path / "metrics.json", read_json(run.path / "metrics.json") | {"seconds": run.times()})
