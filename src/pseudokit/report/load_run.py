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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of one JSON object a line, or [] where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n") if line]


def round_folders(run: Path) -> list[Path]:
    """The finished rounds in order: round.json is written last."""
    folders = [f for f in run.glob("round_*") if f.name[6:].isdigit() and (f / "round.json").exists()]
    return sorted(folders, key=number_of)


def number_of(folder: Path) -> int:
    """`round_2` → 2, `fold_0` → 0."""
    return int(folder.name.rpartition("_")[2])


def read_run(run: Path) -> dict[str, Any]:
    """Everything that the report shows, by name; what the run does not have is None or empty."""
    folders = round_folders(run)
    metrics = read_dict(run / "metrics.json")
    rounds = RoundStore(run).rounds() or metrics.get("rounds") or []
    decisive, truth = decisive_round(metrics, rounds), read_truth(run)
    models = {info.get("round"): info.get("models") or {} for info in rounds}
    config = run / "config.yaml"
    return {
        "name": run.resolve().name,
        "config": config.read_text(encoding="utf-8") if config.exists() else "",
        "env": read_dict(run / "env.json"),
        "status": read_dict(run / "status.json"),
        "metrics": metrics,
        "rounds": rounds,
        "facts": read_lines(run / "metrics.jsonl"),
        "decisive": decisive,
        "cutoffs": cutoffs(metrics, decisive),
        "samples": read_table(run / "samples.csv", "id path split given_label"),
        "duplicates": read_table(run / "duplicates.csv", "cluster id path split given_label kind conflict"),
        "decisions": read_decisions(run / f"round_{decisive.get('round')}", truth),
        "wrong": wrong_shares(run, folders, truth),
        "scored": read_table(run / "scored.csv", "arm split id label predicted confidence"),
        "pseudo_labels": read_table(run / "pseudo_labels.csv", "id path label confidence"),
        "history": read_history(run, folders, models),
        "folds": {number_of(folder): fold_scores(folder, models) for folder in folders},
    }


def decisive_round(metrics: dict, rounds: list[dict]) -> dict[str, Any]:
    """The round whose labels the student learned: the one metrics.json names, else the last; {} if none."""
    last = rounds[-1] if rounds else {}
    return next((info for info in rounds if info.get("round") == metrics.get("round")), last)


def label_names(info: dict[str, Any]) -> list[str]:
    """What labels are called in a round: the classes, or the label sets that occur; [] where it does not say."""
    return info.get("label_sets") or info.get("classes") or []


def cutoffs(metrics: dict, info: dict) -> tuple[float, float]:
    """(cutoff on given labels, cutoff on the pool) of a round; NaN where the run does not say."""
    own = [(metrics.get(part) or {}).get("cutoff") for part in ("noise", "unlabeled")]
    given_labels, pool = (info.get("cutoff") if value is None else value for value in own)
    return float("nan") if given_labels is None else given_labels, float("nan") if pool is None else pool


def read_truth(run: Path) -> pd.Series:
    """id → clean label, of the rows whose labels were corrupted or hidden on purpose."""
    tables = [read_table(run / name, "id clean") for name in ("injected.csv", "hidden.csv")]
    known = [table.set_index("id")["clean"] for table in tables if table is not None]
    truth = pd.concat(known) if known else pd.Series(dtype=str)
    return truth[~truth.index.duplicated()]


def read_decisions(folder: Path, truth: pd.Series) -> pd.DataFrame | None:
    """The decisions of one round with a `truth` column (missing where nobody knows)."""
    columns = "id split given_label predicted confidence self_confidence p_wrong decision label reason"
    table = read_table(folder / "decisions.csv", columns)
    return None if table is None else table.assign(truth=table["id"].map(truth)).dropna(subset="confidence")


def wrong_shares(run: Path, folders: list[Path], truth: pd.Series) -> list[dict[str, float]]:
    """Per round what stays wrong: {"round", "train": of the labeled set, "unlabeled": of the pseudo-labels}.

    Round 0 is what was given. A dropped label is not learned, so it is not wrong.
    """
    given_labels = read_table(run / "injected.csv", "id clean given_label")
    flipped = None if given_labels is None else given_labels["clean"] != given_labels["given_label"]
    shares = [{"round": 0, "train": float(flipped.mean())}] if flipped is not None and flipped.any() else []
    for folder in folders if len(truth) else []:
        table = read_table(folder / "decisions.csv", "id split decision label")
        table = table.assign(truth=table["id"].map(truth)).dropna(subset="truth")
        table = table[table["decision"] != "leave"]
        wrong = (table["label"] != table["truth"]) & (table["decision"] != "drop")
        wrong = wrong.groupby(table["split"]).mean()
        shares.append({"round": number_of(folder), **wrong.to_dict()})
    return shares


