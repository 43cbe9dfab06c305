"""Several labels an image: are wrong answers repaired, do unlabeled images help? On pictures of up to four digits.

    python benchmarks/multi_label.py --data mnist_png          # the folders training/ and testing/ of MNIST as images
    python benchmarks/multi_label.py --data mnist_png --table  # the table alone, from runs that are there

Each picture has four fields, each of them with a digit or, as often, without; its labels are the digits that it shows.
Digits of `training` make the labeled and the unlabeled images, those of `testing` the test set. denoise: 2,000
pictures, a tenth of all answers turned round. augment: 600 pictures with labels, 2,000 without. What a seed
changes: pictures, flips, networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from common import grid_arguments, kit, mean_and_sd, metrics, save_results
from numpy import ndarray

SIDE, TEST = 40, 2000
LABELS = {"denoise": 2000, "augment": 600}
N_UNLABELED = 2000
OPTIONS = {
    "denoise": [
        "--mode",
        "denoise",
        "train.min_steps=400",
        "train.epochs=1",
        "simulate.noise=symmetric",
        "simulate.noise_rate=0.1",
    ],
    "augment": [
        "--mode",
        "augment",
        "pseudo.rounds=1",
        "pseudo.folds=4",
        "train.min_steps=1000",
        "train.epochs=30",
    ],
}
STEPS = ["train.batch_size=64", "train.augment=affine", "train.lr=4e-3"]


def digits(folder: Path) -> tuple[ndarray, ndarray]:
    """(N, 20, 20) uint8 and (N,) of a folder of classes: the middle of every digit."""
    import cv2

    files = sorted(folder.glob("*/*.png"))
    return (
        np.stack([cv2.imread(str(file), 0)[4:24, 4:24] for file in files]),
        np.array([int(file.parent.name) for file in files]),
    )


def draw(
    folder: Path, name: str, n: int, source: tuple[ndarray, ndarray], seed: int
) -> pd.DataFrame:
    """Write n pictures; id and one column a digit."""
    import cv2

    rng, (pixels, labels) = np.random.default_rng(seed), source
    has, which = rng.random((n, 4)) < 0.5, rng.integers(0, len(labels), (n, 4))
    answers = np.zeros((n, 10), int)
    for i in range(n):
        picture = np.zeros((SIDE, SIDE), np.uint8)
        for field in np.flatnonzero(has[i]):
            y, x = 20 * (field // 2), 20 * (field % 2)
            picture[y : y + 20, x : x + 20] = pixels[which[i, field]]
            answers[i, labels[which[i, field]]] = 1
        cv2.imwrite(str(folder / f"{name}{i:05d}.png"), picture)
    table = pd.DataFrame(answers, columns=[f"d{k}" for k in range(10)])
    table.insert(0, "id", [f"{name}{i:05d}" for i in range(n)])
    return table


def make(data: Path, out: Path, what: str, seed: int) -> list[str]:
    """The pictures of one run and the keys that name them."""
    n, folder = LABELS[what], out / f"pictures_{seed}_{LABELS[what]}"
    if not (folder / "test.csv").exists():
        (folder / "images").mkdir(parents=True, exist_ok=True)
        train, test = (digits(data / part) for part in ("training", "testing"))
        labeled = draw(folder / "images", "train", n, train, seed)
        unlabeled = draw(folder / "images", "unlabeled", N_UNLABELED, train, seed + 1000)
        labeled.to_csv(folder / "train.csv", index=False)
        unlabeled[["id"]].to_csv(folder / "unlabeled.csv", index=False)
        unlabeled.to_csv(folder / "truth.csv", index=False)
        draw(folder / "images", "test", TEST, test, seed + 2000).to_csv(
            folder / "test.csv", index=False
        )
    keys = {"train": "train.csv", "test": "test.csv", "image_dir": "images"}
    keys |= {} if what == "denoise" else {"unlabeled": "unlabeled.csv"}
    columns = ",".join(f"d{k}" for k in range(10))
    return [
        *(f"data.{key}={folder / value}" for key, value in keys.items()),
        "data.image_suffix=.png",
        f"data.label_col=[{columns}]",
        "data.multi_label=true",
    ]


def row(run: Path, folder: Path, what: str, seed: int) -> dict:
    """The figures of one run."""
    results = metrics(run)
    scores = {arm: results["scores"][arm]["test"] for arm in ("teacher", "baseline", "student")}
    if what == "denoise":
        return {
            "what": what,
            "seed": seed,
            "scores": scores,
            "noise": results["noise"] | alone(run),
        }
    return {
        "what": what,
        "seed": seed,
        "scores": scores,
        "unlabeled": results["unlabeled"] | answered(run, folder),
    }


def alone(run: Path) -> dict:
    """How well the self-confidence of the first round's held-out answers ranks the flipped ones."""
    from sklearn.metrics import average_precision_score

    from pseudokit.data.encoding import label_scores, parse

    table = pd.read_csv(run / "injected.csv", keep_default_na=False).set_index("id")
    ids = pd.read_csv(run / "round_1" / "ids.csv").id
    classes = sorted(f"d{k}" for k in range(10))
    given_labels, clean = (
        parse(table[name].loc[ids], classes, True) for name in ("given_label", "clean")
    )
    confidences = np.exp(label_scores(np.load(run / "round_1" / "log_probs.npy"), given_labels))
    return {
        "by_self_confidence": float(
            average_precision_score((given_labels != clean).ravel(), -confidences.ravel())
        )
    }


