"""What is odd is odd within its set, and nothing is where the set is made so."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pseudokit.data.odd_images import find_odd_images, find_unlike_images

N = 60


@pytest.fixture
def photos(tmp_path):
    """Images of clouds with fine grain, and the paths of files of about one size."""
    rng = np.random.default_rng(0)
    clouds = cv2.resize(rng.uniform(90, 160, (8, 8, N)).astype(np.float32), (48, 48))
    grain = rng.normal(0, 1, (48, 48, N)) * rng.uniform(10, 20, N)
    pixels = (clouds + grain).clip(0, 255).astype(np.uint8).transpose(2, 0, 1)[..., None]
    paths = np.array([str(tmp_path / f"{i}.png") for i in range(N)])
    for path, image in zip(paths, pixels, strict=True):
        cv2.imwrite(path, cv2.resize(image, (50 + int(rng.integers(8)), 40)))
    return paths, pixels


def reasons(paths, pixels) -> dict[int, str]:
    odd = find_odd_images(paths, pixels)
    assert odd.spreads.is_monotonic_decreasing
    return dict(zip(odd.row, odd.reason, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_each_fault_is_found_and_named(photos, channels):
    paths, pixels = photos
    assert reasons(paths, pixels) == {}
    pixels[1] //= 30
    pixels[2] = 255 - (255 - pixels[2]) // 30
    pixels[3, ..., 0] = cv2.GaussianBlur(pixels[3], (0, 0), 5)
    cv2.imwrite(paths[4], np.zeros((400, 550), np.uint8))
    cv2.imwrite(paths[5], np.zeros((10, 12), np.uint8))
    cv2.imwrite(paths[6], np.zeros((20, 120), np.uint8))
    odd = reasons(paths, np.repeat(pixels, channels, axis=3))
    expected = {1: "dark", 2: "bright", 3: "blurred", 4: "large", 5: "small", 6: "narrow"}
    assert odd == expected


def test_digits_on_black_are_not_dark_and_files_may_be_gone():
    digits = load_digits().images.astype(np.uint8)[..., None] * 15
    assert reasons(np.array(["gone.png"] * len(digits)), digits) == {}


def test_what_many_images_are_is_not_odd(photos):
    paths, pixels = photos
    pixels[: N // 5] //= 30
    assert reasons(paths, pixels) == {}


def test_images_of_another_kind_are_unlike_the_others():
    """Also where a direction in which all images differ says nothing of it."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(0, 1, (5, 64))
    kind = rng.integers(0, 4, 400)
    foreign = rng.permutation(400)[:10]
    kind[foreign] = 4
    embeddings = kinds[kind] + rng.normal(0, 0.3, (400, 64))
    embeddings += rng.normal(0, 20, (400, 1)) * rng.normal(0, 1 / 8, 64)
    assert {*find_unlike_images(embeddings.astype(np.float32))} == {*foreign}


def test_of_few_images_few_are_unlike_the_others_and_of_equal_ones_none():
    embeddings = np.random.default_rng(0).normal(0, 1, (60, 8)).astype(np.float32)
    assert len(find_unlike_images(embeddings)) == 3
    assert len(find_unlike_images(embeddings[:3])) == 0
    with np.errstate(all="raise"):
        assert len(find_unlike_images(np.full((60, 8), 0.1, np.float32))) == 0
