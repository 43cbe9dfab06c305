"""What a million images cost, stage by stage, on one core: seconds, memory, bytes on disk, and how they grow.

    python benchmarks/scale.py rows [--n 10000 1000000 …] [--more]      a run without images on a .npy, pages included
    python benchmarks/scale.py images --data FOLDER [--sides 28 64 128]   read, compare, train, predict images
    python benchmarks/scale.py table

`rows` takes a minute and a half for a million rows, `images` three minutes. A size or a side that is run again replaces
the one in results/scale.json. FOLDER holds mnist_png and flower_photos. The rows are synthetic: ten classes, 9 % of the
labels wrong.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, load_results, machine, save_results
from numpy import ndarray
from outside_predictions import noisy_rows
from scipy.optimize import curve_fit

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
STAGES = {
    "read": "read: table, folds, predictions",
    "rounds": "decide: noise, calibration, decisions",
    "score": "tables and scores",
    "review": "review.html, Label Studio",
    "report": "report.html, pictures",
    "total": "all",
}
NETWORKS = ("test_resnet", "resnet18", "tf_efficientnet_lite0")
SIDES = (28, 64, 128)
UNITS = 1280
"""Of an embedding, as tf_efficientnet_lite0 has them."""
JOBS = {
    28: ("test_resnet", 1, 96),
    64: ("resnet18", 3, 512),
    128: ("tf_efficientnet_lite0", 3, UNITS),
}
"""Side → network, channels and units of an embedding: the jobs that are computed for any number of images."""
TRAINED, PREDICTED = 24, 2
"""How often each image is trained on and predicted: two rounds of two folds, a student and a baseline, of 6 epochs each
(every fold's model learns half of the images)."""
STEPS = 6
"""Of a training, of which the median counts."""
SECONDS_PER_MEASURE = 1.0
"""At least: a measure is repeated until they are over, and the median counts."""


def rows(n: int, k: int = 10) -> list[dict]:
    """A run on predictions of n rows: seconds and MiB of each stage, MiB of the run folder."""
    probs, labels = noisy_rows(n, k)
    ids = np.arange(n).astype(str)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/oof.npy", probs)
        Path(folder, "ids.txt").write_text("\n".join(ids))
        pd.DataFrame({"id": ids, "label": labels}).to_csv(f"{folder}/train.csv", index=False)
        files = [
            f"data.train={folder}/train.csv",
            f"predictions.labeled={folder}/oof.npy",
            f"predictions.ids={folder}/ids.txt",
            f"out={folder}",
            "name=run",
        ]
        command = [sys.executable, "pseudo.py", "--mode", "denoise", *files]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder, "run")
        status = pd.read_json(run / "status.json", typ="series")
        on_disk = sum(file.stat().st_size for file in run.rglob("*") if file.is_file()) / 2**20
    return [
        {
            "part": "rows",
            "stage": stage,
            "n": n,
            "seconds": status.seconds[stage],
            "mib": status.peak_mib[stage]["memory"],
            "disk_mib": on_disk if stage == "total" else None,
            "machine": machine(),
        }
        for stage in STAGES
    ]


def exponent(sizes: ndarray, seconds: ndarray) -> tuple[float, float]:
    """b of seconds ∝ sizes^b by least squares of the logarithms, and its standard error."""
    x, y = np.log(sizes), np.log(seconds)
    x = x - x.mean()
    slope = (x * y).sum() / (x * x).sum()
    residuals = y - y.mean() - slope * x
    return slope, np.sqrt((residuals**2).sum() / (len(x) - 2) / (x * x).sum())


def exponent_of_growth(sizes: ndarray, seconds: ndarray) -> tuple[float, float]:
    """c of seconds = a + b · sizes^c, fitted to the logarithms, and its standard error."""

    def log_seconds(millions: ndarray, fixed: float, slope: float, power: float) -> ndarray:
        return np.log(fixed + slope * millions**power)

    start = [seconds.min(), seconds.max(), 1.0]
    bounds = ([0, 0, 0.1], [np.inf, np.inf, 3])
    fitted, covariance = curve_fit(log_seconds, sizes / 1e6, np.log(seconds), start, bounds=bounds)
    return fitted[2], np.sqrt(covariance[2, 2])


def seconds_an_image(job: Callable[[], object], n: int) -> float:
    """Median over calls that each work on n images; the first one warms up."""
    job()
    times = []
    begun = time.monotonic()
    while not times or time.monotonic() - begun < SECONDS_PER_MEASURE:
        start = time.monotonic()
        job()
        times.append(time.monotonic() - start)
    return float(np.median(times)) / n


