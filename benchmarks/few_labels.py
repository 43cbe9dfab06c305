"""Few labels, many unlabeled images: test error of the student, its baseline and peers, ten draws of each size.

    python benchmarks/few_labels.py --data FOLDER [--sets mnist:100 fashion:1000 …] [--part 0/2]
    python benchmarks/few_labels.py --data FOLDER --table

FOLDER holds mnist_png and fashion_mnist_png. A draw is class-balanced: simulate.keep_labels labels with
seed = draw; the other training images are unlabeled.
Every process runs on one core, so that two parts share two. Nothing is chosen on
the test images: recipes come from draws 100 and up, scored on hidden labels of the unlabeled images.
A table reads what is there, and keeps what earlier parts have measured: every figure goes into few_labels.json, a set
into few_labels.md and the picture once all draws of --seeds are done.

Peers, on the same draw, backbone and augmentation:
    supervised   the baseline: labels alone, the student's number of steps and views
    one-shot     that model's answers above 0.95 become labels, a fresh model learns all of them, once
    sklearn      SelfTrainingClassifier(LogisticRegression) at 0.75 over that model's frozen features
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import time
from pathlib import Path

import numpy as np
import torch
from common import ROOT, grid_arguments, kit, mean_and_sd, merge_results, metrics, save_results
from numpy import ndarray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from pseudokit.config.load import load_config
from pseudokit.data.csv_text import read_csv
from pseudokit.data.images import load_images
from pseudokit.system.files import read_json, write_json
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import Computation
from pseudokit.training.loop import step_budget, train_model
from pseudokit.training.models import TrainedModel, create_model, load_model
from pseudokit.training.predict import log_probs

FOLDERS = {"mnist": "mnist_png", "fashion": "fashion_mnist_png"}
SETS = (
    "mnist:50",
    "mnist:100",
    "mnist:600",
    "mnist:1000",
    "mnist:3000",
    "fashion:100",
    "fashion:1000",
)
DRAWS = range(10)
ARMS = {
    "supervised": "labels alone",
    "sklearn": "scikit-learn self-training",
    "one-shot": "one-shot at 0.95",
    "student": "student",
}


def folder(which: str, draw: int, out: Path) -> Path:
    return out / f"{which.replace(':', '-')}-{draw}"


def run(which: str, draw: int, data: Path, out: Path) -> None:
    """The kit's run of one draw."""
    name, labels = which.split(":")
    images = data / FOLDERS[name]
    config = f"configs/{name}_{'1000' if int(labels) >= 600 else 'few'}_labels.yaml"
    kit(
        "--mode",
        "augment",
        "--config",
        config,
        f"data.train={images / 'training'}",
        f"data.test={images / 'testing'}",
        f"simulate.keep_labels={labels}",
        f"seed={draw}",
        f"name={folder(which, draw, out).name}",
        out=out,
    )


def peers(where: Path) -> dict[str, dict[str, float]]:
    """Test error and seconds of the two peers that start from the baseline of a run."""
    table = read_csv(where / "samples.csv")
    config, baseline = load_config(where / "config.yaml", []), load_model(where / "baseline")
    pixels, _ = load_images(table.path.to_numpy(), config.data)
    code = {name: k for k, name in enumerate(baseline.spec.classes)}
    given_labels = np.array([code.get(name, -1) for name in table.given_label])
    rows = {split: np.flatnonzero(table.split == split) for split in ("train", "unlabeled", "test")}
    first = _fit_seconds(where / "baseline")
    results = {}
    for name, predict in {"one-shot": one_shot, "sklearn": frozen}.items():
        start = time.monotonic()
        predicted = predict(config, baseline, pixels, rows, given_labels)
        seconds = round(first + time.monotonic() - start, 1)
        results[name] = {
            "error": float((predicted != given_labels[rows["test"]]).mean()),
            "seconds": seconds,
        }
    return results


def one_shot(
    config,
    baseline: TrainedModel,
    pixels: ndarray,
    rows: dict[str, ndarray],
    given_labels: ndarray,
) -> ndarray:
    """Classes of the test rows by a model of the labels and of the baseline's confident predictions."""
    unlabeled_log_probs = log_probs(baseline, pixels, rows["unlabeled"])
    is_confident = np.exp(unlabeled_log_probs.max(1)) >= 0.95
    learned = np.concatenate([rows["train"], rows["unlabeled"][is_confident]])
    labels = np.concatenate(
        [given_labels[rows["train"]], unlabeled_log_probs.argmax(1)[is_confident]]
    )
    train = config.train_of("student")
    torch.manual_seed(config.seed)
    network, form = create_model(
        config.model_of("student"), tuple(baseline.spec.classes), *pixels.shape[2:]
    )
    training_set = TrainingSet(
        pixels, learned, labels, step_budget(len(learned), train), config.seed
    )
    network, _ = train_model(network, form, training_set, train)
    views = {"tta": config.predict.tta, "spec": config.view}
    return log_probs(TrainedModel(network, form, ""), pixels, rows["test"], **views).argmax(1)


