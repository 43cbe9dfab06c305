"""predict.py: the models of one or several runs, the images to predict, the average, the answers."""

from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import STUDENTS, Config
from ..config.load import with_changes
from ..config.types import UserError, check_all
from ..data.builtin import with_builtin
from ..data.csv_text import read_csv
from ..data.encoding import parse
from ..data.images import load_images
from ..data.tables import read_split, real_paths
from ..labels.inputs import read_weights
from ..labels.metrics import measure, paired_arms
from ..labels.thresholds import answer, tuned
from ..report.load_run import read_dict
from ..report.sentences import points
from ..round_store import RoundStore, model_folders
from ..system.files import log, write_csv
from ..training.models import COUNCIL, ModelSpec, TrainedModel, load_models
from ..training.predict import mean_probs
from ..training.trainer import Trainer, offer
from .corrections import not_learned
from .folder import run_config, run_mode
from .submission import fill_blank, fill_submission, predictions_table, read_sample


class FinishedRun(NamedTuple):
    """A run, and those of its models that predict; all of them have the same classes and size."""

    path: Path
    config: Config
    models: list[TrainedModel]

    @property
    def spec(self) -> ModelSpec:
        """Classes and size of the models."""
        return self.models[0].spec

    @property
    def hash(self) -> str:
        """Of all models."""
        return "+".join(model.hash for model in self.models)


def open_finished(run: Path, arm: str | None = None, goes_on: bool = False) -> FinishedRun:
    """A run with those of its models that predict.

    Args:
        arm: student, baseline or both; default: predict.arm of the run, else what its held-out rows favor.
        goes_on: the run is being worked on, so that other models count than those that it was finished with.

    Raises:
        UserError: it is no run folder, has no model yet, no such arm, or lost what it was finished with.
    """
    config = run_config(run)
    lost = None if goes_on else lost_file(run)
    if lost:
        raise UserError(
            f"--run {run} was finished with {lost}, which is gone; bring it back, run the last command again, or start "
            "over with --fresh"
        )
    if (run / "baseline" / "model.json").is_file():
        arm = arm or config.predict.arm or _choose_arm(run)
        folders = [run / name for name in STUDENTS if arm in (name, "both")]
    elif arm in ("baseline", "both"):
        raise UserError(f"--arm {arm}: {run} has no baseline (folder baseline); leave --arm out")
    else:
        folders = _folders_without_baseline(run)
    if not folders:
        raise UserError(
            f"--run {run} has no student yet; run its command again to go on, or if predictions.labeled judged its "
            "labels, train one on its labels.csv (train.py)"
        )
    if (run / "student") in folders and (n := not_learned(run)):
        log.info(
            f"warning: the student of {run} has not learned {n:,} human decisions (--labels-only)"
        )
    names = " and ".join(str(folder.relative_to(run)) for folder in folders)
    log.info(f"{run} predicts with {names}")
    return FinishedRun(run, config, load_models(folders))


def lost_file(run: Path) -> Path | None:
    """A model, or the weights of a council, that a run was finished with and lacks; None where all is there."""
    metrics = read_dict(run / "metrics.json")
    files = [run / name / "model.json" for name in metrics.get("models", [])]
    if "council" in metrics:
        files.append(run / COUNCIL)
    return next((file for file in files if not file.is_file()), None)


def predicting_models(run: Path) -> list[str]:
    """The folder of each network that may predict, those of a council too."""
    folders = [run / "baseline", *_folders_without_baseline(run)]
    files = [file for folder in folders for file in sorted(folder.rglob("model.json"))]
    return [file.parent.relative_to(run).as_posix() for file in files]


def _choose_arm(run: Path) -> str:
    """The arm that held-out rows favor; both where none is better beyond noise.

    Rows of the test set never choose: they only tell how good the choice was.
    """
    gain = paired_arms(read_csv(run / "scored.csv"), ("val", "trusted"))
    if gain is None:
        return "student"
    difference = f"student − baseline {points(gain, 'gain')}"
    log.info(f"{run}: {difference} on {gain['n']:,} rows of data.val and data.trusted")
    if gain["low"] > 0:
        return "student"
    return "baseline" if gain["high"] < 0 else "both"


def _folders_without_baseline(run: Path) -> list[Path]:
    """The student, after train.py with the fold models; without a student the models of the last finished round."""
    folders = [file.parent for file in run.glob("student/model.json")]
    if not folders or run_mode(run) == "train":
        number = len(RoundStore(run).rounds()) or 1  # of the first round also if it is not finished
        folders += model_folders(run, number)
    return folders


def open_all(
    runs: list[Path],
    data: str | None,
    sample: str | Path | None,
    weights: str | None = None,
    arm: str | None = None,
) -> tuple[list[FinishedRun], pd.DataFrame]:
    """The runs, and what they are to predict, see open_finished and read_targets.

    Raises:
        UserError: what is wrong with the runs, the data, the sample submission and the weights, told together.
    """

    def targets() -> pd.DataFrame:
        is_missing = (
            data is not None and not Path(data).exists()
        )  # told where the run is missing, too
        config = Config() if is_missing else run_config(runs[0])
        return read_targets(FinishedRun(runs[0], config, []), data)

    others = [partial(read_sample, Path(sample))] if sample else []
    table, _, *opened = check_all(
        targets,
        partial(_read_shares, weights, len(runs)),
        *[partial(open_finished, run, arm) for run in runs],
        *others,
    )
    finished = opened[: len(runs)]
    if sample:
        first = finished[0]
        fill_blank(Path(sample), table.id, first.spec.classes, first.config)
    return finished, table


