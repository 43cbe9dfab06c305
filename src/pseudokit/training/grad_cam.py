"""Which parts of an image speak for a class, for a network that is a stack of convolutions."""

import torch
from numpy import ndarray
from torch import Tensor

from .device import Computation
from .models import TrainedModel


def grad_cam(model: TrainedModel, pixels: ndarray, label: int, device: str) -> ndarray:
    """Grad-CAM (Selvaraju et al. 2017): the last feature maps, weighted by how much each one raises a class.

    timm divides every network into features and head, so no layer has to be named, and only the head is
    differentiated.

    Args:
        pixels: (1, H, W, C) uint8. label: the class to explain.

    Returns:
        (1, h, w) float32 from 0 to 1; empty if the network makes no feature maps, as transformers.
    """
    network = model.network.eval()

    def explain(images: Tensor) -> Tensor:
        with torch.no_grad():
            features = network.forward_features(images)
        if features.ndim < 4 or features.shape[1] != network.num_features:
            return images[:0, 0]
        score = network.forward_head(features.requires_grad_())[0, label]
        [slopes] = torch.autograd.grad(score, features)
        weights = slopes.mean((2, 3), keepdim=True)
        importance = (weights * features).sum(1).relu()
        return importance / importance.max().clamp(min=1e-12)

    computation = Computation(network, model.spec, device, "fp32")
    return computation.run(explain, torch.from_numpy(pixels)).detach().cpu().numpy()
