"""Which parts of an image speak for a class, for a network that is a stack of convolutions."""

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from .device import Computation
from .models import TrainedModel


def grad_cam(model: TrainedModel, pixels: ndarray, labels: ndarray, device: str) -> ndarray:
    """Grad-CAM (Selvaraju et al. 2017) of captum, for the last feature maps.

    timm divides every network into features and head, so no layer has to be named, and only the head is
    differentiated.

    Args:
        pixels: (n, H, W, C) uint8. labels: (n,) the class to explain of each image.

    Returns:
        (n, h, w) float32 from 0 to 1; (0,) if the network makes no feature maps, as transformers.
    """
    from captum.attr import LayerGradCam

    network = model.network.eval()
    layer = nn.Identity()
    explainer = LayerGradCam(lambda features: network.forward_head(layer(features)), layer)

    def explain(images: Tensor) -> Tensor:
        with torch.no_grad():
            features = network.forward_features(images)
        if features.ndim < 4 or features.shape[1] != network.num_features:
            return images[:0, 0, 0, 0]
        features.requires_grad_()
        targets = torch.from_numpy(labels.astype(np.int64)).to(features.device)
        importance = explainer.attribute(features, targets, relu_attributions=True)[:, 0]
        return importance / importance.amax((1, 2), keepdim=True).clamp(min=1e-12)

    computation = Computation(network, model.spec, device, "fp32")
    return computation.run(explain, torch.from_numpy(pixels)).detach().cpu().numpy()
