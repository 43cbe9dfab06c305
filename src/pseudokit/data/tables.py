"""One table or folder → ids, image files and labels, in whatever layout a competition has them."""

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Data, as_list
from ..config.types import NO_TEXT, UNSEEN, UserError, one_line
from ..system.files import log
from .class_names import without_signs
from .csv_text import read_csv
from .encoding import names
from .find_images import IMAGE_SUFFIXES, ImageFolders, list_files
from .spelling import TRUTH
from .votes import most_voted, read_votes

LABELED_SPLITS = ("train", "val", "trusted")
ID_COLUMNS = ("id", "image_id", "image", "filename", "path")
SPLIT_FOLDER = re.compile(
    r"(train|val|test|eval|dev|holdout|unlabell?ed)(ing|id|idation)?([-_ ]?(set|data|images))?",
    re.IGNORECASE,
)
"""Folders that hold a split and are no class."""
MAX_CLASSES_TOLD = 10
"""Of the classes of one table: a line of the log."""
PARQUET_SUFFIXES = (".parquet", ".pq")
MAX_PARQUET_ROWS = 10_000_000
"""A parquet file of a few kilobytes can hold more rows than fit into memory."""


def read_split(data: Data, split: str, source: str | None = None) -> pd.DataFrame:
    """Read one CSV, parquet file or folder.

    Args:
        data: where the images lie, and which columns to read.
        split: train, unlabeled, val, trusted or test.
        source: file or folder to read in place of the one that the config names for this split.

    Returns:
        One row an image with the columns id, path, real_path (links followed), label, group and split, all text. An
        empty label means none. Where labels are votes, also `votes`, see read_votes, and label is the class with most
        of them. With data.weight_col also `weight`. `attrs["taken_for"]` says in a sentence what the
        source was taken for.

    Raises:
        UserError: the source is missing or unreadable, lacks a column or a label, or names a file that it may not.
    """
    key = f"--data {source}" if source else f"data.{split}={getattr(data, split)}"
    path = Path(source or getattr(data, split))
    if path.is_dir():
        folders = [str(path)]
        table = _read_folder(path, key, data, split)
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and split not in LABELED_SPLITS:
        folders = [str(path.parent)]
        columns = {"id": path.name, "path": str(path), "label": "", "group": ""}
        table = pd.DataFrame([columns], dtype=object)
        table.attrs["layout"] = "one image"
    elif path.is_file():
        image_dir = data.image_dir
        if isinstance(image_dir, dict):
            image_dir = image_dir.get(split, image_dir.get("train"))
        image_dir = image_dir or str(path.parent)
        folders = as_list(image_dir)
        table = _read_table(path, folders, key, data, split)
    else:
        raise UserError(
            f"{key} does not exist; give a CSV file, a parquet file or a folder of images"
        )
    for column, pattern in {"id": NO_TEXT, "group": UNSEEN}.items():
        for text in filter(pattern.search, table[column].unique()):
            raise UserError(
                f"{key}: {column} {text!r} is not UTF-8, or holds a control character or a line break; mend it "
                "(a quote that is not closed?)"
            )
    table["real_path"] = real_paths(table.path)
    if not data.allow_outside_files:
        _refuse_outside(table, folders)
    if split in ("val", "trusted"):
        for name in table.id[table.label == ""]:
            raise UserError(
                f"{key}: {name} has no label; fill {data.label_col!r} or remove the row"
            )
    taken_for = one_line(
        f"{key}: {len(table):,} rows, {table.attrs.get('layout', 'a folder')}; {_describe_labels(table.label)}"
    )
    log.info(taken_for)
    table.attrs["taken_for"] = taken_for
    return table.assign(split=split)


def _describe_labels(labels: pd.Series) -> str:
    """How many rows have each label, the most frequent first."""
    counts = labels[labels != ""].value_counts().sort_index()
    if counts.empty:
        return "no labels"
    return (
        f"{len(counts):,} different labels, most often {counts.nlargest(MAX_CLASSES_TOLD).to_dict()}; "
        f"{len(labels) - counts.sum():,} rows without one"
    )


