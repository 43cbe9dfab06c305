"""Everything that a run learns from, read and checked before any training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Config
from ..config.types import UserError
from ..data.csv_text import escape_formulas
from ..data.dataset import SCORED_SPLITS, USES_POOL, Dataset, load_dataset
from ..data.duplicates import count_duplicates, duplicates_table, find_links, refused_reasons
from ..data.encoding import counts, has_label, members
from ..data.folds import find_clusters, fold_table, make_folds
from ..data.images import load_images
from ..data.simulate import hide_labels, inject_noise
from ..labels.decide import REPAIRS
from ..labels.metrics import known
from ..labels.out_of_fold import Second
from ..labels.pseudo_labels import provable
from ..round_store import refuse_changed_dataset
from ..system.files import hash_of, log, seed_of, write_csv
from ..training.jobs import JobRunner, LinearProbe
from ..training.label_propagation import gradient_features, graph_power, neighbor_graph, propagate_labels
from ..training.linear_probe import alike_features
from ..training.trainer import Trainer, offer
from .folder import Run
from .model_check import check_models

SHOWN = 20
"""Classes that the table of folds shows: all, or of more the smallest half as many."""
FEW = 10
"""Rows a fold below which a class is called small."""
SURE = 5
"""Groups of a class from which on they do not all come into one fold."""


def prepare_dataset(config: Config, mode: str) -> tuple[Dataset, dict[str, pd.DataFrame]]:
    """All of the input for one mode: read, hide, inject. Returns samples and the truths by file name."""
    from ..data.builtin import BUILTIN_KEEP, builtin_name, with_builtin

    data, simulate = config.data, config.simulate
    uses_pool = mode in USES_POOL
    if builtin_name(data) and uses_pool and simulate.keep_labels is None:
        simulate = simulate.model_copy(update={"keep_labels": BUILTIN_KEEP})
    dataset, truths = load_dataset(with_builtin(data)), {}
    if simulate.keep_labels and uses_pool:
        dataset, truths["hidden.csv"] = hide_labels(dataset, simulate, config.seed)
    if simulate.noise:
        dataset, truths["injected.csv"] = inject_noise(dataset, simulate, config.seed)
    check_dataset(dataset, config, mode)
    return dataset, truths


def check_dataset(dataset: Dataset, config: Config, mode: str) -> None:
    """Refuse what cannot be trained: one class, classes smaller than the folds, an empty pool."""
    given_labels, classes = dataset.given_labels[dataset.split == "train"], dataset.classes
    if len(classes) < 2 and given_labels.ndim == 1:
        raise UserError(f"data.train has one class only ({classes[0]!r}); at least two are needed")
    if config.pseudo.rounds or mode == "train":
        _refuse_small(given_labels, classes, config.pseudo.folds)
    goals = known(classes, given_labels.ndim == 2)
    if config.metric is not None and config.metric not in goals:
        some = ", ".join(classes[:3])
        raise UserError(
            f"metric={config.metric} does not fit these {len(classes)} classes ({some}, …); "
            f"choose one of {', '.join(goals)}"
        )
    if mode in USES_POOL and not (dataset.split == "unlabeled").any():
        raise UserError(
            "the pool is empty: give data.unlabeled, leave labels in data.train empty, or set simulate.keep_labels"
        )
    if mode in USES_POOL and config.data.learn_from_test == "never":
        _refuse_test_in_pool(dataset)


def _refuse_small(given_labels: np.ndarray, classes: tuple[str, ...], folds: int) -> None:
    """Every fold needs a row of every class; of a label set, also one without it."""
    rows = counts(given_labels, len(classes))
    small, what = int(rows.argmin()), "rows"
    if given_labels.ndim == 2:
        without = (given_labels == 0).sum(0)
        if without.min() < rows.min():
            rows, small, what = without, int(without.argmin()), "rows without it"
    if rows[small] < folds:
        raise UserError(
            f"class {classes[small]!r} has {rows[small]} {what} in data.train, fewer than "
            f"pseudo.folds={folds}; add rows, merge the class or set fewer folds"
        )


def _refuse_test_in_pool(dataset: Dataset) -> None:
    pool = dataset.split == "unlabeled"
    both = pool & np.isin(dataset.path, dataset.path[dataset.split == "test"])
    if both.any():
        raise UserError(
            f"{both.sum():,} of {pool.sum():,} pool rows are rows of data.test, for example {dataset.id[both][0]!r}, "
            "which data.learn_from_test=never forbids; take them out of data.unlabeled"
        )


def make_job_runner(run: Run, prepared: PreparedData) -> JobRunner:
    """What trains and predicts on this data."""
    judged, dataset = prepared.judged, prepared.dataset
    trainer = Trainer(run.config, prepared.pixels, judged.given_labels, dataset.classes, dataset.id, run.path)
    offer(trainer, prepared.dataset.path)
    models = run.config.model, run.config.model_of("student")
    weights = sorted({model.checkpoint for model in models if model.checkpoint})
    input_hash = hash_of(prepared.pixels[: len(judged)], dataset.classes, *map(Path, weights))
    frozen = LinearProbe(run.path, trainer, input_hash)
    return JobRunner(run.path, trainer, frozen, _neighbors(run, prepared, frozen), run.time_for, input_hash)


def _neighbors(run: Run, prepared: PreparedData, frozen: LinearProbe) -> Second | None:
    """The opinion of look-alikes on a pool, where pseudo.label_propagation asks for it (train.py's out-of-fold
    rows are the models' own). The graph is made when it is first needed: a run that goes on after its rounds does
    without."""
    weight, judged = run.config.pseudo.label_propagation, prepared.judged
    if weight == "auto":
        weight = graph_power(has_label(judged.given_labels).sum() / len(judged.classes))
    if not weight or run.mode not in USES_POOL:
        return None

    @cache
    def graph():
        start, n = time.monotonic(), len(judged)
        if run.config.model.freeze_backbone:
            found = neighbor_graph(alike_features(frozen.embeddings[:n]))
        else:
            found = neighbor_graph(gradient_features(prepared.pixels[:n]))
        log.info(f"neighbors of {n:,} images, {time.monotonic() - start:.1f} s")
        return found

    return lambda fold_job: (
        weight * propagate_labels(graph(), fold_job.learned, fold_job.targets, len(judged.classes))[fold_job.judged]
    )


@dataclass(frozen=True)
class PreparedData:
    """Everything that is learned from or judged. pixels: (N, H, W, C) uint8, row i ↔ sample i; the first
    len(judged) samples are the judged ones. clusters, refused: (len(judged),), see find_clusters, refused_reasons.
    truths: tables by file name, for scoring. tested: how many rows data.test has."""

    dataset: Dataset
    judged: Dataset
    pixels: np.ndarray
    clusters: np.ndarray
    refused: np.ndarray
    truths: dict[str, pd.DataFrame]
    tested: int


def prepare(run: Run) -> PreparedData:
    """Read, decode and check everything, so that wrong input ends the run before any training.

    Raises:
        UserError: see prepare_dataset, load_images, create_model, build.
    """
    if run.mode == "train":  # judges once, changes nothing
        once = run.config.pseudo.model_copy(update={"rounds": 1})
        run.config = run.config.model_copy(update={"pseudo": once})
    with run.stage("read"):
        return _prepare(run)


def _prepare(run: Run) -> PreparedData:
    config = run.config
    if config.pseudo.leak_free_folds and run.mode in REPAIRS:
        raise UserError(
            f"pseudo.leak_free_folds=true needs --mode augment: in mode {run.mode} every fold's labels decide "
            "about those of the others; leave it out"
        )
    if config.pseudo.label_propagation and run.mode in REPAIRS:
        power = (
            config.pseudo.label_propagation
            if config.pseudo.label_propagation == "auto"
            else f"{config.pseudo.label_propagation:g}"
        )
        raise UserError(
            f"pseudo.label_propagation={power} needs --mode augment: labels that may be wrong are not spread; "
            "leave it out"
        )
    if config.data.multi_label:
        _refuse_single(config)
    dataset, truths = prepare_dataset(config, run.mode)
    tested = int((dataset.split == "test").sum())
    is_judged = np.isin(dataset.split, ["train", "unlabeled"] if run.mode in USES_POOL else ["train"])
    dataset = dataset.take(is_judged | (np.isin(dataset.split, SCORED_SPLITS) & has_label(dataset.given_labels)))
    pixels, good = load_images(dataset.path, config.data)
    if not good.all():
        dataset = dataset.take(good)
        pixels = load_images(dataset.path, config.data)[0] if isinstance(pixels, np.memmap) else pixels[good]
        check_dataset(dataset, config, run.mode)
    judged = dataset.take(np.isin(dataset.split, ["train", "unlabeled"]))
    check_models(run, dataset, pixels)
    refuse_changed_dataset(run.path, judged)
    write_csv(run.path / "samples.csv", dataset.table())
    for name, table in truths.items():
        write_csv(run.path / name, table)
    links = find_links(pixels, len(judged))
    copies = duplicates_table(dataset, pixels, links)
    write_csv(run.path / "duplicates.csv", escape_formulas(copies))
    clusters, refused = find_clusters(judged.group, links), refused_reasons(copies, judged.id, config.data)
    if len(np.unique(clusters[has_label(judged.given_labels)])) < 2:
        raise UserError("all rows with a label share one group or are copies of one image; check data.group_col")
    _refuse_lost(judged, clusters, config)
    _announce(dataset, clusters)
    _announce_folds(judged, clusters, config)
    _announce_duplicates(run, copies, refused)
    if config.pseudo.min_precision is not None and run.mode in USES_POOL:
        _announce_bound(int(has_label(judged.given_labels).sum()), config.pseudo.min_precision)
    return PreparedData(dataset, judged, pixels, clusters, refused, truths, tested)


def _refuse_single(config: Config) -> None:
    """What is for one class an image alone."""
    idle = {
        "pseudo.label_propagation": config.pseudo.label_propagation,
        "train.consistency_weight": config.train_of("student").consistency_weight,
    }
    if wrong := [key for key, value in idle.items() if value]:
        raise UserError(f"{wrong[0]} is for one class an image, and data.multi_label=true; leave it out")


def _refuse_lost(judged: Dataset, clusters: np.ndarray, config: Config) -> None:
    """Raises UserError where a class lies wholly in one fold of any round: who judges it would never have seen it."""
    rows, classes = members(judged.given_labels)
    if pd.Series(clusters[rows]).groupby(classes).nunique().min() >= SURE:
        return
    for number in range(1, config.pseudo.rounds + 1):
        folds = make_folds(judged.given_labels, clusters, config.pseudo.folds, seed_of(config.seed, number, "folds"))
        table = fold_table(judged.given_labels, folds, judged.classes)
        lost = table.index[(table > 0).sum(axis=1) == 1]
        if len(lost):
            raise UserError(
                f"class {lost[0]!r} lies wholly in one fold of round {number}, as its rows share a group "
                "or are copies; add rows of other groups, merge the class or set another seed"
            )


def _announce(dataset: Dataset, clusters: np.ndarray) -> None:
    counts = {split: int((dataset.split == split).sum()) for split in dict.fromkeys(dataset.split)}
    how_many = ", any number of them an image" if dataset.given_labels.ndim == 2 else ""
    listed = ", ".join(f"{n:,} {split}" for split, n in counts.items())
    log.info(f"samples: {listed}; {len(dataset.classes)} classes{how_many}")
    several = [name for name in dataset.classes if name not in name.split() and {*name.split()} <= {*dataset.classes}]
    if several:
        log.info(
            f"warning: {len(several)} labels such as {several[0]!r} are made of others; each is learned as a "
            "class of its own. Where an image may have several labels, set data.multi_label=true"
        )
    twins = len(clusters) - len(np.unique(clusters))
    if twins:
        log.info(f"folds: {twins:,} rows share the fold of their group or duplicate")


def _announce_folds(judged: Dataset, clusters: np.ndarray, config: Config) -> None:
    """The folds of the first round, class by class, and the classes that are small in them."""
    if not config.pseudo.rounds:
        return
    folds = make_folds(judged.given_labels, clusters, config.pseudo.folds, seed_of(config.seed, 1, "folds"))
    table = fold_table(judged.given_labels, folds, judged.classes)
    shown = (
        table if len(table) <= SHOWN else table.loc[table.sum(axis=1).sort_values(kind="stable").index[: SHOWN // 2]]
    )
    smallest = "" if shown is table else f", the smallest {len(shown)} of {len(table):,} classes"
    log.info(f"rows a class in each fold{smallest}:\n{shown.to_string()}")
    small = table.index[table.min(axis=1) < FEW]
    if len(small):
        names = ", ".join(small[:SHOWN]) + (", …" if len(small) > SHOWN else "")
        log.info(
            f"small classes, below {FEW} rows in a fold: {names}; their scores are uncertain. More rows, or fewer "
            "pseudo.folds, help"
        )


def _announce_duplicates(run: Run, copies: pd.DataFrame, refused: np.ndarray) -> None:
    counts = count_duplicates(copies)
    listed = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    none = f"; {(refused != '').sum():,} pool rows get no pseudo-label" if (refused != "").any() else ""
    log.info(f"duplicates: {listed}{none}; see {run.path / 'duplicates.csv'}" if len(copies) else "duplicates: none")


def _announce_bound(n: int, wanted: float) -> None:
    """Say how loose a bound on the precision n labels give."""
    most = provable(n)
    log.info(
        f"min_precision: {n:,} labels, even if all are predicted right, prove {100 * most:.1f} % and no more"
        + (
            f"; {100 * wanted:g} % is out of reach and no pseudo-label will be given. Lower it, or use "
            "pseudo.top_fraction in its place"
            if most < wanted
            else ""
        )
    )
