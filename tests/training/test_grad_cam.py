"""What is called important for a class is what raises its score."""

import numpy as np
import timm
import torch
from torch import nn

from pseudokit.training.grad_cam import grad_cam
from pseudokit.training.models import ModelSpec, TrainedModel


class BrightIsOne(nn.Module):
    """Class 1 is the mean brightness, class 0 its opposite."""

    num_features = 1

    def forward_features(self, images):
        return images

    def forward_head(self, features):
        mean = features.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def model(network, size):
    return TrainedModel(network, ModelSpec("", {}, ["a", "b"], size, 1, [0.0], [1.0]))


def test_the_part_that_raises_the_class_is_important_and_none_for_the_other():
    pixels = np.zeros((3, 4, 4, 1), np.uint8)
    pixels[:2, :2, :2] = 200
    pixels[:, 3, 3] = 100
    maps = grad_cam(model(BrightIsOne(), 4), pixels, np.array([1, 0, 1]), "cpu")
    expected = pixels[..., 0] / np.reshape([200, np.inf, 100], (3, 1, 1))
    assert np.allclose(maps, expected, atol=1e-6)


def test_networks_of_convolutions_have_a_map_and_transformers_none():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 1)).astype(np.uint8)
    for name, shape in {"test_resnet": (2, 3, 3), "test_vit": (0,)}.items():
        kwargs = {"img_size": 96} if name == "test_vit" else {}
        network = timm.create_model(name, num_classes=2, in_chans=1, **kwargs)
        importance = grad_cam(model(network, 96), pixels, np.int32([1, 0]), "cpu")
        assert importance.shape == shape
        assert not len(importance) or 0 <= importance.min() <= importance.max() <= 1
