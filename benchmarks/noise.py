"""Finding and repairing wrong labels under many kinds of noise, against cleanlab on identical probabilities.

    python benchmarks/noise.py --data FOLDER [--seeds 0 1 2] [--part 0/2]     run (goes on where it stopped)
    python benchmarks/noise.py --data FOLDER [--seeds 0 1 2] --table          print, keep tables (noise_seed_N of one)

FOLDER holds mnist_png and fashion_mnist_png, each with training/<class>/ and testing/<class>/. Training labels are
flipped by this script: uniform, pair (to the next class), matrix (class-dependent), look-alike (the least certain
images of a small independent model, to its runner-up class). The kit sees a CSV with the noisy labels. cleanlab 2.9
(requirements-bench.txt) gets the out-of-fold probabilities of the kit's first round, as the models give them and as the
kit calibrates them, and those of its last.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import grid_arguments, kit, mean_and_sd, metrics, save_results
from numpy import ndarray
from sklearn.metrics import average_precision_score, f1_score

DATASETS = ("mnist", "fashion_mnist")
SETTINGS = (
    ("uniform", 0.1),
    ("uniform", 0.2),
    ("uniform", 0.4),
    ("pair", 0.2),
    ("pair", 0.4),
    ("matrix", 0.2),
    ("look-alike", 0.1),
    ("look-alike", 0.2),
)
RECIPE = ["--config", "configs/mnist.yaml", "train.epochs=3", "pseudo.rounds=2", "pseudo.tta=1"]
IMAGES = 60_000  # training images of either data set
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
)


def flipped(
    clean: ndarray, kind: str, rate: float, rng: np.random.Generator, probs=None
) -> ndarray:
    """(N,) noisy labels. probs: (N, K) of an independent model, for look-alike noise."""
    n, k = len(clean), int(clean.max()) + 1
    noisy = clean.copy()
    if kind == "look-alike":
        others = probs.copy()
        p_clean = others[np.arange(n), clean]
        others[np.arange(n), clean] = -1
        rows = np.argsort(p_clean - others.max(1), kind="stable")[: round(rate * n)]
        noisy[rows] = others[rows].argmax(1)
    elif kind == "matrix":
        share = rng.uniform(0.5, 1.5, k)
        for c, wrong in enumerate(rng.dirichlet(np.full(k - 1, 0.5), k)):
            rows = np.flatnonzero(clean == c)
            rows = rng.choice(
                rows, round(rate * share[c] / share.mean() * len(rows)), replace=False
            )
            noisy[rows] = np.delete(np.arange(k), c)[rng.choice(k - 1, len(rows), p=wrong)]
    else:
        rows = rng.choice(n, round(rate * n), replace=False)
        noisy[rows] = (clean[rows] + (1 if kind == "pair" else rng.integers(1, k, len(rows)))) % k
    return noisy


def small_model(files: list[Path], clean: ndarray, seed: int) -> ndarray:
    """(N, K) out-of-fold probabilities of a small network on pixels that is not the kit's."""
    import cv2
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier

    pixels = (
        np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).ravel() for file in files]).astype(
            np.float32
        )
        / 255
    )
    model = MLPClassifier((32,), max_iter=3, batch_size=256, random_state=seed)
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)
    return cross_val_predict(model, pixels, clean, cv=folds, method="predict_proba")


def noisy_csv(args, dataset: str, setting: tuple[str, float], seed: int) -> tuple[Path, str]:
    """Write NAME.csv (id, label) and NAME.truth.csv (id, clean, label); returns the CSV and the name."""
    (kind, rate), root = setting, args.data / f"{dataset}_png"
    name = f"{dataset}-{kind}-{round(100 * rate)}-{seed}"
    file = args.out / f"{name}.csv"
    if not file.exists():
        files = sorted((root / "training").rglob("*.png"))
        clean = np.array([int(f.parent.name) for f in files])
        probs = small_model(files, clean, seed) if kind == "look-alike" else None
        noisy = flipped(
            clean, kind, rate, np.random.default_rng([seed, len(kind), round(100 * rate)]), probs
        )
        ids = [f.relative_to(root).as_posix() for f in files]
        args.out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"id": ids, "clean": clean, "label": noisy}).to_csv(
            args.out / f"{name}.truth.csv", index=False
        )
        pd.DataFrame({"id": ids, "label": noisy}).to_csv(file, index=False)
    return file, name


