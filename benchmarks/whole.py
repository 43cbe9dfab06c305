"""The whole pipeline at its best on MNIST with three kinds of noise: ranking, repair and student.

    python benchmarks/whole.py --data FOLDER [--seeds 0 1 2] [--part 0/2]     run (goes on where it stopped)
    python benchmarks/whole.py --data FOLDER [--seeds 0 1 2] --table          print and keep the table

FOLDER and the noise are those of benchmarks/noise.py.
"""

import json
import subprocess
import sys

import pandas as pd
from common import ROOT, grid_arguments, kit, mean_and_sd, metrics, save_results
from noise import noisy_csv, score_run
from sklearn.metrics import average_precision_score

ROUNDS = {("uniform", 0.1): 4, ("uniform", 0.2): 2, ("pair", 0.4): 2}
"""What is measured: the ranking after four rounds, the student after two."""
RECIPE = ["--config", "configs/mnist.yaml", "train.batch_size=128", "pseudo.train_baseline=false"]
MNIST_ERRORS = {"4/59915": "7", "5/43454": "3", "3/7080": "5", "6/36446": "0", "3/10994": "9"}
"""Training images whose own label is plainly wrong (by eye, from the head of label_issues.csv), and what they show."""


def run(args, setting: tuple[str, float], seed: int) -> None:
    """The recipe of configs/mnist.yaml with smaller batches; then what is left if uncertain rows are dropped."""
    file, name = noisy_csv(args, "mnist", setting, seed)
    root, result = args.data / "mnist_png", args.out / f"whole-{name}.json"
    data = [
        f"data.train={file}",
        f"data.image_dir={root}",
        f"data.test={root / 'testing'}",
        f"seed={seed}",
    ]
    recipe = [*RECIPE, f"pseudo.rounds={ROUNDS[setting]}"]
    folder, seconds = kit("--mode", "denoise", *recipe, *data, f"name=whole-{name}", out=args.out)
    if result.exists():
        return
    select = ["--mode", "select", "--run", str(folder), "pseudo.uncertain_labels=drop"]
    subprocess.run([sys.executable, "pseudo.py", *select], cwd=ROOT, check=True)
    truth = args.out / f"{name}.truth.csv"
    clean = pd.read_csv(truth, dtype=str).set_index("id").clean
    strict = pd.read_csv(folder / "selected.csv", dtype=str, keep_default_na=False).set_index("id")
    gone = strict.decision == "drop"
    figures = score_run(folder, truth) | {
        "seconds": seconds,
        "rounds": len(metrics(folder)["rounds"]),
    }
    figures |= {
        "strict": float((~gone & (strict.label != clean[strict.index])).mean()),
        "gone": float(gone.mean()),
    }
    result.write_text(json.dumps(figures, indent=1))


def mended_precision(args, name: str) -> float:
    """Average precision where MNIST_ERRORS count as the wrong labels that they are."""
    label_issues = pd.read_csv(
        args.out / f"whole-{name}" / "label_issues.csv", dtype={"id": str, "given_label": str}
    )
    clean = pd.read_csv(args.out / f"{name}.truth.csv", dtype=str).set_index("id").clean
    clean.update(
        pd.Series({f"training/{image}.png": digit for image, digit in MNIST_ERRORS.items()})
    )
    return average_precision_score(
        label_issues.given_label != clean[label_issues.id].to_numpy(), label_issues.p_wrong
    )


def table(args) -> None:
    rows, lines = [], []
    for kind, rate in ROUNDS:
        names = [f"mnist-{kind}-{round(100 * rate)}-{seed}" for seed in args.seeds]
        done = {name: file for name in names if (file := args.out / f"whole-{name}.json").exists()}
        runs = [
            json.loads(file.read_text()) | {"mended": mended_precision(args, name)}
            for name, file in done.items()
        ]
        rows.append({"noise": f"{kind} {rate:.0%}", "runs": runs})
        figures = {
            "average precision": ("ap", 5, 1),
            f"… if {len(MNIST_ERRORS)} errors of MNIST count": ("mended", 5, 1),
            "precision at 100": ("precision_at_100", 3, 1),
            "wrong labels left, %": ("residual", 3, 100),
            "… with pseudo.uncertain_labels=drop, %": ("strict", 3, 100),
            "dropped then, %": ("gone", 2, 100),
            "right turned wrong, %": ("broken", 3, 100),
            "estimated rate, %": ("estimated", 2, 100),
            "student on test, %": ("student", 3, 100),
            "rounds": ("rounds", 1, 1),
            "minutes": ("seconds", 1, 1 / 60),
        }
        for title, (key, digits, scale) in figures.items():
            each = ", ".join(f"{scale * r[key]:.{digits}f}" for r in runs)
            lines.append(
                f"| {kind} {rate:.0%} | {title} | {mean_and_sd([r[key] for r in runs], digits, scale)} | {each} |"
            )
    head = [
        "60,000 MNIST training images, the whole pipeline: 2 folds, 6 epochs in batches of 128, 4 views;",
        "the last weights of the student on the 10,000 test images; one thread a run, two runs at a time",
        "",
        "| noise | figure | mean ± sd | each seed |",
        "|---|---|---|---|",
    ]
    save_results("noise_whole", rows, [*head, *lines])


if __name__ == "__main__":
    arguments, mine = grid_arguments(__doc__)
    if arguments.table:
        table(arguments)
    else:
        for setting, seed in mine((s, n) for n in arguments.seeds for s in ROUNDS):
            run(arguments, setting, seed)
