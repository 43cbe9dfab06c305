"""The graph of similar images, and labels propagated over it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from pseudokit.training import label_propagation
from pseudokit.training.label_propagation import gradient_features, propagate_labels


def digits(n=600):
    """Real digits as (n, 32, 32, 1) uint8, and their classes."""
    data = load_digits()
    pixels = np.kron(data.images[:n] * 15, np.ones((4, 4))).astype(np.uint8)
    return pixels[..., None], data.target[:n]


def neighbor_graph(pixels):
    return label_propagation.neighbor_graph(gradient_features(pixels))


def test_a_label_a_class_spreads_to_most_similar_images():
    pixels, classes = digits()
    first = np.array([np.flatnonzero(classes == k)[0] for k in range(10)])
    log_probs = propagate_labels(neighbor_graph(pixels), first, classes[first], 10)
    assert (log_probs.argmax(1) == classes).mean() > 0.7, "ten labels of six hundred"
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, rtol=1e-5)


def test_affinities_are_symmetric_and_no_image_is_its_own_neighbor():
    graph = neighbor_graph(digits(200)[0])
    assert abs(graph - graph.T).max() < 1e-6
    assert graph.diagonal().max() == 0
    assert graph.min() >= 0


def test_features_know_the_direction_of_an_edge_but_not_the_brightness():
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[:, 14:] = 120
    brighter, turned = image * 2, image.transpose(0, 2, 1, 3).copy()
    plain, bright, side = (gradient_features(x)[0] for x in (image, brighter, turned))
    assert plain @ bright > 0.999
    assert plain @ side < 0.6


def test_color_images_of_any_size_have_as_many_features():
    rng = np.random.default_rng(0)
    features = [
        gradient_features(rng.integers(0, 256, (3, size, size, c), np.uint8))
        for size, c in ((8, 1), (41, 3))
    ]
    assert features[0].shape == features[1].shape


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10**6), st.sampled_from(["noise", "same", "black"]))
def test_whatever_the_images_every_row_has_probabilities(n, seed, kind):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 12, 12, 1), np.uint8)
    pixels = {"noise": pixels, "same": np.repeat(pixels[:1], n, axis=0), "black": pixels * 0}[kind]
    log_probs = propagate_labels(neighbor_graph(pixels), np.array([0]), np.array([1]), 3)
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, rtol=1e-5)


def test_soft_labels_spread_as_far_as_they_go():
    pixels, classes = digits(100)
    graph, rows = neighbor_graph(pixels), np.arange(40)
    hard = propagate_labels(graph, rows, classes[rows], 10)
    np.testing.assert_allclose(
        propagate_labels(graph, rows, np.eye(10)[classes[rows]], 10), hard, atol=1e-5
    )
    soft = propagate_labels(graph, rows, np.full((40, 10), 0.1), 10)
    np.testing.assert_allclose(np.exp(soft[40:]), 0.1, atol=1e-5)


def test_only_labels_of_learned_rows_are_heard():
    pixels, classes = digits(300)
    graph, rows, rest = neighbor_graph(pixels), np.arange(150), np.arange(150, 300)
    for shift in (0, 1):
        labels = (classes + shift) % 10
        unseen = propagate_labels(graph, rows, labels[rows], 10)[rest].argmax(1)
        assert (unseen == labels[rest]).mean() > 0.9
