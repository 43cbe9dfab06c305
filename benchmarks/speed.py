"""Speed, memory and quality: the kit and its peers on this machine, side by side in one run, as ratios.

    pip install -r requirements-speed.txt
    python benchmarks/speed.py article ranking … --data FOLDER [--out FOLDER] [--more]
    python benchmarks/speed.py table

FOLDER holds mnist_png and trash_competition. Measures: article, training, compiling, accumulating, loading, predicting,
frozen, again, embedding, validating, ranking, ranking-many-classes, ranking-whole, rows, ranks, more-ranks, cores,
start-up; all of them take three hours on two cores. Above 1 the kit is faster.
What is compared is run in turn, each a process of its own with its peak memory, or block by block in one process.
A measure that is run again replaces what results/speed.json has of it; with --more it adds a further run. --images
shortens loading and ranks, --networks training, predicting, validating and loading.
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
    "compiling",
    "accumulating",
    "loading",
    "predicting",
    "frozen",
    "again",
    "embedding",
    "validating",
    "ranking",
    "ranking-many-classes",
    "ranking-whole",
    "rows",
    "ranks",
    "more-ranks",
    "cores",
    "start-up",
)
STEPS = (
    ("test_resnet", 28, "mnist.yaml"),
    ("tf_efficientnet_lite0", 128, "photos.yaml"),
    ("resnet18", 128, "photos.yaml"),
)
"""Networks whose step is measured, at which side, as which config trains them."""
BARE = {
    "training": "the bare step; ms a batch",
    "predicting": "the bare step; ms a batch",
    "validating": "without data.val; s",
}
"""What the kit is compared with."""
OPTIONS = {
    "training": ("networks",),
    "predicting": ("networks",),
    "validating": ("networks",),
    "loading": ("networks", "images"),
    "ranks": ("images",),
    "more-ranks": ("images",),
}
"""What shortens a measure."""
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


def training(
    data: Path, out: Path, networks: list[str] | None = None, what: str = "training"
) -> list[dict]:
    """Milliseconds a batch, images from memory and augmented; the bare step on tensors."""
    results = []
    for name, size, config in STEPS:
        if networks and name not in networks:
            continue
        measured = peer_script("steps.py", what, name, size, config)
        title = f"{what}, {name} at {size} px, against {BARE[what]}"
        results += [row(title, *block, mb=measured["mb"]) for block in measured["blocks"]]
    return results


def with_key(network: tuple[str, int, str], key: str, **environment: str) -> list[dict]:
    """Median ms a step with a key of `train`, and without; of `compile` also the seconds of the first step."""
    name, size, config = network
    measured = peer_script("steps.py", "keys", name, size, config, key, **environment)
    title = f"training, {name} at {size} px, train.{key}, against without"
    results = [
        row(f"{title}; ms a batch", *block, mb=measured["mb"]) for block in measured["blocks"]
    ]
    if key.startswith("compile"):
        results.append(row(f"{title}; s of the first step", *np.round(measured["first"], 2)))
    return results


def compiling(data: Path, out: Path) -> list[dict]:
    """torch.compile on the CPU; nothing is compiled before."""
    cache = out / "inductor"
    shutil.rmtree(cache, ignore_errors=True)
    return with_key(STEPS[0], "compile=true", TORCHINDUCTOR_CACHE_DIR=str(cache))


def accumulating(data: Path, out: Path) -> list[dict]:
    """A batch in four parts."""
    return with_key(STEPS[0], "accumulate=4") + with_key(STEPS[2], "accumulate=4")


def predicting(data: Path, out: Path, networks: list[str] | None = None) -> list[dict]:
    """Milliseconds a batch; the bare forward pass on tensors."""
    return training(data, out, networks, "predicting")


def loading(
    data: Path, out: Path, networks: list[str] | None = None, images: int | None = None
) -> list[dict]:
    """Each of three epochs of photos as JPEG files, decoding included; timm's loader."""
    photos = data / "trash_competition"
    table = thinned(pd.read_csv(photos / "train.csv", dtype=str), images)
    folder = out / f"photos_{len(table)}"
    for photo, label in table.itertuples(index=False):
        (folder / label).mkdir(parents=True, exist_ok=True)
        link = folder / label / f"{photo}.jpg"
        link.exists() or link.symlink_to(photos / "images" / link.name)
    results = []
    for name in networks or ("tf_efficientnet_lite0", "resnet18"):
        mine, theirs = (peer_script("loading.py", who, folder, name) for who in ("kit", "timm"))
        seconds = np.diff([mine["seconds"], theirs["seconds"]], prepend=0)
        for epoch, (kit, timm) in enumerate(seconds.T.tolist(), 1):
            title = f"epoch {epoch} of {len(table):,} JPEG files, {name} at 128 px, against timm's loader; s"
            results.append(row(title, kit, timm, mb=mine["mb"], peer_mb=theirs["mb"]))
    return results