def images(data: Path, sides: list[int]) -> list[dict]:
    """Seconds an image of what is done with its pixels, by side and network; and of fitting a head."""
    import cv2

    from pseudokit.config.keys import Data
    from pseudokit.data.duplicates import find_links
    from pseudokit.data.images import load_images
    from pseudokit.data.odd_images import find_odd_images
    from pseudokit.system.files import hash_of, log

    log.disabled = True
    cv2.setNumThreads(1)
    digits = sorted(map(str, (data / "mnist_png" / "testing").rglob("*.png")))[:2000]
    photos = sorted(map(str, (data / "flower_photos").rglob("*.jpg")))[:200]
    results, here = [], machine()

    def measure(stage: str, what: str, side: int, n: int, job: Callable | float) -> None:
        seconds = seconds_an_image(job, n) if callable(job) else job / n
        row = {"part": "images", "stage": stage, "what": what, "side": side, "seconds": seconds}
        results.append(row | {"machine": here})
        print(f"{stage}, {what}, {side} px: {1e6 * seconds:,.0f} s a million", flush=True)

    for side in sides:
        files, kind = (digits, "PNG of 28 px") if side == 28 else (photos, "JPEG photos")
        files = np.array(files, object)
        settings = Data(size=side)
        pixels, _ = load_images(files, settings)
        cores, os.cpu_count = os.cpu_count, lambda: 1  # decoding takes all cores
        measure("read", kind, side, len(files), lambda: load_images(files, settings))  # noqa: B023
        os.cpu_count = cores
        measure("hash", "pixels", side, len(files), lambda: hash_of(pixels))  # noqa: B023
        measure("duplicates", "pixels", side, len(files), lambda: find_links(pixels, len(pixels)))  # noqa: B023
        measure("odd images", "pixels", side, len(files), lambda: find_odd_images(files, pixels))  # noqa: B023
        for name in NETWORKS:
            measure_network(name, pixels, measure)
    if SIDES[-1] in sides:
        measure_head(measure)
    return results


def measure_head(measure: Callable) -> None:
    """A linear head of ten classes on embeddings, where the backbone is frozen."""
    from pseudokit.training.linear_probe import fit_head

    n, rng = 4000, np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    centers = rng.standard_normal((10, UNITS))
    embeddings = np.float32(rng.standard_normal((n, UNITS)) + 0.1 * centers[labels])

    def fit() -> None:
        fit_head(embeddings, labels, 10, False, labels, prior=30.0)

    measure("fit a head", f"{UNITS:,} units", SIDES[-1], n, fit)


def measure_network(name: str, pixels: ndarray, measure: Callable) -> None:
    """An epoch, a prediction and an embedding of a network of this name at the size of the pixels."""
    from pseudokit.config.keys import Model, Train
    from pseudokit.training.batches import TrainingSet
    from pseudokit.training.loop import train_model
    from pseudokit.training.models import TrainedModel, create_model
    from pseudokit.training.predict import embed, log_probs

    side, channels = pixels.shape[2:]
    n = {28: 512, 64: 64, 128: 32}[side]
    some = np.resize(pixels, (n, side, side, channels))
    labels = np.arange(n) % 10
    train = Train(batch_size=n)
    classes = tuple("abcdefghij")
    network, spec = create_model(Model(name=name), classes, side, channels)
    training_set = TrainingSet(some, np.arange(n), labels, STEPS, 0)
    _, history = train_model(network, spec, training_set, train)
    measure("train", name, side, n, history.seconds.diff().median())
    model = TrainedModel(network, spec)
    every = np.arange(n)
    measure("predict", name, side, n, lambda: log_probs(model, some, every))
    measure("embed", name, side, n, lambda: embed(network, spec, some, every, train))


