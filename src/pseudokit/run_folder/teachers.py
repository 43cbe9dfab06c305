"""Earlier runs as teachers: their fold models judge each row of which, and of whose copies, they learned no label."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Config
from ..config.load import with_changes
from ..config.types import UserError
from ..data.csv_text import read_csv
from ..data.dataset import LEARNED_SPLITS, Dataset
from ..data.duplicates import find_links
from ..data.encoding import has_label
from ..data.folds import find_clusters, link_equal
from ..data.images import load_images
from ..labels.out_of_fold import (
    FoldJob,
    FoldPredictions,
    OutsidePredictions,
    average_models,
    predict_out_of_fold,
)
from ..round_store import RoundStore, model_folders
from ..system.files import hash_of, log, write_npy
from ..training.models import load_models
from .folder import Run, read_status
from .predict_runs import FinishedRun, predict_run


def read_teachers(
    run: Run, judged: Dataset, pixels: ndarray, clusters: ndarray
) -> OutsidePredictions:
    """What each run of `teachers` says of the rows that a new run learns or judges.

    Args:
        judged: N rows; pixels: their images come first; clusters: (N,), see find_clusters.

    Raises:
        UserError: `teachers` does not go with the mode or another key; or a run is not finished, has no fold models or
            other classes, or learned all labeled rows by each of its models.
    """
    config = run.config
    pseudo, files = config.pseudo, config.predictions
    is_leak_free = pseudo.leak_free_folds or pseudo.min_precision is not None
    if run.mode == "train" or not pseudo.rounds or is_leak_free or files.labeled or files.unlabeled:
        raise UserError(
            "teachers judge in plain rounds of pseudo.py, and do not go with pseudo.rounds=0, pseudo.leak_free_folds, "
            "pseudo.min_precision or files of predictions; leave them or these out"
        )
    others = []
    for name in config.teachers:
        model = _judge(Path(name), run, judged, pixels, clusters)
        n_labeled = has_label(judged.given_labels)[model.rows].sum()
        log.info(f"teachers: {name} judges {n_labeled:,} labeled rows, {len(model.rows):,} in all")
        if not n_labeled:
            raise UserError(
                f"teachers: {name} learned every labeled row, or a copy of it, by each of its models; leave it out"
            )
        others.append(replace(model, member=len(others)))
    return OutsidePredictions(others=others, fits_weights=True, facts={"teachers": config.teachers})


def _judge(
    path: Path, run: Run, judged: Dataset, pixels: ndarray, clusters: ndarray
) -> FoldPredictions:
    """The mean of the fold models of the last round of a run; of each row those that may judge it.

    It is kept in a file of the new run, which finds it there when it goes on.
    """
    config, n, store = run.config, len(judged), RoundStore(path)
    number = len(store.rounds())
    folds = {
        str(folder): FinishedRun(path, config, load_models([folder]))
        for folder in model_folders(path, number)
    }
    multi_label = judged.given_labels.ndim == 2
    if read_status(path)["state"] != "done":
        raise UserError(
            f"teachers: {path} is no finished run; run its command to the end, or mend the path"
        )
    known = {(*fold.spec.classes, fold.spec.multi_label) for fold in folds.values()}
    if known != {(*judged.classes, multi_label)}:
        raise UserError(
            f"teachers: {path} has no fold models (round_1/fold_0), or other classes than data.train; leave it out"
        )
    samples = Dataset.from_table(read_csv(path / "samples.csv"), judged.classes, multi_label)
    samples = samples.take(np.isin(samples.split, LEARNED_SPLITS))
    round_ = store.recall(number, samples)
    hashes = [model.hash for fold in folds.values() for model in fold.models]
    if gone := {*round_.models}.difference(hashes):
        raise UserError(
            f"teachers: {path} lost {len(gone)} models of round_{number}; bring them back, or leave it out"
        )
    predicted_by = pd.Series(round_.predicted_by)
    both = _clusters_of_both(config, judged, samples, pixels, clusters)

    jobs = []
    for where, fold in folds.items():
        # It predicted every row that it did not learn. The rows of its run follow those of the new one.
        learned = n + np.flatnonzero(~predicted_by.str.contains(fold.models[0].hash))
        rows = np.flatnonzero(~np.isin(both[:n], both[learned]))
        jobs.append(FoldJob(where, -1, learned, np.empty(0), rows))

    def predict(fold: FinishedRun, rows: ndarray) -> ndarray:
        probs = predict_run(fold, judged.path[rows], config.pseudo.tta, alone=True)
        return np.log(probs + 1e-30)

    of_jobs = [job.judged for job in jobs]
    name = hash_of(hashes, config.pseudo.tta, config.view, pixels[:n], *of_jobs)
    file = run.path / f"teacher_{name}.npy"
    if not file.exists():
        models = predict_out_of_fold(jobs, lambda where, *_: folds[where], predict, both)
        write_npy(file, average_models(models, n).log_probs)
    rows = np.unique(np.concatenate(of_jobs))
    return FoldPredictions(rows, np.load(file)[rows], name, -1)


def _clusters_of_both(
    config: Config, judged: Dataset, samples: Dataset, pixels: ndarray, clusters: ndarray
) -> ndarray:
    """(N + M,) clusters of judged rows and of samples of an earlier run: the same id, file or group, or copies."""
    both = pd.concat([judged.table(), samples.table()], ignore_index=True)
    links = [link_equal(keys) for keys in (clusters, both.id, both.path)]
    if both.path.nunique() > len({*judged.path}):
        _, _, size, channels = pixels.shape
        changes = {"data.size": size, "data.channels": channels, "data.bad_images": "refuse"}
        pixels, _ = load_images(both.path.to_numpy(), with_changes(config, changes).data)
        links.append(find_links(pixels, len(both)))
    return find_clusters(both.group.to_numpy(), np.concatenate(links, axis=1))
