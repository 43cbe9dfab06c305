"""Everything that a run learns from, read and checked before any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from .cells import inert
from .config import Config
from .data.duplicates import count_duplicates, duplicates_table, find_links, refused_reasons
from .data.folds import find_clusters, fold_table, make_folds
from .data.images import load_images
from .data.samples import SCORED_ROLES, USES_POOL, Samples, check_samples, prepare_samples
from .data.transforms import Spec, build
from .environment import environment
from .labels.ledger import refuse_changed_samples
from .labels.pool import provable
from .labels.selection import REPAIRS
from .labels.sets import has_label, members
from .learn.batches import Lesson
from .learn.compute import not_repeatable, pick_device
from .learn.fit import fit
from .learn.models import create_model
from .run import Run, log, read_json, seed_of, trained, write_csv, write_json
from .values import UserError

SHOWN = 20
"""Classes that the table of folds shows: all, or of more the smallest half as many."""
DECIDE_BITS = ("packages", "code", "device", "threads")
"""What of env.json the last bits of a training hang on."""
FEW = 10
"""Rows a fold below which a class is called small."""
SURE = 5
"""Groups of a class from which on they do not all come into one fold."""


@dataclass(frozen=True)
class Material:
    """Everything that is learned from or judged. pixels: (N, H, W, C) uint8, row i ↔ sample i; the first
    len(judged) samples are the judged ones. clusters, refused: (len(judged),), see find_clusters, refused_reasons.
    truths: tables by file name, for scoring. tested: how many rows data.test has."""

    samples: Samples
    judged: Samples
    pixels: np.ndarray
    clusters: np.ndarray
    refused: np.ndarray
    truths: dict[str, pd.DataFrame]
    tested: int


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
        power = config.pseudo.graph if config.pseudo.graph == "auto" else f"{config.pseudo.graph:g}"
        raise UserError(
            f"pseudo.graph={power} needs --mode augment: labels that may be wrong are not spread; leave it out"
        )
    if config.data.multi_label:
        _refuse_single(config)
    samples, truths = prepare_samples(config, run.mode)
    tested = int((samples.role == "test").sum())
    is_judged = np.isin(samples.role, ["train", "pool"] if run.mode in USES_POOL else ["train"])
    samples = samples.take(is_judged | (np.isin(samples.role, SCORED_ROLES) & has_label(samples.given)))
    pixels, good = load_images(samples.path, config.data)
    if not good.all():
        samples = samples.take(good)
        pixels = load_images(samples.path, config.data)[0] if isinstance(pixels, np.memmap) else pixels[good]
        check_samples(samples, config, run.mode)
    judged = samples.take(np.isin(samples.role, ["train", "pool"]))
    _preflight(run, samples, pixels)
    refuse_changed_samples(run.path, judged)
    write_csv(run.path / "samples.csv", samples.table())
    for name, table in truths.items():
        write_csv(run.path / name, table)
    links = find_links(pixels, len(judged))
    copies = duplicates_table(samples, pixels, links)
    write_csv(run.path / "duplicates.csv", inert(copies))
    clusters, refused = find_clusters(judged.group, links), refused_reasons(copies, judged.id, config.data)
    if len(np.unique(clusters[has_label(judged.given)])) < 2:
        raise UserError("all rows with a label share one group or are copies of one image; check data.group_col")
    _refuse_lost(judged, clusters, config)
    _announce(samples, clusters)
    _announce_folds(judged, clusters, config)
    _announce_duplicates(run, copies, refused)
    if config.pseudo.pool_precision is not None and run.mode in USES_POOL:
        _announce_bound(int(has_label(judged.given).sum()), config.pseudo.pool_precision)
    return Material(samples, judged, pixels, clusters, refused, truths, tested)


def _refuse_single(config: Config) -> None:
    """What is for one class an image alone."""
    idle = {"pseudo.graph": config.pseudo.graph, "train.consistency": config.train_of("student").consistency}
    if wrong := [key for key, value in idle.items() if value]:
        raise UserError(f"{wrong[0]} is for one class an image, and data.multi_label=true; leave it out")


def _note_machine(run: Run, pixels: np.ndarray, network, form) -> None:
    """Complete env.json; where the run began with something else, say so: then the last bits may differ."""
    train, rows = run.config.train, np.resize(np.arange(len(pixels)), 16)
    device = pick_device(train.device)
    lesson = Lesson(pixels, rows, rows % len(form.classes), 2, 0)
    unsafe = not_repeatable(lambda: fit(network, form, lesson, train)) if device.type == "cuda" else []
    kernels = ["all of mps"] if device.type == "mps" else unsafe
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    now = environment() | {"device": name, "threads": torch.get_num_threads(), "not_repeatable": kernels}
    file = run.path / "env.json"
    if not trained(run.path):
        return write_json(file, now)
    before = read_json(file) if file.exists() else {}
    if changed := [key for key in DECIDE_BITS if before.get(key, now[key]) != now[key]]:
        log.info(f"warning: this run began with other {', '.join(changed)} (env.json): what is made from here on may "
                 "differ in its last bits")  # fmt: skip


def _preflight(run: Run, samples: Samples, pixels: np.ndarray) -> None:
    """Make each model and augmentation: what is wrong with them is said now."""
    config, size, channels = run.config, pixels.shape[1], pixels.shape[3]
    _note_machine(run, pixels, *create_model(config.model, samples.classes, size, channels))
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


def _refuse_lost(judged: Samples, clusters: np.ndarray, config: Config) -> None:
    """Raises UserError where a class lies wholly in one fold of any round: who judges it would never have seen it."""
    rows, classes = members(judged.given)
    if pd.Series(clusters[rows]).groupby(classes).nunique().min() >= SURE:
        return
    for number in range(1, config.pseudo.rounds + 1):
        folds = make_folds(judged.given, clusters, config.pseudo.folds, seed_of(config.seed, number, "folds"))
        table = fold_table(judged.given, folds, judged.classes)
        lost = table.index[(table > 0).sum(axis=1) == 1]
        if len(lost):
            raise UserError(f"class {lost[0]!r} lies wholly in one fold of round {number}, as its rows share a group "
                            "or are copies; add rows of other groups, merge the class or set another seed")  # fmt: skip


def _announce(samples: Samples, clusters: np.ndarray) -> None:
    counts = {role: int((samples.role == role).sum()) for role in dict.fromkeys(samples.role)}
    how_many = ", any number of them an image" if samples.given.ndim == 2 else ""
    listed = ", ".join(f"{n:,} {role}" for role, n in counts.items())
    log.info(f"samples: {listed}; {len(samples.classes)} classes{how_many}")
    several = [name for name in samples.classes if name not in name.split() and {*name.split()} <= {*samples.classes}]
    if several:
        log.info(f"warning: {len(several)} labels such as {several[0]!r} are made of others; each is learned as a "
                 "class of its own. Where an image may have several labels, set data.multi_label=true")  # fmt: skip
    twins = len(clusters) - len(np.unique(clusters))
    if twins:
        log.info(f"folds: {twins:,} rows share the fold of their group or duplicate")


def _announce_folds(judged: Samples, clusters: np.ndarray, config: Config) -> None:
    """The folds of the first round, class by class, and the classes that are small in them."""
    if not config.pseudo.rounds:
        return
    folds = make_folds(judged.given, clusters, config.pseudo.folds, seed_of(config.seed, 1, "folds"))
    table = fold_table(judged.given, folds, judged.classes)
    shown = (
        table if len(table) <= SHOWN else table.loc[table.sum(axis=1).sort_values(kind="stable").index[: SHOWN // 2]]
    )
    smallest = "" if shown is table else f", the smallest {len(shown)} of {len(table):,} classes"
    log.info(f"rows a class in each fold{smallest}:\n{shown.to_string()}")
    small = table.index[table.min(axis=1) < FEW]
    if len(small):
        names = ", ".join(small[:SHOWN]) + (", …" if len(small) > SHOWN else "")
        log.info(f"small classes, below {FEW} rows in a fold: {names}; their scores are uncertain. More rows, or fewer "
                 "pseudo.folds, help")  # fmt: skip


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