def _refuse_outside(table: pd.DataFrame, folders: list[str]) -> None:
    """A table from a stranger must not reach files that are none of its business."""
    inside = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    climbs = table.id.str.contains(r"(?:^|/)\.\.(?:/|$)")
    for row in table[climbs | ~table.real_path.str.startswith(inside)].itertuples():
        raise UserError(
            f"id {row.id!r} leads out of {', '.join(folders)}, to {row.real_path}; move it, name its folder "
            "in data.image_dir, or set data.allow_outside_files=true"
        )


def real_paths(paths: Iterable[str]) -> list[str]:
    """Where each file lies in truth, links followed."""
    real_folder = cache(os.path.realpath)  # few folders hold many files
    real = []
    for path in paths:
        if os.path.islink(path):
            real.append(os.path.realpath(path))
        else:
            folder, name = os.path.split(path)
            real.append(os.path.join(real_folder(folder), name))
    return real


# ---- folders


def _read_folder(folder: Path, key: str, data: Data, split: str) -> pd.DataFrame:
    """`<folder>/<class>/<file>`. The id is the path below the folder, with the folder's own name in front."""
    files = pd.Series(list_files(folder), dtype=object)
    top_folders = files.str.extract("^([^/]*)/", expand=False).fillna("")
    is_image = files.str.lower().str.endswith(IMAGE_SUFFIXES)
    images = files[is_image]
    others = files[~is_image]
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if images.empty:
        raise UserError(f"{key} holds no image ({suffixes})")
    if len(others):
        log.info(
            f"{folder}: {len(others):,} files that are no images by their suffix are skipped ({others.iloc[0]}, …)"
        )
    if split in LABELED_SPLITS:
        folder_names = {*"/".join(map(os.path.dirname, images)).split("/")}
        splits = sorted(filter(SPLIT_FOLDER.fullmatch, folder_names))
        if len(splits) > 1 or {*splits} == {*top_folders[is_image]}:
            raise UserError(
                f"{key} holds {', '.join(splits)}, which are no classes; set data.train, data.val and data.test to "
                f"those folders below {folder}"
            )
        for stray in images[top_folders == ""]:
            raise UserError(f"{key}: {stray} lies in no class folder; use <class>/<file>")
        without_image = {*top_folders[~is_image]} - {*top_folders[is_image], ""}
        if without_image:
            raise UserError(
                f"{folder / min(without_image)} holds files and no image ({suffixes}); convert them or move it away"
            )
    columns = {
        "id": f"{folder.resolve().name}/" + images,
        "path": os.path.join(folder, "") + images,
        "label": "" if split == "unlabeled" else without_signs(top_folders[is_image], data),
        "group": "",
    }
    return pd.DataFrame(columns, dtype=object)


# ---- tables


def _read_table(file: Path, folders: list[str], key: str, data: Data, split: str) -> pd.DataFrame:
    table = read_cells(file)
    if not len(table):
        raise UserError(f"{file} has no rows")
    ids = read_ids(table, data, file)
    _refuse_row(ids == "", file, "the id is empty; fill it")
    group = ""
    if data.group_col and (split == "train" or data.group_col in table):
        group = _column(table, data.group_col, "data.group_col", file)
    paths, how_found = _find_images(table, ids, folders, data, key)
    labels = read_labels(table, data, split, file)
    columns = {"id": ids, "path": paths, **labels, "group": group}
    if data.weight_col and split == "train":
        columns["weight"] = _read_weights(table, data, file)
    result = pd.DataFrame(columns, dtype=object)
    origin = [name for name in as_list(data.label_col) if name in table]
    result.attrs["layout"] = (
        f"{table.attrs.get('form', 'parquet')}, ids from {ids.name!r}, label columns {origin}{how_found}"
    )
    return result


