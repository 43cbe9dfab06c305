"""Predictions from outside: files of anyone's probabilities, a row an image, a column a class. Matched by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Data, Predictions
from ..config.types import UserError
from ..data.tables import read_cells, read_ids
from ..labels.inputs import is_ambiguous, order_columns, read_table
from ..round_store import RoundStore
from ..system.files import read_json

ARRAY_SUFFIX = ".npy"
MAX_FOLDS = 100
"""More distinct values are no folds: another column was named."""


@dataclass(frozen=True)
class PredictionFile:
    """What one file says, in its own order of rows."""

    path: Path
    ids: pd.Index
    """(M,) text, each once."""
    values: ndarray
    """(M, K) numbers as the file has them, in the order of the classes; those of a .npy stay on disk."""
    folds: ndarray | None
    """(M,) name of the fold of each row, "" = it has none; None = not known."""
    calibration: dict
    """What a run of this kit that wrote the file says of its calibration; {} = not calibrated."""


def read_prediction_files(
    predictions: Predictions, data: Data, classes: Sequence[str]
) -> tuple[list[PredictionFile], list[PredictionFile]]:
    """The files of predictions.labeled and those of predictions.unlabeled.

    Raises:
        UserError: a file cannot be read, lacks ids, a class or folds, or has an id twice.
    """
    labeled, unlabeled = predictions.labeled or [], predictions.unlabeled or []
    id_files = _pair_ids([*labeled, *unlabeled], predictions.ids or [])
    fold_col = predictions.fold_col
    files, others = (
        [_read_file(path, id_files.get(path), data, classes, fold_col) for path in paths]
        for paths in (labeled, unlabeled)
    )
    known = [file.folds is not None for file in files or others]
    if fold_col and not (all(known) if files else any(known)):
        names = ", ".join(labeled or unlabeled)
        raise UserError(f"{names}: no column {fold_col!r}; mend predictions.fold_col")
    for file in files:
        if fold_col and (empty := file.ids[file.folds == ""]).size:
            raise UserError(f"{file.path}: id {empty[0]!r} has no fold in {fold_col!r}; fill it")
    return files, others


def _pair_ids(paths: list[str], id_files: list[str]) -> dict[str, str]:
    """Each .npy with the file of its ids."""
    arrays = [*dict.fromkeys(path for path in paths if path.lower().endswith(ARRAY_SUFFIX))]
    if id_files and not arrays:
        raise UserError("predictions.ids is for .npy files, and there is none; leave it out")
    if arrays and len(id_files) not in (1, len(arrays)):
        raise UserError(
            f"{arrays[0]} has no ids; give predictions.ids= one file for all {len(arrays)} .npy files, or one for each"
        )
    return dict(zip(arrays, cycle(id_files)))


def _read_file(
    name: str, id_file: str | None, data: Data, classes: Sequence[str], fold_col: str | None
) -> PredictionFile:
    path = Path(name)
    source = Path(id_file or name)
    if not source.is_file():
        raise UserError(f"{source} does not exist; give a file of predictions, or of their ids")
    round_info = _read_round(path)
    if source.suffix.lower() == ".txt":
        lines = source.read_text(encoding="utf-8").splitlines()
        table = pd.DataFrame({data.id_col or "id": lines})
    else:
        table = read_cells(source)
    values = (
        _read_array(path, classes, round_info) if id_file else _read_columns(table, path, classes)
    )
    ids = pd.Index(read_ids(table, data, source))
    if len(ids) != len(values):
        raise UserError(
            f"{path} has {len(values):,} rows, and {source} {len(ids):,} ids; give one id for each row"
        )
    if ids.has_duplicates:
        raise UserError(f"{source}: id {ids[ids.duplicated()][0]!r} stands twice; keep one row")
    folds = None
    if fold_col in table:
        folds = table[fold_col].to_numpy(object)
        if (n_folds := len({*folds})) > MAX_FOLDS:
            raise UserError(
                f"{source}: {fold_col!r} holds {n_folds:,} different values, too many for folds; mend "
                "predictions.fold_col"
            )
    calibration = {}
    if round_info.keys() & {"temperatures", "likeliest_rate"}:
        calibration = {"likeliest_rate": round_info.get("likeliest_rate")}
    return PredictionFile(path, ids, values, folds, calibration)


def _read_array(path: Path, classes: Sequence[str], round_info: dict) -> ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array ({error}); save it by numpy") from None
    if read_table(values, str(path)).shape[1] != len(classes):
        raise UserError(
            f"{path} has the shape {values.shape}; it needs a row an image and {len(classes)} columns, the sorted "
            f"classes ({classes[0]}, …)"
        )
    if round_info and round_info["classes"] != list(classes):
        raise UserError(f"{path} is of a run with other classes than data.train; leave it out")
    if not round_info and is_ambiguous(classes):
        raise UserError(
            f"{path}: classes are numbers, and as text 10 stands before 2, so its columns may be in either order; give "
            "a CSV or parquet file with a column for each class"
        )
    return values


def _read_columns(table: pd.DataFrame, path: Path, classes: Sequence[str]) -> ndarray:
    """(M, K) of the columns p_<class>, else of those named by the classes; NaN where a cell is no number."""
    columns = order_columns(table, classes)
    if columns is table:
        missing = next((name for name in classes if name not in table), classes[0])
        raise UserError(
            f"{path} has no column {missing!r}; it needs a column for each of the {len(classes)} classes, named by the "
            "class or p_<class>"
        )
    return columns.apply(pd.to_numeric, errors="coerce").to_numpy(float)


def _read_round(path: Path) -> dict:
    """round.json of the round whose log-probabilities a run of this kit wrote into this file; {} of other files."""
    folder = path.parent
    if path.name == "log_probs.npy" and (folder / "round.json").is_file():
        return read_json(folder / "round.json", "classes")
    if path.name == "oof_log_probs.npy" and (folder / "metrics.json").is_file():
        decisive = read_json(folder / "metrics.json", "round")["round"]
        return RoundStore(folder).rounds()[decisive - 1]
    return {}
