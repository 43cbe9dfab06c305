"""What the pictures and pages need from a run folder: tables as text, truth where it is known, images.

Reads only the columns it is asked for. A class may be called "NA" and an id may begin with zeros.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.csv_text import FOR_PEOPLE, read_csv, unescape_formulas
from ..data.dataset import SCORED_SPLITS
from ..round_store import RoundStore
from ..system.files import read_json

NUMBERS = ("confidence", "self_confidence", "p_wrong", "epoch", "loss")


def read_table(path: Path, columns: str) -> pd.DataFrame | None:
    """The named columns (divided by blanks) of a CSV, text but for NUMBERS; None where there is no file."""
    if not path.exists():
        return None
    table = read_csv(path, usecols=columns.split())
    table = unescape_formulas(table) if path.name in FOR_PEOPLE else table
    for name in set(NUMBERS) & set(table):
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(float)
    return table


def read_dict(path: Path) -> dict[str, Any]:
    """A JSON file, or {} where there is none."""
    return read_json(path) if path.exists() else {}


def read_text(path: Path) -> str:
    """A text file, or "" where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of one JSON object a line, or [] where there is none."""
    return [json.loads(line) for line in read_text(path).split("\n") if line]


def read_run(run: Path) -> dict[str, Any]:
    """Everything that the report shows, by name; what the run does not have is None or empty."""
    metrics = read_dict(run / "metrics.json")
    rounds = read_rounds(run, metrics)
    decisive = decisive_round(metrics, rounds)
    truth = read_truth(run)
    return {
        "name": run.resolve().name,
        "config": read_text(run / "config.yaml"),
        "env": read_dict(run / "env.json"),
        "status": read_dict(run / "status.json"),
        "metrics": metrics | {"rounds": rounds},
        "rounds": rounds,
        "facts": read_lines(run / "metrics.jsonl"),
        "decisive": decisive,
        "cutoffs": cutoffs(metrics, decisive),
        "samples": read_table(run / "samples.csv", "id path split given_label"),
        "duplicates": read_table(
            run / "duplicates.csv", "cluster id path split given_label kind conflict"
        ),
        "decisions": read_decisions(run / f"round_{decisive.get('round')}", truth),
        "wrong": wrong_shares(run, rounds, truth),
        "scored": read_table(run / "scored.csv", "arm split id label predicted confidence"),
        "pseudo_labels": read_table(run / "pseudo_labels.csv", "id path label confidence"),
        "history": read_history(run, rounds),
    }


def read_rounds(run: Path, metrics: dict) -> list[dict]:
    """round.json of every round; from metrics.json where the folders of the rounds are gone."""
    return RoundStore(run).rounds() or metrics.get("rounds") or []


def image_paths(samples: pd.DataFrame) -> pd.Series:
    """id → image file. samples: of samples.csv; of an id that stands in several splits the first."""
    return samples.drop_duplicates("id").set_index("id")["path"]


def decisive_round(metrics: dict, rounds: list[dict]) -> dict[str, Any]:
    """The round whose labels the student learned: the one metrics.json names, else the last; {} if none."""
    for info in rounds:
        if info["round"] == metrics.get("round"):
            return info
    return rounds[-1] if rounds else {}


def label_names(info: dict[str, Any]) -> list[str]:
    """What labels are called in a round: the classes, or the label sets that occur; [] where it does not say."""
    return info.get("label_sets") or info.get("classes") or []


def cutoffs(metrics: dict, info: dict) -> tuple[float, float]:
    """(cutoff on given labels, cutoff on unlabeled images) of a round; NaN where the run does not say."""
    of_given = info.get("cutoff")
    of_unlabeled = (metrics.get("unlabeled") or {}).get("cutoff", of_given)
    return tuple(np.array([of_given, of_unlabeled], float))  # None becomes NaN


def scored_model(scores: dict[str, dict]) -> tuple[str, str]:
    """(split, model) of the score that stands for the run: the student's, on the most trustworthy split scored.

    Both are "" where nothing is scored.
    """
    for split in reversed(SCORED_SPLITS):
        for model in ("student", "baseline", "teacher"):
            if split in scores.get(model, {}):
                return split, model
    return "", ""


def read_truth(run: Path) -> pd.Series:
    """id → clean label, of the rows whose labels were corrupted or hidden on purpose."""
    truth = pd.DataFrame(columns=["id", "clean"], dtype=str)
    for name in ("injected.csv", "hidden.csv"):
        table = read_table(run / name, "id clean")
        if table is not None:
            truth = pd.concat([truth, table])
    return truth.drop_duplicates("id").set_index("id").clean


def read_decisions(folder: Path, truth: pd.Series) -> pd.DataFrame | None:
    """The decisions of one round with a `truth` column (missing where nobody knows)."""
    columns = (
        "id split given_label predicted confidence self_confidence p_wrong decision label reason"
    )
    table = read_table(folder / "decisions.csv", columns)
    if table is None:
        return None
    table["truth"] = table.id.map(truth)
    return table.dropna(subset="confidence")


def wrong_shares(run: Path, rounds: list[dict], truth: pd.Series) -> list[dict[str, float]]:
    """Per round what stays wrong: {"round", "train": of the labeled set, "unlabeled": of the pseudo-labels}.

    Round 0 is what was given. A dropped label is not learned, so it is not wrong. [] where no truth is known.
    """
    if truth.empty:
        return []
    shares = []
    injected = read_table(run / "injected.csv", "clean given_label")
    if injected is not None:
        is_wrong = injected.clean != injected.given_label
        shares.append({"round": 0, "train": float(is_wrong.mean())})
    for info in rounds:
        folder = run / f"round_{info['round']}"
        table = read_table(folder / "decisions.csv", "id split decision label")
        true_label = table.id.map(truth)
        is_wrong = (table.label != true_label) & (table.decision != "drop")
        is_counted = true_label.notna() & (table.decision != "leave")
        of_splits = is_wrong[is_counted].groupby(table.split).mean()
        shares.append({"round": info["round"], **of_splits})
    return shares


def read_history(run: Path, rounds: list[dict]) -> dict[str, list[pd.DataFrame]]:
    """Training curves (epoch, loss, fold) by what was trained: `round 1` has one table a model, `student` one.

    fold: the one that the model did not learn; -1 if there is none.
    """
    fold_of = {key: about["fold"] for info in rounds for key, about in info["models"].items()}
    folders = []
    for info in rounds:
        of_round = run.glob(f"round_{info['round']}/fold_*")
        folders += sorted(of_round, key=lambda folder: int(folder.name[5:]))
    history: dict[str, list[pd.DataFrame]] = {}
    for folder in [*folders, run / "baseline", run / "student"]:
        curve = read_table(folder / "history.csv", "epoch loss")
        if curve is not None and len(curve):
            model_hash = read_dict(folder / "model.json").get("hash")
            curve["fold"] = fold_of.get(model_hash, -1)
            name = folder.name if folder.parent == run else folder.parent.name.replace("_", " ")
            history.setdefault(name, []).append(curve)
    return history


def disagreements(decisions: pd.DataFrame, n: int = 25) -> pd.DataFrame:
    """The n labeled rows whose prediction differs from the given label, most confident first.

    Among equal confidences (many are 1) the least self-confident comes first.
    """
    is_labeled = decisions.given_label != ""
    rows = decisions[is_labeled & (decisions.predicted != decisions.given_label)]
    rows = rows.sort_values(
        ["confidence", "self_confidence"], ascending=[False, True], kind="stable"
    )
    return rows.head(n)


def nearest_cutoff(pseudo_labels: pd.DataFrame, cutoff: float, n: int = 25) -> pd.DataFrame:
    """The n pseudo-labels whose confidence is nearest to the cutoff (unknown: the lowest), nearest first."""
    order = (
        (pseudo_labels.confidence - np.nan_to_num(cutoff)).abs().sort_values(kind="stable").index
    )
    return pseudo_labels.loc[order[:n]]


def read_bytes(path: str) -> bytes:
    """An image file; empty where it has gone since the run."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def decode_image(data: bytes, side: int) -> np.ndarray | None:
    """Image file → (h, w, 3) uint8 RGB, its longer side at most `side`; None where it cannot be decoded."""
    import cv2

    if not data:
        return None
    pixels = np.frombuffer(data, np.uint8)
    image = None
    if len(data) > 500_000:  # a photo: decoding an eighth of it is many times faster
        image = cv2.imdecode(pixels, cv2.IMREAD_REDUCED_COLOR_8)
    if image is None or max(image.shape[:2]) < side:
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR)
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image[:, :, ::-1]


def thumbnail(data: bytes, side: int = 96) -> str:
    """Image file → `data:` address of at most `side` px, PNG if tiny, else JPEG; "" where unreadable."""
    import cv2

    image = decode_image(data, side)
    if image is None:
        return ""
    kind = "png" if max(image.shape) <= 64 else "jpeg"
    quality = [cv2.IMWRITE_JPEG_QUALITY, 85] if kind == "jpeg" else []
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    return data_address(cv2.imencode(f".{kind}", bgr, quality)[1].tobytes(), kind)


def data_address(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