def _find_images(
    table: pd.DataFrame, ids: pd.Series, folders: list[str], data: Data, key: str
) -> tuple[list[str], str]:
    """The image of each row, and what the user must know of how it was found.

    If the ids name no image, another column that names some is taken.

    Raises:
        UserError: two columns name different images, an id names several, or two ids name the same.
    """
    images = ImageFolders(folders, data.image_suffix)
    found, column = images.find(ids), ids
    if not (data.id_col and found.files.any()):
        for name in table.columns.difference([ids.name, *as_list(data.label_col)], sort=False):
            has_suffix = table[name].str.lower().str.endswith(IMAGE_SUFFIXES).any()
            if not (has_suffix or name in ID_COLUMNS):
                continue
            other = images.find(table[name])
            has_one = other.files.str.len() == 1
            if not found.files.any() and has_one.any():
                found, column = other, table[name]
            elif has_one.all() and not other.path.equals(found.path):
                raise UserError(
                    f"{key}: columns {column.name!r} and {name!r} name different images; set data.id_col= to the one "
                    "that is right"
                )
    for row, files in found.files[found.files.str.len() > 1].items():
        raise UserError(
            f"id {column[row]!r} names {len(files)} images ({files[0]}, {files[1]}, …); put their folder "
            "into the id, or name fewer folders in data.image_dir, or set data.image_suffix"
        )
    for path in found.path[found.path.duplicated()]:
        same = ids[found.path == path]
        raise UserError(
            f"{key}: {len(same)} ids, such as {same.iloc[0]!r} and {same.iloc[1]!r}, name {path}; keep one row per "
            "image"
        )
    how = "" if column is ids else f", images from {column.name!r}, as the ids name none"
    respelled = found.path[found.is_respelled]
    for row, path in respelled[:1].items():
        how += (
            f", {len(respelled):,} images found by another spelling (case, blanks, backslashes, accents or leading "
            f"zeros) such as {path} for {column[row]!r}"
        )
    return list(found.path), how


def read_cells(file: Path) -> pd.DataFrame:
    """All cells of a table as text, whatever they hold.

    Raises:
        UserError: it cannot be read.
    """
    if file.suffix.lower() in PARQUET_SUFFIXES:
        return _read_parquet(file)
    table = read_csv(file, whole_rows=True)
    # A quote that is not closed takes the rows up to the next quote into its cell, and they are lost. In a label or
    # group that is refused. In other columns it may be text of several lines.
    columns = []
    for name in table:
        if table[name].str.contains("\n", regex=False).any():
            columns.append(name)
    if columns:
        log.info(
            f"warning: {file}: cells of {', '.join(map(repr, columns))} hold line breaks. If the text should not have "
            "several lines, a quote is not closed, and rows are lost"
        )
    return table


def read_ids(table: pd.DataFrame, data: Data, file: Path) -> pd.Series:
    """The column of ids.

    Raises:
        UserError: the table has none.
    """
    usual_name = next((name for name in ID_COLUMNS if name in table), " / ".join(ID_COLUMNS))
    return _column(table, data.id_col or usual_name, "data.id_col", file)


def _read_weights(table: pd.DataFrame, data: Data, file: Path) -> ndarray:
    """(N,) how much each row counts; an empty cell: as much as 1."""
    cells = _column(table, data.weight_col, "data.weight_col", file)
    weights = pd.to_numeric(cells.replace("", "1"), errors="coerce").to_numpy(float)
    is_wrong = ~(np.isfinite(weights) & (weights > 0))
    _refuse_row(is_wrong, file, f"{data.weight_col!r} must be a number above 0; mend the row")
    return weights


