"""What predict.py is made of: the models of one or several runs, the rows to predict, their average, the answers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..config.keys import Config
from ..config.load import load_config
from ..config.types import UserError
from ..data.builtin import with_builtin
from ..data.csv_text import read_csv
from ..data.encoding import likeliest, parse
from ..data.images import load_images
from ..data.tables import read_split
from ..labels.ensemble import best_weights, mixture
from ..labels.metrics import measure, paired_arms
from ..labels.thresholds import answer, tuned
from ..system.distributed import size
from ..system.files import log, read_json, write_csv
from ..training.models import ModelSpec, TrainedModel, load_model
from ..training.trainer import PredictJob, Trainer, offer
from .submission import predictions_table, submission

ARMS = ("student", "baseline")
"""The arms, and the folders that they lie in."""
CHOOSING_SPLITS = ("val", "trusted")
"""Scored roles whose rows choose an arm; those of the test set only tell how good the choice was."""


class OutOfFold(NamedTuple):
    """Rows that several runs judged out of fold. logs: (M, …) log-probabilities, a run each; labels: see
    encoding.py."""

    logs: np.ndarray
    labels: np.ndarray


class Prediction(NamedTuple):
    """probs and answers: see data/encoding.py; models: how many were averaged."""

    probs: np.ndarray
    answers: np.ndarray
    classes: list[str]
    models: int


def open_finished(run: Path) -> Config:
    """The config of a run that has a model.

    Raises:
        UserError: it is no run folder, or its run has not come that far.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run} is no run folder; train.py and pseudo.py make one under runs/")
    if not _finished(run):
        raise UserError(f"--run {run} has no student yet, nor another model; run its command again to go on")
    return load_config(run / "config.yaml", [])


def _finished(run: Path) -> list[Path]:
    """Folders of the models that predict where no arm is chosen: the student, after train.py the fold models as well;
    where the run was cut off before, the models of the round with the most of them, of several the last."""
    folders = sorted(run.glob("round_*"), key=lambda folder: int(folder.name[6:]), reverse=True)
    rounds = [sorted(file.parent for file in folder.glob("fold_*/model.json")) for folder in folders]
    most = max(rounds, key=len, default=[])
    if not (run / "student" / "model.json").is_file():
        return most
    return [run / "student"] + (most if read_json(run / "status.json", "mode")["mode"] == "train" else [])


def finished_models(run: Path, arm: str | None = None) -> list[TrainedModel]:
    """The models of a run that predict. arm: see predict.arm; None = by the evidence of the run.

    Raises:
        UserError: the run has no such arm.
    """
    folders = _finished(run)
    if folders == [run / "student"]:
        folders, why = _arm_folders(run, arm)
        log.info(f"{run} predicts with the {' and the '.join(folder.name for folder in folders)}: {why}")
    elif arm not in (None, "student"):
        raise UserError(f"--arm {arm}: {run} has no student beside a baseline to choose from; leave --arm out")
    return [load_model(folder) for folder in folders]


def configured_arm(run: Path, config: Config) -> str | None:
    """predict.arm; None where the run has no baseline, as after train.py or where its time was spent."""
    return config.predict.arm if (run / "baseline" / "model.json").is_file() else None


def _arm_folders(run: Path, arm: str | None) -> tuple[list[Path], str]:
    """Folders of the arms that predict, and why."""
    compared = (run / "baseline" / "model.json").is_file()
    if arm not in (None, "student") and not compared:
        raise UserError(f"--arm {arm}: {run} has no baseline (folder baseline); leave --arm out")
    if arm:
        why = f"arm={arm}, as asked for"
    elif not compared:
        arm, why = "student", "the run has no baseline"
    else:
        arm, why = _favored(run)
    return [run / name for name in ARMS if arm in (name, "both")], why


def _favored(run: Path) -> tuple[str, str]:
    """The arm that the evidence of the run favors, see predict.arm, and the evidence."""
    file = run / "scored.csv"
    gain = paired_arms(read_csv(file), CHOOSING_SPLITS, "baseline") if file.is_file() else None
    if gain is None:
        return "student", "no row of data.val or data.trusted compares it with the baseline"
    points = [f"{100 * gain[key]:+.2f}" for key in ("gain", "low", "high")]
    why = (
        f"student − baseline {points[0]} points, 95 % interval {points[1]} to {points[2]}, on {gain['n']:,} rows "
        "of data.val and data.trusted"
    )
    return ("student" if gain["low"] > 0 else "baseline" if gain["high"] < 0 else "both"), why


