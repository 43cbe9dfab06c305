"""Speed, memory and quality: the kit and its peers on this machine, side by side in one run, as ratios.

    pip install -r requirements-speed.txt
    python benchmarks/speed.py article ranking … --data FOLDER [--out FOLDER]
    python benchmarks/speed.py --table

FOLDER holds mnist_png and trash_competition. Measures: article, training, loading, predicting, frozen, ranking, rows,
ranks, start-up; all of them take about three hours on two cores. A ratio above 1 says that the kit is the faster one.
What is compared is run in turn, each a process of its own with its peak memory, or block by block in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from common import ROOT, keep, merged, metrics

HERE = Path(__file__).resolve().parent
MEASURES = ("article", "training", "loading", "predicting", "frozen", "ranking", "rows", "ranks", "start-up")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def process(*command: str, **environment: str) -> tuple[float, float, str]:
    """Seconds, peak MB and what it printed, of a whole process and those that it starts.

    Raises:
        CalledProcessError: it failed, and was not meant to.
    """
    start, printed = time.monotonic(), subprocess.PIPE
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=printed, text=True)
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.monotonic() - start
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command, said)
    return round(seconds, 3), round(used.ru_maxrss / 1024), said


def python(*arguments: str, **environment: str) -> tuple[float, float, str]:
    return process(sys.executable, *map(str, arguments), **environment)


def row(measure: str, kit: float, peer: float, **more) -> dict:
    """One line of the table: seconds (or any cost) of both, and how many times the peer's the kit's would fit into."""
    return {"measure": measure, "kit": kit, "peer": peer, "ratio": round(peer / kit, 3)} | more


def article(data: Path, out: Path) -> list[dict]:
    """70,000 PNG files, the article's noise, two folds, to a ranking of all labels; no student on either side."""
    from denoise import images, noisy_table
    from sklearn.metrics import average_precision_score

    mnist, file = data / "mnist_png", out / "article.csv"
    table = noisy_table(images(mnist, "training", "testing"), mnist, seed=0)
    table[["id", "label"]].to_csv(file, index=False)
    wrong = (table.clean != table.label).set_axis(table.id)

    def ap(ranked: pd.Series) -> float:
        return float(average_precision_score(wrong[ranked], -np.arange(len(ranked))))

    def ours(name: str, *options: str) -> tuple[float, float, float]:
        files = [f"data.train={file}", f"data.image_dir={mnist}", f"out={out}", f"name={name}"]
        job = ["pseudo.rounds=1", "pseudo.views=1", "pseudo.student=false", "train.epochs=3"]
        seconds, mb, _ = python("pseudo.py", "--mode", "denoise", "--fresh", "--config", "configs/mnist.yaml",
                                *files, *job, *options)  # fmt: skip
        return seconds, mb, ap(pd.read_csv(out / name / "suspects.csv", dtype=str).id)

    peer, peer_mb, _ = python(HERE / "peers" / "fastai_article.py", file, mnist, out / "fastai.csv", 3, 64)
    theirs = pd.read_csv(out / "fastai.csv", dtype={"id": str}).sort_values("self_confidence")
    found = []
    for what, options in {"resnet18": ["model.name=resnet18", "train.lr=3e-3"], "the default model": []}.items():
        seconds, mb, quality = ours(what.replace(" ", "-"), *options)
        found.append(row(f"article's job, {what}, against fastai's resnet18", seconds, peer, mb=mb, peer_mb=peer_mb,
                         quality=quality, peer_quality=ap(theirs.id)))  # fmt: skip
    return found