def _read_parquet(file: Path) -> pd.DataFrame:
    """A parquet file as text, as if it were a CSV: whole numbers have no decimals, and a missing value is empty.

    Columns of lists or bytes are left out.
    """
    try:
        from pyarrow.parquet import ParquetFile

        n_rows = ParquetFile(file).metadata.num_rows
        if n_rows > MAX_PARQUET_ROWS:
            raise ValueError(f"it holds {n_rows:,} rows, more than {MAX_PARQUET_ROWS:,}")
        # Nullable numbers: a gap does not turn whole ones into floats.
        table = pd.read_parquet(file, dtype_backend="numpy_nullable").reset_index(drop=True)
        texts = {}
        for name, column in table.items():
            if pd.api.types.infer_dtype(column) not in ("bytes", "mixed"):  # mixed: lists
                text = column.astype("string").fillna("").astype(object)
                is_float = pd.api.types.is_float_dtype(column)
                texts[str(name)] = text.str.removesuffix(".0") if is_float else text
        return pd.DataFrame(texts)
    except Exception as error:  # pyarrow raises errors of its own
        raise UserError(
            f"{file} cannot be read as parquet ({' '.join(str(error).split())}); pip install pyarrow, or save it as CSV"
        ) from None


def _column(table: pd.DataFrame, name: str, key: str, file: Path) -> pd.Series:
    if name not in table:
        raise UserError(
            f"{file} has no column {name!r} (it has {', '.join(map(repr, table.columns))}); set {key}="
        )
    return table[name]


def _refuse_row(is_wrong: pd.Series | ndarray, file: Path, fault: str) -> None:
    """Refuse the first row that the mask marks, by its line in the file: the header is line 1."""
    if is_wrong.any():
        raise UserError(f"{file} line {np.argmax(is_wrong) + 2}: {fault}")


# ---- labels of a table


def read_labels(table: pd.DataFrame, data: Data, split: str, file: Path) -> dict:
    """The column label as text, empty where the split needs none and the table has none; with votes these, too.

    Raises:
        UserError: a column is missing, or a cell is no answer of its kind.
    """
    names = as_list(data.label_col)
    if len({*names}) < len(names):
        raise UserError(f"data.label_col={names} names a column twice; name each once")
    has_votes = data.labels_are != "one_hot"
    if has_votes and split not in ("train", "unlabeled") and not {*names} & {*table}:
        names = ["label"]  # what is scored may have been judged by somebody else
        has_votes = False
    if split == "unlabeled" or (split == "test" and not {*names} <= {*table}):
        return {"label": ""}
    cells = pd.DataFrame(
        {name: without_signs(_column(table, name, "data.label_col", file), data) for name in names}
    )
    is_constant = len(cells) > 1 and (cells == cells.iloc[0]).all(axis=None)
    if split == "test" and is_constant and cells.iloc[0].any():
        log.info(
            f"{file}: {', '.join(names)} has the same value in all rows, as in a sample submission; it is not used as "
            "truth"
        )
        return {"label": ""}
    if has_votes:
        votes = read_votes(cells, data.labels_are, file)
        return {"label": [most_voted(row) for row in votes], "votes": votes}
    if len(names) == 1 and (isinstance(data.label_col, str) or data.labels_are != "one_hot"):
        return {"label": cells[names[0]]}
    return {"label": _read_one_hot(cells, data.multi_label, file)}


def _read_one_hot(table: pd.DataFrame, multi_label: bool, file: Path) -> ndarray:
    """The names of the columns that have a 1. In a multi-label an empty cell means: not known."""
    columns = tuple(table)
    listed = f"of the columns {', '.join(columns)}"
    texts = table.apply(lambda cells: cells.str.lower()).replace({"": "0"} | TRUTH)
    answers = texts.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    is_wrong = ~np.isin(answers, [0, 1]).all(1)
    _refuse_row(is_wrong, file, f"each {listed} holds 1 or 0; mend the row or data.label_col")
    if multi_label:
        is_empty = (table == "").to_numpy()
        return names(np.where(is_empty, -1, answers).astype(int), columns)
    _refuse_row(
        answers.sum(1) > 1,
        file,
        f"several {listed} are 1; mend the row, or set data.multi_label=true where images have several labels",
    )
    labels = np.where(answers.any(1), answers.argmax(1), -1)
    return names(labels, columns)
