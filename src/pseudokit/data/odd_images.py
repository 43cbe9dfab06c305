"""Images that stand out of their set: dark, bright, blurred, odd in size or shape, or unlike all others.

Every measure is compared with the set's own distribution, as digits on black are no dark photos.
"""

import cv2
import numpy as np
import pandas as pd
from numpy import ndarray
from PIL import Image
from scipy.linalg import eigh

FENCE = 3.5
"""Interquartile ranges beyond the upper quartile, from which on an image is odd. Tukey (1977) calls 3 far out; a few of
1,797 digits of 8 × 8 pixels lie between."""
MIN_SPREAD = 0.2
"""Least interquartile range, so that sizes that are all alike are not odd for a few pixels."""
MAX_ODD_SHARE = 0.05
"""More images than this are no exception, but what the set is like."""
MAX_SIZED_IMAGES = 20_000
"""Of more images the sizes are not looked at: opening 70,000 files takes five seconds."""

N_UNLIKE = 10
"""Images in the list of those that are unlike the others, or MAX_ODD_SHARE of the set. There is no limit from which on
an image is: people look."""
MAX_COMPARED_IMAGES = 4000
"""Images that are compared with each other, which takes two seconds and 130 MB: a random part of more."""
NEIGHBORS = 30
"""The least similar of so many counts, itself among them, so that a few foreign images of one kind do not hide each
other."""
COMPONENTS = 100
"""Directions in which images are compared: those in which they differ most."""
SHRINKAGE = 3.0
"""How many times the mean variance is added to that of each direction before they get one scale."""


def find_odd_images(paths: ndarray, pixels: ndarray) -> pd.DataFrame:
    """Which images are odd, and why: the oddest first, each with the reason by which it is the oddest.

    Args:
        paths: (N,) str.
        pixels: (N, H, W, C) uint8.

    Returns:
        row: which image. reason: dark, bright, blurred, small, large or narrow. spreads: by how many interquartile
        ranges it lies beyond the upper quartile.
    """
    brightness, sharpness = np.transpose([_measure(image) for image in pixels])
    measures = {"dark": -brightness, "bright": brightness, "blurred": -sharpness}
    if len(paths) <= MAX_SIZED_IMAGES:
        sides = np.log([_sides(path) for path in paths])
        size = sides.sum(1)
        measures |= {"small": -size, "large": size, "narrow": np.ptp(sides, axis=1)}
    table = pd.DataFrame(measures)
    upper = table.quantile(0.75)
    spread = (upper - table.quantile(0.25)).clip(lower=MIN_SPREAD)
    spreads = (table - upper) / spread
    is_odd = spreads > FENCE
    odd = spreads.where(is_odd & (is_odd.mean() <= MAX_ODD_SHARE)).rename_axis("row").reset_index()
    odd = odd.melt("row", var_name="reason", value_name="spreads").dropna()
    return odd.sort_values("spreads", ascending=False, kind="stable").drop_duplicates("row")


def find_unlike_images(embeddings: ndarray) -> ndarray:
    """(n,) numbers of the images that are least like others, at most N_UNLIKE, the oddest first; none if all are alike.

    By the cosine to the nearest neighbors (Sun et al. 2022) of whitened embeddings: else a few directions in which all
    images differ hide what is foreign to them (benchmarks/outliers.py).

    Args:
        embeddings: (N, D) of a frozen network.
    """
    some = np.random.default_rng(0).permutation(len(embeddings))[:MAX_COMPARED_IMAGES]
    x = embeddings[some]
    if not np.ptp(x, axis=0).any():
        return some[:0]
    x -= x.mean(0)
    covariance = x.T @ x / len(x)
    d = len(covariance)
    largest = max(0, d - COMPONENTS), d - 1  # all of them take three times as long
    variances, directions = eigh(covariance, subset_by_index=largest)
    scales = np.sqrt(variances + SHRINKAGE * covariance.trace() / d)
    white = x @ (directions / scales)
    unit = white / np.linalg.norm(white, axis=1, keepdims=True)
    similar = np.sort(unit @ unit.T)[:, -NEIGHBORS:].min(1)
    n = min(N_UNLIKE, int(MAX_ODD_SHARE * len(embeddings)))
    return some[similar.argsort(kind="stable")[:n]]


def _measure(image: ndarray) -> tuple[float, float]:
    """The log odds of the brightness, and how much fine detail there is for the contrast, also as a logarithm."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image
    mean, contrast = cv2.meanStdDev(gray)
    _, detail = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_32F))
    sharpness = np.log(detail**2 + 0.1) - np.log(contrast**2 + 0.1) / 2
    return np.log((mean + 1) / (256 - mean)).item(), sharpness.item()


def _sides(path: str) -> tuple[float, float]:
    """Width and height of an image file, by its header; NaN where it has gone or Pillow does not know it."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # each format raises its own types
        return np.nan, np.nan
