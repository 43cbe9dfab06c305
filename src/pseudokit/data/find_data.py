"""What a folder holds: which of its tables and folders of images are data.train, data.test and so on."""

import re
from pathlib import Path
from typing import Any

from ..config.types import UserError
from .find_images import IMAGE_SUFFIXES, list_files
from .tables import PARQUET_SUFFIXES, SPLIT_FOLDER, read_cells

LAYOUTS = (
    "train.csv with columns id,label and the images in any folder beside it; train/<class>/<image>; or "
    "<class>/<image>"
)
"""What is looked for."""
TABLE_SUFFIXES = (".csv", ".tsv", *PARQUET_SUFFIXES)
SAMPLE = re.compile("sample.*submission", re.IGNORECASE)
SPLITS_BY_WORD = {"eval": "val", "dev": "val", "holdout": "val", "unlabelled": "unlabeled"}
"""Names of folders and tables that the config calls by another word."""
LABEL_COLUMN = re.compile(
    r"labels?|(label|class)[-_ ]?names?|class(es)?|category|target|species|breed|diagnosis|variety",
    re.IGNORECASE,
)
"""Names of columns of classes."""
SPLITS = ("unlabeled", "val", "test", "submission")
MAX_DEPTH = 2
"""Folders between the place and an image: <split>/<class>. Those of the kit's own runs lie deeper."""


def find_data(place: Path, train: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """The keys that describe what a folder holds, or what lies beside a table of labels.

    Args:
        place: the folder or the table.
        train: where the labels are, if the user has said it.

    Returns:
        Values by key, without data.train where there are no labels; and the names of tables and of folders of images
        that they leave out.

    Raises:
        UserError: there is no such place, or only the user knows which of several is meant.
    """
    if not place.exists():
        raise UserError(f"{place} does not exist; give a folder or a table: {LAYOUTS}")
    folder = place if place.is_dir() else place.parent
    files = [file.split("/") for file in list_files(folder) if file.count("/") <= MAX_DEPTH]
    images = [parts for parts in files if parts[-1].lower().endswith(IMAGE_SUFFIXES)]
    folders = sorted({folder / parts[0] for parts in images if len(parts) > 1})
    deep = {folder / parts[0] for parts in images if len(parts) > MAX_DEPTH}
    tables = [folder / parts[0] for parts in files if parts[0].lower().endswith(TABLE_SUFFIXES)]
    given = train or (place if place.is_file() else None)
    labels = Path(given) if given else _find_labels(folder, tables, folders, deep)
    # The first of each; tables come before folders.
    by_split = {_split_of(path): str(path) for path in reversed([*tables, *folders])}
    keys: dict[str, Any] = {"train": str(labels)} if labels else {}
    keys |= {split: by_split[split] for split in SPLITS if split in by_split}
    if "submission" in keys:
        keys.setdefault("test", keys["submission"])
    column = _label_column(labels) if labels and labels.is_file() else None
    if column not in (None, "label"):
        keys["label_col"] = column
    # The images of a table: in the folder of the same name, in the only folder, or anywhere beside the table.
    anywhere = folders[0] if len(folders) == 1 and len(images[0]) > 1 else folder
    folder_of = {_split_of(path): path for path in reversed(folders)}
    image_dirs = {
        split: str(folder_of.get(split, anywhere))
        for split in ("train", "unlabeled", "val", "test")
        if Path(keys.get(split, "")).is_file()
    }
    used = {*map(str, keys.values()), *image_dirs.values()}
    if "test" in image_dirs:  # its images may be learned from, too
        image_dirs.setdefault("unlabeled", image_dirs["test"])
    places = {*image_dirs.values()}
    if places - {str(folder)}:
        keys["image_dir"] = image_dirs if len(places) > 1 else places.pop()
    left_out = [*tables, *([] if str(folder) in used else folders)]
    return keys, [path.name for path in left_out if str(path) not in used]


def _find_labels(
    folder: Path, tables: list[Path], folders: list[Path], deep: set[Path]
) -> Path | None:
    """The table or the folder of classes that has the labels. deep: folders that may hold folders of classes."""
    classes = [path for path in folders if path not in deep and not _split_of(path)]
    kinds = (
        [file for file in tables if _split_of(file) == "train"],
        [path for path in folders if _split_of(path) == "train" and path in deep],
        [file for file in tables if not _split_of(file) and _label_column(file)],
        [folder] * (len(classes) > 1),
    )
    labeled = next(filter(None, kinds), [None])
    if len(labeled) > 1:
        raise UserError(
            f"{' and '.join(map(str, labeled))} may hold the labels; say which: data.train={labeled[0]}"
        )
    if labeled == [folder] and any(map(_split_of, folders)):
        raise UserError(
            f"{folder} holds classes like {classes[0].name} beside other folders; move the classes into "
            f"{folder / 'train'}"
        )
    return labeled[0]


def _label_column(file: Path) -> str | None:
    """The column of a table that holds the classes by its name, if it is clear."""
    names = [*read_cells(file)]
    likely = [name for name in names if LABEL_COLUMN.fullmatch(name)]
    return likely[0] if len(likely) == 1 else "label" if "label" in names else None


def _split_of(path: Path) -> str:
    """What a table or folder is by its name: a split, or a sample submission; "" = nothing."""
    if SAMPLE.search(path.name):
        return "submission"
    match = SPLIT_FOLDER.fullmatch(path.name.split(".")[0])
    word = match[1].lower() if match else ""
    return SPLITS_BY_WORD.get(word, word)
