"""Everything that a run learns from, read and checked before any training."""

from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from ..config.keys import USES_UNLABELED, Config, Model
from ..config.load import differences, with_changes
from ..config.types import UserError, check_all
from ..data.builtin import BUILTIN_KEEP, with_builtin
from ..data.cache import Ranges
from ..data.csv_text import escape_formulas, read_csv
from ..data.dataset import LEARNED_SPLITS, SCORED_SPLITS, Dataset, load_dataset
from ..data.duplicates import count_duplicates, duplicates_table, find_links, refused_reasons
from ..data.encoding import counts, has_label
from ..data.folds import find_clusters, fold_table, make_folds
from ..data.images import MIN_PHOTO_SIDE, load_images
from ..data.simulate import hide_labels, inject_noise
from ..data.transforms import build
from ..data.votes import write_votes
from ..labels.annotators import label_by_votes
from ..labels.decide import REPAIRS
from ..labels.metrics import known
from ..labels.out_of_fold import OutsidePredictions
from ..labels.pseudo_labels import check_cutoff
from ..report.sentences import listed
from ..system.environment import environment
from ..system.files import hash_of, log, read_json, seed_of, write_csv, write_json
from ..system.progress import progress
from ..training.device import pick_device
from ..training.losses import check_loss
from ..training.models import batch_norms, check_model, create_model
from ..training.trainer import JobRunner, Trainer, offer, planned_steps
from .folder import FREE_KEYS, Run
from .outside import COPY_OF_LABELED, read_outside, refuse_idle_predictions
from .submission import check_submission
from .teachers import read_teachers

MAX_CLASSES_SHOWN = 20
"""Classes that the table of folds shows, so that it fits a screen."""
MAX_COPIES_SHARE = 0.1
"""Of the rows of a split that is scored. With more copies of learned images its score means little."""
MIN_LEARNED_SHARE = 0.5
"""Of the rows that equal folds would leave to learn from. A model that learns from fewer judges badly."""
OF_PLAIN_TRAINING = {
    "pseudo.rounds": 1,
    "pseudo.train_baseline": False,
    "pseudo.label_propagation": 0,
}
"""Keys in mode train: one round gives the out-of-fold scores and changes no label, so there is nothing to compare."""
OF_OUTSIDE_TEACHERS = {"pseudo.rounds": 1, "pseudo.leak_free_folds": False}
"""Keys where predictions from outside stand in for all teachers: a second round would say the same."""


@dataclass(frozen=True)
class PreparedData:
    """Everything that a run learns from, predicts or scores.

    Attributes:
        dataset: the N samples that have an image here, the judged ones first.
        judged: those that are learned from or predicted out of fold (train, unlabeled).
        pixels: (N, H, W, C) uint8, row i ↔ sample i; (N, 0, 0, 1) where nothing is trained.
        clusters: (len(judged),), see find_clusters.
        refused: (len(judged),) why an unlabeled row may receive no pseudo-label, "" = it may.
        truths: tables of hidden or flipped labels by file name, for scoring.
        tested: how many rows data.test has.
        input_hash: of everything that decides what is learned, see _note_start.
        outside: what other people's models say.
        ranges: of the pixels, see load_images.
    """

    dataset: Dataset
    judged: Dataset
    pixels: ndarray
    clusters: ndarray
    refused: ndarray
    truths: dict[str, pd.DataFrame]
    tested: int
    input_hash: str = ""
    outside: OutsidePredictions = field(default_factory=OutsidePredictions)
    ranges: Ranges = field(default_factory=dict)