def read_targets(run: FinishedRun, source: str | None) -> pd.DataFrame:
    """id and path of what is to be predicted, in the order of the file.

    Raises:
        UserError: nothing to predict is named, it cannot be read, or it names no image but those of data.train.
    """
    data = run.config.data if source else with_builtin(run.config.data)
    if source is None and data.test is None:
        raise UserError("nothing to predict: give --data CSV_OR_FOLDER (the run has no data.test)")
    table = read_split(data, "test", source)
    is_other_table = source and Path(source).is_file() and source != data.train
    if is_other_table and data.learn_from_test != "copies":
        samples = read_csv(run.path / "samples.csv", usecols=["path", "split"])
        learned = {*real_paths(samples.path[samples.split == "train"])}
        is_learned = table.real_path.isin(learned)
        if is_learned.any():
            log.info(f"warning: {is_learned.sum():,} images of {source} are files of data.train")
        if is_learned.all():
            raise UserError(
                f"--data {source}: all of its images are files of data.train, for example {table.path[0]}; give --data "
                "the folder of the images that are meant, or write it into the ids"
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
        weights: a number a run, as `1,2`; None = all alike.
        alone: this process predicts by itself, as the others of torchrun wait for something else.

    Raises:
        UserError: the runs do not fit together, weights do not fit them, or an image cannot be read.
    """
    spec, metric = runs[0].spec, runs[0].config.metric
    for run in runs:
        other = run.spec
        if (other.classes, other.multi_label) != (spec.classes, spec.multi_label):
            raise UserError(
                f"--run {run.path} knows other classes than --run {runs[0].path}; predict with runs of the same ones"
            )
    shares = _read_shares(weights, len(runs))
    paths = targets.path.to_numpy(object)
    alone = alone or len(runs) > 1  # the other processes can learn of one trainer only
    of_runs = np.stack([predict_run(run, paths, tta, alone) for run in runs])
    probs = np.tensordot(shares, of_runs, 1)
    answers = probs.argmax(-1)
    oof_probs, labels = _shared_out_of_fold(runs) if metric or len(runs) > 1 else ((), ())
    if len(labels):
        log_probs = np.log(np.tensordot(shares, oof_probs, 1) + 1e-30)
        if len(runs) > 1:
            name = metric or "accuracy"
            score = measure(name, log_probs, labels, spec.classes)
            log.info(f"weights {shares.round(3).tolist()}: {name} out of fold {score:.4f}")
        rule = tuned(metric, log_probs, labels, spec.classes)
        if rule and rule["numbers"]:
            log.info(
                f"answers tuned out of fold for {metric}: {rule['before']:.4f} → {rule['after']:.4f}"
            )
            answers = answer(metric, rule["numbers"], np.log(probs + 1e-30), spec.classes)
    return predictions_table(targets, probs, answers, spec.classes)


def _read_shares(weights: str | None, n_runs: int) -> ndarray:
    shares = read_weights(weights and weights.split(","), n_runs, "--weights", "--run")
    return shares / shares.sum()


def predict_run(run: FinishedRun, paths: ndarray, tta: int | None, alone: bool) -> ndarray:
    """Probabilities, averaged over the models of a run and over views."""
    tta = run.config.predict.tta if tta is None else tta
    if tta < 1:
        raise UserError(f"--tta {tta} must be at least 1")
    spec = run.spec
    as_trained = {"data.size": spec.size, "data.channels": spec.channels}
    # every row needs a prediction, so no image is skipped
    config = with_changes(run.config, as_trained | {"data.bad_images": "refuse"})
    pixels, _ = load_images(paths, config.data, spec.ranges)
    trainer = Trainer(config, pixels, np.empty(0, np.int64), spec.classes, ranges=spec.ranges)
    if not alone:
        offer(trainer, paths)
    predict = partial(trainer.predict, tta=tta, alone=alone)
    return mean_probs(run.models, np.arange(len(paths)), predict)


def _shared_out_of_fold(runs: list[FinishedRun]) -> tuple[ndarray, ndarray]:
    """The rows that all runs predicted out of fold under the same label: probabilities (M, n, …) and labels."""
    files = [run.path / "oof_log_probs.npy" for run in runs]
    if not all(file.exists() for file in files):
        return np.empty((len(runs), 0)), np.empty(0)
    tables = [read_csv(run.path / "oof.csv", usecols=["id", "label"]) for run in runs]
    # column i of `shared`: where a row stands in the arrays of run i
    numbered = [table.reset_index(names=i) for i, table in enumerate(tables)]
    shared = reduce(pd.merge, numbered)
    arrays = []
    for i, file in enumerate(files):
        log_probs = np.load(file, mmap_mode="r")
        arrays.append(log_probs[shared[i]])
    spec = runs[0].spec
    labels = parse(shared.label, spec.classes, spec.multi_label)
    return np.exp(np.stack(arrays)), labels


def write_predictions(
    out: Path, table: pd.DataFrame, sample: str | Path | None, config: Config
) -> None:
    """Write the table of predictions; with a sample_submission.csv, also submission.csv beside it.

    Raises:
        UserError: the sample does not fit; then nothing is written.
    """
    filled = fill_submission(Path(sample), table, config) if sample else None
    write_csv(out, table)
    log.info(f"{len(table):,} predictions: {out}")
    if filled is not None:
        write_csv(out.with_name("submission.csv"), filled)
        log.info(f"submission: {out.with_name('submission.csv')}")


def write_submission(run: Path) -> None:
    """predictions.csv and submission.csv of a run that is being finished, for its data.test."""
    finished = open_finished(run, goes_on=True)
    table = predict_runs([finished], read_targets(finished, None), alone=True)
    config = finished.config
    write_predictions(run / "predictions.csv", table, config.data.submission, config)
