"""From the data to the report: what train.py, and pseudo.py in the modes that train, do one after the other."""

from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import pandas as pd
from numpy import ndarray

from .config.keys import USES_UNLABELED, member_folder
from .data.encoding import has_label
from .labels.out_of_fold import average_models
from .report.label_studio import write_label_studio
from .report.metrics_log import write_metrics
from .report.report import write_report
from .report.review import write_review
from .report.terminal import summary
from .report.tracking import tracked
from .round_store import RoundStore, model_folders
from .run_folder.corrections import applied, learned, store_corrections, with_corrections
from .run_folder.evaluate import difference, score_arms, score_trusted, write_tables
from .run_folder.explain import explain, list_odd_images
from .run_folder.folder import Run
from .run_folder.predict_runs import open_finished, predicting_models, write_submission
from .run_folder.prepare import PreparedData, make_job_runner, prepare
from .run_folder.time_budget import budget_facts, planned
from .self_training import SelfTrainingContext, SelfTrainingResult, self_train
from .system.files import TimeBudgetExceeded, log, read_json, write_csv, write_json
from .training.loop import step_budget
from .training.models import COUNCIL, TrainedModel, load_models
from .training.trainer import JobRunner, TrainJob

Models = dict[str, list[TrainedModel]]
"""By arm (teacher, student, baseline): the models whose predictions are averaged."""


def run_pipeline(run: Run, corrections: pd.DataFrame | None = None) -> None:
    """All of a run, or what is left of it.

    Where the time budget ends before that, what is finished is scored and written, and the same command goes on.

    Args:
        corrections: human decisions to put in force first, see new_decisions.
    """
    with tracked(run.path, run.config.wandb):
        # frees its arrays before pages are made
        reason, is_whole = _run_without_pages(run, corrections)
        write_pages(run)
    finish(run, reason, is_whole)


def _run_without_pages(run: Run, corrections: pd.DataFrame | None) -> tuple[str, bool]:
    """All that comes before the pages. Returns why the rounds ended, and whether the run is whole: has a student."""
    prepared = prepare(run)
    if corrections is not None:
        with run.stage("put aside"):
            store_corrections(run, corrections)
    if run.trains:
        run.config = planned(run, prepared)
    job_runner = make_job_runner(run, prepared)
    result = SelfTrainingResult(prepared.judged.given_labels, None, 0, "time_budget")
    try:
        result = run_rounds(run, prepared, job_runner)
        if run.trains:
            _write_council(run, result)
            models = train_final_models(run, prepared, result, job_runner)
        else:
            models = {}
    except TimeBudgetExceeded as stop:
        result = replace(result, reason="time_budget")
        if any(stop.args):  # what a part of the first round predicts
            predicted = average_models(*stop.args, len(prepared.judged))
            result = replace(result, predicted=predicted)
        models = {}
        if not prepared.outside.teachers:
            models["teacher"] = open_finished(run.path, goes_on=True).models
    result = with_corrections(run, prepared.judged, result)  # those not learned, too
    evaluate(run, prepared, result, models, job_runner)
    return result.reason, "student" in models or not run.trains


def run_rounds(run: Run, prepared: PreparedData, job_runner: JobRunner) -> SelfTrainingResult:
    """Self-training on the data of this run, recorded in its folder; human decisions outrank what it decides.

    But those that were applied to the labels only: the student has not learned them.

    Raises:
        TimeBudgetExceeded: not even the first round fits into the time budget.
    """
    config = run.config
    store = RoundStore(run.path)
    n_finished = len(store.rounds())

    def time_for_round(number: int, seconds: float) -> bool:
        """Human decisions and a student stand on the finished rounds: none is added then, whatever time is left."""
        if applied(run.path) or run.is_whole():
            return number <= n_finished
        return run.time_for(seconds)

    with run.stage("rounds"):
        context = SelfTrainingContext(
            prepared.judged,
            job_runner.fit,
            partial(job_runner.predict, views=config.pseudo.tta),
            config.pseudo,
            store,
            mode=run.mode,
            clusters=prepared.clusters,
            refused=prepared.refused,
            seed=config.seed,
            metric=config.metric,
            second=job_runner.second,
            ahead=job_runner.run_fold_jobs_ahead,
            members=1 if prepared.outside.teachers else len(config.model.members),
            outside=prepared.outside,
            time_for_round=time_for_round,
        )
        result = self_train(context)
    return with_corrections(run, prepared.judged, result, learned(run.path))