def run_kit(args, dataset: str, setting: tuple[str, float], seed: int) -> None:
    """One run on noisy labels with student and baseline; once a seed, one on clean labels; then the scores."""
    file, name = noisy_csv(args, dataset, setting, seed)
    root = args.data / f"{dataset}_png"
    common = [*RECIPE, f"data.test={root / 'testing'}", f"seed={seed}"]
    run, _ = kit(
        "--mode",
        "denoise",
        *common,
        f"data.train={file}",
        f"data.image_dir={root}",
        f"name={name}",
        out=args.out,
    )
    result, truth = args.out / f"{name}.json", args.out / f"{name}.truth.csv"
    results = json.loads(result.read_text()) if result.exists() else score_run(run, truth)
    if "raw" not in results:
        flips = pd.read_csv(truth, dtype={"id": str}).set_index("id")
        results["raw"] = peers(
            run / "round_1", flips, (flips.clean != flips.label).to_numpy(), raw=True
        )
    result.write_text(json.dumps(results, indent=1))
    print(result.read_text())


def run_clean(args, dataset: str, seed: int) -> None:
    root = args.data / f"{dataset}_png"
    data = [
        f"data.train={root / 'training'}",
        f"data.test={root / 'testing'}",
        f"seed={seed}",
        f"name={dataset}-clean-{seed}",
    ]
    kit("--mode", "denoise", *RECIPE, *data, "pseudo.rounds=0", out=args.out)


def score_run(run: Path, truth: Path) -> dict:
    """Every figure of one run."""
    truth = pd.read_csv(truth, dtype={"id": str}).set_index("id")
    read = {"dtype": {"id": str}, "keep_default_na": False}
    labels = pd.read_csv(run / "labels.csv", **read).set_index("id").loc[truth.index]
    last = max(run.glob("round_*/log_probs.npy"))
    decided = pd.read_csv(last.with_name("decisions.csv"), **read).set_index("id").loc[truth.index]
    label_issues = pd.read_csv(run / "label_issues.csv", **read)
    wrong, clean = (truth.clean != truth.label).to_numpy(), truth.clean.astype(str).to_numpy()
    left = (labels.label.astype(str).to_numpy() != clean) & (labels.source != "dropped").to_numpy()
    flagged, changed = (
        decided.p_wrong.to_numpy(float) > 0.5,
        (decided.decision == "relabel").to_numpy(),
    )
    ranked = wrong[truth.index.get_indexer(label_issues.id)]
    scores, info = metrics(run)["scores"], metrics(run)["rounds"][-1]
    return {
        "wrong": float(wrong.mean()),
        "estimated": info["estimated_rate"],
        "type": info["noise_type"],
        "residual": float(left.mean()),
        "broken": float((left & ~wrong).mean()),
        "dropped": float((labels.source == "dropped").mean()),
        "precision_at_100": float(ranked[:100].mean()),
        "relabeled": int(changed.sum()),
        "relabeled_precision": float(wrong[changed].mean()) if changed.any() else None,
        "ap": float(average_precision_score(ranked, -np.arange(len(ranked)))),
        "f1": float(f1_score(wrong, flagged)),
        "student": scores["student"]["test"]["accuracy"],
        "noisy": scores["baseline"]["test"]["accuracy"] if "baseline" in scores else None,
        "first": peers(run / "round_1", truth, wrong),
        "last": peers(last.parent, truth, wrong),
    }


