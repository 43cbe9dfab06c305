"""Duplicates: copies are found whatever their role, order and compression; what merely looks alike is not."""

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Data
from pseudokit.data.dataset import SPLITS, Dataset
from pseudokit.data.duplicates import (
    count_duplicates,
    difference_hashes,
    duplicates_table,
    find_links,
    refused_reasons,
    row_hashes,
)
from pseudokit.data.folds import connect


@pytest.fixture(scope="module")
def digits64() -> ndarray:
    """300 real digits as (300, 64, 64, 1) uint8."""
    images = (load_digits().images[:300] * 15.9).astype(np.uint8)
    return np.stack(
        [cv2.resize(image, (64, 64), interpolation=cv2.INTER_CUBIC) for image in images]
    )[..., None]


@pytest.fixture(scope="module")
def photos() -> ndarray:
    """40 color images with a fine grain, (40, 96, 96, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = [
        cv2.resize(
            rng.integers(0, 255, (8, 8, 3), np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(40)
    ]
    return np.clip(np.stack(coarse) + rng.normal(0, 20, (40, 96, 96, 1)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def same_hash() -> ndarray:
    """24 different images of one difference hash, (24, 64, 64, 1) uint8: each row brightens, with a step somewhere."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 60, 64) + 190 * (np.arange(64) >= rng.integers(8, 56, (24, 8, 1)))
    return np.repeat(ramp, 8, axis=1).astype(np.uint8)[..., None]


def test_hashes_of_pixels_tell_every_difference_and_perceptual_ones_do_not():
    rng = np.random.default_rng(0)
    image = cv2.resize(
        rng.integers(0, 255, (9, 8, 1), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC
    )[..., None]
    twin = image.copy()
    twin[0, 0] ^= 1
    exact = row_hashes(np.stack([image, image, twin]))
    assert exact[0] == exact[1] != exact[2]
    alike = difference_hashes(np.stack([image, twin, image[::-1]]), np.arange(3))
    assert alike.dtype == np.uint64
    assert alike[0] == alike[1]
    assert np.bitwise_count(alike[0] ^ alike[2]) > 15


def clusters_of(pixels) -> ndarray:
    return connect(find_links(pixels, len(pixels)), len(pixels))


def jpeg(quality):
    def copy(image):
        flag = cv2.IMREAD_COLOR if image.shape[2] == 3 else cv2.IMREAD_GRAYSCALE
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, flag).reshape(image.shape)

    return copy


def resized(share):
    def copy(image):
        side = image.shape[0]
        small = cv2.resize(image, (int(share * side),) * 2, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (side, side)).reshape(image.shape)

    return copy


def noisy(image):
    noise = np.random.default_rng(int(image.sum())).integers(-2, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


COPIES = {
    "same": lambda image: image,
    "brighter": lambda image: np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8),
    "darker": lambda image: (0.9 * image).astype(np.uint8),
    "jpeg 90": jpeg(90),
    "jpeg 60": jpeg(60),
    "noise": noisy,
}


