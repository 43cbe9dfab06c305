"""Labels that people got wrong: what the kit finds, beside cleanlab and simple methods on identical probabilities.

    python benchmarks/human_noise.py matrices --data FOLDER                 stored probabilities of CIFAR-10N
    python benchmarks/human_noise.py drawn    --data FOLDER                 noise that a computer draws, on digits
    python benchmarks/human_noise.py people   --data FOLDER [--seeds 0 1 2] CIFAR-10N end to end, frozen and trained;
        what takes hours is run in parts (--arms, --seeds; of drawn noise --kinds), and results are added to those that
        are there
    … --table                                                               print and keep the table alone

FOLDER holds human_noise/*.npz, cifar10_human, mnist_png and fashion_mnist_png. cleanlab 2.9: requirements-bench.txt;
the frozen network: see photos.py. The kit is `find_label_issues`, which decides as one round of a run. A
second teacher is another of the stored networks, or other folds; both are averaged as rounds are.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import (
    ROOT,
    kit,
    load_results,
    machine,
    mean_and_sd,
    merge_results,
    metrics,
    save_results,
)
from noise import FILTERS, SCORES, flipped, small_model
from numpy import ndarray
from sklearn.metrics import average_precision_score, f1_score

from pseudokit import find_label_issues
from pseudokit.config.keys import Pseudo
from pseudokit.label_issues import issues_table
from pseudokit.labels.calibration import calibrate_models
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.inputs import read_labels
from pseudokit.labels.out_of_fold import FoldPredictions, average_models

NETWORKS = ("resnet18", "resnet50d", "efficientnet_b1")
DRAWN = (
    ("uniform", 0.1),
    ("uniform", 0.2),
    ("uniform", 0.4),
    ("pair", 0.2),
    ("pair", 0.4),
    ("matrix", 0.2),
    ("look-alike", 0.1),
    ("look-alike", 0.2),
    ("instance", 0.2),
    ("instance", 0.4),
)
"""The settings of noise.py, and flips by the confusions of a weak model for each image."""
IMAGES = 30_000
LABELS = {"label": "majority of three people", "rater1": "one person"}
ARMS = {
    "frozen": [
        "data.size=128",
        "pseudo.label_propagation=0",
        "pseudo.top_fraction=null",
        "pseudo.folds=2",
        "pseudo.rounds=2",
    ],
    "trained": ["train.epochs=10", "train.min_steps=0", "pseudo.folds=2", "pseudo.rounds=2"],
    "fine-tuned": [
        "--config",
        "configs/photos.yaml",
        "data.size=64",
        "train.epochs=2",
        "train.min_steps=0",
        "pseudo.folds=2",
        "pseudo.rounds=2",
    ],
}


def repaired(issues: pd.DataFrame, given_labels: ndarray) -> ndarray:
    """(N,) the labels after the repair, of softened rows the likeliest class; -1 = dropped."""
    changed = issues.decision.isin(["relabel", "soften"])
    labels = np.where(changed, issues.suggested_label, given_labels)
    return np.where(issues.decision == "drop", -1, labels)


def scores_of(issues: pd.DataFrame, truth: ndarray, given_labels: ndarray) -> dict:
    wrong = truth != given_labels
    relabeled = issues.decision == "relabel"
    labels = repaired(issues, given_labels)
    return {
        "ap": average_precision_score(wrong, issues.p_wrong),
        "f1": f1_score(wrong, issues.is_issue),
        "left": float(((labels != truth) & (labels >= 0)).mean()),
        "dropped": float((labels < 0).mean()),
        "relabeled": float(relabeled.mean()),
        "precision": float(wrong[relabeled].mean()) if relabeled.any() else None,
    }


def by_class_alone(log_probs: ndarray, folds: ndarray, given_labels: ndarray) -> pd.DataFrame:
    """The issues by noise of the class alone, as the kit had it before."""
    parts = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        parts.append(FoldPredictions(rows, log_probs[rows], str(fold), int(fold)))
    parts, _ = calibrate_models(parts, given_labels, given_labels, choose=False)
    predicted = average_models(parts, len(given_labels))
    decisions = decide_labels(predicted.log_probs, given_labels, "denoise", Pseudo())
    return issues_table(decisions, read_labels(given_labels, n_classes=log_probs.shape[1]), None)


def score_setting(
    name: str,
    teachers: list[ndarray],
    folds: list[ndarray],
    given_labels: ndarray,
    truth: ndarray,
) -> dict:
    """Every figure of one setting. teachers: (N, K) log-probabilities of two; folds: (N,) which model judged."""
    first = find_label_issues(given_labels, logits=teachers[0], folds=folds[0])
    second = find_label_issues(given_labels, logits=teachers, folds=folds)
    before = by_class_alone(teachers[0], folds[0], given_labels)
    return {
        "setting": name,
        "n": len(given_labels),
        "wrong": float((truth != given_labels).mean()),
        "type": first.attrs["noise_type"],
        "estimated": first.attrs["estimated_rate"],
        "interval": first.attrs.get("estimated_rate_interval"),
        "kit": scores_of(first, truth, given_labels),
        "two models": scores_of(second, truth, given_labels),
        "before": scores_of(before, truth, given_labels),
        "peers": peers(teachers[0], given_labels, truth),
    }


def peers(log_probs: ndarray, given_labels: ndarray, truth: ndarray) -> dict:
    """cleanlab's scores and filters, and the plain disagreement, on the probabilities as the teacher gives them."""
    from cleanlab.filter import find_label_issues as flag
    from cleanlab.rank import get_label_quality_scores

    probs = np.exp(log_probs.astype(np.float64))
    probs, wrong = probs / probs.sum(1, keepdims=True), truth != given_labels
    best = probs.argmax(1)
    default = flag(given_labels, probs, n_jobs=1)
    return {
        "ap": {
            s: average_precision_score(
                wrong, -get_label_quality_scores(given_labels, probs, method=s)
            )
            for s in SCORES
        },
        "f1": {
            f: f1_score(wrong, flag(given_labels, probs, filter_by=f, n_jobs=1)) for f in FILTERS
        },
        "plain": f1_score(wrong, best != given_labels),
        "replace_all": float((best != truth).mean()),
        "cleanlab_replaced": float((np.where(default, best, given_labels) != truth).mean()),
    }


