"""The article's job: 70,000 MNIST images, 10 % drawn for a random label, 2 folds. And: is the student as good as clean?

    python benchmarks/denoise.py quality  --mnist FOLDER    three rounds, three draws of noise: ranking and repair
    python benchmarks/denoise.py speed    --mnist FOLDER    one round, decode to report, three times (docs/img/grid.png
                                                            is plots/grid.png of the first)
    python benchmarks/denoise.py students --mnist FOLDER    60,000 / 10,000: repaired, clean, noisy labels; three seeds
    python benchmarks/denoise.py originals --mnist FOLDER   MNIST's own labels: the first 50 label issues as a picture

FOLDER is mnist_png with training/<digit>/ and testing/<digit>/. The noise is the article's: 10 % of the rows are drawn
and given `rng.integers(0, 10)`, so about 9 % really change. Truth stays here; the kit sees a CSV with the noisy labels.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, kit, mean_and_sd, metrics, save_results
from sklearn.metrics import average_precision_score

SEEDS = (0, 1, 2)
MNIST = ["--config", "configs/mnist.yaml"]


def noisy_table(files: list[Path], root: Path, seed: int) -> pd.DataFrame:
    """id (path below root), clean and label columns; the article's noise on `label`."""
    table = pd.DataFrame(
        {
            "id": [f.relative_to(root).as_posix() for f in files],
            "clean": [f.parent.name for f in files],
        }
    )
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(table), round(0.1 * len(table)), replace=False)
    table["label"] = table.clean
    table.loc[drawn, "label"] = rng.integers(0, 10, len(drawn)).astype(str)
    return table


def images(mnist: Path, *parts: str) -> list[Path]:
    return sorted(file for part in parts for file in (mnist / part).rglob("*.png"))


def prepare(args, name: str, seed: int, *parts: str) -> tuple[pd.DataFrame, list[str]]:
    """Write the noisy CSV; returns the table with the truth and the arguments that read the CSV."""
    table = noisy_table(images(args.mnist, *parts), args.mnist, seed)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{name}.csv"
    table[["id", "label"]].to_csv(file, index=False)
    return table, [
        f"data.train={file}",
        f"data.image_dir={args.mnist}",
        f"seed={seed}",
        f"name={name}",
    ]


def score_run(table: pd.DataFrame, run: Path) -> dict:
    """Score label_issues.csv and labels.csv against the truth."""
    read_options = {
        "dtype": {"id": str, "label": str, "given_label": str},
        "keep_default_na": False,
    }
    label_issues = pd.read_csv(run / "label_issues.csv", **read_options)
    labels = pd.read_csv(run / "labels.csv", **read_options).set_index("id").loc[table.id]
    flipped = (table.clean != table.label).set_axis(table.id)
    ranked = flipped[label_issues.id].to_numpy()
    clean = table.clean.to_numpy()
    wrong = (labels.label.to_numpy() != clean) & (labels.source.to_numpy() != "dropped")
    return {
        "wrong_before": float(flipped.mean()),
        "average_precision": float(average_precision_score(ranked, -np.arange(len(ranked)))),
        "precision_at_5000": float(ranked[:5000].mean()),
        "wrong_after": float(wrong.mean()),
        "dropped": float((labels.source == "dropped").mean()),
        "broken": float((wrong & ~flipped.to_numpy()).mean()),
        "estimated": metrics(run)["noise"]["estimated_rate"],
    }


def quality(args) -> None:
    rows = []
    for seed in SEEDS:
        table, data = prepare(args, f"quality{seed}", seed, "training", "testing")
        run, _ = kit(
            "--mode", "denoise", *MNIST, *data, "pseudo.train_baseline=false", out=args.out
        )
        rows.append({"seed": seed} | score_run(table, run))
    names = {
        "average_precision": (5, 1),
        "precision_at_5000": (4, 1),
        "wrong_before": (3, 100),
        "estimated": (3, 100),
        "wrong_after": (3, 100),
        "dropped": (3, 100),
        "broken": (3, 100),
    }
    lines = [
        "70,000 MNIST images, article's noise, 2 folds, 3 rounds; shares in % of all labels",
        "",
        "| figure | mean ± sd | each |",
        "|---|---|---|",
    ]
    for name, (digits, scale) in names.items():
        values = [row[name] for row in rows]
        each = ", ".join(f"{v * scale:.{digits}f}" for v in values)
        lines.append(
            f"| {name.replace('_', ' ')} | {mean_and_sd(values, digits, scale)} | {each} |"
        )
    save_results("denoise_quality", rows, lines)


