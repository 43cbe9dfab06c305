"""What the neighbors of an image say: labels spread over the graph of images that look alike."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

NEIGHBOURS = 10
CELLS = 8
DIRECTIONS = 6
FEATURES = 100
"""Principal components that are compared: a fifth of the time of all of them."""
RESTART = 0.01
"""How much of its start a row keeps in every step: 1 - alpha in Zhou et al."""
STEPS = 60
FEW_LABELS_PER_CLASS = 8
FLOOR = 1e-3
"""The least that neighbors give any class, so that they never have the last word."""


def graph_power(labels_per_class: float) -> float:
    """How much neighbors should count beside a head on a frozen backbone, see `pseudo.label_propagation`.

    On flowers and trash the student was best with 4 at 5 labels a class, with 2 at 10, and without them at 25
    (docs/log.md).
    """
    if labels_per_class < FEW_LABELS_PER_CLASS:
        return 4.0
    return 2.0 if labels_per_class < 2 * FEW_LABELS_PER_CLASS else 0.0


def neighbor_graph(features: np.ndarray) -> sparse.csr_array:
    """(N, N) affinities of images to their nearest neighbors by features (N, D), normalized by D^-1/2 W D^-1/2.

    They are weighted by exp(-d² / (σ_i σ_j)), σ = the distance of the farthest one
    that counts (self-tuning, Zelnik-Manor & Perona 2004). Time grows with N²: 60,000 images take half a minute.
    N ≥ 2.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    with np.errstate(invalid="ignore"):  # images that are all alike have no variance to explain
        features = PCA(min(FEATURES, *features.shape), random_state=0).fit_transform(features)
    count = min(NEIGHBOURS, len(features) - 1)
    distance, index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors()
    reach = np.maximum(distance[:, -1], 1e-6)
    weight = np.exp(-(distance**2) / (reach[:, None] * reach[index]))
    starts = np.arange(0, index.size + 1, count)
    graph = sparse.csr_array((weight.ravel(), index.ravel(), starts), (len(index), len(index)))
    graph = graph.maximum(graph.T)
    scale = 1 / np.sqrt(np.maximum(graph.sum(1), 1e-12))
    return (graph * scale[:, None] * scale[None, :]).tocsr().astype(np.float32)


def gradient_features(pixels: np.ndarray) -> np.ndarray:
    """(N, CELLS² · DIRECTIONS) float32 of unit length: how strong edges of each direction are in each part of an image.

    A histogram of oriented gradients (Dalal & Triggs 2005) with soft cells and bins. pixels: (N, H, W, C) uint8.
    """
    return np.concatenate([_gradients(torch.from_numpy(pixels[i : i + 1024])) for i in range(0, len(pixels), 1024)])


def _gradients(pixels: torch.Tensor) -> np.ndarray:
    grey = torch.nn.functional.pad(pixels.float().mean(3), (1, 1, 1, 1))
    down, right = torch.gradient(grey, dim=(1, 2))
    angles = torch.arange(DIRECTIONS) * (2 * torch.pi / DIRECTIONS)
    along = right[:, None] * angles.cos()[:, None, None] + down[:, None] * angles.sin()[:, None, None]
    strength = torch.hypot(right, down)[:, None]
    energy = along.clamp(min=0) ** 2 / (strength + 1e-3)
    cells = torch.nn.functional.interpolate(energy, (CELLS, CELLS), mode="bilinear", antialias=True)
    return torch.nn.functional.normalize(cells.flatten(1)).numpy()


def propagate_labels(graph: sparse.csr_array, learned: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """(N, K) log-probabilities of every row, from the labels of the learned rows alone.

    Local and global consistency (Zhou et al. 2004): F ← (1 - r) S F + r Y, from F = Y.
    learned: row numbers; targets: their labels (n,) or soft labels (n, K).
    """
    start = np.zeros((graph.shape[0], classes), np.float32)
    start[learned] = targets if targets.ndim == 2 else np.eye(classes, dtype=np.float32)[targets]
    found = start
    for _ in range(STEPS):
        found = (1 - RESTART) * (graph @ found) + RESTART * start
    shares = found / np.maximum(found.sum(1, keepdims=True), 1e-12) + FLOOR
    return np.log(shares / shares.sum(1, keepdims=True))
