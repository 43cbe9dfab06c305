"""What pseudo-labels and given labels teach: each shape against the default, hard pseudo-labels above 0.95.

    python benchmarks/targets.py --data FOLDER --weights FILE [--sets mnist flowers pictures] [--seeds 0 1 2 3 4]
    python benchmarks/targets.py --data FOLDER --weights FILE --table

FOLDER holds mnist_png and flower_photos; FILE has the weights of tf_efficientnet_lite0 (benchmarks/photos.py makes it).

    mnist    100 labels, 10,000 unlabeled images, 10,000 test images; one round, so that all arms share their teachers
             and differ by the student alone, which takes the same number of steps in each
    flowers  10 labels a class, heads on the frozen network at 192 px; two rounds: the teachers of the second one learn
             the shape, too
    pictures several labels an image: the 600 labeled and 2,000 unlabeled pictures of multi_label.py; one round. Every
             class is a question of its own. A picture counts as right if all of its answers are

All arms of a draw have the same seed, labels, images and first teachers. Nothing is chosen on the test images.

The kit has no key for drawing pseudo-labels by class, nor for mixing pairs; the rows are drawn here, see draw_pairs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import ROOT, machine, mean_and_sd, merge_results, save_results
from multi_label import OPTIONS, STEPS, make
from numpy import ndarray
from photos import tables

from pseudokit.config.keys import Config
from pseudokit.config.load import load_config
from pseudokit.data.encoding import has_label, is_correct, label_scores
from pseudokit.round_store import RoundStore
from pseudokit.run_folder.folder import Run, open_run
from pseudokit.run_folder.prepare import PreparedData, make_job_runner, prepare
from pseudokit.self_training import SelfTrainingContext, SelfTrainingResult, self_train
from pseudokit.system.environment import code_hash
from pseudokit.system.files import hash_of, seed_of
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import Computation
from pseudokit.training.linear_probe import MIN_PSEUDO_LABEL_PRIOR, fit_head
from pseudokit.training.loop import estimate_statistics, step_budget
from pseudokit.training.models import TrainedModel, with_head
from pseudokit.training.trainer import JobRunner, Trainer, TrainJob

CONFIGS = {
    "mnist": "mnist_few_labels",
    "flowers": "photos_few_labels",
    "pictures": "default",
}
SETS = tuple(CONFIGS)
N_UNLABELED = 10_000
STUDENT_STEPS = 700
LABELS_PER_CLASS = 10
DEFAULT = "hard, cutoff 0.95"
ALL_SOFT = ("pseudo.cutoff=0", "pseudo.targets=soft")
ARMS = {
    "labels alone": (),
    DEFAULT: (),
    "hard, all": ("pseudo.cutoff=0",),
    "weighted, all": ("pseudo.cutoff=0", "pseudo.targets=weighted"),
    "soft, cutoff 0.95": ("pseudo.targets=soft",),
    "soft, all": ALL_SOFT,
    "soft, all, power 2": (*ALL_SOFT, "pseudo.power=2"),
    "soft, all, trim 0.1": (*ALL_SOFT, "pseudo.trim=0.1"),
    "hard, ratio 1": ("train.unlabeled_per_batch=1",),
    "hard, ratio 3": ("train.unlabeled_per_batch=3",),
    "soft, all, ratio 3": (*ALL_SOFT, "train.unlabeled_per_batch=3"),
    "hard, ratio 1, by class": ("train.unlabeled_per_batch=1",),
    "hard, ratio 3, by class": ("train.unlabeled_per_batch=3",),
    "hard, mixup": (),
    "hard, mixup of pairs": (),
    "hard, all, ratio 1": ("pseudo.cutoff=0", "train.unlabeled_per_batch=1"),
    "hard, all, ratio 1, by class": ("pseudo.cutoff=0", "train.unlabeled_per_batch=1"),
    "hard, all, mixup": ("pseudo.cutoff=0",),
    "hard, all, mixup of pairs": ("pseudo.cutoff=0",),
}
"""The keys of each shape. A head on a frozen network has no batches: there each row counts as often as it is drawn."""
NOT_OF = {
    "mnist": ("hard, all, ",),
    "flowers": ("ratio 3",),
    "pictures": ("hard, all, ", "by class", "mixup"),
}
"""What is not run on a set."""
SHAPES = ("mixup of pairs", "mixup", "by class", "ratio 1")
"""Of pairs of rows, see draw_pairs. The loop itself has ratios for networks."""
OWN_DEFAULTS = {
    "all, ratio 1": "all",
    ", by class": "",
    ", mixup of pairs": "",
    ", mixup": "",
    " of pairs": "",
}
"""The end of an arm's name, and what stands there in that of its own default."""
MIXUP_ALPHA = 0.4
"""Of the beta distribution from which the share of an image is drawn."""


