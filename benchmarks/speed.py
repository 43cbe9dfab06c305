"""Speed, memory and quality: the kit and its peers on this machine, side by side in one run, as ratios.

    pip install -r requirements-speed.txt
    python benchmarks/speed.py article ranking … --data FOLDER [--out FOLDER] [--more]
    python benchmarks/speed.py table

FOLDER holds mnist_png and trash_competition. Measures: article, training, loading, predicting, frozen, again, ranking,
ranking-many-classes, ranking-whole, rows, ranks, start-up; all of them take about three hours on two cores. A ratio
above 1 says that the kit is faster.
What is compared is run in turn, each a process of its own with its peak memory, or block by block in one process.
A measure that is run again replaces what results/speed.json has of it; with --more it adds a further run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, load_results, machine, mean_and_sd, metrics, save_results

HERE = Path(__file__).resolve().parent
MEASURES = (
    "article",
    "training",
    "loading",
    "predicting",
    "frozen",
    "again",
    "ranking",
    "ranking-many-classes",
    "ranking-whole",
    "rows",
    "ranks",
    "start-up",
)
STEPS = (
    ("test_resnet", 28, "mnist.yaml"),
    ("tf_efficientnet_lite0", 128, "photos.yaml"),
    ("resnet18", 128, "photos.yaml"),
)
"""Networks whose step is measured, at which side, as which config trains them."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def python(*arguments, ends: int = 0, **environment: str) -> tuple[float, float, str]:
    """Seconds, peak MB and the last line printed, of a whole process: of those that it starts the largest counts.

    ends: the exit status that it is to have.

    Raises:
        RuntimeError: it has another one.
    """
    command = list(
        map(str, [sys.executable, HERE / "peers" / "measured.py", sys.executable, *arguments])
    )
    here = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    *printed, last = subprocess.run(
        command, cwd=ROOT, env=here, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    measured = json.loads(last)
    if measured["status"] != ends:
        raise RuntimeError(f"{' '.join(command[2:])}: exit status {measured['status']}")
    return measured["seconds"], measured["mb"], printed[-1] if printed else ""


def row(measure: str, kit: float, peer: float, **more) -> dict:
    """One line of the table: seconds (or any cost) of both, and how many times the peer's the kit's would fit into."""
    return {"measure": measure, "kit": kit, "peer": peer, "ratio": round(peer / kit, 3)} | more


def article(data: Path, out: Path) -> list[dict]:
    """70,000 PNG files, the article's noise, two folds of three epochs (two of the kit's own network), to a ranking.

    The kit then trains a student on the repaired labels, which the article's script does not: its time is left out, but
    for a line of its own. Draw 1 of the noise, as the kit's options were chosen on draw 0 (docs/log.md).
    """
    from denoise import images, noisy_table
    from sklearn.metrics import average_precision_score

    mnist, file = data / "mnist_png", out / "article.csv"
    table = noisy_table(images(mnist, "training", "testing"), mnist, seed=1)
    table[["id", "label"]].to_csv(file, index=False)
    wrong = (table.clean != table.label).set_axis(table.id)

    def precision(ranked: pd.Series) -> float:
        return float(average_precision_score(wrong[ranked], -np.arange(len(ranked))))

    peer, peer_mb, _ = python(
        HERE / "peers" / "fastai_article.py", file, mnist, out / "fastai.csv", 3, 64
    )
    theirs = precision(
        pd.read_csv(out / "fastai.csv", dtype={"id": str}).sort_values("self_confidence").id
    )
    job = [
        "pseudo.py",
        "--mode",
        "denoise",
        "--fresh",
        "--config",
        "configs/mnist.yaml",
        f"data.train={file}",
        f"data.image_dir={mnist}",
        f"out={out}",
        "pseudo.rounds=1",
        "pseudo.tta=1",
        "pseudo.train_baseline=false",
        "train.augment=gentle",
    ]
    jobs = {
        "resnet18": [
            "model.name=resnet18",
            "train.epochs=3",
            "train.lr=3e-3",
            "student.name=test_resnet",
        ],
        "default": ["train.epochs=2", "train.min_steps=0"],
    }
    results = []
    for name, options in jobs.items():
        seconds, mb, _ = python(*job, f"name={name}", *options)
        mine = precision(pd.read_csv(out / name / "label_issues.csv", dtype=str).id)
        more = {"mb": mb, "peer_mb": peer_mb, "quality": mine, "peer_quality": theirs}
        ranked = round(seconds - metrics(out / name)["seconds"]["student"], 3)
        results.append(
            row(f"article's job, {name} model, against fastai's resnet18; s", ranked, peer, **more)
        )
    results.append(
        row(
            "article's job, default model and a student, against fastai's resnet18; s",
            seconds,
            peer,
            **more,
        )
    )
    return results


def peer_script(*arguments, **environment: str) -> dict:
    """What a script of peers/ prints in its last line."""
    return json.loads(python(HERE / "peers" / arguments[0], *arguments[1:], **environment)[2])


def training(data: Path, out: Path, what: str = "training") -> list[dict]:
    """Milliseconds a batch, images from memory and augmented; the bare step on tensors."""
    results = []
    for name, size, config in STEPS:
        measured = peer_script("steps.py", what, name, size, config)
        title = f"{what}, {name} at {size} px, against the bare step; ms a batch"
        results += [row(title, *block, mb=measured["mb"]) for block in measured["blocks"]]
    return results


def predicting(data: Path, out: Path) -> list[dict]:
    """Milliseconds a batch; the bare forward pass on tensors."""
    return training(data, out, "predicting")


def loading(data: Path, out: Path) -> list[dict]:
    """2,021 photos as JPEG files, three epochs, and the first of them alone; timm's loader."""
    folder, photos = out / "photos", data / "trash_competition"
    for photo, label in pd.read_csv(photos / "train.csv", dtype=str).itertuples(index=False):
        (folder / label).mkdir(parents=True, exist_ok=True)
        link = folder / label / f"{photo}.jpg"
        link.exists() or link.symlink_to(photos / "images" / link.name)
    results = []
    for name in ("tf_efficientnet_lite0", "resnet18"):
        mine, theirs = (peer_script("loading.py", who, folder, name) for who in ("kit", "timm"))
        for what, at in (("first epoch", 0), ("three epochs", -1)):
            title = f"{what} of 2,021 JPEG files, {name} at 128 px, against timm's loader; s"
            seconds = mine["seconds"][at], theirs["seconds"][at]
            results.append(row(title, *seconds, mb=mine["mb"], peer_mb=theirs["mb"]))
    return results


def frozen(data: Path, out: Path) -> list[dict]:
    """Five folds, three rounds, 2,021 photos: heads on embeddings; the network as a whole, one round taken three times.

    A fifth of the rows is the test set.
    """
    from competition import split
    from photos import weights

    photos, file = data / "trash_competition", out / "tf_efficientnet_lite0.safetensors"
    split(photos, 100, out / "frozen")
    tables = [
        f"data.train={out / 'frozen' / 'rest.csv'}",
        f"data.test={out / 'frozen' / 'test.csv'}",
    ]
    job = [
        "pseudo.py",
        "--mode",
        "denoise",
        "--fresh",
        "--config",
        "configs/photos.yaml",
        *tables,
        f"out={out}",
        f"data.image_dir={photos / 'images'}",
        "data.size=128",
        "pseudo.folds=5",
        "train.epochs=8",
        "pseudo.train_baseline=false",
        f"model.checkpoint={file if file.exists() else weights(file)}",
    ]
    measured = {}
    for name, options in {
        "heads": ["model.freeze_backbone=true", "pseudo.rounds=3"],
        "whole": ["pseudo.rounds=1"],
    }.items():
        _, mb, _ = python(*job, f"name={name}", *options)
        results = metrics(out / name)
        measured[name] = (
            results["seconds"]["rounds"],
            mb,
            results["scores"]["student"]["test"]["accuracy"],
        )
    (mine, mb, right), (theirs, peer_mb, peer_right) = measured.values()
    return [
        row(
            "five folds, three rounds of 1,617 photos, frozen, against training it all; s",
            mine,
            3 * theirs,
            mb=mb,
            peer_mb=peer_mb,
            quality=right,
            peer_quality=peer_right,
        )
    ]


def again(data: Path, out: Path) -> list[dict]:
    """Heads on 2,021 photos: a first run, and five more of other seeds, which find all embeddings. Decoded before."""
    from photos import tables, weights

    file = out / "tf_efficientnet_lite0.safetensors"
    train, test, images = tables("trash", data, out)
    folder = out / "again"
    shutil.rmtree(folder, ignore_errors=True)
    job = [
        "pseudo.py",
        "--mode",
        "augment",
        "--config",
        "configs/photos_few_labels.yaml",
        f"data.train={train}",
        f"data.test={test}",
        f"data.image_dir={images}",
        f"data.cache={folder / 'cache'}",
        "simulate.keep_labels=60",
        f"model.checkpoint={file if file.exists() else weights(file)}",
        f"out={folder}",
    ]
    python(*job, "--check", "name=decoded")
    first, first_mb, _ = python(*job, "name=first")
    results = []
    for seed in range(1, 6):
        seconds, mb, _ = python(*job, f"name=seed_{seed}", f"seed={seed}")
        what = "a further run on the same 2,021 photos, against the first; s"
        results.append(row(what, seconds, first, mb=mb, peer_mb=first_mb))
    return results


def ranking(data: Path, out: Path) -> list[dict]:
    """Ten million rows of ten classes, decided from stored log-probabilities; cleanlab in batches. Three times in turn.

    See peers/ranking.py for what each does. On the cores that this process may use: `taskset -c 0` measures one. Files
    of --out are used again.
    """
    return compare_rankings(out, 10_000_000, 10, ("decide", "cleanlab-batched"), 3)


def ranking_many_classes(data: Path, out: Path) -> list[dict]:
    """The same for a million rows of a thousand classes."""
    return compare_rankings(out, 1_000_000, 1_000, ("decide", "cleanlab-batched"), 3)


def ranking_whole(data: Path, out: Path) -> list[dict]:
    """cleanlab's whole form on both, and find_label_issues where it takes no hour. Once, as they take long."""
    few = compare_rankings(out, 10_000_000, 10, ("decide", "issues", "cleanlab"), 1)
    return few + compare_rankings(out, 1_000_000, 1_000, ("decide", "cleanlab"), 1)


def compare_rankings(out: Path, n: int, k: int, whose: tuple[str, ...], times: int) -> list[dict]:
    """The last of them is the peer."""
    file, threads = out / f"ranking_{n}_{k}", len(os.sched_getaffinity(0))
    if not file.with_suffix(".wrong.npy").exists():
        python(HERE / "peers" / "ranking.py", "make", file, n, k)

    # Where memory is fragmented, Linux spends up to half of the time on the huge pages that NumPy asks for.
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0", "OMP_NUM_THREADS": str(threads)}

    def measured(who: str) -> dict:
        return peer_script("ranking.py", who, file, **environment)

    floor = measured("read")["seconds"]
    results = []
    for _ in range(times):
        *mine, theirs = (measured(who) for who in whose)
        for who, kit in zip(whose, mine, strict=False):
            results.append(
                row(
                    f"{who}, {n:,} × {k:,}, {threads} core(s), against {whose[-1]}; s",
                    round(kit["seconds"], 3),
                    round(theirs["seconds"], 3),
                    mb=kit["mb"],
                    peer_mb=theirs["mb"],
                    quality=kit["quality"],
                    peer_quality=theirs["quality"],
                    times_read=round(kit["seconds"] / floor, 1),
                )
            )
    return results


def rows(data: Path, out: Path) -> list[dict]:
    """Microseconds a row to load, fold, decide and write, without images: a million against ten thousand."""
    measured = {n: peer_script("rows.py", n, out) for n in (10_000, 1_000_000)}
    small, large = measured.values()
    return [
        row(
            "a row of a million, against one of ten thousand; µs",
            large["us"],
            small["us"],
            mb=large["mb"],
            peer_mb=small["mb"],
        )
    ]


def ranks(data: Path, out: Path) -> list[dict]:
    """One round of two folds, and student and baseline, on two processes of one thread against one of one thread.

    Cores share memory, caches and clock: what two processes that know nothing of each other gain is the most.
    """
    bare = [
        np.mean([block[1] for block in measured["blocks"]])
        for measured in side_by_side(1) + side_by_side(2)
    ]
    files = [
        f"data.train={data / 'mnist_png' / 'training'}",
        f"data.cache={out / 'cache'}",
        f"out={out}",
    ]
    job = [
        "pseudo.py",
        "--mode",
        "denoise",
        "--config",
        "configs/mnist.yaml",
        "--fresh",
        *files,
        "pseudo.rounds=2",
    ]
    # The cache of both.
    python(*job, "name=warm", "pseudo.rounds=0", "train.epochs=0.01", "train.min_steps=0")
    one, mb, _ = python(*job, "name=one", **ONE_THREAD)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--"]
    two, two_mb, _ = python(*launch, *job, "name=two", **ONE_THREAD)
    same = (out / "one" / "labels.csv").read_bytes() == (out / "two" / "labels.csv").read_bytes()
    inner = [metrics(out / name)["seconds"]["rounds"] for name in ("one", "two")]
    return [
        row(
            "two processes of one thread, against one; whole run",
            two,
            one,
            mb=two_mb,
            peer_mb=mb,
            same=same,
        ),
        row("… its rounds alone", inner[1], inner[0], mb=two_mb, peer_mb=mb, same=same),
        row(
            "the bare step in two processes, against one; ms a batch",
            np.mean(bare[1:]) / 2,
            bare[0],
        ),
    ]


def side_by_side(n: int) -> list[dict]:
    """What the training of the smallest network takes in n processes of one thread at once."""
    with ThreadPoolExecutor(n) as threads:
        return list(
            threads.map(
                lambda _: peer_script("steps.py", "training", *STEPS[0], **ONE_THREAD), range(n)
            )
        )


def start_up(data: Path, out: Path) -> list[dict]:
    """Five times in turn; timm's train.py is not in its package, so that its imports stand for it."""
    timm = "import torch, torchvision, yaml, timm, timm.data, timm.loss, timm.models, timm.optim, timm.scheduler"
    jobs = {
        "pseudo.py --help, against what timm's train.py imports; s": ("--help", 0),
        "an error in the config, against the same; s": ("train.ls=1", 2),
    }
    results = []
    for _ in range(5):
        peer, peer_mb, _ = python("-c", f"{timm}, timm.utils")
        for what, (argument, ends) in jobs.items():
            seconds, mb, _ = python("pseudo.py", argument, ends=ends)
            results.append(row(what, seconds, peer, mb=mb, peer_mb=peer_mb))
    return results


def together(results: list[dict], more: bool) -> list[dict]:
    """The rows of results/speed.json with those of a measure: in place of those of the same name, or beside them."""
    old = [
        r
        for r in load_results("speed")
        if more or r["measure"] not in {new["measure"] for new in results}
    ]
    return old + [{**r, "machine": machine()} for r in results]


def table(results: list[dict]) -> None:
    lines = [
        "The kit against its peers, in turn on one machine; ratio = how many times as fast the kit is",
        "",
        "| measure | kit | peer | ratio | kit MB | peer MB | quality, kit / peer | kit / reading the file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for measure, runs in pd.DataFrame(results).groupby("measure", sort=False):
        mean = runs.mean(numeric_only=True)
        memory = [f"{mean[mb]:.0f}" if mean.notna().get(mb) else "–" for mb in ("mb", "peer_mb")]
        quality = (
            f"{mean.quality:.5f} / {mean.peer_quality:.5f}" if mean.notna().get("quality") else "–"
        )
        cells = [
            measure,
            f"{mean.kit:.3g}",
            f"{mean.peer:.3g}",
            mean_and_sd(runs.ratio, 2),
            *memory,
            quality,
            f"{mean.times_read:.1f}" if mean.notna().get("times_read") else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    save_results("speed", results, lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measures", nargs="+", choices=(*MEASURES, "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--more", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for measure in arguments.measures:
        job = globals()[measure.replace("-", "_")] if measure in MEASURES else lambda data, out: []
        table(together(job(arguments.data and arguments.data.resolve(), out), arguments.more))


if __name__ == "__main__":
    main()