def matrices(args) -> list[dict]:
    rows = []
    for labels in ("aggre", "worst"):
        files = [
            np.load(args.data / "human_noise" / f"{labels}_{network}.npz") for network in NETWORKS
        ]
        teachers = [file["log_probs"].astype(np.float32) for file in files]
        given_labels, truth = files[0]["given"].astype(int), files[0]["true"].astype(int)
        one_fold = np.zeros(len(given_labels), int)
        for i, network in enumerate(NETWORKS):
            pair = [teachers[i], teachers[(i + 1) % len(teachers)]]
            rows.append(
                score_setting(f"{labels}, {network}", pair, [one_fold] * 2, given_labels, truth)
            )
    return rows


def by_instance(clean: ndarray, rate: float, rng: np.random.Generator, probs: ndarray) -> ndarray:
    """(N,) labels flipped by what a weak model takes each image for; probs: (N, K) of it."""
    rows = np.arange(len(clean))
    others = np.maximum(probs**0.3, 1e-6)
    others[rows, clean] = 0
    odds, low, high = others.sum(1), 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high)
            if np.minimum(1 - np.exp(-middle * odds), 0.95).mean() < rate
            else (low, middle)
        )
    flip = rng.random(len(clean)) < np.minimum(1 - np.exp(-low * odds), 0.95)
    noisy = clean.copy()
    for row in np.flatnonzero(flip):
        noisy[row] = rng.choice(len(others[row]), p=others[row] / others[row].sum())
    return noisy


def train_teachers(pixels: ndarray, given_labels: ndarray) -> dict[str, ndarray]:
    """Out-of-fold log-probabilities of two teachers, by other folds, both of the recipe of noise.py."""
    from pseudokit.config.load import load_config
    from pseudokit.data.folds import make_folds
    from pseudokit.training.loop import step_budget
    from pseudokit.training.trainer import PredictJob, Trainer, TrainJob

    trainer = Trainer(
        load_config(ROOT / "configs" / "mnist.yaml", ["train.epochs=3"]),
        pixels,
        given_labels,
        tuple("0123456789"),
    )
    made = {}
    for number in (1, 2):
        folds = make_folds(given_labels, np.arange(len(given_labels)), 2, number)
        log_probs = np.empty((len(given_labels), 10), np.float32)
        for fold in range(2):
            learned, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            where = f"round_{number}/fold_{fold}"
            steps = step_budget(len(learned), trainer.config.train)
            model, _ = trainer.train(TrainJob(where, learned, given_labels[learned], steps=steps))
            log_probs[held_out] = trainer.run_job(PredictJob(model, held_out, 1))
        made |= {f"lp{number}": log_probs.astype(np.float16), f"fold{number}": folds}
    return made