def thinned(table: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """About n rows, spread over the table; None = all."""
    return table.iloc[:: len(table) // min(n or len(table), len(table))]


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
    """Heads on 2,021 photos, 60 of them labeled: a first run, and five more of other seeds, which find all embeddings.

    On all cores, as a user would run it.
    """
    cores = {"OMP_NUM_THREADS": str(os.cpu_count())}
    from photos import tables, weights

    file = out / "tf_efficientnet_lite0.safetensors"
    file = file if file.exists() else weights(file)
    train, test, images = tables("trash", data, out)
    folder = out / "again"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    table = pd.read_csv(train, dtype=str)
    labeled = table.groupby("label").sample(10, random_state=0)
    labeled.to_csv(folder / "labeled.csv", index=False)
    table.drop(labeled.index)[["id"]].to_csv(folder / "unlabeled.csv", index=False)
    job = [
        "pseudo.py",
        "--mode",
        "augment",
        "--config",
        "configs/photos_few_labels.yaml",
        f"data.train={folder / 'labeled.csv'}",
        f"data.unlabeled={folder / 'unlabeled.csv'}",
        f"data.test={test}",
        f"data.image_dir={images}",
        f"data.cache={folder / 'cache'}",
        f"model.checkpoint={file}",
        f"out={folder}",
    ]
    first, first_mb, _ = python(*job, "name=first", **cores)
    results = []
    for seed in range(1, 6):
        seconds, mb, _ = python(*job, f"name=seed_{seed}", f"seed={seed}", **cores)
        what = "a further run on the same 2,021 photos, against the first; s"
        results.append(row(what, seconds, first, mb=mb, peer_mb=first_mb))
    return results


def embedding(data: Path, out: Path) -> list[dict]:
    """Milliseconds a batch of photos, stored and written as in a first run; the bare forward pass on tensors."""
    step = ("embedding", "tf_efficientnet_lite0", 192, "photos_few_labels.yaml")
    measured = peer_script("steps.py", *step)
    what = "a first run embeds photos, against the bare forward pass; ms a batch"
    return [row(what, *block, mb=measured["mb"]) for block in measured["blocks"]]


def validating(data: Path, out: Path, networks: list[str] | None = None) -> list[dict]:
    """Seconds of 40 steps with a curve on data.val, and without one."""
    return training(data, out, networks, "validating")


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
                    warm_up=kit["warm_up"],
                    peer_warm_up=theirs["warm_up"],
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


def ranks_job(data: Path, out: Path, images: int | None) -> tuple[list, int]:
    """Arguments of one round of two folds, student and baseline, on noisy digits; how many they are."""
    from denoise import images as files
    from denoise import noisy_table

    mnist, file = data / "mnist_png", out / "ranks.csv"
    table = thinned(noisy_table(files(mnist, "training"), mnist, seed=1), images)
    table[["id", "label"]].to_csv(file, index=False)
    job = [
        "--mode",
        "denoise",
        "--config",
        "configs/mnist.yaml",
        "--fresh",
        f"data.train={file}",
        f"data.image_dir={mnist}",
        f"data.cache={out / 'cache'}",
        f"out={out}",
        "pseudo.rounds=1",
        "train.min_steps=0",
    ]
    if not (out / "cache").exists():  # that all processes read
        python("pseudo.py", *job, "name=warm", "pseudo.rounds=0", "train.epochs=0.01")
    return job, len(table)


def torchrun(n: int, *arguments) -> tuple[float, float, str]:
    """The same as python, in n processes of one thread."""
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={n}", "--"]
    return python(*launch, *arguments, **ONE_THREAD)


def ranks(data: Path, out: Path, images: int | None = None) -> list[dict]:
    """Two processes of one thread against one; results/ranks.md has what every process spends its time on."""
    job, n = ranks_job(data, out, images)
    script = HERE / "peers" / "stages.py"
    one, mb, _ = python(script, out / "one", *job, "name=one", **ONE_THREAD)
    two, two_mb, _ = torchrun(2, script, out / "two", *job, "name=two")
    same = (out / "one" / "labels.csv").read_bytes() == (out / "two" / "labels.csv").read_bytes()
    alone, first, second = (
        json.loads((out / f"{name}.json").read_text()) for name in ("one.0", "two.0", "two.1")
    )
    stage_table({"one process": alone, "first of two": first, "second of two": second}, n)
    whole = f"two processes of one thread, against one; {n:,} images, whole run; s"
    more = {"mb": two_mb, "peer_mb": mb, "same": same}
    return [
        row(whole, two, one, **more),
        row(
            f"… training and predicting of the folds, {n:,} images; s",
            of_folds(first),
            of_folds(alone),
            **more,
        ),
        row(
            f"… the rounds, {n:,} images; s",
            *(sum(times["rounds"].values()) for times in (first, alone)),
            **more,
        ),
    ]


def more_ranks(data: Path, out: Path, images: int | None = None) -> list[dict]:
    """Four processes of one thread on two cores, against two."""
    job, n = ranks_job(data, out, images)
    two, two_mb, _ = torchrun(2, "pseudo.py", *job, "name=two")
    four, mb, _ = torchrun(4, "pseudo.py", *job, "name=four")
    title = f"four processes of one thread on two cores, against two; {n:,} images, whole run; s"
    return [row(title, four, two, mb=mb, peer_mb=two_mb)]


STUDENTS = ("student", "baseline")
OF_FOLDS = ("train", "batch norms", "make networks", "predict", "wait for others")
"""Parts of peers/stages.py that the processes share."""


def of_folds(times: dict[str, dict[str, float]]) -> float:
    """Seconds of the rounds that the processes share, of one of them."""
    return sum(times["rounds"].get(part, 0) for part in OF_FOLDS)


def stage_table(processes: dict[str, dict[str, dict[str, float]]], n: int) -> None:
    """results/ranks.md: seconds of every process by stage and part; of two processes the second knows no stages."""
    alone = processes["one process"]
    whole = sum(sum(parts.values()) for parts in alone.values())
    shared = of_folds(alone) + sum(sum(alone.get(arm, {}).values()) for arm in STUDENTS)
    lines = [
        f"Seconds of each process, one thread each, {n:,} digits, one round of two folds, student and baseline",
        "",
        f"Of one process {shared / whole:.1%} is work that two share, so that they are at most "
        f"{whole / (whole - shared / 2):.2f} times as fast (Amdahl).",
        "",
        "| process | stage | seconds | of these |",
        "|---|---|---|---|",
    ]
    rows = []
    for process, stages in processes.items():
        for stage, parts in stages.items():
            rows.append({"process": process, "stage": stage} | parts)
            largest = sorted(parts.items(), key=lambda part: -part[1])
            text = ", ".join(f"{part} {seconds:.1f}" for part, seconds in largest if seconds >= 0.1)
            lines.append(f"| {process} | {stage} | {sum(parts.values()):.1f} | {text} |")
    save_results("ranks", rows, lines)


def cores(data: Path, out: Path) -> list[dict]:
    """The bare step in two processes of one thread that know nothing of each other: the most that two can gain.

    Cores share memory, caches and clock.
    """
    alone, *both = side_by_side(1) + side_by_side(2)
    title = "the bare step in two processes of one thread, against one; ms a batch"
    return [row(title, sum(two) / 2 / 2, one) for one, *two in zip(alone, *both, strict=True)]


def side_by_side(n: int) -> list[list[float]]:
    """Milliseconds of the bare step of the smallest network, block by block, in n processes of one thread at once."""
    with ThreadPoolExecutor(n) as threads:
        measured = list(
            threads.map(
                lambda _: peer_script("steps.py", "training", *STEPS[0], **ONE_THREAD), range(n)
            )
        )
        return [[bare for _, bare in process["blocks"]] for process in measured]


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
        "| measure | kit | peer | ratio | kit MB | peer MB | quality, kit / peer | kit / reading the file "
        "| imports and compiling before, kit / peer; s |",
        "|---|---|---|---|---|---|---|---|---|",
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
            f"{mean.warm_up:.1f} / {mean.peer_warm_up:.1f}" if mean.notna().get("warm_up") else "–",
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
    parser.add_argument("--images", type=int)
    parser.add_argument("--networks", nargs="+", choices=[name for name, *_ in STEPS])
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for measure in arguments.measures:
        job = globals()[measure.replace("-", "_")] if measure in MEASURES else lambda data, out: []
        options = {key: getattr(arguments, key) for key in OPTIONS.get(measure, ())}
        results = job(arguments.data and arguments.data.resolve(), out, **options)
        table(together(results, arguments.more))


if __name__ == "__main__":
    main()