def keys_of(which: str, draw: int, args: argparse.Namespace) -> list[str]:
    """What all arms of a draw have in common."""
    keys = [f"seed={draw}", f"name={which}-{draw}", f"out={args.out}"]
    keys += ["pseudo.cutoff=null", "pseudo.top_fraction=null"]
    if which == "mnist":
        train, test = mnist_tables(draw, args.data / "mnist_png", args.out)
        keys += [
            f"data.train={train}",
            f"data.test={test}",
            f"data.image_dir={args.data / 'mnist_png'}",
            "simulate.keep_labels=100",
            "pseudo.rounds=1",
            "pseudo.top_fraction_start=0",
            "train.unlabeled_per_batch=null",
            "train.consistency_weight=0",
            "predict.tta=1",
        ]
    elif which == "pictures":
        keys += make(args.data / "mnist_png", args.out, "augment", draw)
        keys += [*OPTIONS["augment"][2:], *STEPS]
    else:
        train, test, images = tables("flowers", args.data, args.out)
        n_classes = pd.read_csv(train).label.nunique()
        keys += [
            f"data.train={train}",
            f"data.test={test}",
            f"data.image_dir={images}",
            f"model.checkpoint={args.weights}",
            f"simulate.keep_labels={LABELS_PER_CLASS * n_classes}",
            "pseudo.rounds=2",
        ]
    return keys


def mnist_tables(draw: int, images: Path, out: Path) -> tuple[Path, Path]:
    """train.csv with 10,100 training images of this draw, and test.csv with all test images."""
    folder = out / "data" / f"mnist-{draw}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for part in ("training", "testing"):
        files = sorted((images / part).rglob("*.png"))
        rows = [(file.relative_to(images).as_posix(), file.parent.name) for file in files]
        parts[part] = pd.DataFrame(rows, columns=["id", "label"])
    parts["training"] = parts["training"].sample(N_UNLABELED + 100, random_state=draw)
    for part, table in parts.items():
        table.to_csv(folder / f"{part}.csv", index=False)
    return folder / "training.csv", folder / "testing.csv"


def run_draw(which: str, draw: int, args: argparse.Namespace) -> None:
    """All arms of one draw that are not there yet."""
    arms = [arm for arm in args.arms if arm in arms_of(which)]
    files = {arm: args.out / f"{which}-{draw}-{arm}.json" for arm in arms}
    if all(file.exists() for file in files.values()):
        return
    config = ROOT / "configs" / f"{CONFIGS[which]}.yaml"
    with open_run(config, keys_of(which, draw, args), "augment", fresh=True) as run:
        prepared = prepare(run)
        job_runner = make_job_runner(run, prepared)
        fit, predict = shared_training(job_runner), shared_predictions(job_runner)
        for arm, file in files.items():
            if not file.exists():
                row = {"set": which, "draw": draw, "arm": arm}
                row |= score(arm, run, prepared, fit, predict, job_runner.second)
                file.write_text(json.dumps(row | {"machine": machine()}))