def predict_first_round(run: Path) -> tuple[pd.DataFrame, pd.Series]:
    """What the first round's models predict for the rows they did not learn: (n, K) probabilities before calibration,
    and p_wrong as today's kit derives it from them. Both by id."""
    from pseudokit import find_label_issues
    from pseudokit.config.load import load_config
    from pseudokit.data.images import load_images
    from pseudokit.training.models import load_model
    from pseudokit.training.predict import log_probs

    decided = pd.read_csv(
        run / "round_1" / "decisions.csv", dtype=str, usecols=["id", "given_label", "model"]
    )
    paths = (
        pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
        .set_index("id")
        .path[decided.id]
    )
    pixels, _ = load_images(paths.to_numpy(object), load_config(run / "config.yaml", []).data)
    models = [load_model(file.parent) for file in sorted(run.glob("round_1/fold_*/model.json"))]
    classes = models[0].spec.classes
    raw = np.empty((len(decided), len(classes)))
    for model in models:
        rows = np.flatnonzero(decided.model == model.hash)
        raw[rows] = np.exp(log_probs(model, pixels, rows, device="cpu"))
    issues = find_label_issues(decided.given_label, raw, classes=classes, folds=decided.model)
    return pd.DataFrame(raw, index=decided.id), issues.p_wrong.set_axis(decided.id)


