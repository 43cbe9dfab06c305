"""Embeddings that runs share: what was added is found, whatever happens to the files or to who writes them."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from pseudokit.training.embedding_store import EmbeddingStore

UNITS = 6


def images(*numbers: int) -> ndarray:
    """(n, 2, 2, 1) one image a number."""
    return np.array(numbers, np.uint8).reshape(-1, 1, 1, 1).repeat(2, 1).repeat(2, 2)


def vectors(*numbers: int) -> ndarray:
    return np.array(numbers, np.float32)[:, None] + np.arange(UNITS, dtype=np.float32) / 8


@pytest.fixture
def store(tmp_path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "store", "resnet", UNITS)


def found(store: EmbeddingStore, *numbers: int) -> dict[int, ndarray]:
    known, stored = store.find(images(*numbers))
    return dict(zip(np.array(numbers)[known].tolist(), stored, strict=True))


def test_what_was_added_is_found_in_any_order_and_nothing_else(store, tmp_path):
    assert found(store, 1, 2) == {}
    store.add(images(1, 2, 3), vectors(1, 2, 3))
    store.add(images(9), vectors(9))
    for reader in (store, EmbeddingStore(tmp_path / "store", "resnet", UNITS)):
        known = found(reader, 9, 4, 1, 1)
        assert sorted(known) == [1, 9]
        np.testing.assert_array_equal(known[9], vectors(9)[0])
        np.testing.assert_array_equal(known[1], vectors(1)[0])
    assert found(EmbeddingStore(tmp_path / "store", "another", UNITS), 1) == {}


@pytest.mark.parametrize("suffix", ["vectors", "records"])
def test_rows_that_a_killed_process_left_half_written_are_not_there(store, tmp_path, suffix):
    store.add(images(1), vectors(1))
    store.add(images(2), vectors(2))
    file = tmp_path / "store" / f"resnet.{suffix}"
    file.write_bytes(file.read_bytes()[:-1])
    assert sorted(found(store, 1, 2)) == [1]
    store.add(images(2, 3), vectors(2, 3))
    known = found(store, 1, 2, 3)
    np.testing.assert_array_equal([known[n] for n in (1, 2, 3)], vectors(1, 2, 3))


def test_a_vector_that_is_not_as_it_was_written_is_not_there_until_it_is_added_again(
    store, tmp_path
):
    store.add(images(1, 2), vectors(1, 2))
    file = tmp_path / "store" / "resnet.vectors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    assert sorted(found(store, 1, 2)) == [1]
    store.add(images(2), vectors(2))
    assert sorted(found(store, 1, 2)) == [1, 2]


def _add(folder: Path, first: int) -> None:
    store = EmbeddingStore(folder, "resnet", UNITS)
    for number in range(first, first + 100):
        store.add(images(number), vectors(number))


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=_add, args=(tmp_path, first)) for first in (0, 50, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    known = found(EmbeddingStore(tmp_path, "resnet", UNITS), *range(200))
    np.testing.assert_array_equal([known[n] for n in range(200)], vectors(*range(200)))
