"""Which file is the image of a row, and if there is none, why."""

import glob
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from ..config.types import UserError

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
NUMBER = re.compile(r"(^|/)0*(\d+)(?:\.0+)?(?=(?:\.[a-z]\w*)?$)")
"""A name that is a number: spreadsheets write 7 or 7.0 for 007."""
NOT_IMAGES = {
    b"version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
    b"<": "a web page or SVG",
    b"\0\0\0": "HEIC or a video; convert it",
    b"": "not an image, damaged or too large",
}
"""How files begin that are often there in place of an image, and what they are."""


@dataclass
class ImageFolders:
    """Folders in which images are looked up. They are listed once, and only if it is needed."""

    folders: list[str]
    suffix: str

    def find(self, names: pd.Series) -> pd.DataFrame:
        """The image of each name: folder / (name + suffix) if it is there, otherwise any image of that name, with or
        without its folder and suffix, below the folders; otherwise any of that name in another spelling.

        Returns:
            path: the first of them, or where it should be. files: all of them. is_respelled.
        """
        rows = [self._find(name + self.suffix) for name in names]
        return pd.DataFrame(rows, names.index, ["path", "files", "is_respelled"])

    def _find(self, name: str) -> tuple[str, list[str], bool]:
        paths = {
            os.path.join(folder, name): None for folder in self.folders
        }  # one where it is absolute
        exact = [*filter(os.path.isfile, paths)] or self._by_name.get(name, [])
        files = exact or self._by_spelling.get(_respelled(name), [])
        return [*files, *paths][0], files, files != exact

    @cached_property
    def _images(self) -> list[tuple[str, str]]:
        """(path below its folder, path) of every image."""
        return [
            (path, os.path.join(folder, path))
            for folder in filter(os.path.isdir, self.folders)
            for path in list_files(folder)
            if path.lower().endswith(IMAGE_SUFFIXES)
        ]

    _by_name = cached_property(lambda self: self._index(str))
    _by_spelling = cached_property(lambda self: self._index(_respelled))

    def _index(self, spell: Callable[[str], str]) -> dict[str, list[str]]:
        """Every name that an image may be called by, with or without folder and suffix → the images of that name."""
        indexes = [{}, {}, {}, {}]
        for path, file in self._images:
            name = spell(path)
            stem = os.path.splitext(name)[0]
            names = (name, stem, os.path.basename(name), os.path.basename(stem))
            for index, key in zip(indexes, names, strict=True):
                index.setdefault(key, []).append(file)
        # What is more exact outranks the others.
        return indexes[3] | indexes[2] | indexes[1] | indexes[0]


def _respelled(name: str) -> str:
    """Equal for names that differ by what programs change: case, backslashes, blanks at the ends, leading zeros, and
    how an accent is coded."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").strip()
    name = name.removeprefix("./").lower()
    # A template such as \1\2 takes three times as long.
    return NUMBER.sub(lambda match: match[1] + match[2], name)


def list_files(folder: str | Path) -> list[str]:
    """Sorted paths below the folder of all its files but hidden ones. Links are followed, but never in a circle."""
    paths = []
    for parent, subfolders, files in os.walk(folder, followlinks=True, onerror=_refuse_unreadable):
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not _is_circle(Path(parent, name))
        ]
        paths += [os.path.join(parent, name) for name in files if not name.startswith(".")]
    start = len(os.path.join(folder, ""))
    return sorted(path[start:].replace(os.sep, "/") for path in paths)


def _is_circle(folder: Path) -> bool:
    """Whether it is a link to a folder on its own way."""
    return folder.is_symlink() and any(map(folder.samefile, folder.absolute().parents))


def _refuse_unreadable(error: OSError) -> None:
    raise UserError(f"folder {error.filename} cannot be read ({error.strerror})") from None


# ---- why there is no image


def why_unreadable(path: str) -> str:
    """Why no image can be read there."""
    if "://" in path:
        return "an address; save the images, and write their file names"
    if not os.path.exists(os.path.dirname(path)):
        return "missing, and so is its folder; check data.image_dir"
    if not os.path.exists(path):
        pattern = glob.escape(os.path.splitext(path)[0]) + ".*"
        other = os.path.basename(next(glob.iglob(pattern), "nothing alike"))
        return f"missing; there is {other}; check data.image_dir and data.image_suffix"
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        return "no plain file, or may not be read"
    with open(path, "rb") as file:
        head = file.read(64)
    kinds = [kind for start, kind in NOT_IMAGES.items() if head.lstrip().startswith(start)]
    return kinds[0] if head else "empty"
