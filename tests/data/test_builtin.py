"""Built-in sets become image folders."""

import errno
import struct
from pathlib import Path

import numpy as np
import pytest

from pseudokit.config.keys import Data
from pseudokit.config.types import UserError
from pseudokit.data.builtin import with_builtin
from pseudokit.data.dataset import load_dataset
from pseudokit.data.images import load_images


@pytest.fixture(scope="module")
def digits_of_the_kit(tmp_path_factory) -> Data:
    """The digits, written where a killed process had begun to write them: the arguments that read them."""
    cache = tmp_path_factory.mktemp("cache")
    cut_off = cache / "digits.part" / "training" / "0" / "cut_off.png"
    cut_off.parent.mkdir(parents=True)
    cut_off.write_bytes(b"half an im")
    return with_builtin(Data(cache=str(cache)))


def test_digits_are_5000_real_images_with_100_a_class_set_aside(digits_of_the_kit):
    data = digits_of_the_kit
    dataset = load_dataset(data)
    for split, each in (("train", 400), ("test", 100)):
        assert (np.bincount(dataset.given_labels[dataset.split == split]) == each).all()
    pixels, _ = load_images(dataset.path, data)
    assert pixels.shape == (5000, 28, 28, 1)
    assert len(np.unique(pixels.reshape(5000, -1), axis=0)) > 4990, "no image stands in both parts"
    stamp = (Path(data.cache) / "digits").stat().st_mtime_ns
    with_builtin(Data(cache=data.cache))
    assert (Path(data.cache) / "digits").stat().st_mtime_ns == stamp


def test_what_a_killed_process_left_of_them_is_replaced(digits_of_the_kit):
    cache = Path(digits_of_the_kit.cache)
    assert not list(cache.rglob("cut_off.png"))
    assert not (cache / "digits.part").exists()
    assert len(list(cache.rglob("*.png"))) == 5000
    assert digits_of_the_kit.train == str(cache / "digits" / "training")


def test_a_disk_without_room_for_them_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match=r"digits.*No space left on device.*data\.cache="):
        with_builtin(Data(cache=str(tmp_path)))
    assert not (tmp_path / "digits").exists()


def test_mnist_is_read_by_torchvision_where_its_files_lie(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 30), ("t10k", 10)):
        images, labels = (
            rng.integers(0, 256, (n, 28, 28), np.uint8),
            np.arange(n, dtype=np.uint8) % 10,
        )
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, n, 28, 28) + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, n) + labels.tobytes()
        )
    data = Data(cache=str(tmp_path), train="mnist")
    dataset = load_dataset(with_builtin(data))
    assert (dataset.split == "train").sum() == 30
    pixels, _ = load_images(dataset.path[dataset.split == "test"], data)
    order = np.array(
        [int(path.rsplit("/", 1)[1][:-4]) - 30 for path in dataset.path[dataset.split == "test"]]
    )
    assert (pixels[..., 0] == images[order]).all()


def test_mnist_without_network_says_what_to_give_instead(tmp_path, monkeypatch):
    import torchvision.datasets

    def offline(*args, **kwargs):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nno network")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(UserError, match=r"data\.train=mnist.*data\.test"):
        with_builtin(Data(cache=str(tmp_path), train="mnist"))
    assert not (tmp_path / "mnist").exists()