def prepare(run: Run) -> PreparedData:
    """Read, decode and check everything, so that wrong input ends the run before any training.

    Raises:
        UserError: see read_dataset, load_images, create_model, _note_start.
    """
    if run.mode == "train":
        run.config = with_changes(run.config, OF_PLAIN_TRAINING)
    if run.config.predictions.labeled:
        run.config = with_changes(run.config, OF_OUTSIDE_TEACHERS)
    config, mode = run.config, run.mode
    ranges: Ranges = {}
    with run.stage("read"):
        *_, (dataset, truths) = check_all(
            partial(_refuse_idle_keys, config, mode),
            partial(refuse_idle_predictions, config, mode, run.trains),
            partial(check_loss, config.train),
            partial(check_cutoff, config.pseudo),
            partial(_check_tensorboard, config),
            *[partial(check_model, model, key) for key, model in _named_models(config)],
            partial(read_dataset, config, mode),
        )
        check_dataset(dataset, config, mode)
        taken_for = [*dataset.taken_for, *check_submission(dataset, config)]
        tested = int((dataset.split == "test").sum())
        is_judged = np.isin(dataset.split, LEARNED_SPLITS)
        if run.trains:
            is_used = is_judged | has_label(dataset.given_labels)
            dataset, pixels = _load_pixels(dataset.take(is_used), config, mode, ranges)
            _check_models(config, dataset.classes, pixels)
        else:
            dataset = dataset.take(is_judged)
            pixels = np.empty((len(dataset), 0, 0, 1), np.uint8)
        judged = dataset.take(np.isin(dataset.split, LEARNED_SPLITS))
        links = find_links(pixels, len(judged)) if run.trains else np.empty((2, 0), int)
        copies = duplicates_table(dataset, pixels, links)
        _warn_of_copies(copies, dataset)
        clusters = find_clusters(judged.group, links)
        refused = refused_reasons(copies, judged.id, config.data)
        outside = read_outside(config, judged, clusters)
        if config.teachers:
            outside = read_teachers(run, judged, pixels, clusters)
        if outside.teachers and outside.copies is not None:
            refused[outside.copies & (refused == "")] = COPY_OF_LABELED
        input_hash = _note_start(run, judged, pixels, refused, outside)
        tables = {"samples.csv": dataset.table(), "duplicates.csv": escape_formulas(copies)}
        for name, table in (tables | truths).items():
            write_csv(run.path / name, table)
        write_json(run.path / "inputs.json", {"taken_for": taken_for})
        if judged.votes:
            write_votes(run.path / "votes.npz", judged.votes)
        counts_by_split = pd.Series(dataset.split).value_counts(sort=False)
        log.info(f"samples: {listed(counts_by_split)}; {len(dataset.classes)} classes")
        if run.trains:
            log.info(
                f"duplicates: {listed(count_duplicates(copies))}; {(refused != '').sum():,} unlabeled images get no "
                f"pseudo-label; see {run.path / 'duplicates.csv'}"
            )
        if not outside.teachers:
            _check_folds(judged, clusters, config)
    return PreparedData(
        dataset, judged, pixels, clusters, refused, truths, tested, input_hash, outside, ranges
    )


def _load_pixels(
    dataset: Dataset, config: Config, mode: str, ranges: Ranges
) -> tuple[Dataset, ndarray]:
    """The samples whose image can be read, and their pixels."""
    pixels, readable = load_images(dataset.path, config.data, ranges)
    if readable.all():
        return dataset, pixels
    dataset = dataset.take(readable)
    pixels, _ = load_images(dataset.path, config.data, ranges)
    check_dataset(dataset, config, mode)
    return dataset, pixels


def _warn_of_copies(copies: pd.DataFrame, dataset: Dataset) -> None:
    learned = copies.cluster[copies.split == "train"]
    n_copies = copies.split[copies.cluster.isin(learned)].value_counts()
    for split in n_copies.index.intersection(SCORED_SPLITS):
        share = n_copies[split] / (dataset.split == split).sum()
        if share > MAX_COPIES_SHARE:
            log.info(
                f"warning: {share:.0%} of the rows of data.{split} are copies of rows of data.train (duplicates.csv); "
                "their scores mean nothing, so take them out of one of the two"
            )


def _check_tensorboard(config: Config) -> None:
    if config.tensorboard and not find_spec("tensorboard"):
        raise UserError(
            "tensorboard=true needs a package: pip install tensorboard, or leave it out"
        )


def _refuse_idle_keys(config: Config, mode: str) -> None:
    """Raises UserError where a key of few labels meets a mode in which given labels may be wrong."""
    for key in ("leak_free_folds", "label_propagation"):
        if mode in REPAIRS and getattr(config.pseudo, key):
            raise UserError(
                f"pseudo.{key} needs --mode augment: in mode {mode} given labels may be wrong; leave it out"
            )


def read_dataset(config: Config, mode: str) -> tuple[Dataset, dict[str, pd.DataFrame]]:
    """The samples of one mode, some labels hidden or flipped where `simulate` says so; the truths by file name."""
    data, simulate, seed = with_builtin(config.data), config.simulate, config.seed
    if data is not config.data:
        log.info(f"data.train={data.train}: built-in images, not a file or folder of yours")
        keep_labels = simulate.keep_labels or BUILTIN_KEEP
        simulate = simulate.model_copy(update={"keep_labels": keep_labels})
    dataset, truths = label_by_votes(load_dataset(data)), {}
    if mode not in USES_UNLABELED:
        dataset = dataset.take(dataset.split != "unlabeled")
    elif simulate.keep_labels:
        dataset, truths["hidden.csv"] = hide_labels(dataset, simulate, seed)
    if simulate.noise:
        dataset, truths["injected.csv"] = inject_noise(dataset, simulate, seed)
    return dataset, truths