def drawn(args) -> list[dict]:
    import cv2

    rows = []
    for dataset in ("mnist", "fashion_mnist"):
        root = args.data / f"{dataset}_png" / "training"
        files = sorted(root.rglob("*.png"))
        files = [
            files[i] for i in np.sort(np.random.default_rng(0).permutation(len(files))[:IMAGES])
        ]
        clean, pixels, weak = np.array([int(file.parent.name) for file in files]), None, None
        for kind, rate in [setting for setting in DRAWN if setting[0] in args.kinds]:
            stored = args.out / f"{dataset}-{kind}-{round(100 * rate)}.npz"
            if not stored.exists():
                if pixels is None:
                    pixels = np.stack([cv2.imread(str(file), 0) for file in files])[..., None]
                    weak = small_model(files, clean, 0)
                rng = np.random.default_rng([0, len(kind), round(100 * rate)])
                instance = kind == "instance"
                given_labels = (
                    by_instance(clean, rate, rng, weak)
                    if instance
                    else flipped(clean, kind, rate, rng, weak)
                )
                np.savez(
                    stored,
                    given_labels=given_labels,
                    true=clean,
                    **train_teachers(pixels, given_labels),
                )
            made = np.load(stored)
            teachers = [made[name].astype(np.float32) for name in ("lp1", "lp2")]
            folds = [made["fold1"], made["fold2"]]
            rows.append(
                score_setting(
                    f"{dataset}, {kind} {rate:.0%}",
                    teachers,
                    folds,
                    made["given_labels"],
                    made["true"],
                )
            )
    return merge_results("human_noise_drawn", rows, "setting")


def people(args) -> list[dict]:
    """Runs of the kit on CIFAR-10N: the network of photos.py, frozen and trained whole, and the kit's default one."""
    from photos import CONFIG as PHOTOS
    from photos import weights

    from pseudokit.api import run_command

    root, file = args.data / "cifar10_human", args.out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    table, rows = pd.read_csv(root / "train.csv", dtype=str), []
    truth = (
        pd.read_csv(root / "truth_train.csv", dtype=str)
        .set_index("id")
        .clean_label[table.id]
        .to_numpy()
    )
    for column in LABELS:
        noisy = args.out / f"{column}.csv"
        table[["id", column]].rename(columns={column: "label"}).to_csv(noisy, index=False)
        for arm in args.arms:
            keys = ARMS[arm] + ([] if arm == "trained" else [f"model.checkpoint={file}"])
            for seed in args.seeds:
                name = f"{arm}-{column}-{seed}"
                options = [
                    f"data.train={noisy}",
                    f"data.test={root / 'test.csv'}",
                    f"data.image_dir={root / 'images'}",
                    "data.image_suffix=.jpg",
                    f"seed={seed}",
                    f"name={name}",
                ]
                if arm == "frozen":
                    run_command("denoise", [*keys, *options, f"out={args.out}"], PHOTOS)
                else:
                    kit("--mode", "denoise", *keys, *options, out=args.out)
                figures = score_run(args.out / name, table.id.to_numpy(), truth)
                rows.append({"arm": arm, "labels": column, "seed": seed} | figures)
    return merge_results("human_noise_people", rows, "arm", "labels", "seed")


def score_run(run: Path, ids: ndarray, truth: ndarray) -> dict:
    """Every figure of one run: its last round, its tables and its arms."""
    folder = max(run.glob("round_*/decisions.csv")).parent
    table = pd.read_csv(folder / "decisions.csv", dtype=str, keep_default_na=False)
    classes = sorted(set(truth))
    clean = pd.Series(truth, ids)[table.id].map(classes.index).to_numpy()
    given_labels, p_wrong = (
        table.given_label.map(classes.index).to_numpy(),
        table.p_wrong.to_numpy(float),
    )
    wrong, changed = clean != given_labels, (table.decision == "relabel").to_numpy()
    labels = (
        pd.read_csv(run / "labels.csv", dtype=str, keep_default_na=False)
        .set_index("id")
        .label[table.id]
    )
    label = labels.map(lambda name: classes.index(name) if name else -1).to_numpy()
    arms, info = metrics(run)["scores"], metrics(run)["rounds"][-1]
    row = {
        "n": len(table),
        "wrong": float(wrong.mean()),
        "estimated": info["estimated_rate"],
        "type": info["noise_type"],
        "interval": info.get("estimated_rate_interval"),
        "ap": average_precision_score(wrong, p_wrong),
        "f1": f1_score(wrong, p_wrong > 0.5),
        "relabeled": float(changed.mean()),
        "precision": float(wrong[changed].mean()) if changed.any() else None,
        "dropped": float((label < 0).mean()),
        "left": float(((label != clean) & (label >= 0)).mean()),
        "student": arms["student"]["test"]["accuracy"],
        "labels as given": arms["baseline"]["test"]["accuracy"],
        "peers": peers(np.load(run / "round_1" / "log_probs.npy"), given_labels, clean),
        "neighbors": None,
    }
    if stored := list(run.glob("embeddings_*.npy")):
        from sklearn.neighbors import NearestNeighbors

        samples = pd.read_csv(run / "samples.csv", dtype=str)
        x = np.load(stored[0])[pd.Index(samples.id).get_indexer(table.id)]
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        near = (
            NearestNeighbors(n_neighbors=20, algorithm="brute")
            .fit(x)
            .kneighbors(return_distance=False)
        )
        row["neighbors"] = average_precision_score(
            wrong, 1 - (given_labels[near] == given_labels[:, None]).mean(1)
        )
    return row


