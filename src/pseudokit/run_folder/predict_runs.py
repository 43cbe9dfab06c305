"""predict.py: the models of one or several runs, the images to predict, the average, the answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config.keys import STUDENTS, Config
from ..config.types import UserError
from ..data.builtin import with_builtin
from ..data.csv_text import read_csv
from ..data.encoding import parse
from ..data.images import load_images
from ..data.tables import read_split
from ..labels.ensemble import best_weights, mixture
from ..labels.metrics import measure, paired_arms
from ..labels.thresholds import answer, tuned
from ..round_store import RoundStore, model_files
from ..system.distributed import size
from ..system.files import log, read_json, write_csv
from ..training.models import ModelSpec, TrainedModel, load_model
from ..training.trainer import PredictJob, Trainer, offer
from .folder import run_config
from .submission import fill_submission, predictions_table

Predict = Callable[[TrainedModel, np.ndarray], np.ndarray]
"""(model, rows) → log-probabilities of the rows."""
CHOOSING_SPLITS = ("val", "trusted")
"""Splits whose rows choose an arm; the test set only tells how good the choice was."""


class FinishedRun(NamedTuple):
    """A run, and those of its models that predict."""

    path: Path
    config: Config
    models: list[TrainedModel]

    @property
    def spec(self) -> ModelSpec:
        """Of the first model; all of them have the same classes and size."""
        return self.models[0].format


class OutOfFold(NamedTuple):
    """Rows that M runs predicted out of fold under the same label. log_probs: (M, …), see data/encoding.py."""

    log_probs: np.ndarray
    labels: np.ndarray


def open_finished(run: Path, arm: str | None = None) -> FinishedRun:
    """A run with those of its models that predict.

    Args:
        arm: student, baseline or both; default: predict.arm of the run, else what its held-out rows favor.

    Raises:
        UserError: it is no run folder, has no model yet, or has no such arm.
    """
    config = run_config(run)
    if (run / "baseline" / "model.json").is_file():
        arm, reason = _choose_arm(run, arm or config.predict.arm)
        folders = [run / name for name in STUDENTS if arm in (name, "both")]
    else:
        if arm in ("baseline", "both"):
            raise UserError(
                f"--arm {arm}: {run} has no baseline (folder baseline); leave --arm out"
            )
        reason = "the run has no baseline"
        folders = _folders_without_baseline(run)
    if not folders:
        raise UserError(f"--run {run} has no student yet; run its command again to go on")
    log.info(
        f"{run} predicts with {' and '.join(str(folder.relative_to(run)) for folder in folders)}: {reason}"
    )
    return FinishedRun(run, config, [load_model(folder) for folder in folders])


def _choose_arm(run: Path, arm: str | None) -> tuple[str, str]:
    """The arm that predicts, and why. arm: what the user asks for."""
    if arm:
        return arm, f"arm={arm}, as asked for"
    gain = paired_arms(read_csv(run / "scored.csv"), CHOOSING_SPLITS, "baseline")
    if gain is None:
        return "student", "no row of data.val or data.trusted compares it with the baseline"
    points, low, high = (100 * gain[key] for key in ("gain", "low", "high"))
    if low > 0:
        arm = "student"
    elif high < 0:
        arm = "baseline"
    else:
        arm = "both"
    interval = f"{points:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    return arm, f"student − baseline {interval}, on {gain['n']:,} rows of data.val and data.trusted"


def _folders_without_baseline(run: Path) -> list[Path]:
    """The student, after train.py with the fold models; without a student the models of the last finished round."""
    number = len(RoundStore(run).rounds()) or 1  # of the first round also if it is not finished
    fold_models = [file.parent for file in model_files(run, number)]
    if not (run / "student" / "model.json").is_file():
        return fold_models
    mode = read_json(run / "status.json", "mode")["mode"]
    return [run / "student", *fold_models] if mode == "train" else [run / "student"]


def read_targets(config: Config, source: str | None) -> pd.DataFrame:
    """id and path of what is to be predicted, in the order of the file.

    Raises:
        UserError: nothing to predict is named, or it cannot be read.
    """
    data = config.data if source else with_builtin(config.data)
    if source is None and data.test is None:
        raise UserError("nothing to predict: give --data CSV_OR_FOLDER (the run has no data.test)")
    table = read_split(data, "test", source)
    repeated = table.id[table.id.duplicated()]
    if len(repeated):
        raise UserError(
            f"{source or data.test}: id {repeated.iloc[0]!r} stands twice; keep one row per id"
        )
    return table[["id", "path"]]


def predict_runs(
    runs: list[FinishedRun],
    targets: pd.DataFrame,
    tta: int | None = None,
    weights: str | None = None,
    alone: bool = False,
) -> pd.DataFrame:
    """The weighted mean of the probabilities of each run, and what is answered: the table of predictions.csv.

    Args:
        targets: see read_targets.
        tta: views of each image; default: predict.tta of each run.
        weights: `oof`, by which out-of-fold rows are most likely; a number a run, as `1,2`; None = all alike.
        alone: this process predicts by itself, as the others of torchrun wait for something else.

    Raises:
        UserError: the runs do not fit together, weights do not fit them, or an image cannot be read.
    """
    if len(runs) > 1 and size() > 1:
        raise UserError(
            "torchrun predicts one run at a time; give one --run, or leave torchrun out"
        )
    spec, metric = runs[0].spec, runs[0].config.metric
    for run in runs:
        if (run.spec.classes, run.spec.multi_label) != (spec.classes, spec.multi_label):
            raise UserError(
                f"--run {run.path} knows other classes than --run {runs[0].path}; predict with runs of the same ones"
            )
    out_of_fold = _shared_out_of_fold(runs)
    shares = _parse_weights(weights, len(runs), out_of_fold)
    probs = mixture(np.stack([_predict_run(run, targets.path, tta, alone) for run in runs]), shares)
    answers = probs.argmax(-1)
    if out_of_fold:
        log_probs, labels = (
            np.log(mixture(np.exp(out_of_fold.log_probs), shares) + 1e-30),
            out_of_fold.labels,
        )
        if len(runs) > 1:
            score = measure(metric or "accuracy", log_probs, labels, spec.classes)
            log.info(
                f"weights {shares.round(3).tolist()}: {metric or 'accuracy'} out of fold {score:.4f}"
            )
        rule = tuned(metric, log_probs, labels, spec.classes) if metric else None
        if rule and rule["numbers"] is not None:
            log.info(
                f"answers tuned out of fold for {metric}: {rule['before']:.4f} → {rule['after']:.4f}"
            )
            answers = answer(metric, rule["numbers"], np.log(probs + 1e-30), spec.classes)
    return predictions_table(targets, probs, answers, spec.classes)


def _predict_run(run: FinishedRun, paths: pd.Series, tta: int | None, alone: bool) -> np.ndarray:
    """Probabilities, averaged over the models of a run and over views."""
    tta = run.config.predict.tta if tta is None else tta
    if tta < 1:
        raise UserError(f"--tta {tta} must be at least 1")
    paths = paths.to_numpy(object)
    rows = np.arange(len(paths))
    # every row needs a prediction, so no image is skipped
    as_trained = {"size": run.spec.size, "channels": run.spec.channels, "bad_images": "refuse"}
    config = run.config.model_copy(update={"data": run.config.data.model_copy(update=as_trained)})
    pixels, _ = load_images(paths, config.data)
    trainer = Trainer(config, pixels, np.empty(0, np.int64), run.spec.classes)
    if alone:
        return mean_probs(
            run.models,
            rows,
            lambda model, rows: trainer.run_predict_job(PredictJob(model, rows, tta)),
        )
    offer(trainer, paths)
    return mean_probs(run.models, rows, partial(trainer.predict, tta=tta))


def mean_probs(models: list[TrainedModel], rows: np.ndarray, predict: Predict) -> np.ndarray:
    """The mean of the probabilities of several models."""
    return np.mean([np.exp(predict(model, rows)) for model in models], axis=0)


def _shared_out_of_fold(runs: list[FinishedRun]) -> OutOfFold | None:
    """The rows that all runs predicted out of fold under the same label; None where there is none."""
    if not all((run.path / "oof_log_probs.npy").exists() for run in runs):
        return None
    tables = [read_csv(run.path / "oof.csv", usecols=["id", "label"]) for run in runs]
    places = [pd.Series(table.index, pd.MultiIndex.from_frame(table)) for table in tables]
    shared = pd.concat(places, axis=1, join="inner")
    if shared.empty:
        return None
    files = [np.load(run.path / "oof_log_probs.npy", mmap_mode="r") for run in runs]
    log_probs = np.stack([file[shared[i].to_numpy()] for i, file in enumerate(files)])
    spec = runs[0].spec
    return OutOfFold(
        log_probs, parse(shared.index.get_level_values("label"), spec.classes, spec.multi_label)
    )


def _parse_weights(weights: str | None, n: int, out_of_fold: OutOfFold | None) -> np.ndarray:
    """(n,) that sum to 1."""
    if weights is None:
        return np.full(n, 1 / n)
    if weights == "oof":
        if out_of_fold is None:
            raise UserError(
                "--weights oof: these runs have no out-of-fold rows in common (oof.csv); give numbers"
            )
        return best_weights(np.exp(out_of_fold.log_probs), out_of_fold.labels)
    numbers = pd.to_numeric(pd.Series(weights.split(",")), errors="coerce").to_numpy(float)
    if len(numbers) != n or not ((numbers > 0) & (numbers < np.inf)).all():
        example = ",".join(["1"] * n)
        raise UserError(
            f"--weights {weights} must be oof, or a number for each of the {n} --run, as {example}"
        )
    return numbers / numbers.sum()


def write_predictions(out: Path, table: pd.DataFrame, sample: str | Path | None) -> None:
    """Write the table of predictions; with a sample_submission.csv, also submission.csv beside it.

    Raises:
        UserError: the sample does not fit; then nothing is written.
    """
    filled = fill_submission(Path(sample), table) if sample else None
    write_csv(out, table)
    log.info(f"{len(table):,} predictions: {out}")
    if filled is not None:
        write_csv(out.with_name("submission.csv"), filled)
        log.info(f"submission: {out.with_name('submission.csv')}")


def write_submission(run: Path, config: Config) -> None:
    """predictions.csv and submission.csv of a run that is being finished, for its data.test."""
    table = predict_runs([open_finished(run)], read_targets(config, None), alone=True)
    write_predictions(run / "predictions.csv", table, config.data.submission)