def peers(folder: Path, truth: pd.DataFrame, wrong: ndarray, raw: bool = False) -> dict:
    """cleanlab and two plain rules on the probabilities of a round, and the kit on the same ones.

    raw: as the models give them; else as the kit calibrates them, which helps cleanlab too.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    if raw:
        probs, p_wrong = (
            table.loc[truth.index].to_numpy() for table in predict_first_round(folder.parent)
        )
    else:
        table = pd.read_csv(folder / "decisions.csv", dtype={"id": str}, usecols=["id", "p_wrong"])
        order = pd.Index(table.id).get_indexer(truth.index)
        probs, p_wrong = (
            np.exp(np.load(folder / "log_probs.npy").astype(np.float64))[order],
            table.p_wrong.to_numpy()[order],
        )
    probs = probs / probs.sum(1, keepdims=True)
    given_labels, clean, best = truth.label.to_numpy(), truth.clean.to_numpy(), probs.argmax(1)
    ap = {
        s: average_precision_score(wrong, -get_label_quality_scores(given_labels, probs, method=s))
        for s in SCORES
    }
    f1 = {
        f: f1_score(wrong, find_label_issues(given_labels, probs, filter_by=f, n_jobs=1))
        for f in FILTERS
    }
    return {
        "kit_ap": average_precision_score(wrong, p_wrong),
        "kit_f1": f1_score(wrong, p_wrong > 0.5),
        "cleanlab_ap": ap,
        "cleanlab_f1": f1,
        "replace_all": float((best != clean).mean()),
        "replace_above_0.9": float(
            (np.where(probs.max(1) >= 0.9, best, given_labels) != clean).mean()
        ),
    }


def table(args) -> None:
    """One row a setting: means over the seeds."""
    rows = []
    for dataset in DATASETS:
        for kind, rate in SETTINGS:
            results = [
                args.out / f"{dataset}-{kind}-{round(100 * rate)}-{seed}.json"
                for seed in args.seeds
            ]
            runs = [json.loads(file.read_text()) for file in results if file.exists()]
            cleans = [
                metrics(args.out / f"{dataset}-clean-{s}")
                for s in args.seeds
                if (args.out / f"{dataset}-clean-{s}").exists()
            ]
            clean = [m["scores"]["student"]["test"]["accuracy"] for m in cleans]
            rows += (
                [{"dataset": dataset, "noise": f"{kind} {rate:.0%}", "clean": clean, "runs": runs}]
                if runs
                else []
            )
    name = "noise" if len(args.seeds) > 1 else f"noise_seed_{args.seeds[0]}"
    save_results(name, rows, [*_ranking_table(rows), "", *_repair_table(rows)])


def _ranking_table(rows: list[dict]) -> list[str]:
    lines = [
        "Average precision of the ranking and F1 of the flags (p_wrong > 0.5): kit / the best of "
        f"{len(SCORES)} cleanlab scores and of {len(FILTERS)} cleanlab filters, on the same probabilities: "
        "those of round 1 as the models give them, as the kit calibrates them, and those of the last round",
        "",
        "| noise | n | AP, round 1: kit / cleanlab | F1, round 1 | AP, calibrated | F1, calibrated "
        "| AP, last round | F1, last round | estimated / true rate, % | named |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        runs, cells = row["runs"], []
        for part in ("raw", "first", "last"):
            for key in ("ap", "f1"):
                kit_is = np.mean([r[part][f"kit_{key}"] for r in runs])
                best = np.mean([max(r[part][f"cleanlab_{key}"].values()) for r in runs])
                cells.append(f"{kit_is:.4f} / {best:.4f}")
        rate = f"{100 * np.mean([r['estimated'] for r in runs]):.2f} / {100 * np.mean([r['wrong'] for r in runs]):.2f}"
        names = ", ".join(sorted({r["type"] for r in runs}))
        lines.append(
            f"| {row['dataset']}, {row['noise']} | {len(runs)} | {' | '.join(cells)} | {rate} | {names} |"
        )
    return [*lines, "", *(_ahead(rows, key) for key in ("ap", "f1"))]


def _ahead(rows: list[dict], key: str) -> str:
    """In how many settings the kit leads on the raw probabilities of round 1."""
    gaps = [
        np.mean(
            [
                r["raw"][f"kit_{key}"] - max(r["raw"][f"cleanlab_{key}"].values())
                for r in row["runs"]
            ]
        )
        for row in rows
    ]
    ahead = f"{sum(gap > 0 for gap in gaps)} of {len(gaps)}"
    return f"{key.upper()}, round 1: the kit leads in {ahead}; worst difference {min(gaps):+.4f}"


def _repair_table(rows: list[dict]) -> list[str]:
    lines = [
        "Repair: wrong labels left, in % of all; plain rules on round 1's probabilities; test accuracy in %.",
        "Turned wrong: another class in labels.csv, if only as the likeliest of a soft label.",
        "",
        "| noise | left by the kit (dropped) | replace all | replace above 0.9 | right turned wrong "
        "| right, but relabeled | precision of relabeled | student | noisy labels | clean labels "
        "| student − noisy, paired |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]

    def share(values) -> str:
        return mean_and_sd(list(values), 2, 100).split(" (")[0]

    for row in rows:
        runs = row["runs"]
        precisions = [
            r["relabeled_precision"] for r in runs if r["relabeled_precision"] is not None
        ]
        cells = [
            f"{share(r['residual'] for r in runs)} ({share(r['dropped'] for r in runs)})",
            share(r["raw"]["replace_all"] for r in runs),
            share(r["raw"]["replace_above_0.9"] for r in runs),
            share(r["broken"] for r in runs),
            share(r["relabeled"] * (1 - (r["relabeled_precision"] or 1)) / IMAGES for r in runs),
            share(precisions) if precisions else "none relabeled",
            share(r["student"] for r in runs),
            share(r["noisy"] for r in runs),
            share(row["clean"]) if row["clean"] else "–",
            share(r["student"] - r["noisy"] for r in runs),
        ]
        lines.append(f"| {row['dataset']}, {row['noise']} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    arguments, mine = grid_arguments(__doc__)
    if arguments.table:
        table(arguments)
    else:
        for dataset, setting, seed in mine(
            (d, s, n) for n in arguments.seeds for d in DATASETS for s in [*SETTINGS, None]
        ):
            run_kit(arguments, dataset, setting, seed) if setting else run_clean(
                arguments, dataset, seed
            )