def ranking(data: Path, out: Path) -> list[dict]:
    """Labels ranked and decided from stored probabilities; cleanlab on the same ones, whole and in its batches."""
    found = []
    for n, k in ((10_000_000, 10), (1_000_000, 1_000)):
        file = out / f"logits_{n}_{k}.npy"
        if not file.exists():
            python(HERE / "peers" / "ranking.py", "make", file, n, k)
        told = {who: json.loads(python(HERE / "peers" / "ranking.py", who, file)[2].splitlines()[-1])
                for who in ("kit", "cleanlab", "cleanlab-batched")}  # fmt: skip
        for peer in ("cleanlab", "cleanlab-batched"):
            mine, theirs = told["kit"], told[peer]
            found.append(row(f"ranking {n:,} × {k:,}, against {peer}", mine["seconds"], theirs["seconds"],
                             mb=mine["mb"], peer_mb=theirs["mb"], array_mb=round(n * k * 4 / 2**20),
                             quality=mine["quality"], peer_quality=theirs["quality"]))  # fmt: skip
        file.unlink()
    return found


def rows(data: Path, out: Path) -> list[dict]:
    """Microseconds a row to load, fold, decide and write, without images: a million against ten thousand."""
    told = {n: json.loads(python(HERE / "peers" / "rows.py", n, out)[2].splitlines()[-1]) for n in (10_000, 1_000_000)}
    small, large = told.values()
    return [row("a row of a million, against one of ten thousand; µs", large["us"], small["us"], mb=large["mb"],
                peer_mb=small["mb"])]  # fmt: skip


def ranks(data: Path, out: Path) -> list[dict]:
    """One round of two folds, and student and control, on two processes of one thread against one of one thread."""
    files = [f"data.train={data / 'mnist_png' / 'training'}", f"data.cache={out / 'cache'}", f"out={out}"]
    job = ["pseudo.py", "--mode", "denoise", "--config", "configs/mnist.yaml", "--fresh", *files, "pseudo.rounds=2"]
    python(*job, "name=warm", "pseudo.rounds=0", "train.epochs=0.01", "train.min_steps=0")  # the cache of both
    one, mb, _ = python(*job, "name=one", **ONE_THREAD)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--"]
    two, two_mb, _ = python(*launch, *job, "name=two", **ONE_THREAD)
    same = (out / "one" / "labels.csv").read_bytes() == (out / "two" / "labels.csv").read_bytes()
    inner = [metrics(out / name)["seconds"]["rounds"] for name in ("one", "two")]
    return [row("two processes of one thread, against one; whole run", two, one, mb=two_mb, peer_mb=mb, same=same),
            row("… its rounds alone", inner[1], inner[0], mb=two_mb, peer_mb=mb, same=same)]  # fmt: skip


def start_up(data: Path, out: Path) -> list[dict]:
    """Median of five; timm's train.py is not in its package, so that its imports stand for it."""

    def median(*command: str) -> float:
        seconds = []
        for _ in range(5):
            start = time.monotonic()
            subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True)
            seconds.append(time.monotonic() - start)
        return round(float(np.median(seconds)), 3)

    timm = "import torch, torchvision, yaml, timm, timm.data, timm.loss, timm.models, timm.optim, timm.scheduler"
    peer = median("-c", f"{timm}, timm.utils")
    return [row("pseudo.py --help, against what timm's train.py imports", median("pseudo.py", "--help"), peer),
            row("an error in the config, against the same", median("pseudo.py", "train.ls=1"), peer)]  # fmt: skip


def table() -> None:
    file = HERE / "results" / "speed.json"
    found = json.loads(file.read_text())["rows"] if file.exists() else []
    lines = ["The kit against its peers, in turn on one machine; ratio = how many times as fast the kit is", "",
             "| measure | kit | peer | ratio | kit MB | peer MB | quality, kit / peer |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in found:
        quality = f"{r['quality']:.5f} / {r['peer_quality']:.5f}" if "quality" in r else "–"
        cells = [r["measure"], f"{r['kit']:.3g}", f"{r['peer']:.3g}", f"{r['ratio']:.2f}", r.get("mb", "–")]
        lines.append(f"| {' | '.join(map(str, [*cells, r.get('peer_mb', '–'), quality]))} |")
    keep("speed", found, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", choices=MEASURES)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for measure in arguments.measures:
        found = globals()[measure.replace("-", "_")](arguments.data and arguments.data.resolve(), out)
        keep("speed", merged("speed", found, "measure"), [])
    table()


if __name__ == "__main__":
    main()