def table_settings(rows: list[dict]) -> list[str]:
    lines = [
        "AP = average precision of the ranking, F1 of the flags (p_wrong > 0.5). cleanlab 2.9: the best of "
        f"{len(SCORES)} scores, of {len(FILTERS)} filters; plain = predicted is not given. Left: wrong labels "
        "after the repair, softened rows by their likeliest class, in %; shares in %.",
        "",
        "| setting | noise named | AP: kit / before / cleanlab | F1: kit / before / cleanlab / plain | two "
        "teachers: AP, F1 | estimated (interval) / true | left: kit / cleanlab / all replaced | dropped | "
        "relabeled, of them wrong |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        kit_is, peer, two, before = (row[key] for key in ("kit", "peers", "two models", "before"))
        filters = {
            name: value for name, value in peer["f1"].items() if name != "predicted_neq_given"
        }
        ends = row["interval"]
        interval = f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else " (none)"
        precision = "–" if kit_is["precision"] is None else f"{100 * kit_is['precision']:.1f}"
        lines.append(
            f"| {row['setting']} | {row['type']} "
            f"| {kit_is['ap']:.4f} / {before['ap']:.4f} / {max(peer['ap'].values()):.4f} "
            f"| {kit_is['f1']:.4f} / {before['f1']:.4f} / {max(filters.values()):.4f} / {peer['plain']:.4f} "
            f"| {two['ap']:.4f}, {two['f1']:.4f} | {100 * row['estimated']:.1f}{interval} / {100 * row['wrong']:.1f} "
            f"| {100 * kit_is['left']:.2f} / {100 * peer['cleanlab_replaced']:.2f} / {100 * peer['replace_all']:.2f} "
            f"| {100 * kit_is['dropped']:.1f} | {100 * kit_is['relabeled']:.1f}, {precision} |"
        )
    stated = [row for row in rows if row["interval"]]
    held = sum(row["interval"][0] <= row["wrong"] <= row["interval"][1] for row in stated)
    ap, f1 = (min(row["kit"][key] - row["before"][key] for row in rows) for key in ("ap", "f1"))
    return [
        *lines,
        "",
        f"The stated interval holds the true rate in {held} of {len(stated)} settings; least "
        f"difference to the kit before: AP {ap:+.4f}, F1 {f1:+.4f}.",
    ]


def table_people(rows: list[dict]) -> list[str]:
    lines = [
        "CIFAR-10N, 20,000 images with labels of people, 5,000 test images; mean ± sd over seeds; shares in %",
        "",
        "| labels | teachers | n | noise named | AP: kit | cleanlab | 20 neighbors | estimated / true | relabeled, "
        "of them wrong | dropped | left | student | labels as given | difference |",
        "|---" * 14 + "|",
    ]
    for column in LABELS:
        for arm in ARMS:
            group = [row for row in rows if (row["labels"], row["arm"]) == (column, arm)]
            if not group:
                continue

            def mean(values: list, digits: int = 1, scale: float = 100) -> str:
                values = [value for value in values if value is not None]
                return mean_and_sd(values, digits, scale).split(" (")[0] if values else "–"

            gains = [row["student"] - row["labels as given"] for row in group]
            names = ", ".join(sorted({row["type"] for row in group}))
            cells = [
                mean([r["ap"] for r in group], 3, 1),
                mean([max(r["peers"]["ap"].values()) for r in group], 3, 1),
                mean([r["neighbors"] for r in group], 3, 1),
                f"{mean([r['estimated'] for r in group])} / {100 * group[0]['wrong']:.1f}",
                f"{mean([r['relabeled'] for r in group])}, {mean([r['precision'] for r in group])}",
                mean([r["dropped"] for r in group]),
                mean([r["left"] for r in group]),
                mean([r["student"] for r in group], 2),
                mean([r["labels as given"] for r in group], 2),
                mean(gains, 2),
            ]
            lines.append(
                f"| {LABELS[column]} | {arm} | {len(group)} | {names} | {' | '.join(cells)} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["matrices", "drawn", "people"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/human_noise"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arms", nargs="+", default=list(ARMS), choices=list(ARMS), help="of people"
    )
    kinds = list(dict.fromkeys(kind for kind, _ in DRAWN))
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds, help="of drawn noise")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    name = f"human_noise_{args.what}"
    rows = (
        load_results(name)
        if args.table
        else {"matrices": matrices, "drawn": drawn, "people": people}[args.what](args)
    )
    rows = [
        row | {"machine": row.get("machine") or machine()} for row in json.loads(json.dumps(rows))
    ]
    save_results(name, rows, (table_people if args.what == "people" else table_settings)(rows))


if __name__ == "__main__":
    main()
