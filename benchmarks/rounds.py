"""Which round a run reports where noise depends on the image, as people's does: the labels that a weak model confuses.

    python benchmarks/rounds.py --mnist FOLDER                                 the rule of this checkout
    python benchmarks/rounds.py --mnist FOLDER --code CHECKOUT --rule first    the rule of another checkout
    python benchmarks/rounds.py --mnist FOLDER --table                         the table of all runs that are there

14,000 digits of the training folder are drawn. A small network (sklearn's MLP of 32 units, three passes) gives every
image probabilities out of fold, P. Two kinds of noise come of them:
drawn: the chance of a flip rises with 1 - P[true] and has the mean RATE; the wrong class is drawn from P without the
true class. hardest: the share RATE of the images with the least P[true] has the likeliest wrong class by P.
Truth stays here. Scored on the 10,000 untouched test images.
"""

import argparse
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, mean_and_sd, merge_results, metrics, save_results
from numpy import ndarray
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPClassifier

N = 14_000
RATES = (0.2, 0.4)
NOISE = ("hardest", "drawn")
RULES = ("first", "new")
KEYS = [
    "--config",
    "configs/mnist.yaml",
    "train.epochs=3",
    "train.min_steps=0",
    "pseudo.tta=1",
    "pseudo.rounds=3",
]


def chances(p_other: ndarray, rate: float) -> ndarray:
    """(N,) chances of a flip, in proportion to 1 - P[true], at most 1, with the mean `rate`."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if np.minimum(middle * p_other, 0.95).mean() < rate else (low, middle)
        )
    return np.minimum(high * p_other, 0.95)


def noisy_table(mnist: Path, noise: str, rate: float, seed: int) -> pd.DataFrame:
    """id (path below the folder), clean and label."""
    rng = np.random.default_rng(seed)
    files = np.array(sorted((mnist / "training").rglob("*.png")), object)
    files = files[np.sort(rng.choice(len(files), N, replace=False))]
    pixels = np.stack([np.asarray(Image.open(file).convert("L")).ravel() for file in files]) / 255
    true = np.array([int(file.parent.name) for file in files])
    weak = MLPClassifier((32,), max_iter=3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three passes are not meant to converge
        probs = cross_val_predict(weak, pixels, true, cv=5, method="predict_proba")
    rows, p_other = np.arange(N), 1 - probs[np.arange(N), true]
    flipped = rng.random(N) < chances(p_other, rate)
    probs[rows, true] = 0
    if noise == "hardest":
        flipped, probs = (
            np.isin(rows, np.argsort(-p_other)[: round(rate * N)]),
            np.eye(10)[probs.argmax(1)],
        )
    cumulated = (probs / probs.sum(1, keepdims=True)).cumsum(1)
    other = np.minimum((rng.random((N, 1)) > cumulated).sum(1), 9)
    label = np.where(flipped & (other != true), other, true)
    ids = [file.relative_to(mnist).as_posix() for file in files]
    return pd.DataFrame({"id": ids, "clean": true, "label": label})


def train(args, noise: str, rate: float, seed: int) -> None:
    """A run that is already there is not repeated."""
    folder = args.out / f"{args.rule}_{noise}_{rate:g}_{seed}"
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{noise}_{rate:g}_{seed}.csv"
    if not file.exists():
        noisy_table(args.mnist, noise, rate, seed).to_csv(file, index=False)
    data = [
        f"data.train={file}",
        f"data.image_dir={args.mnist}",
        f"data.test={args.mnist / 'testing'}",
    ]
    named = [f"seed={seed}", f"name={folder.name}", f"out={args.out}", "data.label_col=label"]
    subprocess.run(
        [sys.executable, "pseudo.py", "--mode", "denoise", *KEYS, *data, *named],
        cwd=args.code,
        check=True,
    )


def score_run(args, rule: str, noise: str, rate: float, seed: int) -> dict | None:
    """AP of the label_issues after every round, the round that the run reports, accuracy of its arms on the test
    images."""
    folder = args.out / f"{rule}_{noise}_{rate:g}_{seed}"
    if not (folder / "metrics.json").exists():
        return None
    table = pd.read_csv(args.out / f"{noise}_{rate:g}_{seed}.csv").set_index("id")
    wrong, precisions = table.clean != table.label, []
    for number in range(1, 1 + len(list(folder.glob("round_*/decisions.csv")))):
        decided = pd.read_csv(
            folder / f"round_{number}" / "decisions.csv", usecols=["id", "p_wrong"]
        )
        precisions.append(
            float(average_precision_score(wrong[decided.id].to_numpy(), decided.p_wrong))
        )
    results, status = metrics(folder), json.loads((folder / "status.json").read_text())
    scores = {arm: results["scores"][arm]["test"]["accuracy"] for arm in ("student", "baseline")}
    return {
        "rule": rule,
        "noise": noise,
        "rate": rate,
        "seed": seed,
        "wrong": float(wrong.mean()),
        "ap": precisions,
        "reported": results["round"],
        "reason": status["reason"],
    } | scores


def table(rows: list[dict]) -> list[str]:
    lines = [
        f"{N:,} MNIST digits, noise by a weak model's confusions per image, 2 folds, at most 3 rounds of 3 "
        "epochs, 1 view; 10,000 test images.",
        "Rules: `first` is commit 992e90e, which drops uncertain labels and scores rounds by the given labels; "
        "`new` is this checkout.",
        "",
        "| noise | wrong labels | rule | seed | AP of rounds | reported | why | student % | baseline % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: (r["noise"], r["rate"], RULES.index(r["rule"]), r["seed"])):
        ap = ", ".join(f"{value:.4f}" for value in r["ap"])
        lines.append(
            f"| {r['noise']} | {r['wrong']:.3f} | {r['rule']} | {r['seed']} | {ap} | {r['reported']} "
            f"| {r['reason']} | {100 * r['student']:.2f} | {100 * r['baseline']:.2f} |"
        )
    lines += [
        "",
        "| noise | rate | student of the new rule − of the other, points | AP reported, new − other |",
        "|---|---|---|---|",
    ]
    by_key = {(r["rule"], r["noise"], r["rate"], r["seed"]): r for r in rows}
    for noise, rate, other in [(n, r, o) for n in NOISE for r in RATES for o in RULES[:-1]]:
        pairs = [
            (r, by_key.get((other, *key[1:])))
            for key, r in by_key.items()
            if key[:3] == ("new", noise, rate)
        ]
        pairs = [(new, old) for new, old in pairs if old]
        if pairs:
            points = mean_and_sd([new["student"] - old["student"] for new, old in pairs], 2, 100)
            gains = mean_and_sd(
                [
                    new["ap"][new["reported"] - 1] - old["ap"][old["reported"] - 1]
                    for new, old in pairs
                ],
                4,
            )
            lines.append(f"| {noise} | {rate:g} | {other}: {points} | {gains} |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/rounds"))
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout whose rule is run")
    parser.add_argument("--rule", default="new", choices=RULES, help="its name in the table")
    parser.add_argument("--noise", nargs="+", default=NOISE, choices=NOISE)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="keep the results; train nothing")
    arguments = parser.parse_args()
    for name in ("mnist", "out", "code"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    jobs = [
        (noise, rate, seed)
        for seed in arguments.seeds
        for noise in arguments.noise
        for rate in arguments.rates
    ]
    if arguments.table:
        rows = [row for rule in RULES for job in jobs if (row := score_run(arguments, rule, *job))]
        rows = merge_results("rounds", rows, "rule", "noise", "rate", "seed")
        save_results("rounds", rows, table(rows))
    else:
        for job in jobs:
            train(arguments, *job)