@pytest.mark.parametrize("kind", [*COPIES, "half", "three quarters"])
@pytest.mark.parametrize("name", ["digits64", "photos"])
def test_a_copy_is_found(request, name, kind):
    images = request.getfixturevalue(name)
    rows = np.arange(0, len(images), len(images) // 20)
    copy = (COPIES | {"half": resized(0.5), "three quarters": resized(0.75)})[kind]
    copies = np.stack([copy(image) for image in images[rows]])
    clusters = clusters_of(np.concatenate([images, copies]))
    assert len(np.unique(clusters[: len(images)])) == len(images), "different images stay apart"
    assert (clusters[len(images) :] == clusters[rows]).all()


def test_recompressed_copies_of_small_digits_are_found():
    """On a black ground the noise of compression must not turn bits of the hash."""
    images = (load_digits().images[:300] * 15.9).astype(np.uint8)
    images = np.stack(
        [cv2.resize(image, (28, 28), interpolation=cv2.INTER_LINEAR) for image in images]
    )[..., None]
    clusters = clusters_of(
        np.concatenate([images, np.stack([jpeg(90)(image) for image in images])])
    )
    assert (clusters[300:] == clusters[:300]).mean() > 0.95


def test_different_small_digits_are_no_duplicates():
    small = (load_digits().images[:300] * 15.9).astype(np.uint8)[..., None]
    assert len(np.unique(clusters_of(small))) == 300


def test_thin_strokes_that_look_alike_are_no_duplicates():
    """Twenty upright strokes of a pen, a little apart or slanted: as ones of MNIST are."""
    images = np.zeros((20, 28, 28), np.uint8)
    for i, image in enumerate(images):
        cv2.line(image, (12 + i % 4, 4), (14 - i % 3, 18 + i // 4), 255, 2, cv2.LINE_AA)
    images = np.unique(images, axis=0)[..., None]
    assert len(images) == 20
    assert len(np.unique(clusters_of(images))) == 20


def test_flat_images_of_different_brightness_are_no_duplicates():
    flat = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 32, 32, 1), np.uint8
    )
    assert len(np.unique(clusters_of(flat))) == 25


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_clusters_do_not_depend_on_the_order_of_the_rows(data, digits64):
    """A base of images that are alike in part, with copies of some, in any order: the same partition."""
    base = st.tuples(st.integers(0, 12), st.sampled_from(sorted(COPIES)))
    chosen = data.draw(st.lists(base, min_size=1, max_size=40))
    pixels = np.stack([COPIES[kind](digits64[i]) for i, kind in chosen])
    order = np.array(data.draw(st.permutations(range(len(chosen)))))
    here, there = clusters_of(pixels), clusters_of(pixels[order])
    assert ((here[order][:, None] == here[order]) == (there[:, None] == there)).all()
    same = (pixels[:, None] == pixels).all((2, 3, 4))
    assert (here[:, None] == here)[same].all()


def test_many_images_of_one_hash_are_compared_in_any_order_alike(same_hash):
    pixels = np.concatenate([same_hash, np.stack([noisy(image) for image in same_hash])])
    assert len(np.unique(difference_hashes(pixels, np.arange(48)))) == 1
    assert len(np.unique(clusters_of(same_hash))) == 24
    here, rng = clusters_of(pixels), np.random.default_rng(0)
    for order in (rng.permutation(48) for _ in range(5)):
        there = clusters_of(pixels[order])
        assert ((here[order][:, None] == here[order]) == (there[:, None] == there)).all()


def test_what_is_only_scored_changes_no_link_among_the_first_rows(same_hash):
    """Not even where images of one hash are so many that not every pair is compared."""
    first = np.concatenate([same_hash, np.stack([noisy(image) for image in same_hash])])
    alone = connect(find_links(first, 48), 48)
    assert len(np.unique(alone)) < 48
    beside = find_links(np.concatenate([first, 255 - first[:, ::-1, ::-1]]), 48)
    assert (alone == connect(beside[:, (beside < 48).all(0)], 48)).all()


def test_copies_are_found_across_the_first_rows_and_the_others(digits64):
    copies = np.stack([noisy(digits64[i]) for i in range(40)])
    clusters = connect(find_links(np.concatenate([digits64[:60], copies]), 60), 100)
    assert (clusters[60:] == clusters[:40]).all()
    assert len(np.unique(clusters)) == 60


# ---- the table


@pytest.fixture
def table_of(tmp_path, photos):
    """table_of((split, id, number of the photo, given label, kind of copy), …) → duplicates.csv of these rows.

    Equal ids are one file.
    """

    def make(*rows):
        rows = sorted(rows, key=lambda row: (SPLITS.index(row[0]), row[1]))
        for _, name, photo, _, copy in rows:
            cv2.imwrite(str(tmp_path / f"{name}.png"), COPIES[copy](photos[photo]))
        split, ids, _, labels, _ = (np.array(column, object) for column in zip(*rows, strict=True))
        classes = tuple(sorted(set(labels) - {""})) or ("a",)
        given_ = np.array([(*classes, "").index(label) if label else -1 for label in labels])
        paths = np.array([str(tmp_path / f"{name}.png") for name in ids], object)
        dataset = Dataset(ids, paths, split, given_, np.full(len(rows), "", object), classes)
        pixels = np.stack([cv2.imread(path) for path in paths])
        return duplicates_table(dataset, pixels, find_links(pixels, len(rows)))

    return make


def test_the_kind_is_that_of_the_whole_cluster(table_of):
    table = table_of(
        ("train", "a", 0, "x", "same"),
        ("unlabeled", "b", 0, "", "same"),
        ("train", "c", 1, "x", "same"),
        ("unlabeled", "d", 1, "", "same"),
        ("test", "e", 1, "x", "same"),
        ("train", "f", 2, "x", "same"),
        ("val", "g", 2, "x", "same"),
        ("test", "h", 2, "x", "jpeg 90"),
        ("train", "z", 3, "x", "same"),
    )
    assert list(table) == ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    assert list(table.id) == list("abcdefgh")
    assert list(table.cluster) == [1, 1, 2, 2, 2, 3, 3, 3]
    assert list(table.kind) == ["pixels"] * 5 + ["near"] * 3
    assert not table.conflict.any()


def test_labels_that_disagree_come_first_and_no_label_is_no_disagreement(table_of):
    table = table_of(
        ("train", "a", 0, "x", "same"),
        ("train", "b", 0, "x", "same"),
        ("train", "c", 1, "x", "same"),
        ("unlabeled", "d", 1, "", "same"),
        ("train", "e", 2, "x", "same"),
        ("train", "f", 2, "y", "jpeg 90"),
        ("unlabeled", "g", 2, "", "same"),
        ("train", "h", 3, "x", "same"),
        ("test", "i", 3, "y", "same"),
    )
    assert list(table.id) == list("efghiabcd")
    assert list(table.cluster) == [1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert list(table.conflict) == [True] * 5 + [False] * 4
    assert count_duplicates(table) == {
        "clusters": 4,
        "rows": 9,
        "conflicts": 2,
        "clusters in train and unlabeled": 2,
        "clusters in train and test": 1,
    }


def test_no_duplicates_give_an_empty_table(table_of):
    table = table_of(("train", "a", 0, "x", "same"), ("unlabeled", "b", 1, "", "same"))
    assert table.empty
    assert list(table) == ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    assert count_duplicates(table) == {"clusters": 0, "rows": 0, "conflicts": 0}
    assert list(refused_reasons(table, np.array(["a", "b"], object), Data())) == ["", ""]


def test_unlabeled_rows_that_are_copies_of_scored_rows_are_refused(table_of):
    rows = []
    for number, split in enumerate(["val", "trusted", "test", "train"]):
        rows += [
            (split, f"{split}_0", number, "x", "same"),
            ("unlabeled", f"of_{split}", number, "", "jpeg 90"),
        ]
    table = table_of(*rows)
    ids = np.array(["of_val", "of_trusted", "of_test", "of_train", "train_0", "test_0"], object)
    reasons = ["duplicate_of_val", "duplicate_of_trusted", "duplicate_of_test", "", "", ""]
    assert list(refused_reasons(table, ids, Data())) == reasons
    assert set(refused_reasons(table, ids, Data(learn_from_test="copies"))) == {""}


def test_a_file_that_is_unlabeled_and_test_may_be_learned(table_of):
    unlabeled = [
        ("unlabeled", name, photo, "", "same")
        for name, photo in (("a", 0), ("b", 1), ("c", 1), ("d", 2))
    ]
    test = [
        ("test", name, photo, "x", "same")
        for name, photo in (("a", 0), ("b", 1), ("c", 1), ("d", 2))
    ]
    table = table_of(*unlabeled, *test, ("train", "e", 2, "y", "same"))
    assert set(table.id) == {"b", "c", "d", "e"}, "a alone is one file, named twice"
    assert not refused_reasons(table, np.array(["a", "b", "c", "d"], object), Data()).any()
    counts = count_duplicates(table)
    assert counts["clusters in unlabeled and test"] == 1
    assert counts["clusters in train and unlabeled and test"] == 1


def test_a_file_that_is_in_train_and_test_is_listed(table_of):
    table = table_of(("train", "a", 0, "x", "same"), ("test", "a", 0, "x", "same"))
    assert list(zip(table.split, table.kind, strict=True)) == [
        ("train", "pixels"),
        ("test", "pixels"),
    ]
    assert count_duplicates(table)["clusters in train and test"] == 1


def test_the_table_reads_back_as_it_was_decided_on(table_of, tmp_path):
    table = table_of(
        ("train", "a", 0, "x", "same"),
        ("train", "b", 0, "y", "same"),
        ("test", "c", 0, "x", "same"),
        ("unlabeled", "d", 0, "", "same"),
    )
    table.to_csv(tmp_path / "duplicates.csv", index=False)
    again = pd.read_csv(tmp_path / "duplicates.csv", dtype=str, keep_default_na=False)
    assert count_duplicates(again) == count_duplicates(table)
    assert refused_reasons(again, np.array(["d"], object), Data()).tolist() == ["duplicate_of_test"]