def frozen(
    config,
    baseline: TrainedModel,
    pixels: ndarray,
    rows: dict[str, ndarray],
    given_labels: ndarray,
) -> ndarray:
    """Classes of the test rows by scikit-learn's self-training over the baseline's features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.semi_supervised import SelfTrainingClassifier

    baseline.network.reset_classifier(0)
    learned = np.concatenate([rows["train"], rows["unlabeled"]])
    with torch.inference_mode():
        features = [baseline.network(batch) for batch in _inputs(baseline, pixels)]
    features = torch.cat(features).numpy()
    labels = np.where(np.arange(len(learned)) < len(rows["train"]), given_labels[learned], -1)
    model = SelfTrainingClassifier(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    )
    return model.fit(features[learned], labels).predict(features[rows["test"]])


def _inputs(model: TrainedModel, pixels: ndarray):
    computation = Computation(model.network, model.spec, "cpu", "fp32")
    for start in range(0, len(pixels), 1024):
        yield computation.run(torch.nn.Identity(), torch.from_numpy(pixels[start : start + 1024]))


def _fit_seconds(model: Path) -> float:
    """Seconds that its training took."""
    return float(read_csv(model / "history.csv").seconds.iloc[-1])


def row(which: str, draw: int, where: Path) -> dict:
    """Errors of all arms of one draw, and seconds of training and predicting; the student's include its rounds."""
    results, others = metrics(where), where / "peers.json"
    others = read_json(others) if others.exists() else {}
    scores, rounds = results["scores"], sum(record["seconds"] for record in results["rounds"])
    return {
        "set": which,
        "draw": draw,
        "reason": results["reason"],
        "unlabeled": results["unlabeled"],
        "supervised": {
            "error": 1 - scores["baseline"]["test"]["accuracy"],
            "seconds": _fit_seconds(where / "baseline"),
        },
        "student": {
            "error": 1 - scores["student"]["test"]["accuracy"],
            "seconds": rounds + _fit_seconds(where / "student"),
        },
        "teacher": {"error": 1 - scores["teacher"]["test"]["accuracy"]},
        **others,
    }


def table(out: Path, draws: list[int]) -> None:
    runs = [(which, draw, folder(which, draw, out)) for which in SETS for draw in DRAWS]
    rows = merge_results(
        "few_labels",
        [row(*job) for job in runs if (job[2] / "metrics.json").exists()],
        "set",
        "draw",
    )
    lines = [
        "Few labels + the other training images, unlabeled; 10,000 test images, error in %, mean ± sd",
        "",
        f"| labels | {' | '.join(ARMS.values())} | worst draw | student best | student − labels alone | "
        "pseudo-labeled / right |",
        "|---|" + "---|" * (len(ARMS) + 4),
    ]
    chosen = [r for r in rows if r["draw"] in draws]
    sets = {
        which: mine
        for which in SETS
        if len(mine := [r for r in chosen if r["set"] == which]) == len(draws)
    }
    for which, mine in sets.items():
        cells = [_cell([r[arm] for r in mine if arm in r]) for arm in ARMS]
        worst = 100 * max(r["student"]["error"] for r in mine)
        paired = mean_and_sd(
            [r["student"]["error"] - r["supervised"]["error"] for r in mine], 2, 100
        )
        unlabeled = " / ".join(
            f"{100 * np.mean([r['unlabeled'][key] for r in mine]):.1f}"
            for key in ("coverage", "accuracy")
        )
        best = sum(
            r["student"]["error"] == min(r[arm]["error"] for arm in ARMS if arm in r) for r in mine
        )
        lines.append(
            f"| {which} | {' | '.join(cells)} | {worst:.2f} | {best} of {len(mine)} | {paired} | {unlabeled} |"
        )
    save_results("few_labels", rows, lines)
    if sets:
        picture(sets)


def _cell(results: list[dict]) -> str:
    """Error and seconds of an arm."""
    if not results:
        return "not run"
    return f"{mean_and_sd([f['error'] for f in results], 2, 100)}; {mean_and_sd([f['seconds'] for f in results], 0)} s"


def picture(sets: dict[str, list[dict]]) -> None:
    """Error against seconds, one panel a set, a point a draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = min(len(sets), 4)
    size = (columns, math.ceil(len(sets) / columns))
    figure, axes = plt.subplots(
        *size[::-1], figsize=np.multiply(size, 3.2), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(sets) :]:
        axis.remove()
    for axis, (which, mine) in zip(axes.flat, sets.items(), strict=False):
        for arm, title in ARMS.items():
            results = [r[arm] for r in mine if arm in r]
            axis.scatter(
                [f["seconds"] for f in results],
                [100 * f["error"] for f in results],
                s=14,
                label=title,
            )
        axis.set(
            title=which.replace(":", ", ") + " labels",
            xlabel="seconds, one core",
            xscale="log",
            yscale="log",
        )
        for side, ticks in ((axis.xaxis, (1, 2, 3, 5)), (axis.yaxis, (1, 1.5, 2, 3, 5, 7))):
            side.set_major_locator(LogLocator(subs=ticks))
            side.set_major_formatter("{x:g}")
            side.set_minor_formatter(NullFormatter())
    for axis in axes[:, 0]:
        axis.set_ylabel("test error, %")
    figure.legend(
        *axes[0][0].get_legend_handles_labels(),
        loc="outside lower center",
        fontsize="x-small",
        ncols=2,
    )
    figure.savefig(ROOT / "docs/img/few_labels.png", dpi=110)


def main() -> None:
    arguments, mine = grid_arguments(__doc__, out="few_labels", seeds=len(DRAWS), sets=SETS)
    if not arguments.table:
        jobs = mine((which, draw) for which in arguments.sets for draw in arguments.seeds)
        for which, draw in jobs:
            run(which, draw, arguments.data, arguments.out)
        for where in (folder(which, draw, arguments.out) for which, draw in jobs):
            if not (where / "peers.json").exists():
                write_json(where / "peers.json", peers(where))
    table(arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