def speed(args) -> None:
    rows = []
    options = [
        "pseudo.rounds=1",
        "pseudo.tta=1",
        "pseudo.train_baseline=false",
        "train.epochs=1.75",
        "train.min_steps=0",
    ]
    for seed in SEEDS:
        table, data = prepare(args, f"speed{seed}", seed, "training", "testing")
        run, seconds = kit("--mode", "denoise", "--fresh", *MNIST, *data, *options, out=args.out)
        rows.append(
            {"seed": seed, "seconds": seconds, "stages": metrics(run)["seconds"]}
            | score_run(table, run)
        )
    lines = [
        "70,000 MNIST images from PNG files to report, one round of 2 folds and the student, 1.75 epochs each",
        "",
    ]
    lines += [
        "| seed | seconds | average precision | precision at 5,000 | wrong after, % |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['seed']} | {r['seconds']:.0f} | {r['average_precision']:.5f} | {r['precision_at_5000']:.4f} "
        f"| {100 * r['wrong_after']:.2f} |"
        for r in rows
    ]
    lines += ["", f"whole process: {mean_and_sd([r['seconds'] for r in rows], 1)} s"]
    save_results("denoise_speed", rows, lines)


def students(args) -> None:
    rows = []
    test = f"data.test={args.mnist / 'testing'}"
    for seed in SEEDS:
        table, data = prepare(args, f"student{seed}", seed, "training")
        run, _ = kit("--mode", "denoise", *MNIST, *data, test, out=args.out)
        clean = [
            f"data.train={args.mnist / 'training'}",
            test,
            f"seed={seed}",
            f"name=clean{seed}",
            "pseudo.rounds=0",
        ]
        on_clean, _ = kit("--mode", "denoise", *MNIST, *clean, out=args.out)
        scores = {
            arm: metrics(run)["scores"][arm]["test"]["accuracy"] for arm in ("student", "baseline")
        }
        scores["clean"] = metrics(on_clean)["scores"]["student"]["test"]["accuracy"]
        rows.append({"seed": seed} | scores | score_run(table, run))
    lines = [
        "60,000 training images with the article's noise, 10,000 untouched test images; accuracy in %",
        "",
        "| labels learned | mean ± sd | each seed |",
        "|---|---|---|",
    ]
    for name, arm in (
        ("repaired (student)", "student"),
        ("noisy (baseline)", "baseline"),
        ("clean", "clean"),
    ):
        values = [row[arm] for row in rows]
        lines.append(
            f"| {name} | {mean_and_sd(values, 3, 100)} | {', '.join(f'{100 * v:.2f}' for v in values)} |"
        )
    gaps = [row["student"] - row["clean"] for row in rows]
    lines.append(
        f"| repaired − clean, points | {mean_and_sd(gaps, 3, 100)} | {', '.join(f'{100 * v:+.2f}' for v in gaps)} |"
    )
    save_results("denoise_students", rows, lines)


def originals(args) -> None:
    """No noise is added: the label issues are errors and unclear images of MNIST itself. Two rounds of two folds."""
    from pseudokit.report import figures, load_run

    files = images(args.mnist, "training", "testing")
    args.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        {
            "id": [f.relative_to(args.mnist).as_posix() for f in files],
            "label": [f.parent.name for f in files],
        }
    )
    table.to_csv(args.out / "originals.csv", index=False)
    data = [
        f"data.train={args.out / 'originals.csv'}",
        f"data.image_dir={args.mnist}",
        "name=originals",
    ]
    run, _ = kit(
        "--mode",
        "denoise",
        *MNIST,
        *data,
        "pseudo.rounds=2",
        "pseudo.train_baseline=false",
        out=args.out,
    )
    label_issues = pd.read_csv(run / "label_issues.csv", dtype=str, keep_default_na=False).head(50)
    titles = [
        f"{given} | {predicted}"
        for given, predicted in zip(label_issues.given_label, label_issues.predicted, strict=True)
    ]
    tiles = [load_run.read_image(path, 64) for path in label_issues.path]
    figure = figures.image_grid(
        tiles, titles, [None] * len(tiles), "The labels of MNIST itself: label | predicted"
    )
    (ROOT / "docs" / "img" / "mnist_label_issues.png").write_bytes(figures.png(figure))
    noise = metrics(run)["noise"]
    rows = label_issues[["rank", "id", "given_label", "predicted", "p_wrong", "decision"]].to_dict(
        "records"
    )
    lines = [
        f"70,000 MNIST images as labeled: estimated rate of wrong labels {noise['estimated_rate']:.2%}, "
        f"noise type {noise['type']}, {noise['relabeled']} relabeled, {noise['dropped']} dropped",
        "",
        "| rank | id | label | predicted | p_wrong |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['rank']} | {r['id']} | {r['given_label']} | {r['predicted']} | {float(r['p_wrong']):.4f} |"
        for r in rows
    ]
    save_results("denoise_originals", rows, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["quality", "speed", "students", "originals"])
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    arguments.mnist, arguments.out = arguments.mnist.resolve(), arguments.out.resolve()
    {"quality": quality, "speed": speed, "students": students, "originals": originals}[
        arguments.what
    ](arguments)