def table(results: list[dict]) -> list[str]:
    """Both tables of results/scale.md."""
    frame = pd.DataFrame(results)
    of_rows = frame[frame.part == "rows"]
    sizes = sorted(of_rows.n.unique())
    lines = [
        "Rows without images, ten classes: seconds of one core, the fastest run of each size. Slope: b of seconds ∝ "
        "rows^b, a line through the logarithms of all sizes. Imports and pictures take the same seconds for any number "
        "of rows, so the exponent is c of seconds = a + b · rows^c. Both with the standard error of the fit.",
        "",
        f"| stage | {' | '.join(f'{n:,.0f}' for n in sizes)} | slope | exponent | MiB at the last |",
        "|---" * (4 + len(sizes)) + "|",
    ]
    for stage, name in STAGES.items():
        part = of_rows[of_rows.stage == stage].sort_values("n")
        fastest = part.groupby("n").seconds.min()  # the others did something else, too
        n, seconds = fastest.index.to_numpy(float), fastest.to_numpy()
        fits = [exponent(n, seconds), exponent_of_growth(n, seconds)]
        cells = [f"{value:.2f}" for value in seconds]
        cells += [f"{power:.2f} ± {error:.2f}" for power, error in fits]
        lines.append(f"| {name} | {' | '.join(cells)} | {part.mib.iloc[-1]:,.0f} |")
    total = of_rows[of_rows.stage == "total"].groupby("n").mean(numeric_only=True)
    memory = ", ".join(f"{mib:,.0f}" for mib in total.mib)
    runs = ", ".join(map(str, of_rows[of_rows.stage == "total"].groupby("n").size()))
    disk = total.disk_mib.iloc[-1]
    lines += [
        "",
        f"Runs of each size: {runs}. Peak memory by size: {memory} MiB. "
        f"The run folder of {sizes[-1]:,.0f} rows takes {disk:,.0f} MiB.",
    ]
    of_images = frame[frame.part == "images"]
    if of_images.empty:
        return lines
    lines += [
        "",
        "Images: seconds of one core for a million",
        "",
        "| stage | of | " + " | ".join(f"{side} px" for side in SIDES) + " |",
        "|---" * (2 + len(SIDES)) + "|",
    ]
    for (stage, what), part in of_images.groupby(["stage", "what"], sort=False):
        seconds = part.set_index("side").seconds
        cells = [f"{1e6 * seconds[side]:,.0f}" if side in seconds else "–" for side in SIDES]
        lines.append(f"| {stage} | {what} | {' | '.join(cells)} |")
    return lines + needs(frame)


def needs(frame: pd.DataFrame) -> list[str]:
    """What a million, ten million and a billion images would need, from what was measured."""
    of_rows = frame[frame.part == "rows"]
    total = of_rows[of_rows.stage == "total"].groupby("n").mean(numeric_only=True)
    (small, large), (small_mib, large_mib) = total.index[-2:], total.mib.iloc[-2:]
    mib_a_row = (large_mib - small_mib) / (large - small)
    seconds_a_row = of_rows[of_rows.stage == "total"].groupby("n").seconds.min()[large] / large
    disk_a_row = total.disk_mib.iloc[-1] / large
    of_images = frame[frame.part == "images"]
    lines = [
        "",
        "Computed for n images of ten classes, mode denoise, on one core. Trained: the whole network. Frozen: each "
        "image is embedded once, and heads are fitted. In GiB: decoded images, these embeddings (in the store and in "
        "the run) and tables, all on disk; memory of the first process beside images and embeddings.",
        "",
        "| images | network, side | decoded | embeddings | tables | memory | hours of a core, trained | frozen |",
        "|---" * 8 + "|",
    ]
    for n in (1e6, 1e7, 1e9):
        for side, (name, channels, units) in JOBS.items():
            part = of_images[of_images.side == side]
            seconds = part[part.what.isin(["PNG of 28 px", "JPEG photos", "pixels", name])]
            seconds = seconds.set_index("stage").seconds
            alike = seconds[["read", "hash", "duplicates", "odd images"]].sum() + seconds_a_row
            whole = alike + TRAINED * seconds.train + PREDICTED * seconds.predict
            head = of_images[of_images.stage == "fit a head"].seconds.iloc[0]
            frozen = alike + seconds.embed + TRAINED / 6 * head * units / UNITS
            cells = [
                n * side**2 * channels / 2**30,
                n * units * 8 / 2**30,
                n * disk_a_row / 1024,
                n * mib_a_row / 1024,
                n * whole / 3600,
                n * frozen / 3600,
            ]
            texts = [f"{cell:,.1f}" if cell < 10 else f"{cell:,.0f}" for cell in cells]
            lines.append(f"| {n:,.0f} | {name}, {side} px | {' | '.join(texts)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["rows", "images", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--more", action="store_true", help="keep the runs of these sizes that are there"
    )
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, choices=SIDES)
    arguments = parser.parse_args()
    results = load_results("scale")
    if arguments.what == "rows":
        new = [row for n in arguments.n for row in rows(n)]
        if not arguments.more:
            results = [row for row in results if row.get("n") not in arguments.n]
        results += new
    if arguments.what == "images":
        new = images(arguments.data, arguments.sides)
        results = [row for row in results if row.get("side") not in arguments.sides] + new
    save_results("scale", results, table(results))


if __name__ == "__main__":
    main()
