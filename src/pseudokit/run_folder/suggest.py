"""--mode suggest: which unlabeled images a person should label next, and what the labels say once they are there."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.types import UserError
from ..data.csv_text import escape_formulas
from ..data.dataset import SCORED_SPLITS, Dataset
from ..data.encoding import labels_among, names
from ..labels.suggest import compare_with_chance, suggest_rows, uncertainty
from ..report.load_run import decisive_round, image_hash, read_decisions, read_dict, read_table
from ..report.next_commands import shell_command
from ..report.review import write_review
from ..system.files import log, seed_of, write_csv
from .corrections import decided
from .folder import run_config
from .outside import COPY_OF_LABELED

COLUMNS = "id path source score predicted confidence batch image_sha256"
"""batch: how many labels there were before."""


def suggest(run: Path, n: int) -> None:
    """Write suggested.csv, the n images to label next, and suggested.html, on which to label them.

    Raises:
        UserError: the run is not finished, or has no image to suggest.
    """
    seed = run_config(run).seed
    number = decisive_round(read_dict(run / "metrics.json")).get("round")
    table = read_decisions(run, number)
    if table is None:
        raise UserError(f"--run {run} has no finished round; run its command again to go on")
    is_labeled = table.id.isin(decided(run).id) | (table.given_label != "")
    n_labels = int(is_labeled.sum())
    pool = _open_rows(run, table, is_labeled)
    pool = pool.sample(frac=1, random_state=seed_of(seed, n_labels)).drop_duplicates("cluster")
    if n < 1 or not len(pool):
        raise UserError(
            f"--run {run} has {len(pool):,} unlabeled images to suggest, and --n is {n}; "
            "give a run of augment or joint with images that nobody has labeled, and --n 1 or more"
        )
    file = run / f"round_{number}" / "log_probs.npy"
    log_probs = np.load(file, mmap_mode="r")
    # where no network is frozen, log-probabilities tell which images are alike
    files = sorted(run.glob("embeddings_*.npy")) or [file]
    n_rows = len(table)
    arrays = [np.load(file, mmap_mode="r")[:n_rows].reshape(n_rows, -1) for file in files]
    features = arrays[0] if len(arrays) == 1 else np.hstack(arrays)  # one stays on the disk
    labeled = table[is_labeled].sample(frac=1, random_state=seed).index
    rows, source = suggest_rows(log_probs, features, labeled, pool.index, n)
    suggested = table.iloc[rows].assign(
        source=source, score=uncertainty(log_probs[rows]), batch=n_labels
    )
    suggested["image_sha256"] = suggested.path.map(image_hash)
    suggested = suggested.sample(frac=1, random_state=seed)
    all_batches = pd.concat([suggested, read_table(run / "suggested.csv", COLUMNS)])
    all_batches = all_batches[COLUMNS.split()].drop_duplicates("id")
    all_batches["score"] = pd.to_numeric(all_batches.score)
    write_csv(run / "suggested.csv", escape_formulas(all_batches))
    page = write_review(run, 0, suggested[["id", "path", "given_label"]])
    words = "--mode", "apply", "--run", run, "--corrections", "corrections.csv"
    log.info(
        f"{len(rows):,} images to label, a tenth of them drawn at random: label all of them in {page}, then "
        + shell_command("pseudo.py", *words)
    )


def _open_rows(run: Path, table: pd.DataFrame, is_labeled: pd.Series) -> pd.DataFrame:
    """The rows that may be suggested, with the cluster of their copies: neither labeled, nor refused, nor only scored
    elsewhere, and no copy of such a row."""
    samples = read_table(run / "samples.csv", "path split")
    scored = samples.path[samples.split.isin(SCORED_SPLITS)]
    is_refused = table.reason.str.startswith(("duplicate_of", COPY_OF_LABELED))
    copies = read_table(run / "duplicates.csv", "cluster id split")
    copies = copies[~copies.split.isin(SCORED_SPLITS)].set_index("id").cluster
    clusters = table.id.map(copies).fillna("row " + table.id)
    is_closed = is_labeled | is_refused | table.path.isin(scored)
    is_closed = is_closed.groupby(clusters).transform("any")
    return table.assign(cluster=clusters)[~is_closed]


def score_suggested(run: Path, dataset: Dataset, labels: ndarray) -> dict[str, dict]:
    """What labels say of the images that this run suggested, or another run in the same folder.

    An image is known by its file name and content: it may have moved into the folder of its class. What is scored are
    the predictions of the run that suggested it, which knew no label of it.

    Args:
        dataset, labels: the rows of this run, and what people say of them, (N,) or (N, C), -1 = nothing.

    Returns:
        By the name of the run that suggested, see compare_with_chance.
    """
    files = sorted(run.resolve().parent.glob("*/suggested.csv"))
    if not files:  # nearly always
        return {}
    answers = dict(zip(dataset.path, names(labels, dataset.classes), strict=True))
    scores = {}
    for file in files:
        try:
            table = read_table(file, COLUMNS).astype({"batch": int})
        except (UserError, ValueError) as error:  # the file of another run stops none
            log.info(f"warning: {file} is not compared with the labels: {error}")
            continue
        file_names = {*table.path.map(os.path.basename)}
        by_image = {
            image_hash(path): answer
            for path, answer in answers.items()
            if answer and os.path.basename(path) in file_names
        }
        table = table.assign(label=table.image_sha256.map(by_image)).dropna(subset="label")
        if {*table.predicted} - labels_among(table.predicted, dataset.classes, labels.ndim == 2):
            log.info(f"warning: {file} is not compared with the labels: its classes are others")
        elif score := compare_with_chance(table.assign(wrong=table.label != table.predicted)):
            scores[file.parent.name] = score
    return scores