def arms_of(which: str) -> list[str]:
    return [arm for arm in ARMS if not any(part in arm for part in NOT_OF[which])]


def shape_of(arm: str, is_frozen: bool) -> str:
    """What draws the rows of an arm's networks; empty = the loop."""
    shape = next((shape for shape in SHAPES if arm.endswith(shape)), "")
    return "" if shape == "ratio 1" and not is_frozen else shape


def draw_pairs(
    labels: ndarray, is_given: ndarray, n: int, shape: str, seed: int
) -> tuple[ndarray, ndarray]:
    """Positions (n,) of a row with a given label each, and (n,) of the pseudo-label that it is paired with.

    Both come in shuffled passes. By class: the pseudo-label is of the class of the given one, if there is any. Mixup:
    both are any rows.
    """
    rng = np.random.default_rng(seed)

    def passes(positions: ndarray, count: int) -> ndarray:
        n_passes = -(-count // len(positions))
        return np.concatenate([rng.permutation(positions) for _ in range(n_passes)])[:count]

    given, others = np.flatnonzero(is_given), np.flatnonzero(~is_given)
    if shape == "mixup":
        given = others = np.arange(len(labels))
    first, second = passes(given, n), passes(others, n)
    if shape == "by class":
        for label in np.unique(labels[others]):
            wanted = labels[first] == label
            second[wanted] = passes(others[labels[others] == label], wanted.sum())
    return first, second


def train_on_pairs(trainer: Trainer, job: TrainJob, shape: str) -> TrainedModel:
    """The model of a job that learns pairs of rows side by side, or their mixed images (a head: mixed embeddings).

    Each image that a network sees in its steps is drawn here, so that none is seen twice but by chance.
    """
    is_given = has_label(trainer.given_labels[job.rows])
    is_frozen = trainer.is_frozen(job.where)
    n = len(job.rows) if is_frozen else job.steps * trainer.config.train.batch_size
    seed = seed_of(trainer.config.seed, job.where, shape)
    if "mixup" not in shape:
        first, second = draw_pairs(job.labels, is_given, n // 2, shape, seed)
        drawn = np.concatenate([first, second])
        return trainer.train(replace(job, rows=job.rows[drawn], labels=job.labels[drawn]))[0]

    first, second = draw_pairs(job.labels, is_given, n, shape, seed)
    share = np.random.default_rng(seed + 1).beta(MIXUP_ALPHA, MIXUP_ALPHA, n).astype(np.float32)

    def mixed(values: ndarray) -> ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return weight * values[first] + (1 - weight) * values[second]

    n_classes = len(trainer.classes)
    targets = mixed(np.eye(n_classes, dtype=np.float32)[job.labels])
    if is_frozen:
        backbone = trainer.backbones[0]
        x = mixed(trainer.embeddings[backbone.hash][job.rows])
        no_label = np.full(n, -1)
        prior = MIN_PSEUDO_LABEL_PRIOR
        head, _ = fit_head(x, targets, n_classes, False, no_label, prior=prior)
        network = with_head(backbone.network, head.state_dict())
        return TrainedModel(network, backbone.spec, backbone=backbone.hash)
    pixels = mixed(trainer.pixels[job.rows]).round().astype(np.uint8)
    mixing = replace(trainer, pixels=pixels, given_labels=np.full(n, -1))
    model, _ = mixing.train(replace(job, rows=np.arange(n), labels=targets))
    # Batch norms follow the images themselves, as in the loop.
    train = trainer.config.train
    computation = Computation(model.network, model.spec, train.device, train.amp_dtype)
    plain = TrainingSet(trainer.pixels, job.rows, job.labels, job.steps, seed)
    estimate_statistics(model.network, computation, plain, train.batch_size)
    model.network.eval()
    return model


def shared_training(job_runner: JobRunner) -> Callable:
    """fit(config, where, rows, labels, steps, arm) → the model; one that has been trained is not trained again."""
    models = {}

    def fit(
        config: Config, where: str, rows: ndarray, labels: ndarray, steps: int = 0, arm: str = ""
    ):
        # The teachers of the first round learn no pseudo-label.
        idle = {"unlabeled_per_batch"} if where.startswith("round_1/") else set()
        keys = config.train_of(where).model_dump(exclude=idle)
        is_frozen = job_runner.trainer.is_frozen(where)
        learns_pseudo_labels = not has_label(job_runner.trainer.given_labels[rows]).all()
        shape = shape_of(arm, is_frozen) if learns_pseudo_labels else ""
        name = hash_of(code_hash(), config.seed, where, rows, labels, keys, steps, shape)
        # First teachers take most of the time of a draw, and a draw that was stopped goes on.
        file = job_runner.trainer.folder.parent / "teachers" / f"{name}.pt"
        if name not in models and file.exists():
            models[name] = torch.load(file, weights_only=False)
        if name not in models:
            folder = job_runner.trainer.folder if is_frozen else None
            trainer = replace(job_runner.trainer, config=config, folder=folder)
            job = TrainJob(where, rows, labels, steps=steps or step_budget(len(rows), config.train))
            model = train_on_pairs(trainer, job, shape) if shape else trainer.train(job)[0]
            models[name] = replace(model, hash=name)
            if where.startswith("round_1/") and not is_frozen:
                file.parent.mkdir(exist_ok=True)
                torch.save(models[name], file)
        return models[name]

    return fit


def shared_predictions(job_runner: JobRunner) -> Callable:
    """predict(model, rows) → log-probabilities, computed once."""
    log_probs = {}

    def predict(model: TrainedModel, rows: ndarray) -> ndarray:
        name = hash_of(model.hash, rows)
        if name not in log_probs:
            log_probs[name] = job_runner.predict(model, rows)
        return log_probs[name]

    return predict


def score(arm: str, run: Run, prepared: PreparedData, fit: Callable, predict: Callable, second):
    """Accuracy and log loss of one arm's student on the test images, and what it learned."""
    start = time.monotonic()
    config = load_config(run.path / "config.yaml", list(ARMS[arm]))
    judged = prepared.judged
    result = SelfTrainingResult(judged.given_labels, reason="")
    if arm != "labels alone":
        context = SelfTrainingContext(
            judged,
            partial(fit, config, arm=arm),
            predict,
            config.pseudo,
            RoundStore(run.path / "arms" / arm),
            mode="augment",
            clusters=prepared.clusters,
            refused=prepared.refused,
            seed=config.seed,
            second=second,
        )
        result = self_train(context)
    rows = np.flatnonzero(has_label(result.label))
    student = fit(config, "student", rows, result.targets(judged)[rows], STUDENT_STEPS, arm)
    test = np.flatnonzero(prepared.dataset.split == "test")
    log_probs = predict(student, test)
    labels = prepared.dataset.given_labels[test]
    unlabeled = ~has_label(judged.given_labels)
    return {
        "accuracy": float(is_correct(log_probs.argmax(-1), labels).mean()),
        "log_loss": float(-label_scores(log_probs, labels).mean()),
        "coverage": float(has_label(result.label)[unlabeled].mean()),
        "round": result.round,
        "reason": result.reason,
        "n_test": len(test),
        "seconds": round(time.monotonic() - start, 1),
    }


def table(rows: list[dict]) -> list[str]:
    """Each shape beside the default, with paired differences over draws."""
    lines = [
        "What pseudo-labels and given labels teach: % of the test images right, mean ± sd over draws; difference to "
        f"`{DEFAULT}` in points, paired; log loss of the student",
    ]
    for which, of_set in _groups(rows):
        group = {(row["arm"], row["draw"]): row for row in of_set}
        draws = sorted({draw for arm, draw in group if arm == DEFAULT})
        if not draws:
            continue
        n_test = group[DEFAULT, draws[0]]["n_test"]
        lines += [
            "",
            f"**{which}**, {n_test:,} test images{_processor(which, of_set)}",
            "",
            "| shape | n | right | difference | better in | log loss | difference |",
            "|---|---|---|---|---|---|---|",
        ]
        removed = sorted({arm for arm, _ in group} - {*ARMS})  # their key is gone
        for arm in [*arms_of(which), *removed]:
            pairs = [(group[arm, d], group[DEFAULT, d]) for d in draws if (arm, d) in group]
            if not pairs:
                continue
            cells = [arm, str(len(pairs))]
            for key, digits, scale in (("accuracy", 2, 100), ("log_loss", 3, 1)):
                gains = [mine[key] - default[key] for mine, default in pairs]
                cells.append(_mean_and_sd([mine[key] for mine, _ in pairs], digits, scale))
                cells.append("" if arm == DEFAULT else _mean_and_sd(gains, digits, scale))
                if key == "accuracy":
                    n_better = sum(gain > 0 for gain in gains)
                    cells.append("" if arm == DEFAULT else f"{n_better} of {len(gains)}")
            lines.append(f"| {' | '.join(cells)} |")
        lines += _beside_own_default(which, group)
    return lines


def _groups(rows: list[dict]) -> list[tuple[str, list[dict]]]:
    """Rows that are compared: of a set, and of one machine where networks are trained, which rounds in its own way.

    Heads have a best solution, and the same accuracy on every machine so far.
    """
    groups = {}
    for row in sorted(rows, key=lambda row: SETS.index(row["set"])):
        key = row["set"], "" if row["set"] == "flowers" else row["machine"]
        groups.setdefault(key, []).append(row)
    return [(which, group) for (which, _), group in groups.items()]


def _processor(which: str, rows: list[dict]) -> str:
    return "" if which == "flowers" else f" ({rows[0]['machine'].split(',')[0]})"


def _beside_own_default(which: str, group: dict[tuple[str, int], dict]) -> list[str]:
    """The shapes of pairs beside the same without them. group: rows by arm and draw."""
    head = [
        "",
        "Shapes of pairs beside the same without them, ± sd (standard error)",
        "",
        "| shape | without | n | difference | better in | log loss |",
        "|---|---|---|---|---|---|",
    ]
    lines = []
    for arm in arms_of(which):
        for shape, without in OWN_DEFAULTS.items():
            control = arm.removesuffix(shape) + without
            draws = [d for a, d in group if a == arm and (control, d) in group]
            if not arm.endswith(shape) or not draws:
                continue
            pairs = [(group[arm, d], group[control, d]) for d in draws]
            gains = [100 * (mine["accuracy"] - other["accuracy"]) for mine, other in pairs]
            losses = [mine["log_loss"] - other["log_loss"] for mine, other in pairs]
            error = np.std(gains, ddof=1) / len(gains) ** 0.5
            better = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            difference = f"{_mean_and_sd(gains, 2, 1)} ({error:.2f})"
            log_loss = _mean_and_sd(losses, 3, 1)
            cells = [arm, control, str(len(draws)), difference, better, log_loss]
            lines.append(f"| {' | '.join(cells)} |")
    return [*head, *lines] if lines else []


def _mean_and_sd(values: list[float], digits: int, scale: float) -> str:
    return mean_and_sd(values, digits, scale).split(" (")[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/targets"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.expanduser().resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        for draw, which in product(args.seeds, args.sets):
            run_draw(which, draw, args)
    files = sorted(args.out.glob("*-*-*.json"))
    rows = [json.loads(file.read_text()) for file in files]
    rows = merge_results("targets", rows, "set", "draw", "arm", "machine")
    save_results("targets", rows, table(rows))


if __name__ == "__main__":
    main()
