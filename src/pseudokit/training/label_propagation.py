"""Labels propagated over the graph of similar images."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from scipy import sparse

NEIGHBORS_PER_IMAGE = 10
CELLS_PER_SIDE = 8
"""Parts of an image, along each side, whose edges are summed up."""
EDGE_DIRECTIONS = 6
MAX_COMPONENTS = 100
"""Principal components that are compared: a fifth of the time of all features."""
RESTART = 0.01
"""Share of its own label that a row keeps in every step: 1 - alpha in Zhou et al."""
STEPS = 60
"""Of the propagation; the labels hardly change after these."""
FEW_LABELS_PER_CLASS = 8
MIN_SHARE = 1e-3
"""The least that neighbors give any class, so that they never have the last word."""
IMAGES_PER_CHUNK = 1024
"""So that the edge directions of all images are never in memory at once."""


def graph_power(labels_per_class: float, n_networks: int) -> float:
    """How much neighbors should count beside a head on a frozen backbone, see `pseudo.label_propagation`.

    On flowers and trash the student was best with 4 at 5 labels a class, with 2 at 10, and without them at 25. The
    neighbors that several networks find together help there, too (docs/log.md).
    """
    if labels_per_class < FEW_LABELS_PER_CLASS:
        return 4.0
    if labels_per_class < 2 * FEW_LABELS_PER_CLASS:
        return 2.0
    if n_networks > 1 and labels_per_class < 4 * FEW_LABELS_PER_CLASS:
        return 1.0
    return 0.0


def neighbor_graph(features: ndarray) -> sparse.csr_array:
    """The affinities of images to their nearest neighbors.

    They are exp(-d² / (σ_i σ_j)), with the distance to the farthest neighbor as σ (self-tuning, Zelnik-Manor & Perona
    2004). Time grows with N²: 60,000 images take half a minute.

    Args:
        features: (N, D), N ≥ 2.

    Returns:
        (N, N), normalized as D^-1/2 W D^-1/2.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    n = len(features)
    pca = PCA(min(MAX_COMPONENTS, *features.shape), random_state=0)
    with np.errstate(invalid="ignore"):  # images that are all the same have no variance to explain
        features = pca.fit_transform(features)
    count = min(NEIGHBORS_PER_IMAGE, n - 1)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features)
    graph = sparse.csr_array(search.kneighbors_graph(mode="distance"))
    distance, neighbor = graph.data.reshape(n, count), graph.indices.reshape(n, count)
    sigma = np.maximum(distance[:, -1], 1e-6)
    scale = sigma[:, None] * sigma[neighbor]
    graph.data = np.exp(-(distance**2) / scale).ravel()
    graph = graph.maximum(graph.T)
    scale = 1 / np.sqrt(np.maximum(graph.sum(1), 1e-12))
    graph = graph * scale[:, None] * scale[None, :]
    return graph.tocsr().astype(np.float32)


def gradient_features(pixels: ndarray) -> ndarray:
    """How strong edges of each direction are in each part of an image.

    A histogram of oriented gradients (Dalal & Triggs 2005) with soft cells and bins.

    Args:
        pixels: (N, H, W, C) uint8.

    Returns:
        (N, CELLS_PER_SIDE² · EDGE_DIRECTIONS) float32 of unit length.
    """
    angles = torch.arange(EDGE_DIRECTIONS)[:, None, None] * (2 * torch.pi / EDGE_DIRECTIONS)
    chunks = []
    for chunk in torch.from_numpy(pixels).split(IMAGES_PER_CHUNK):
        gray = F.pad(chunk.float().mean(3), (1, 1, 1, 1))
        down, right = torch.gradient(gray[:, None], dim=(2, 3))
        strength = torch.hypot(right, down)
        along = right * angles.cos() + down * angles.sin()
        energy = along.clamp(min=0) ** 2 / (strength + 1e-3)
        cells = F.interpolate(
            energy, (CELLS_PER_SIDE, CELLS_PER_SIDE), mode="bilinear", antialias=True
        )
        chunks.append(F.normalize(cells.flatten(1)).numpy())
    return np.concatenate(chunks)


def propagate_labels(
    graph: sparse.csr_array,
    learned: ndarray,
    targets: ndarray,
    classes: int,
) -> ndarray:
    """The labels of every row, from those of the learned rows alone.

    Local and global consistency (Zhou et al. 2004): F ← (1 - r) S F + r Y, from F = Y.

    Args:
        graph: (N, N), see neighbor_graph. learned: row numbers. targets: their labels (n,) or soft labels (n, K).

    Returns:
        (N, K) log-probabilities.
    """
    if targets.ndim == 1:
        targets = np.eye(classes, dtype=np.float32)[targets]
    start = np.zeros((graph.shape[0], classes), np.float32)
    start[learned] = targets
    labels = start
    for _ in range(STEPS):
        labels = (1 - RESTART) * (graph @ labels) + RESTART * start
    total = np.maximum(labels.sum(1, keepdims=True), 1e-12)
    shares = labels / total + MIN_SHARE
    return np.log(shares / shares.sum(1, keepdims=True))
