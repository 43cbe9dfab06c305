"""One table or folder → ids, image files and labels, in whatever layout a competition has them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Data
from ..config.types import NO_TEXT, UNSEEN, UserError
from ..system.files import log
from .csv_text import read_csv
from .encoding import names

LABELED_SPLITS = ("train", "val", "trusted")
ID_COLUMNS = ("id", "image_id", "image", "filename", "path")
IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".jp2",
    ".bmp",
    ".webp",
    ".avif",
    ".gif",
    ".tif",
    ".tiff",
    ".pbm",
    ".pgm",
    ".ppm",
)
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
        One row an image with the columns id, path, label, group and split, all text. An empty label means none.

    Raises:
        UserError: the source is missing or unreadable, lacks a column or a label, or names a file that it may not.
    """
    key = f"--data {source}" if source else f"data.{split}={getattr(data, split)}"
    source = Path(source or getattr(data, split))
    if source.is_dir():
        table = _read_folder(source, data, split)
    elif source.is_file():
        table = _read_table(source, data, split)
    else:
        raise UserError(
            f"{key} does not exist; give a CSV file, a parquet file or a folder of images"
        )
    unlabeled = table.id[table.label == ""]
    if split in ("val", "trusted") and len(unlabeled):
        raise UserError(
            f"{key}: {unlabeled.iloc[0]} has no label; fill {data.label_col!r} or remove the row"
        )
    return table.assign(split=split)


# ---- folders


def _read_folder(folder: Path, data: Data, split: str) -> pd.DataFrame:
    """`<folder>/<class>/<file>`. The id is the path below the folder, with the folder's own name in front."""
    files = _list_files(folder)
    images = [name for name in files if _is_image(name)]
    suffixes = ", ".join(IMAGE_SUFFIXES)
    if not images:
        raise UserError(f"data.{split}={folder} holds no image ({suffixes})")
    if len(images) < len(files):
        other = next(name for name in files if not _is_image(name))
        count = len(files) - len(images)
        log.info(
            f"{folder}: {count:,} files that are no images by their suffix are skipped ({other}, …)"
        )
    # The folders of a test set are its classes only if every file lies exactly one folder deep.
    is_class_tree = all(name.count(os.sep) == 1 for name in images)
    top_folders = [_top_folder(name) for name in images]
    if split in LABELED_SPLITS:
        without_image = {_top_folder(name) for name in files} - {*top_folders, ""}
        if "" in top_folders:
            name = images[top_folders.index("")]
            raise UserError(
                f"data.{split}={folder}: {name} lies in no class folder; use <class>/<file>"
            )
        if without_image:
            raise UserError(
                f"{folder / min(without_image)} holds files and no image ({suffixes}); convert them or move it away"
            )
    for name in images:
        if NO_TEXT.search(name):
            raise UserError(
                f"data.{split}={folder}: {name!r} is not UTF-8, or holds a control character; rename it"
            )
    paths = [os.path.join(folder, name) for name in images]
    _refuse_outside(images, paths, [str(folder)], data)
    has_labels = split in LABELED_SPLITS or (split == "test" and is_class_tree)
    prefix = folder.resolve().name
    return pd.DataFrame(
        {
            "id": [f"{prefix}/{name.replace(os.sep, '/')}" for name in images],
            "path": paths,
            "label": top_folders if has_labels else "",
            "group": "",
        }
    )


def _list_files(folder: str | Path) -> list[str]:
    """Sorted paths below the folder of all its files but hidden ones. Links are followed, but never in a circle."""
    found = []
    start = len(str(Path(folder))) + 1
    for parent, subfolders, files in os.walk(
        Path(folder), followlinks=True, onerror=_refuse_unreadable
    ):
        subfolders[:] = [name for name in subfolders if not _is_hidden_or_circle(parent, name)]
        found += [os.path.join(parent, name)[start:] for name in files if not name.startswith(".")]
    return sorted(found)


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"folder {error.filename} cannot be read ({error.strerror})") from None


def _is_hidden_or_circle(parent: str, name: str) -> bool:
    """Whether a folder is hidden, or a link to one of the folders that it lies in."""
    path = os.path.join(parent, name)
    if name.startswith(".") or not os.path.islink(path):
        return name.startswith(".")
    return any(os.path.samefile(path, above) for above in Path(path).parents)


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES


