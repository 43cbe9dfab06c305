"""The number type by rule."""

import pytest
import torch

from pseudokit.config.keys import Model
from pseudokit.training.device import cpu_has_bf16, pick_amp_dtype
from pseudokit.training.models import create_model


@pytest.mark.parametrize(
    ("name", "mobile"),
    [("test_resnet", False), ("test_efficientnet", True), ("test_convnext", False)],
)
def test_auto_is_fp32_for_mobile_networks_and_else_up_to_the_processor(name, mobile):
    network, _ = create_model(Model(name=name), ("a", "b"), 64, 3)
    dtype = pick_amp_dtype("auto", torch.device("cpu"), 64, network)
    assert dtype == (torch.bfloat16 if cpu_has_bf16() and not mobile else torch.float32)
    # Who asks for it gets it.
    assert pick_amp_dtype("bf16", torch.device("cpu"), 64, network) == torch.bfloat16