def check_dataset(dataset: Dataset, config: Config, mode: str) -> None:
    """Refuse what cannot be trained.

    Raises:
        UserError: there is one class only, a class is smaller than the folds, there are no unlabeled images for a mode
            that needs some, or the metric does not fit the classes.
    """
    given_labels, classes = dataset.given_labels[dataset.split == "train"], dataset.classes
    multi_label = given_labels.ndim == 2
    if len(classes) < 2 and not multi_label:
        raise UserError(f"data.train has one class only ({classes[0]!r}); at least two are needed")
    if config.pseudo.rounds and not config.predictions.labeled:
        _refuse_small_classes(given_labels, classes, config.pseudo.folds)
    metrics = known(classes, multi_label)
    if config.metric is not None and config.metric not in metrics:
        raise UserError(
            f"metric={config.metric} does not fit these {len(classes)} classes ({classes[0]}, …); "
            f"choose one of {', '.join(metrics)}"
        )
    if mode not in USES_UNLABELED:
        return
    unlabeled = dataset.split == "unlabeled"
    if not unlabeled.any():
        raise UserError(
            "there are no unlabeled images: give data.unlabeled, leave labels in data.train empty, or set "
            "simulate.keep_labels"
        )
    tested = unlabeled & np.isin(dataset.path, dataset.path[dataset.split == "test"])
    if tested.any() and config.data.learn_from_test == "never":
        raise UserError(
            f"{tested.sum():,} of {unlabeled.sum():,} unlabeled images are rows of data.test, for example "
            f"{dataset.id[tested][0]!r}, which data.learn_from_test=never forbids; take them out of data.unlabeled"
        )


def _refuse_small_classes(given_labels: ndarray, classes: tuple[str, ...], folds: int) -> None:
    """Every fold needs a row of every class; of label sets, also one without it."""
    kinds = {"rows": counts(given_labels, len(classes))}
    if given_labels.ndim == 2:
        kinds["rows without it"] = (given_labels == 0).sum(0)
    for kind, rows in kinds.items():
        smallest = rows.argmin()
        if rows[smallest] < folds:
            raise UserError(
                f"class {classes[smallest]!r} has {rows[smallest]} {kind} in data.train, fewer than "
                f"pseudo.folds={folds}; add rows, merge the class or set fewer folds"
            )


def _named_models(config: Config) -> list[tuple[str, Model]]:
    """Each model that may be trained, with the section of the config that names it."""
    members = config.model.members
    students = [student for student in config.models_of("student") if student not in members]
    return [("model", model) for model in members] + [("student", model) for model in students]


def _check_models(config: Config, classes: tuple[str, ...], pixels: ndarray) -> None:
    """Make each model and augmentation: what is wrong with them is said now."""
    _, side, _, channels = pixels.shape
    for key, model in _named_models(config):
        network, _ = create_model(model, classes, side, channels, key)
        is_trained = not (model.freeze_backbone or config.train.linear_probe_first)
        train = config.train
        if train.batch_size < 2 * train.accumulate and is_trained and batch_norms(network):
            raise UserError(
                f"train.batch_size={train.batch_size}, train.accumulate={train.accumulate}: {key}.name={model.name} "
                "normalizes the images of each part by their mean and variance, which one image does not have; "
                "raise the first or lower the second"
            )
        if not model.checkpoint and channels == 3 and side >= MIN_PHOTO_SIDE:
            log.info(
                f"warning: {key}.name={model.name} begins with random weights, from which photos are hardly learned; "
                f"python -m pseudokit.weights NAME writes pretrained ones for {key}.checkpoint"
            )
    if all(model.freeze_backbone for _, model in _named_models(config)):
        return  # heads see no augmented images, and albumentations takes half a second
    some = torch.from_numpy(pixels[:2])
    for key in ("train.augment", "student.augment", "train.strong_augment", "predict.augment"):
        spec = attrgetter(key)(config)
        augment = spec and build(spec, side, seed=0)
        if not augment:
            continue
        try:
            shape = tuple(augment(some, 0).shape)
            if shape != some.shape:
                raise ValueError(
                    f"images become {shape[1:]}; give its crop or resize the value `size`"
                )
        except Exception as error:  # every transform raises its own types
            reason = " ".join(str(error).split())
            raise UserError(
                f"{key}={spec} does not work: {type(error).__name__}: {reason}"
            ) from error