def answered(run: Path, folder: Path) -> dict:
    """How many answers yes and no the unlabeled images got, and the fraction of them that is right."""
    from pseudokit.data.encoding import parse

    table = pd.read_csv(run / "pseudo_labels.csv", keep_default_na=False).set_index("id").label
    truth = pd.read_csv(folder / "truth.csv").set_index("id").loc[table.index]
    classes = sorted(truth.columns)
    label, clean = parse(table, classes, True), truth[classes].to_numpy()
    right = {
        word: float((clean[label == answer] == answer).mean())
        for word, answer in (("yes", 1), ("no", 0))
    }
    n = {word: int((label == answer).sum()) for word, answer in (("yes", 1), ("no", 0))}
    return {"right": right, "answers": n}


def lines(rows: list[dict]) -> list[str]:
    """The table."""
    text = [
        "| | labels | accuracy of images, baseline → student, % "
        "| mean average precision, baseline → student | answers |",
        "|---|---|---|---|---|",
    ]
    for what, n in LABELS.items():
        group = [r for r in rows if r["what"] == what]
        if not group:
            continue
        ends = [
            f"{mean_and_sd([r['scores']['baseline'][key] for r in group], digits, scale)} → "
            f"{mean_and_sd([r['scores']['student'][key] for r in group], digits, scale)}"
            for key, digits, scale in (("accuracy", 1, 100), ("map", 4, 1))
        ]
        text.append(f"| {what} | {n:,} | {ends[0]} | {ends[1]} | {about(group)} |")
    return text


def about(group: list[dict]) -> str:
    """The figures of the answers, as text."""

    def mean(part: str, *keys: str, **more) -> str:
        values = [r[part] for r in group]
        for key in keys:
            values = [value[key] for value in values]
        return mean_and_sd(values, **more)

    if "noise" in group[0]:
        return (
            f"wrong: {mean('noise', 'injected_rate', digits=2, scale=100)} → "
            f"{mean('noise', 'residual_rate', digits=2, scale=100)} %; average precision of finding them "
            f"{mean('noise', 'average_precision')}, by self-confidence in the first round "
            f"{mean('noise', 'by_self_confidence')}"
        )
    yes, no = (
        f"{mean('unlabeled', 'answers', word, digits=0)} {word}, "
        f"{mean('unlabeled', 'right', word, digits=1, scale=100)} % right"
        for word in ("yes", "no")
    )
    return f"unlabeled images: {yes}; {no}"


def main() -> None:
    arguments, mine = grid_arguments(__doc__, out="multi_label", sets=tuple(LABELS))
    jobs = [(what, seed) for seed in arguments.seeds for what in arguments.sets]
    rows = []
    for what, seed in mine(jobs):
        name = f"{what}_{seed}"
        if not arguments.table:
            keys = make(arguments.data, arguments.out, what, seed)
            kit(
                *OPTIONS[what],
                *keys,
                *STEPS,
                f"name={name}",
                f"seed={seed}",
                out=arguments.out,
            )
        if (arguments.out / name / "metrics.json").exists():
            rows.append(
                row(
                    arguments.out / name,
                    arguments.out / f"pictures_{seed}_{LABELS[what]}",
                    what,
                    seed,
                )
            )
    if arguments.part == "0/1":
        save_results("multi_label", rows, lines(rows))


if __name__ == "__main__":
    main()