def _write_council(run: Run, result: SelfTrainingResult) -> None:
    """Write council.json: weights that hold for student and baseline too, those of the round that decided."""
    names = [member.name for member in run.config.model.members]
    if len(names) == 1:
        return
    council = {"models": names, "weights": [1 / len(names)] * len(names)}
    facts = result.predicted.calibration if result.predicted else {}
    # not where predictions from outside stand in for the teachers
    if facts.get("member_weights") and not run.config.predictions.labeled:
        council["weights"] = facts["member_weights"]
        council["oof_accuracies"] = facts["member_accuracies"]
    write_json(run.path / COUNCIL, council)


def train_final_models(
    run: Run, prepared: PreparedData, result: SelfTrainingResult, job_runner: JobRunner
) -> Models:
    """The student (every row with a label), the baseline (given labels only, as many steps), the first teachers.

    Raises:
        TimeBudgetExceeded: there is no time for the student. Without time for the baseline a run is whole.
    """
    rows = np.flatnonzero(has_label(result.label))
    steps = step_budget(len(rows), run.config.train)
    unlabeled = _unlabeled_images(run, prepared, result) if run.mode in USES_UNLABELED else ()
    jobs = [TrainJob("student", rows, result.targets(prepared.judged)[rows], unlabeled, steps)]
    if run.config.pseudo.train_baseline and (result.round or result.reason == "collapse"):
        rows = np.flatnonzero(has_label(prepared.judged.given_labels))
        targets = prepared.judged.given_targets[rows]
        jobs.append(TrainJob("baseline", rows, targets, steps=steps))
    n_members = len(run.config.models_of("student"))
    councils = {job.where: _for_each_member(job, n_members) for job in jobs}
    models: Models = {}
    for arm, of_arm in councils.items():
        try:
            with run.stage(arm):
                job_runner.ahead([*chain.from_iterable(councils.values())])
                for job in of_arm:
                    job_runner.run(job)
                models[arm] = load_models([run.path / arm])
        except TimeBudgetExceeded:
            if arm == "student":
                raise
            log.info("time budget: no time is left for the baseline")
    if first_teachers := model_folders(run.path, 1):
        models["teacher"] = load_models(first_teachers)
    return models


def _for_each_member(job: TrainJob, n_members: int) -> list[TrainJob]:
    """The same job for every network of a council. The first one comes last: when it is there, the council is whole."""
    members = reversed(range(n_members))
    return [replace(job, where=member_folder(job.where, member)) for member in members]


def _unlabeled_images(
    run: Run, prepared: PreparedData, result: SelfTrainingResult
) -> tuple[ndarray, ndarray | None]:
    """What the student sees without a label: rows (M,), and the log-probabilities (M, K) that decided about them.

    The latter only where labels were propagated: other teachers of few labels pass on their mistakes (docs/log.md).
    """
    rows = np.flatnonzero(~has_label(result.label) & (prepared.refused == ""))
    propagates = run.config.pseudo.label_propagation != 0
    if result.decisions is None or result.label.ndim == 2 or not propagates:
        return rows, None
    probs = np.maximum(result.decisions.posterior(rows), 1e-30)
    return rows, np.log(probs).astype(np.float32)


def evaluate(
    run: Run,
    prepared: PreparedData,
    result: SelfTrainingResult,
    models: Models,
    job_runner: JobRunner,
) -> None:
    """Score the models and write the tables that people open, metrics.json, and the submission."""
    predict = partial(job_runner.predict, views=run.config.predict.tta)
    with run.stage("score"):
        metrics = write_tables(run, prepared, result)
        metrics["scores"], scored_rows = score_arms(prepared, models, predict)
        write_csv(run.path / "scored.csv", scored_rows)
        if trusted := score_trusted(run, prepared, predict):
            metrics["trusted"] = trusted
        if gain := difference(scored_rows):
            metrics["difference"] = gain
        if run.trains:
            list_odd_images(run, prepared)
            explain(run, prepared, result)
    metrics["models"] = predicting_models(run.path)
    if facts := budget_facts(run, prepared, result.reason):
        metrics["time_budget"] = facts
    if (run.path / COUNCIL).exists():
        metrics["council"] = read_json(run.path / COUNCIL)
    if run.config.data.submission:
        with run.stage("submission"):
            write_submission(run.path)
    write_json(run.path / "metrics.json", metrics | run.costs())


def write_pages(run: Run) -> None:
    """Write metrics.jsonl, the pages, and the task list for Label Studio."""
    with run.stage("review"):
        write_metrics(run.path)
        write_review(run.path)
        write_label_studio(run.path)
    with run.stage("report"):
        write_report(run.path)


def finish(run: Run, reason: str, is_whole: bool) -> None:
    """Write the last status, and print the summary, see _run_without_pages."""
    state, stage = ("done", "done") if is_whole else ("stopped", "rounds")
    run.write_status(state, stage, reason)
    log.info(summary(run.path))
    if not is_whole:
        log.info("the time budget is spent, and there is no student yet; the same command goes on")
