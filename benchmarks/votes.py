"""Several people's votes on every image: labels after a run beside simple methods, and how good each annotator is.

    python benchmarks/votes.py people    --data FOLDER [--seeds 0 1 2]      three people on CIFAR-10N, frozen network
    python benchmarks/votes.py trained   --data FOLDER [--seeds 0]          the same, the default network trained whole
    python benchmarks/votes.py simulated --data FOLDER [--seeds 0 1 2]      five drawn annotators on MNIST
    … --table                                                               print and keep the table alone

FOLDER holds cifar10_human and mnist_png. Dawid–Skene alone, majority vote and denoising the labels of one person are
the other arms. The truth scores, and decides nothing.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import load_results, mean_and_sd, merge_results, metrics, save_results
from human_noise import ARMS
from numpy import ndarray

MODES = ("people", "trained", "simulated")
RATERS = ["rater1", "rater2", "rater3"]
SIMULATED_ROWS = 6_000
TEST_ROWS = 5_000
ACCURACIES = {"a": 0.95, "b": 0.9, "c": 0.85, "d": 0.75, "e": 0.65}
"""Of the simulated annotators; each class differs by 5 points (sd), and its errors prefer some classes."""
VOTES_PER_IMAGE = 2
KEYS = {
    "people": ARMS["frozen"],
    "trained": ARMS["trained"],
    "simulated": ["train.epochs=3", "train.min_steps=0", "pseudo.folds=2", "pseudo.rounds=2"],
}


def majority(votes: ndarray, k: int, seed: int | None) -> ndarray:
    """(N,) the class of most votes (N, R), -1 = none; of several the first in a row, or one at random by seed."""
    shares = np.stack([(votes == c).sum(1) for c in range(k)], 1).astype(float)
    if seed is not None:
        return (shares + 0.1 * np.random.default_rng(seed).random(shares.shape)).argmax(1)
    first = np.full(len(votes), -1)
    most = shares.max(1)
    rows = np.arange(len(votes))
    for column in votes.T[::-1]:
        is_most = (column >= 0) & (shares[rows, column] == most)
        first[is_most] = column[is_most]
    return first


def draw_annotators(truth: ndarray, k: int, rng: np.random.Generator) -> ndarray:
    """(N, R) votes, -1 = none: confusions of their own, VOTES_PER_IMAGE of them at random on each image."""
    n = len(truth)
    votes = np.full((n, len(ACCURACIES)), -1)
    matrices = []
    for accuracy in ACCURACIES.values():
        confusions = rng.dirichlet(np.full(k, 0.3), k)
        np.fill_diagonal(confusions, 0)
        confusions /= confusions.sum(1, keepdims=True)
        right = np.clip(accuracy + rng.normal(0, 0.05, k), 0.3, 0.99)
        matrices.append(confusions * (1 - right)[:, None] + np.diag(right))
    who = rng.random((n, len(ACCURACIES))).argsort(1)[:, :VOTES_PER_IMAGE]
    for row in range(n):
        for annotator in who[row]:
            votes[row, annotator] = rng.choice(k, p=matrices[annotator][truth[row]])
    return votes


def people_data(args, seed: int) -> tuple[pd.DataFrame, pd.Series, list[str], list[str]]:
    """Votes, truth by id, the columns of the annotators, and keys that name the files."""
    root = args.data / "cifar10_human"
    table = pd.read_csv(root / "train.csv", dtype=str)[["id", *RATERS]]
    truth = pd.read_csv(root / "truth_train.csv", dtype=str).set_index("id").clean_label[table.id]
    file = args.out / "votes.csv"
    table.to_csv(file, index=False)
    keys = [
        f"data.train={file}",
        f"data.test={root / 'test.csv'}",
        f"data.image_dir={root / 'images'}",
        "data.image_suffix=.jpg",
    ]
    return table, truth, RATERS, keys


def simulated_data(args, seed: int) -> tuple[pd.DataFrame, pd.Series, list[str], list[str]]:
    """The same for MNIST."""
    root = args.data / "mnist_png"
    tables = {}
    for split, n in {"train": SIMULATED_ROWS, "test": TEST_ROWS}.items():
        files = sorted((root / f"{split}ing").rglob("*.png"))
        chosen = np.random.default_rng(seed).permutation(len(files))[:n]
        paths = [files[i] for i in sorted(chosen)]
        ids = [path.relative_to(root).as_posix() for path in paths]
        tables[split] = pd.DataFrame({"id": ids, "label": [path.parent.name for path in paths]})
    truth = tables["train"].set_index("id").label
    classes = sorted(set(truth))
    votes = draw_annotators(truth.map(classes.index).to_numpy(), 10, np.random.default_rng(seed))
    names = np.array([*classes, ""], object)
    table = tables["train"][["id"]].copy()
    for column, name in enumerate(ACCURACIES):
        table[name] = names[votes[:, column]]
    train, test = args.out / f"train-{seed}.csv", args.out / f"test-{seed}.csv"
    table.to_csv(train, index=False)
    tables["test"].to_csv(test, index=False)
    keys = [f"data.train={train}", f"data.test={test}", f"data.image_dir={root}"]
    return table, truth, list(ACCURACIES), keys


def run_kit(args, name: str, keys: list[str], frozen: bool) -> Path:
    from photos import CONFIG as PHOTOS
    from photos import weights

    from pseudokit.api import run_command
    from pseudokit.run_folder.folder import DEFAULT_CONFIG

    options = [*keys, f"name={name}", f"out={args.out}"]
    if not frozen:
        return run_command("denoise", options, DEFAULT_CONFIG)
    file = args.out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    return run_command("denoise", [*options, f"model.checkpoint={file}"], PHOTOS)


def final_labels(run: Path, ids: pd.Series) -> ndarray:
    table = pd.read_csv(run / "labels.csv", dtype=str, keep_default_na=False)
    return table.set_index("id").label[ids].to_numpy()


def one_seed(args, seed: int) -> dict:
    """Errors of the labels of every arm, and how far the estimated accuracies are off."""
    read = simulated_data if args.what == "simulated" else people_data
    table, truth, raters, data_keys = read(args, seed)
    keys = [*KEYS[args.what], *data_keys, f"seed={seed}"]
    frozen = args.what == "people"
    columns = f"[{', '.join(raters)}]"
    votes_run = run_kit(
        args,
        f"{args.what}-votes-{seed}",
        [*keys, f"data.label_col={columns}", "data.labels_are=votes"],
        frozen,
    )
    file = args.out / f"{args.what}-one-{seed}.csv"
    table[["id", raters[0]]].rename(columns={raters[0]: "label"}).to_csv(file, index=False)
    one_run = run_kit(args, f"{args.what}-one-{seed}", [*keys, f"data.train={file}"], frozen)
    classes = sorted(set(truth))
    clean = truth.map(classes.index).to_numpy()
    index = {name: k for k, name in enumerate(classes)}
    votes = np.stack([table[r].fillna("").map(lambda v: index.get(v, -1)) for r in raters], 1)
    labels = final_labels(votes_run, table.id)
    decisive = max(votes_run.glob("round_*/decisions.csv"))
    given = pd.read_csv(decisive, dtype=str, keep_default_na=False).set_index("id")
    p_wrong = given.p_wrong.astype(float)
    one = pd.read_csv(one_run / "labels.csv", dtype=str, keep_default_na=False).set_index("id")
    one_truth = truth[one.index]
    annotators = {row["annotator"]: row for row in metrics(votes_run)["annotators"]}
    accuracies = {}
    for column, name in enumerate(raters):
        voted = votes[:, column] >= 0
        row = annotators[name]
        accuracies[name] = {
            "true": float((votes[voted, column] == clean[voted]).mean()),
            "estimated": row["accuracy"],
            "interval": [row["accuracy_low"], row["accuracy_high"]],
        }
    scores = metrics(votes_run)["scores"]
    return {
        "what": args.what,
        "seed": seed,
        "n": len(table),
        "votes": float((labels != truth.to_numpy()).mean()),
        "votes, first round": first_round_errors(votes_run, truth),
        "majority, first": float((majority(votes, len(classes), None) != clean).mean()),
        "majority, random": float((majority(votes, len(classes), seed) != clean).mean()),
        "dawid-skene": float((given.given_label != truth[given.index]).mean()),
        "one": float((one.label != one_truth).mean()),
        "estimated wrong": float(p_wrong.mean()),
        "correlation": metrics(votes_run)["rounds"][-1]["vote_correlation"],
        "student": scores["student"]["test"]["accuracy"],
        "baseline": scores["baseline"]["test"]["accuracy"],
        "one, student": metrics(one_run)["scores"]["student"]["test"]["accuracy"],
        "accuracies": accuracies,
    }


def first_round_errors(run: Path, truth: pd.Series) -> float:
    table = pd.read_csv(run / "round_1" / "decisions.csv", dtype=str, keep_default_na=False)
    table = table.set_index("id")
    return float((table.label != truth[table.index]).mean())


def table_lines(rows: list[dict]) -> list[str]:
    arms = [
        "majority, first",
        "majority, random",
        "dawid-skene",
        "one",
        "votes, first round",
        "votes",
    ]
    lines = [
        "Wrong labels in % (mean ± sd over seeds), and test accuracy. one: the labels of the first annotator alone, "
        "denoised. Off: the largest difference between estimated and true accuracy of an annotator, in points; held: "
        "intervals that hold the truth. MNIST has two votes an image, so most images have no vote of the first "
        "annotator; its labels are scored where it voted.",
        "",
        "| data | n | "
        + " | ".join(arms)
        + " | votes ÷ best other | off | held | correlation | student | labels by "
        "Dawid–Skene | one, student |",
        "|---" * (len(arms) + 9) + "|",
    ]
    for what in MODES:
        group = [row for row in rows if row["what"] == what]
        if not group:
            continue

        def cell(values: list, digits: int = 2, scale: float = 100) -> str:
            return mean_and_sd(values, digits, scale).split(" (")[0]

        others = arms[:4]
        ratios = [row["votes"] / min(row[arm] for arm in others) for row in group]
        off, held = [], []
        for row in group:
            differences = []
            for each in row["accuracies"].values():
                low, high = each["interval"]
                differences.append(abs(each["estimated"] - each["true"]))
                held.append(low <= each["true"] <= high)
            off.append(max(differences))
        cells = [
            *(cell([row[arm] for row in group]) for arm in arms),
            cell(ratios, 2, 1),
            cell(off),
            f"{sum(held)} of {len(held)}",
            cell([row["correlation"] for row in group], 3, 1),
            *(cell([row[key] for row in group]) for key in ("student", "baseline", "one, student")),
        ]
        lines.append(f"| {what}, {group[0]['n']:,} images | {len(group)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=MODES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/votes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = load_results("votes")
    if not args.table:
        mine = [one_seed(args, seed) for seed in args.seeds]
        rows = merge_results("votes", json.loads(json.dumps(mine)), "what", "seed")
    save_results("votes", rows, table_lines(rows))


if __name__ == "__main__":
    main()
