"""What the pictures and pages need from a run folder: tables as text, truth where it is known, images.

Reads only the columns it is asked for. A class may be called "NA" and an id may begin with zeros.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray
from PIL.Image import Image, fromarray

from ..config.keys import split_folder
from ..data.csv_text import FOR_PEOPLE, read_csv, unescape_formulas
from ..data.dataset import SCORED_SPLITS
from ..system.files import read_json

MODELS = ("teacher", "baseline", "student")
NUMBERS = ["confidence", "self_confidence", "p_wrong"]


def read_table(path: Path, columns: str) -> pd.DataFrame | None:
    """The named columns (divided by blanks) of a CSV, text but for NUMBERS; None where there is no file."""
    if not path.exists():
        return None
    table = read_csv(path, usecols=columns.split())
    if path.name in FOR_PEOPLE:
        table = unescape_formulas(table)
    for name in table.columns.intersection(NUMBERS):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    return table


def read_dict(path: Path) -> dict:
    """A JSON file, or {} where there is none."""
    return read_json(path) if path.exists() else {}


def read_lines(path: Path) -> list[dict]:
    """A file of one JSON object a line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def read_run(run: Path) -> dict:
    """Everything that the report shows, by name; what the run does not have is None or empty."""
    metrics = read_json(run / "metrics.json")
    decisive = decisive_round(metrics)
    duplicates = "cluster id path split given_label kind conflict"
    return {
        "name": run.resolve().name,
        "config": (run / "config.yaml").read_text(encoding="utf-8"),
        "env": read_json(run / "env.json"),
        "inputs": read_dict(run / "inputs.json"),
        "metrics": metrics,
        "facts": read_lines(run / "metrics.jsonl"),
        "decisive": decisive,
        "cutoffs": cutoffs(metrics, decisive),
        "duplicates": read_table(run / "duplicates.csv", duplicates),
        "decisions": read_decisions(run, decisive.get("round")),
        "scored": read_rows(run, "scored.csv", "arm split id label predicted confidence"),
        "pseudo_labels": read_table(run / "pseudo_labels.csv", "id path label confidence"),
        "history": read_history(run, metrics["rounds"]),
        "odd": read_table(run / "odd_images.csv", "id split path reason"),
        "why": read_table(run / "why.csv", "id path given_label predicted"),
        "why_maps": read_array(run, "why.npy"),
        "embeddings": read_array(run, "embeddings_*.npy"),
        "log_probs": read_array(run, f"round_{decisive.get('round')}/log_probs.npy"),
    }


def read_array(run: Path, pattern: str) -> ndarray | None:
    """The newest array of that name, left on the disk; None where there is none."""
    files = sorted(run.glob(pattern), key=lambda file: file.stat().st_mtime)
    return np.load(files[-1], mmap_mode="r") if files else None


def decisive_round(metrics: dict) -> dict:
    """round.json of the round whose labels the student learned, else of the last one; {} if there is none."""
    rounds = metrics.get("rounds") or [{}]
    chosen = [info for info in rounds if info.get("round") == metrics.get("round")]
    return (chosen or rounds)[-1]


def cutoffs(metrics: dict, info: dict) -> ndarray:
    """(2,) the cutoff on given labels and that on unlabeled images of a round; NaN where the run has none."""
    of_unlabeled = metrics.get("unlabeled", {}).get("cutoff")
    return np.array([info.get("cutoff"), of_unlabeled], float)  # None becomes NaN


def scored_model(scores: dict[str, dict]) -> tuple[str, str]:
    """(split, model) of the score that stands for the run: the student's, on the most trustworthy split scored.

    Both are "" where nothing is scored.
    """
    for split in reversed(SCORED_SPLITS):
        for model in reversed(MODELS):
            if split in scores.get(model, {}):
                return split, model
    return "", ""


def read_rows(run: Path, name: str, columns: str) -> pd.DataFrame | None:
    """A table of samples with the `path` of each image. Both splits of an id that stands in two have their own."""
    rows = read_table(run / name, columns)
    if rows is None:
        return None
    samples = read_table(run / "samples.csv", "id split path")
    return rows.merge(samples, how="left", on=["id", "split"])


def read_decisions(run: Path, number: int | None) -> pd.DataFrame | None:
    """The decisions of one round with a `truth` column: the label before the run changed or hid it on purpose."""
    columns = (
        "id split given_label predicted confidence self_confidence p_wrong decision label reason"
    )
    decisions = read_rows(run, f"round_{number}/decisions.csv", columns)
    if decisions is None:
        return None
    truth = {}
    for name in ("injected.csv", "hidden.csv"):
        if (run / name).exists():
            table = read_table(run / name, "id clean")
            truth |= dict(zip(table.id, table.clean, strict=True))
    return decisions.assign(truth=decisions.id.map(truth))


def read_history(run: Path, rounds: list[dict]) -> dict[str, dict]:
    """Training curves by what was trained: `round 1` has one by the name of each fold, `student` one.

    Columns: epoch, loss, lr and more; val_accuracy, where data.val was scored. Heads on frozen features have none.
    """
    history = {}
    for trained in [*(f"round_{info['round']}" for info in rounds), "baseline", "student"]:
        curves = {}
        for file in sorted((run / trained).rglob("history.csv")):
            arm, member = split_folder(file.parent.as_posix())
            name = Path(arm).name.replace("_", " ")
            name += f" · model {member + 1}" if member else ""
            curve = read_csv(file).apply(pd.to_numeric)
            if "prior" not in curve:  # heads are fitted in one go
                curves[name] = curve
        if curves:
            history[trained.replace("_", " ")] = curves
    return history


def disagreements(decisions: pd.DataFrame, n: int) -> pd.DataFrame:
    """The n labeled rows whose prediction differs from the given label, most confident first.

    Among equal confidences (many are 1) the least self-confident comes first.
    """
    is_labeled = decisions.given_label != ""
    rows = decisions[is_labeled & (decisions.predicted != decisions.given_label)]
    order = ["confidence", "self_confidence"]
    return rows.sort_values(order, ascending=[False, True], kind="stable").head(n)


def nearest_cutoff(pseudo_labels: pd.DataFrame, cutoff: float, n: int) -> pd.DataFrame:
    """The n pseudo-labels whose confidence is nearest to the cutoff (unknown: the lowest), nearest first."""
    distance = (pseudo_labels.confidence - np.nan_to_num(cutoff)).abs()
    return pseudo_labels.loc[distance.sort_values(kind="stable").index[:n]]


def image_hash(path: str) -> str:
    """sha256 of an image file; "" where it has gone since the run."""
    file = Path(path)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def read_image(path: str, side: int) -> Image | None:
    """An image file in RGB, its longer side at most `side` pixels; None where it cannot be read."""
    from ..data.images import decode  # brings OpenCV

    pixels = decode(path, side=side)
    if pixels is None:
        return None
    image = fromarray(pixels)
    image.thumbnail((side, side))
    return image


def thumbnail(path: str, side: int = 96) -> str:
    """Image file → `data:` address of at most `side` pixels; "" where unreadable."""
    kind, data = encode_image(path, side)
    return data_address(data, kind) if data else ""


def encode_image(path: str, side: int) -> tuple[str, bytes]:
    """Image file → kind (png if tiny, else jpeg) and content of at most `side` pixels; empty where unreadable."""
    image = read_image(path, side)
    if image is None:
        return "", b""
    kind = "png" if max(image.size) <= 64 else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=85)
    return kind, buffer.getvalue()


def data_address(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