def read_history(run: Path, folders: list[Path], models: dict[int, dict]) -> dict[str, list[pd.DataFrame]]:
    """Training curves (epoch, loss, fold) by what was trained: `round 1` has one table a model, `student` one.

    models: round → hash → what round.json says of it. fold: the one that the model did not learn; -1 if there is none.
    """
    files = {
        f"round {number_of(f)}": sorted(f.glob("fold_*/history.csv"), key=lambda file: number_of(file.parent))
        for f in folders
    }
    files |= {arm: [run / arm / "history.csv"] for arm in ("baseline", "student")}
    known = {key: about["fold"] for group in models.values() for key, about in group.items()}
    curves = {name: [_curve(path, known) for path in paths if path.exists()] for name, paths in files.items()}
    curves = {name: [table for table in group if len(table)] for name, group in curves.items()}
    return {name: group for name, group in curves.items() if group}


def _curve(path: Path, known: dict[str, int]) -> pd.DataFrame:
    folder = path.parent
    own = number_of(folder) if folder.name.startswith("fold_") else -1
    return read_table(path, "epoch loss").assign(fold=known.get(read_dict(folder / "model.json").get("hash"), own))


def fold_scores(folder: Path, models: dict[int, dict]) -> dict[int, tuple[int, float]]:
    """fold → (rows with a given label, share that its model agrees with), of rows that one model of the round judged.

    From the second round on a judgment is the mean over all rounds, each part of it held-out.
    """
    own = models.get(number_of(folder), {})
    rows = read_table(folder / "decisions.csv", "given_label predicted model")
    rows = rows[rows["given_label"] != ""]
    agrees = (rows["given_label"] == rows["predicted"]).groupby(rows["model"]).agg(["size", "sum"])
    judges = [[own[key]["fold"] for key in name.split("+") if key in own] for name in agrees.index]
    fold = np.array([folds[0] if len(folds) == 1 else -1 for folds in judges], int)
    sums = agrees[fold >= 0].groupby(fold[fold >= 0]).sum()
    return {int(k): (int(n), float(hits / n)) for k, n, hits in sums.itertuples(name=None)}


def disagreements(decisions: pd.DataFrame, n: int = 25) -> pd.DataFrame:
    """The n labeled rows whose prediction differs from the given label, most confident first.

    Among equal confidences (many are 1) the least self-confident comes first.
    """
    rows = decisions[(decisions["given_label"] != "") & (decisions["predicted"] != decisions["given_label"])]
    return rows.sort_values(["confidence", "self_confidence"], ascending=[False, True], kind="stable").head(n)


def nearest_cutoff(pseudo_labels: pd.DataFrame, cutoff: float, n: int = 25) -> pd.DataFrame:
    """The n pseudo-labels whose confidence is nearest to the cutoff (unknown: the lowest), nearest first."""
    order = (pseudo_labels["confidence"] - np.nan_to_num(cutoff)).abs().sort_values(kind="stable").index
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

    raw = np.frombuffer(data, np.uint8)
    if not raw.size:
        return None
    image = None
    if len(data) > 500_000:  # a photo: decoding an eighth of it is many times faster
        image = cv2.imdecode(raw, cv2.IMREAD_REDUCED_COLOR_8)
    if image is None or max(image.shape[:2]) < side:
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    if image is None:
        return None
    scale = side / max(image.shape[:2])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image[:, :, ::-1]


def thumbnail(data: bytes, side: int = 96) -> str:
    """Image file → `data:` address of at most `side` px, PNG if tiny, else JPEG; "" where unreadable."""
    import cv2

    image = decode_image(data, side)
    if image is None:
        return ""
    grey = (image == image[:, :, :1]).all()
    pixels = np.ascontiguousarray(image[:, :, 0] if grey else image[:, :, ::-1])
    kind = "png" if max(image.shape) <= 64 else "jpeg"
    quality = [cv2.IMWRITE_JPEG_QUALITY, 85] if kind == "jpeg" else []
    return data_address(cv2.imencode(f".{kind}", pixels, quality)[1].tobytes(), kind)


def data_address(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