def read_targets(config: Config, source: str | None) -> pd.DataFrame:
    """id and path of what is to be predicted, in the order of the file.

    Raises:
        UserError: nothing to predict is named, or it cannot be read.
    """
    data = config.data if source else with_builtin(config.data)
    if source is None and data.test is None:
        raise UserError("nothing to predict: give --data CSV_OR_FOLDER (the run has no data.test)")
    table = read_split(data, "test", source)
    doubled = table.id[table.id.duplicated()]
    if len(doubled):
        raise UserError(f"{source or data.test}: id {doubled.iloc[0]!r} stands twice; keep one row per id")
    return table[["id", "path"]]


def predict_files(models: list[TrainedModel], paths: np.ndarray, config: Config, tta: int | None) -> np.ndarray:
    """Probabilities, averaged over models and views; tta: number of views, default predict.tta.

    Raises:
        UserError: an image cannot be read (every row needs a prediction, so none is skipped), or tta is below 1.
    """
    trainer, views = _stock(models, paths, config, tta)
    offer(trainer, paths)
    return np.mean([np.exp(trainer.predict(model, np.arange(len(paths)), views)) for model in models], axis=0)


def _stock(models: list[TrainedModel], paths: np.ndarray, config: Config, tta: int | None) -> tuple[Trainer, int]:
    """The images in the size that the models take, and the number of views."""
    tta = config.predict.tta if tta is None else tta
    if tta < 1:
        raise UserError(f"--tta {tta} must be at least 1")
    spec = models[0].format
    as_trained = {"size": spec.size, "channels": spec.channels, "bad_images": "refuse"}
    config = config.model_copy(update={"data": config.data.model_copy(update=as_trained)})
    pixels, _ = load_images(paths, config.data)
    return Trainer(config, pixels, np.empty(0, np.int64), spec.classes), tta


def predict_runs(
    runs: list[Path], paths: np.ndarray, tta: int | None, weights: str | None, arm: str | None = None
) -> Prediction:
    """The probabilities of each run, weighted, and what is answered.

    arm: default predict.arm of each run, see finished_models.
    weights: `oof`, by which out-of-fold rows are most likely; a number a run, as 1,2; None = all alike.

    Raises:
        UserError: the runs do not fit together, or weights do not fit them.
    """
    if len(runs) > 1 and size() > 1:
        raise UserError("torchrun predicts one run at a time; give one --run, or leave torchrun out")
    configs = [open_finished(run) for run in runs]
    arms = [arm or configured_arm(run, config) for run, config in zip(runs, configs, strict=True)]
    models = [finished_models(run, arm) for run, arm in zip(runs, arms, strict=True)]
    classes = models[0][0].format.classes
    for run, own in zip(runs, models, strict=True):
        if set(own[0].format.classes) != set(classes) or own[0].format.multi_label != models[0][0].format.multi_label:
            raise UserError(f"--run {run} knows other classes than --run {runs[0]}; predict with runs of the same ones")
    judged = _out_of_fold(runs, models[0][0].format)
    share = _weights(runs, weights, judged)
    if len(runs) > 1:
        _announce(runs, share, judged, classes, configs[0].metric)
    probs = [
        predict_files(own, paths, config, tta)[:, _order(own[0].format.classes, classes)]
        for own, config in zip(models, configs, strict=True)
    ]
    mixed = mixture(np.stack(probs), share)
    answers = _answers(mixed, classes, configs[0].metric, judged, share)
    return Prediction(mixed, answers, classes, sum(map(len, models)))


def _order(own: list[str], classes: list[str]) -> list[int]:
    """Where each of the classes stands in a run's own list: matched by name."""
    return [own.index(name) for name in classes]