def _top_folder(name: str) -> str:
    """The first folder of a path; empty where it is a file alone."""
    return name.partition(os.sep)[0] if os.sep in name else ""


# ---- tables


def _read_table(file: Path, data: Data, split: str) -> pd.DataFrame:
    if file.suffix.lower() in PARQUET_SUFFIXES:
        table = _read_parquet(file)
    else:
        table = read_csv(file)
        _warn_of_line_breaks(table, file)
    if not len(table):
        raise UserError(f"data.{split}={file} has no rows")
    usual_name = next((name for name in ID_COLUMNS if name in table), " / ".join(ID_COLUMNS))
    ids = _column(table, data.id_col or usual_name, "data.id_col", file).astype(object)
    _refuse_characters(ids, NO_TEXT, file)
    if (ids == "").any():
        raise UserError(f"data.{split}={file} line {_line(ids == '')} has an empty id; fill it")
    group = ""
    if data.group_col and (split == "train" or data.group_col in table):
        group = _column(table, data.group_col, "data.group_col", file)
        _refuse_characters(group, UNSEEN, file)
    return pd.DataFrame(
        {
            "id": ids,
            "path": _find_images(ids, data, file.parent),
            "label": _read_labels(table, data, split, file),
            "group": group,
        }
    )


def _read_parquet(file: Path) -> pd.DataFrame:
    """A parquet file as text, as if it were a CSV: whole numbers have no decimals, and a missing value is empty."""
    try:
        from pyarrow.parquet import ParquetFile

        n_rows = ParquetFile(file).metadata.num_rows
        if n_rows > MAX_PARQUET_ROWS:
            raise ValueError(f"it holds {n_rows:,} rows, more than {MAX_PARQUET_ROWS:,}")
        table = pd.read_parquet(
            file, dtype_backend="numpy_nullable"
        )  # a gap does not turn whole numbers into floats
        return _as_text(table.rename(columns=str).reset_index(drop=True))
    except ImportError:
        raise UserError(
            f"{file}: parquet needs the package pyarrow: pip install pyarrow, or give a CSV"
        ) from None
    except Exception as error:  # pyarrow raises errors of its own
        raise UserError(
            f"{file} cannot be read as parquet: {' '.join(str(error).split())}"
        ) from None


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold single values, as text; columns of lists or bytes are left out."""
    texts = {}
    for name, column in table.items():
        if pd.api.types.infer_dtype(column) in ("bytes", "mixed"):  # mixed: lists
            continue
        text = column.astype("string").fillna("")
        is_float = pd.api.types.is_float_dtype(column)
        texts[name] = (text.str.removesuffix(".0") if is_float else text).astype(object)
    return pd.DataFrame(texts, table.index)


def _warn_of_line_breaks(table: pd.DataFrame, file: Path) -> None:
    """A quote that is not closed takes the rows up to the next quote into its cell, and they are lost. In a label or
    group that is refused. In other columns it may be text of several lines."""
    for name in table:
        count = int(table[name].str.contains("\n", regex=False).sum())
        if count:
            log.info(
                f"warning: {file}: {count:,} cells of column {name!r} hold line breaks. If the text should not have "
                "several lines, a quote is not closed, and rows are lost"
            )


def _column(table: pd.DataFrame, name: str, key: str, file: Path) -> pd.Series:
    if name not in table:
        raise UserError(
            f"{file} has no column {name!r} (it has {', '.join(map(repr, table.columns))}); set {key}="
        )
    return table[name]


def _refuse_characters(texts: pd.Series, pattern: re.Pattern, file: Path) -> None:
    text = next(filter(pattern.search, texts.unique()), None)
    if text is not None:
        raise UserError(
            f"{file}: {text!r} in column {texts.name!r} holds a control character or a line break; mend it "
            "(a quote that is not closed?)"
        )


def _line(mask: pd.Series | np.ndarray) -> int:
    """The line in the file of the first row that the mask marks: the header is line 1."""
    return int(np.argmax(mask)) + 2


# ---- labels of a table


def _read_labels(
    table: pd.DataFrame, data: Data, split: str, file: Path
) -> pd.Series | np.ndarray | str:
    """The labels as text; empty where the split needs none and the table has none."""
    columns = [data.label_col] if isinstance(data.label_col, str) else data.label_col
    is_missing = any(name not in table for name in columns)
    if split == "unlabeled" or (is_missing and split not in LABELED_SPLITS):
        return ""
    labels = [_column(table, name, "data.label_col", file) for name in columns]
    if isinstance(data.label_col, str):
        return labels[0]
    return _read_one_hot(table[columns], data, file)


def _read_one_hot(table: pd.DataFrame, data: Data, file: Path) -> np.ndarray:
    """The names of the columns that have a 1. In a multi-label an empty cell means: not known."""
    columns = tuple(table)
    listed = ", ".join(columns)
    answers = table.replace("", "0").apply(pd.to_numeric, errors="coerce").to_numpy(float)
    is_wrong = ~np.isin(answers, [0, 1]).all(1)
    if is_wrong.any():
        raise UserError(
            f"{file} line {_line(is_wrong)}: the columns {listed} hold 1 or 0; mend the row or data.label_col"
        )
    if data.multi_label:
        is_empty = (table == "").to_numpy()
        return names(np.where(is_empty, -1, answers).astype(int), columns)
    has_several = answers.sum(1) > 1
    if has_several.any():
        raise UserError(
            f"{file} line {_line(has_several)}: several of the columns {listed} are 1; mend the row, or set "
            "data.multi_label=true where images have several labels"
        )
    return names(np.where(answers.any(1), answers.argmax(1), -1), columns)


# ---- image files of a table


def _find_images(ids: pd.Series, data: Data, table_folder: Path) -> list[str]:
    """The image of each id: image_dir / (id + suffix) if it is there, otherwise any image of that name, with or without
    its folder and suffix, below the folders.

    Raises:
        UserError: an id names several images, or one that it may not, see _refuse_outside.
    """
    image_dir = data.image_dir or str(table_folder)
    folders = [image_dir] if isinstance(image_dir, str) else image_dir
    file_names = [name + data.image_suffix for name in ids]
    paths = [os.path.join(folders[0], name) for name in file_names]
    is_there = [len(folders) == 1 and os.path.exists(path) for path in paths]
    index = {} if all(is_there) else _index_by_name(folders)
    for i, name in enumerate(file_names):
        files = index.get(name, [paths[i]])
        if is_there[i]:
            continue
        if len(files) > 1:
            raise UserError(
                f"id {ids.iloc[i]!r} names {len(files)} images ({files[0]}, {files[1]}, …); put their folder into the "
                "id, or name fewer folders in data.image_dir, or set data.image_suffix"
            )
        paths[i] = files[0]
    _refuse_outside(ids, paths, folders, data)
    return paths


def _index_by_name(folders: list[str]) -> dict[str, list[str]]:
    """Every name that an image may be called by → the image files of that name."""
    by_path, by_path_stem, by_name, by_stem = {}, {}, {}, {}
    for folder in folders:
        for name in filter(_is_image, _list_files(folder) if os.path.isdir(folder) else ()):
            file, path = os.path.join(folder, name), Path(name)
            by_path.setdefault(path.as_posix(), []).append(file)
            by_path_stem.setdefault(path.with_suffix("").as_posix(), []).append(file)
            by_name.setdefault(path.name, []).append(file)
            by_stem.setdefault(path.stem, []).append(file)
    return by_stem | by_name | by_path_stem | by_path  # the exact path outranks the others


def _refuse_outside(ids: Iterable[str], paths: list[str], folders: list[str], data: Data) -> None:
    """A table from a stranger must not reach files that are none of its business.

    Raises:
        UserError: a path leads out of the folders without data.allow_outside_files, or is a pipe or a device, which
            would be waited for.
    """
    real_folder = cache(os.path.realpath)  # few folders hold many files
    allowed = tuple(os.path.join(real_folder(folder), "") for folder in folders)
    for name, path in zip(ids, paths, strict=True):
        parent, file = os.path.split(path)
        real_path = (
            os.path.realpath(path)
            if os.path.islink(path)
            else os.path.join(real_folder(parent), file)
        )
        is_inside = real_path.startswith(allowed) and ".." not in name.split("/")
        if not is_inside and not data.allow_outside_files:
            raise UserError(
                f"id {name!r} leads out of {', '.join(folders)}, to {os.path.realpath(path)}; move it, name its folder "
                "in data.image_dir, or set data.allow_outside_files=true"
            )
        if not os.path.isfile(path) and not os.path.isdir(path) and os.path.exists(path):
            raise UserError(f"id {name!r}: {path} is a pipe, a device or the like; remove it")
