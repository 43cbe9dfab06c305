"""One table or folder → ids, image files and labels, in whatever layout a competition has them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..config.keys import Data
from ..config.types import NO_TEXT, UNSEEN, UserError
from ..system.files import log
from .csv_text import read_csv
from .encoding import NONE, UNKNOWN

LABELLED_ROLES = ("train", "val", "trusted")
ID_COLUMNS = ("id", "image_id", "image", "filename", "path")
IMAGE_SUFFIXES = {
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
}
TABLE_SUFFIXES = {".parquet", ".pq"}
MOST_ROWS = 10_000_000
"""Of a parquet file, which may hold them in a few kilobytes."""


def read_split(data: Data, split: str, source: str | None = None) -> pd.DataFrame:
    """One CSV, parquet file or folder → columns id, path, role, label, group (all str).

    source: in place of the one that the config names.

    Raises:
        UserError: it is missing or unreadable, or lacks a column or a label.
    """
    key = f"--data {source}" if source else f"data.{split}={getattr(data, split)}"
    source = Path(source or getattr(data, split))
    if source.is_dir():
        table = _read_folder(source, data, labeled=split in LABELLED_ROLES, split=split)
    elif source.is_file():
        table = _read_table(source, data, split)
    else:
        raise UserError(f"{key} does not exist; give a CSV file, a parquet file or a folder of images")
    if split in LABELLED_ROLES and split != "train" and (table.label == "").any():
        raise UserError(
            f"data.{split}={source}: {table.id[table.label == ''].iloc[0]} has no label; fill "
            f"{_label_columns(data)} or remove the row"
        )
    return table.assign(split=split)


def _read_folder(folder: Path, data: Data, labeled: bool, split: str) -> pd.DataFrame:
    """`<folder>/<class>/<file>`; the id is the path below the folder, with the folder's own name in front."""
    all_files = sorted(_files(str(folder)))
    files = [*filter(_is_image, all_files)]
    if not files:
        raise UserError(f"data.{split}={folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    below = [file[len(str(folder)) + 1 :] for file in files]
    parents = [name.split(os.sep)[0] if os.sep in name else "" for name in below]
    if len(files) < len(all_files):
        _tell_others(folder, sorted({*all_files} - {*files}), {*parents} if labeled else None)
    if labeled and "" in parents:
        raise UserError(
            f"data.{split}={folder}: {below[parents.index('')]} lies in no class folder; use <class>/<file>"
        )
    if odd := next((name for name in below if NO_TEXT.search(name)), ""):
        raise UserError(f"data.{split}={folder}: {odd!r} is not UTF-8, or holds a control character; rename it")
    _refuse_outside(below, files, data, [str(folder)])
    known = labeled or _is_class_tree(below)
    prefix = folder.resolve().name
    return pd.DataFrame(
        {
            "id": [f"{prefix}/{Path(name).as_posix()}" for name in below],
            "path": files,
            "label": parents if known and split != "unlabeled" else "",
            "group": "",
        }
    )


def _tell_others(folder: Path, others: list[str], classes: set[str] | None) -> None:
    """Say which files are no images by their suffix.

    Raises:
        UserError: they are all that is in a folder of a class.
    """
    below = [Path(file).relative_to(folder) for file in others]
    lost = {name.parts[0] for name in below if len(name.parts) > 1} - classes if classes is not None else ()
    if lost:
        raise UserError(
            f"{folder / min(lost)} holds files and no image ({', '.join(sorted(IMAGE_SUFFIXES))}); convert "
            "them, or move the folder away"
        )
    log.info(f"{folder}: {len(below):,} files that are no images by their suffix are passed over ({below[0]}, …)")


def _is_class_tree(below: list[str]) -> bool:
    """Whether every file lies exactly one folder deep, as in `<class>/<file>`."""
    return all(name.count(os.sep) == 1 for name in below)


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES


def _files(folder: str, above: tuple[str, ...] = ()):
    """All files below a folder but hidden ones; os.scandir because pathlib is 10× slower on 70,000 files.

    above: the real paths of the folders that it lies in. A link to one of them leads in a circle, and is passed over.
    """
    above = (*above, os.path.realpath(folder))
    try:
        entries = os.scandir(folder)
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read ({error.strerror})") from None
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                    yield from _files(entry.path, above)
            else:
                yield entry.path


def _read_table(file: Path, data: Data, split: str) -> pd.DataFrame:
    is_csv = file.suffix.lower() not in TABLE_SUFFIXES
    table = read_csv(file) if is_csv else _read_parquet(file)
    if not len(table):
        raise UserError(f"data.{split}={file} has no rows")
    ids = table[id_column(table, data.id_col, file)].astype(object)  # text that is read many times
    groups = table.get(data.group_col, pd.Series(dtype=object)).unique()
    for what, names, wrong in (("id", ids, NO_TEXT), ("group", groups, UNSEEN)):
        if (odd := next(filter(wrong.search, names), None)) is not None:
            raise UserError(
                f"{file}: {what} {odd!r} holds a control character, or a line break where there is no "
                "place for one; mend it (a quote that is not closed?)"
            )
    if (ids == "").any():
        raise UserError(f"data.{split}={file} line {int((ids == '').argmax()) + 2} has an empty id; fill it")
    if data.group_col and split == "train" and data.group_col not in table:
        raise _no_column(file, table, "data.group_col", data.group_col)
    if is_csv:
        _warn_of_breaks(table.drop(columns=[ids.name]), file)
    label, group = _labels(table, file, data, split), table.get(data.group_col, "")
    return pd.DataFrame({"id": ids, "path": _find_files(ids, data, file.parent), "label": label, "group": group})


def _warn_of_breaks(table: pd.DataFrame, file: Path) -> None:
    """A quote that is not closed takes the rows up to the next one into its cell. In labels and groups that is refused;
    elsewhere it may be text of several lines."""
    for name in table.columns:
        if n := int(table[name].str.contains("\n", regex=False).sum()):
            log.info(
                f"warning: {file}: {n:,} cells of column {name!r} hold line breaks; where no text of several "
                "lines is meant, a quote is not closed there, and rows are lost"
            )


def _read_parquet(file: Path) -> pd.DataFrame:
    """As a CSV is read: text. Whole numbers have no decimals, also where they are stored as floats."""
    try:
        from pyarrow.parquet import ParquetFile

        if (rows := ParquetFile(file).metadata.num_rows) > MOST_ROWS:
            raise ValueError(f"it holds {rows:,} rows, more than {MOST_ROWS:,}")
        return _as_text(pd.read_parquet(file, dtype_backend="numpy_nullable"))  # a gap does not make floats of numbers
    except ImportError:
        raise UserError(f"{file}: parquet needs the package pyarrow: pip install pyarrow, or give a CSV") from None
    except Exception as error:  # pyarrow raises its own types
        raise UserError(f"{file} cannot be read as parquet: {' '.join(str(error).split())}") from None


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that hold single values, as text; empty where one is missing."""

    def is_cell(value) -> bool:
        return pd.api.types.is_scalar(value) and not isinstance(value, bytes)

    def text(value) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def column(name) -> list[str]:
        values, missing = table[name].tolist(), table[name].isna()
        return ["" if gone else text(value) for value, gone in zip(values, missing, strict=True)]

    cells = [name for name in table.columns if table[name].map(is_cell).all()]  # no bytes, no lists
    return pd.DataFrame({str(name): column(name) for name in cells}, range(len(table)))


def _labels(table: pd.DataFrame, file: Path, data: Data, split: str) -> pd.Series | str:
    """The column of labels, or the names of the one-hot columns that have a 1, see sets.names; empty where a role
    needs none."""
    columns = [data.label_col] if isinstance(data.label_col, str) else data.label_col
    missing = [name for name in columns if name not in table]
    if missing and split in LABELLED_ROLES:
        raise _no_column(file, table, "data.label_col", missing[0])
    if missing or split == "unlabeled":
        return ""
    if isinstance(data.label_col, str):
        return table[data.label_col]
    empty = (table[columns] == "").to_numpy()
    ones = table[columns].replace("", "0").apply(pd.to_numeric, errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~np.isin(ones, [0, 1]).all(1))
    if len(wrong):
        raise UserError(
            f"{file} line {wrong[0] + 2}: the columns {', '.join(columns)} hold 1 or 0; mend the row or data.label_col"
        )
    several = np.flatnonzero(ones.sum(1) > 1)
    if len(several) and not data.multi_label:
        raise UserError(
            f"{file} line {several[0] + 2}: several of the columns {', '.join(columns)} are 1; mend the "
            "row, or set data.multi_label=true where images have several labels"
        )
    if data.multi_label:
        texts = map(partial(_set_name, columns, data.label_sep), ones.tolist(), empty.tolist())
        return pd.Series(list(texts), table.index, dtype=object)
    return pd.Series(np.where(ones.any(1), np.array(columns, object)[ones.argmax(1)], ""), table.index, dtype=object)


def _set_name(columns: list[str], sep: str, ones: list[float], empty: list[bool]) -> str:
    """One row of one-hot columns as the text of a label set."""
    if all(empty):
        return ""
    said = [UNKNOWN * gone + name for name, one, gone in zip(columns, ones, empty, strict=True) if one or gone]
    return sep.join(said) or NONE


def _label_columns(data: Data) -> str:
    return f"column {data.label_col!r}" if isinstance(data.label_col, str) else f"columns {', '.join(data.label_col)}"


def id_column(table: pd.DataFrame, wanted: str | None, file: Path) -> str:
    """The id column that was asked for, or the first of the usual names."""
    found = [name for name in ([wanted] if wanted else ID_COLUMNS) if name in table]
    if not found:
        raise _no_column(file, table, "data.id_col", wanted or " / ".join(ID_COLUMNS))
    return found[0]


def _no_column(file: Path, table: pd.DataFrame, key: str, wanted: str) -> UserError:
    return UserError(f"{file} has no column {wanted!r} (it has {', '.join(map(repr, table.columns))}); set {key}=")


def _find_files(ids: pd.Series, data: Data, beside: Path) -> list[str]:
    """image_dir / (id + suffix). Where that is not where the images lie, or there are several folders: the image of
    that name, with or without folder and suffix, anywhere below them.

    Raises:
        UserError: an id names several images.
    """
    given_labels = [beside] if data.image_dir is None else data.image_dir
    folders = [str(given_labels)] if isinstance(given_labels, str | Path) else given_labels
    paths = [os.path.join(folders[0], name + data.image_suffix) for name in ids]
    sure = _exist(paths) if len(folders) == 1 else [False] * len(paths)
    index = {} if all(sure) else _by_name(folders)
    found = [
        [path] if known else index.get(name + data.image_suffix, [path])
        for name, path, known in zip(ids, paths, sure, strict=True)
    ]
    for name, files in zip(ids, found, strict=True):
        if len(files) > 1:
            raise UserError(
                f"id {name!r} names {len(files)} images ({files[0]}, {files[1]}, …); put their folder into "
                "the id, or name fewer folders in data.image_dir, or set data.image_suffix"
            )
    return _refuse_outside(ids, [files[0] for files in found], data, folders)


def _refuse_outside(ids: Iterable[str], paths: list[str], data: Data, folders: list[str]) -> list[str]:
    """The paths, where each is a file, or nothing, whose real place is in one of the folders, or anywhere that
    data.allow_outside_files allows.

    Raises:
        UserError: one leads out of them, or is a pipe or a device, which would be waited for.
    """
    roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    places = [os.path.split(path) for path in paths]
    plain = {above: _plain_files(above) for above in {above for above, _ in places}}
    real = {above: os.path.join(os.path.realpath(above), "") for above in plain}
    for name, path, (above, last) in zip(ids, paths, places, strict=True):
        known = last in plain[above]
        where = os.path.realpath(path) if not known and os.path.islink(path) else real[above]
        if not data.allow_outside_files and (".." in name.split("/") or not where.startswith(roots)):
            raise UserError(
                f"id {name!r} leads out of {', '.join(folders)}, to {os.path.realpath(path)}; move it, "
                "name its folder in data.image_dir, or set data.allow_outside_files=true"
            )
        if not known and os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
            raise UserError(f"id {name!r}: {path} is a pipe, a device or the like; remove it")
    return paths


def _exist(paths: list[str]) -> list[bool]:
    """Which of the paths lead somewhere."""
    plain = {above: _plain_files(above) for above in {os.path.dirname(path) for path in paths}}
    return [os.path.basename(path) in plain[os.path.dirname(path)] or os.path.exists(path) for path in paths]


def _plain_files(folder: str) -> set[str]:
    """The names in a folder that are files and no links: a list of it is read far sooner than it is asked of each."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:  # missing, which is said where images are decoded
        return set()


def _by_name(folders: list[str]) -> dict[str, list[str]]:
    """Image files below the folders, by their path below, that without suffix, their name, and that without suffix;
    of these the first is the surest."""
    kinds: list[dict[str, list[str]]] = [{}, {}, {}, {}]
    for folder in filter(os.path.isdir, folders):
        for file in filter(_is_image, sorted(_files(folder))):
            below = Path(os.path.relpath(file, folder))
            names = below.as_posix(), below.with_suffix("").as_posix(), below.name, below.stem
            for kind, name in zip(kinds, names, strict=True):
                kind.setdefault(name, []).append(file)
    return kinds[3] | kinds[2] | kinds[1] | kinds[0]
