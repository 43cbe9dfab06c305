"""Unlabeled images that are not like the labeled ones: student against baseline with 100 MNIST labels, three draws.

    python benchmarks/robust.py --data FOLDER [--part 0/2]
    python benchmarks/robust.py --data FOLDER --table

FOLDER holds mnist_png and fashion_mnist_png. The labels are ten a digit. imbalanced: the commonest unlabeled digit
has ten times the rows of the rarest, in geometric steps, the order drawn anew. foreign: a fifth of the unlabeled
images are clothes. The recipe is that of few_labels.py. The 10,000 test images are as they are, and read once.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pandas as pd
from common import grid_arguments, kit, mean_and_sd, merge_results, metrics, save_results

LABELS = 100
KINDS = ("imbalanced", "foreign")


def images(data: Path, folder: str) -> pd.DataFrame:
    """id (path below data) and label of every image of a folder `<class>/<file>`."""
    files = sorted((data / folder).rglob("*.png"))
    return pd.DataFrame(
        {
            "id": [str(file.relative_to(data)) for file in files],
            "label": [f.parent.name for f in files],
        }
    )


def build(data: Path, kind: str, draw: int, folder: Path) -> None:
    """train.csv (ten labels a digit), unlabeled.csv, test.csv."""
    rng = np.random.default_rng(draw)
    digits = images(data, "mnist_png/training").sample(frac=1, random_state=draw)
    train = digits.groupby("label").head(LABELS // 10)
    unlabeled = digits.drop(train.index)
    if kind == "imbalanced":
        shares = dict(
            zip(
                rng.permutation(sorted(unlabeled.label.unique())),
                np.geomspace(1, 0.1, 10),
                strict=True,
            )
        )
        unlabeled = unlabeled[
            unlabeled.groupby("label").cumcount()
            < unlabeled.groupby("label").id.transform("size") * unlabeled.label.map(shares)
        ]
    else:
        clothes = images(data, "fashion_mnist_png/training").sample(
            len(unlabeled) // 4, random_state=draw
        )
        unlabeled = pd.concat([unlabeled, clothes])
    folder.mkdir(parents=True, exist_ok=True)
    train.to_csv(folder / "train.csv", index=False)
    unlabeled[["id"]].to_csv(folder / "unlabeled.csv", index=False)
    images(data, "mnist_png/testing").to_csv(folder / "test.csv", index=False)


def run(kind: str, draw: int, data: Path, out: Path) -> None:
    tables = out / f"data-{kind}-{draw}"
    if not (tables / "test.csv").exists():
        build(data, kind, draw, tables)
    splits = [f"data.{split}={tables / split}.csv" for split in ("train", "unlabeled", "test")]
    kit(
        "--mode",
        "augment",
        "--config",
        "configs/mnist_few_labels.yaml",
        *splits,
        f"data.image_dir={data}",
        f"seed={draw}",
        f"name={kind}-{draw}",
        out=out,
    )


def clothes_taken(run: Path) -> float:
    """Fraction of the foreign images that received a pseudo-label."""
    taken = pd.read_csv(run / "pseudo_labels.csv").id.str.startswith("fashion").sum()
    dataset = pd.read_csv(run / "samples.csv", dtype=str)
    return taken / dataset[dataset.split == "unlabeled"].id.str.startswith("fashion").sum()


def row(kind: str, draw: int, run: Path) -> dict:
    results = metrics(run)
    errors = {
        arm: 1 - results["scores"][arm]["test"]["accuracy"] for arm in ("baseline", "student")
    }
    taken = {"clothes": clothes_taken(run)} if kind == "foreign" else {}
    return {"kind": kind, "draw": draw, "reason": results["reason"]} | errors | taken


def table(out: Path) -> None:
    runs = [(kind, draw, out / f"{kind}-{draw}") for kind in KINDS for draw in range(10)]
    rows = merge_results(
        "robust", [row(*one) for one in runs if (one[2] / "metrics.json").exists()], "kind", "draw"
    )
    lines = [
        f"{LABELS} labels, MNIST; error on the 10,000 test images in %, mean ± sd",
        "",
        "| unlabeled | baseline | student | student − baseline, paired | student better | clothes pseudo-labeled |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        mine = [r for r in rows if r["kind"] == kind]
        if not mine:
            continue
        gains = [r["student"] - r["baseline"] for r in mine]
        arms = " | ".join(
            mean_and_sd([r[arm] for r in mine], 2, 100) for arm in ("baseline", "student")
        )
        clothes = (
            mean_and_sd([r["clothes"] for r in mine], 1, 100) + " %" if kind == "foreign" else "–"
        )
        better = f"{sum(gain < 0 for gain in gains)} of {len(mine)}"
        lines.append(f"| {kind} | {arms} | {mean_and_sd(gains, 2, 100)} | {better} | {clothes} |")
    save_results("robust", rows, lines)


def main() -> None:
    arguments, mine = grid_arguments(__doc__, out="robust")
    if not arguments.table:
        for kind, draw in mine((kind, draw) for draw in arguments.seeds for kind in KINDS):
            run(kind, draw, arguments.data, arguments.out)
    table(arguments.out)


if __name__ == "__main__":
    main()