def _out_of_fold(runs: list[Path], spec: ModelSpec) -> OutOfFold | None:
    """The rows that all runs judged out of fold under the same label; None where there is none."""
    tables = [
        read_csv(run / "oof.csv", usecols=["id", "label"]) for run in runs if (run / "oof_log_probs.npy").exists()
    ]
    if len(tables) < len(runs):
        return None
    both = tables[0].assign(row_0=tables[0].index)
    for i, table in enumerate(tables[1:], 1):
        both = both.merge(table.assign(**{f"row_{i}": table.index}), on=["id", "label"], validate="one_to_one")
    if both.empty:
        return None
    classes = spec.classes
    logs = [
        np.load(run / "oof_log_probs.npy", mmap_mode="r")[both[f"row_{i}"].to_numpy()][
            :, _order(_classes(run), classes)
        ]
        for i, run in enumerate(runs)
    ]
    return OutOfFold(np.stack(logs), parse(both.label, classes, spec.multi_label))


def _classes(run: Path) -> list[str]:
    return read_json(_finished(run)[0] / "model.json")["classes"]


def _weights(runs: list[Path], wanted: str | None, judged: OutOfFold | None) -> np.ndarray:
    """(M,) that sum to 1."""
    if wanted is None:
        return np.full(len(runs), 1 / len(runs))
    if wanted == "oof":
        if judged is None:
            raise UserError("--weights oof: these runs have no out-of-fold rows in common (oof.csv); give numbers")
        return best_weights(np.exp(judged.logs), judged.labels)
    try:
        given_labels = np.array([float(part) for part in wanted.split(",")])
    except ValueError:
        given_labels = np.empty(0)
    if len(given_labels) != len(runs) or not (given_labels >= 0).all() or not 0 < given_labels.sum() < np.inf:
        raise UserError(
            f"--weights {wanted} must be oof, or a number for each of the {len(runs)} --run, as "
            f"{','.join(['1'] * len(runs))}"
        )
    return given_labels / given_labels.sum()


def _announce(runs: list[Path], share: np.ndarray, judged: OutOfFold | None, classes, metric: str | None) -> None:
    """The weight of each run, and what it and all together score out of fold."""
    metric = metric or "accuracy"

    def score(logs: np.ndarray) -> str:
        return f", {metric} out of fold {measure(metric, logs, judged.labels, classes):.4f}"

    for i, run in enumerate(runs):
        log.info(f"{run}: weight {share[i]:.3f}{score(judged.logs[i]) if judged else ''}")
    if judged:
        mixed = np.log(mixture(np.exp(judged.logs), share) + 1e-30)
        log.info(f"together{score(mixed)} (on the {len(judged.labels):,} rows that all of them judged)")


def _answers(probs: np.ndarray, classes, metric: str | None, judged: OutOfFold | None, share: np.ndarray) -> np.ndarray:
    """The likeliest class; where the metric is one that answers are tuned for, see thresholds.py, the tuned one."""
    rule = None
    if metric and judged:
        rule = tuned(metric, np.log(mixture(np.exp(judged.logs), share) + 1e-30), judged.labels, classes)
    if not rule or rule["numbers"] is None:
        return likeliest(probs)
    log.info(f"answers tuned out of fold for {metric}: {rule['before']:.4f} → {rule['after']:.4f}")
    return answer(metric, rule["numbers"], np.log(probs + 1e-30), classes)


def write_predictions(out: Path, targets: pd.DataFrame, said: Prediction, sample: str | Path | None) -> pd.DataFrame:
    """Write and return the table of predictions; with a sample_submission.csv, also submission.csv beside it.

    Raises:
        UserError: the sample does not fit; then nothing is written.
    """
    table = predictions_table(targets, said.probs, said.answers, said.classes)
    filled = submission(Path(sample), table, said.classes) if sample else None
    write_csv(out, table)
    log.info(f"{len(table):,} predictions, average of {said.models} model(s): {out}")
    if filled is not None:
        write_csv(out.with_name("submission.csv"), filled)
        log.info(f"submission: {out.with_name('submission.csv')}")
    return table


def write_submission(run: Path, config: Config) -> None:
    """predictions.csv and submission.csv of a run that is being finished, for its data.test, by this process alone."""
    targets, models = read_targets(config, None), finished_models(run, configured_arm(run, config))
    trainer, views = _stock(models, targets.path.to_numpy(object), config, None)
    rows, spec = np.arange(len(targets)), models[0].format
    probs = np.mean([np.exp(trainer.run_predict_job(PredictJob(model, rows, views))) for model in models], axis=0)
    answers = _answers(probs, spec.classes, config.metric, _out_of_fold([run], spec), np.ones(1))
    said = Prediction(probs, answers, spec.classes, len(models))
    write_predictions(run / "predictions.csv", targets, said, config.data.submission)
