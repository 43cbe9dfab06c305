"""1,000 MNIST labels and a pool of the other 59,000: error of student and control on the 10,000 test images, 5 draws.

    python benchmarks/augment.py --mnist FOLDER

The draws are class-balanced (100 a digit). Nothing is chosen on the test images: they are read once, at the end.
"""

import argparse
from pathlib import Path

from common import keep, kit, metrics, spread

DRAWS = range(5)


def main(mnist: Path, out: Path) -> None:
    rows = []
    for draw in DRAWS:
        data = [
            f"data.train={mnist / 'training'}",
            f"data.test={mnist / 'testing'}",
            "hide.keep=1000",
            f"hide.seed={draw}",
        ]
        run, _ = kit("--mode", "augment", "--config", "configs/mnist_1000_labels.yaml", *data, f"seed={draw}",
                           f"name=augment{draw}", out=out)  # fmt: skip
        found = metrics(run)
        errors = {arm: 1 - found["scores"][arm]["test"]["accuracy"] for arm in ("teacher", "control", "student")}
        rows.append(
            {"draw": draw, "seconds": found["seconds"]["total"], "pool": found["pool"], "reason": found["reason"]}
            | errors
        )
    lines = ["1,000 labels + 59,000 pool, MNIST; test error in %", "",
             "| draw | teacher | control | student | coverage | pseudo-labels right | seconds |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        arms = " | ".join(f"{100 * r[arm]:.2f}" for arm in ("teacher", "control", "student"))
        pool = f"{100 * r['pool']['coverage']:.1f} | {100 * r['pool']['accuracy']:.2f}"
        lines.append(f"| {r['draw']} | {arms} | {pool} | {r['seconds']:.0f} |")
    for arm in ("control", "student"):
        worst = max(r[arm] for r in rows)
        lines += ["", f"{arm}: {spread([r[arm] for r in rows], 2, 100)} %, worst draw {100 * worst:.2f} %"]
    below = sum(r["student"] < r["control"] for r in rows)
    lines += ["", f"student below control in {below} of {len(rows)} draws"]
    keep("augment_1000", rows, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    main(arguments.mnist.resolve(), arguments.out.resolve())