def _note_start(
    run: Run, judged: Dataset, pixels: ndarray, refused: ndarray, outside: OutsidePredictions
) -> str:
    """Write env.json where a run begins; where it goes on, compare with it.

    Returns:
        The input hash: of the keys, the judged samples, their images, which of them are copies of scored ones, the
        files of weights, and predictions from outside.

    Raises:
        UserError: the run began with another input.
    """
    config, file = run.config, run.path / "env.json"
    keys = [run.mode, *differences(Config(), config, FREE_KEYS)]
    models = _named_models(config)
    weights = sorted({Path(model.checkpoint) for _, model in models if model.checkpoint})
    predicted = [outside.input_hash] if outside.facts else []
    samples = [judged.id, judged.split, judged.group, judged.given_labels, judged.classes, refused]
    if judged.given_targets is not judged.given_labels:
        samples.append(judged.given_targets)
    input_hash = hash_of(keys, *samples, pixels[: len(judged)], *weights, *predicted)
    device = pick_device(config.train.device).type
    now = environment() | {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "input_hash": input_hash,
    }
    if not run.has_begun():
        write_json(file, now)
        return input_hash
    before = read_json(file)
    changed = [key for key in now if before.get(key) != now[key]]
    if "input_hash" in changed:
        parts = (
            _changed_rows(run.path / "samples.csv", judged)
            or "images, copies, weights, predictions or keys"
        )
        raise UserError(
            f"{file}: {parts} are not those that this run began with; bring them back, choose another name= or add "
            "--fresh"
        )
    if changed:
        log.info(
            f"warning: this run began with other {', '.join(changed)} (env.json): what is made from here on may "
            "differ in its last bits"
        )
    return input_hash


def _changed_rows(file: Path, judged: Dataset) -> str:
    """Which rows of samples.csv have another id, split or label now; "" where none has."""
    before = read_csv(file)
    before = before[before.split.isin(LEARNED_SPLITS)]
    both = pd.concat([before, judged.table()])
    ids = both.drop_duplicates(["id", "split", "given_label"], keep=False).id.unique()
    return f"{len(ids):,} rows of the data ({ids[0]!r}, …)" if len(ids) else ""


def _check_folds(judged: Dataset, clusters: ndarray, config: Config) -> None:
    """Print the folds of the first round, smallest classes first.

    Raises:
        UserError: a class lies wholly in one fold: the model that predicts it would never have seen it.
    """
    for number in range(1, config.pseudo.rounds + 1):
        seed = seed_of(config.seed, number, "folds")
        folds = make_folds(judged.given_labels, clusters, config.pseudo.folds, seed)
        table = fold_table(judged.given_labels, folds, judged.classes)
        in_one_fold = table.index[(table > 0).sum(axis=1) == 1]
        if len(in_one_fold):
            raise UserError(
                f"class {in_one_fold[0]!r} lies wholly in one fold of round {number}, as its rows share a group "
                "(data.group_col) or are copies; add rows of other groups, merge the class or set another seed"
            )
        if number == 1:
            smallest_first = table.iloc[table.sum(axis=1).argsort(kind="stable")]
            text = smallest_first.to_string(max_rows=MAX_CLASSES_SHOWN)
            log.info(f"rows a class in each fold, smallest first:\n{text}")
            _warn_of_large_cluster(judged, clusters, folds)


def _warn_of_large_cluster(judged: Dataset, clusters: ndarray, folds: ndarray) -> None:
    labeled = folds >= 0
    n, largest_fold = labeled.sum(), np.bincount(folds[labeled]).max()
    n_folds = folds.max() + 1
    if n - largest_fold < MIN_LEARNED_SHARE * (n - n / n_folds):
        largest = np.bincount(clusters[labeled]).argmax()
        log.info(
            f"warning: one fold has {largest_fold:,} of {n:,} rows, so its model learns from few: the rows like "
            f"{judged.id[clusters == largest][0]!r} share a group (data.group_col) or are copies; divide the group"
        )


def make_job_runner(run: Run, prepared: PreparedData) -> JobRunner:
    """What trains and predicts on this data."""
    dataset, given_labels = prepared.dataset, prepared.judged.given_labels
    val = np.flatnonzero(dataset.split == "val")
    trainer = Trainer(
        run.config,
        prepared.pixels,
        given_labels,
        dataset.classes,
        run.path,
        prepared.input_hash,
        prepared.ranges,
        (val, dataset.given_labels[val]),
    )
    if run.trains:
        progress.plan = planned_steps(run.config, given_labels)
        offer(trainer, dataset.path)
    return JobRunner(trainer, run.time_for)
