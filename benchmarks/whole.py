"""The whole pipeline at its best on MNIST with three kinds of noise: ranking, repair and student.

    python benchmarks/whole.py --data FOLDER [--seeds 0 1 2] [--part 0/2]     run (goes on where it stopped)
    python benchmarks/whole.py --data FOLDER [--seeds 0 1 2] --table          print and keep the table

FOLDER and the noise are those of benchmarks/noise.py.
"""

import json
import subprocess
import sys

import pandas as pd
from common import ROOT, grid_arguments, keep, kit, metrics, spread
from noise import judge, noisy_csv

SETTINGS = (("uniform", 0.1), ("uniform", 0.2), ("pair", 0.4))
RECIPE = ["--config", "configs/mnist.yaml", "data.size=40", "pseudo.rounds=4", "pseudo.control=false"]


def run(args, setting: tuple[str, float], seed: int) -> None:
    """The recipe of configs/mnist.yaml on enlarged images, up to four rounds; then what is left if doubtful rows go."""
    file, name = noisy_csv(args, "mnist", setting, seed)
    root, result = args.data / "mnist_png", args.out / f"whole-{name}.json"
    data = [f"data.train={file}", f"data.image_dir={root}", f"data.test={root / 'testing'}", f"seed={seed}"]
    folder, seconds = kit("--mode", "denoise", *RECIPE, *data, f"name=whole-{name}", out=args.out)
    if result.exists():
        return
    select = ["--mode", "select", "--run", str(folder), "pseudo.doubtful=drop"]
    subprocess.run([sys.executable, "pseudo.py", *select], cwd=ROOT, check=True)
    truth = args.out / f"{name}.truth.csv"
    clean = pd.read_csv(truth, dtype=str).set_index("id").clean
    strict = pd.read_csv(folder / "selected.csv", dtype=str, keep_default_na=False).set_index("id")
    gone = strict.decision == "drop"
    found = judge(folder, truth) | {"seconds": seconds, "rounds": len(metrics(folder)["rounds"])}
    found |= {"strict": float((~gone & (strict.label != clean[strict.index])).mean()), "gone": float(gone.mean())}
    result.write_text(json.dumps(found, indent=1))


def table(args) -> None:
    rows, lines = [], []
    for kind, rate in SETTINGS:
        names = [f"whole-mnist-{kind}-{round(100 * rate)}-{seed}.json" for seed in args.seeds]
        runs = [json.loads((args.out / name).read_text()) for name in names if (args.out / name).exists()]
        rows.append({"noise": f"{kind} {rate:.0%}", "runs": runs})
        figures = {"average precision": ("ap", 5, 1), "precision at 100": ("precision_at_100", 3, 1),
                   "wrong labels left, %": ("residual", 3, 100),
                   "… with pseudo.doubtful=drop, %": ("strict", 3, 100), "dropped then, %": ("gone", 2, 100),
                   "right turned wrong, %": ("broken", 3, 100),
                   "estimated rate, %": ("estimated", 2, 100), "student on test, %": ("student", 3, 100),
                   "rounds": ("rounds", 1, 1), "minutes": ("seconds", 1, 1 / 60)}  # fmt: skip
        for title, (key, digits, scale) in figures.items():
            each = ", ".join(f"{scale * r[key]:.{digits}f}" for r in runs)
            lines.append(f"| {kind} {rate:.0%} | {title} | {spread([r[key] for r in runs], digits, scale)} | {each} |")
    head = ["60,000 MNIST training images at 40 px, the whole pipeline: 2 folds, 4 rounds of 6 epochs, 4 views;",
            "the last weights of the student on the 10,000 test images; one thread a run, two runs at a time", "",
            "| noise | figure | mean ± sd | each seed |", "|---|---|---|---|"]  # fmt: skip
    keep("noise_whole", rows, [*head, *lines])


if __name__ == "__main__":
    arguments, mine = grid_arguments(__doc__)
    if arguments.table:
        table(arguments)
    else:
        for setting, seed in mine((s, n) for n in arguments.seeds for s in SETTINGS):
            run(arguments, setting, seed)
