"""Mixed batches."""

import pytest
import torch

from pseudokit.config.keys import Train
from pseudokit.training.optimizer import make_mixup


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_mixes_images_and_targets_alike(kind):
    mix = make_mixup(Train(**{kind: 1.0}), 4)
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 3] * 8)
    pixels = (labels * 60).view(-1, 1, 1, 1).expand(-1, 12, 12, 1).to(torch.uint8)
    images, targets = mix(pixels, labels)
    assert images.shape == pixels.shape
    assert torch.allclose(targets.sum(1), torch.ones(32))
    assert (targets.max(1).values < 1).any()
    weighted = (targets * torch.arange(4.0)).sum(1) * 60
    assert torch.allclose(images.mean((1, 2, 3)), weighted, atol=0.5)
    soft, _ = torch.tensor([[0.2, 0.1, 0, 0]] * 32), None
    assert torch.allclose(mix(pixels, soft)[1].sum(1), torch.full((32,), 0.3)), (
        "a row that weighs less still does"
    )


def test_without_mixing_nothing_is_changed():
    pixels, labels = torch.zeros(2, 4, 4, 1, dtype=torch.uint8), torch.tensor([0, 1])
    assert make_mixup(Train(), 2)(pixels, labels) == (pixels, labels)
