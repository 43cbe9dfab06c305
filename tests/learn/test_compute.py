"""The precision that a probe chooses."""

import pytest
import torch

from src.config import Model
from src.learn import compute
from src.learn.compute import CLEARLY, faster_precision
from src.learn.models import create_model

CPU = torch.device("cpu")


class Clocked(torch.nn.Module):
    """A network whose forward pass takes so many seconds of a clock that only it moves."""

    def __init__(self, monkeypatch, full: float, half: float):
        super().__init__()
        self.weight, self.now, self.seconds = torch.nn.Parameter(torch.ones(1)), 0.0, (full, half)
        monkeypatch.setattr(compute.time, "monotonic", lambda: self.now)

    def forward(self, images):
        self.now += self.seconds[torch.is_autocast_enabled("cpu")]
        return images.mean((1, 2, 3)) * self.weight


@pytest.fixture
def form():
    return create_model(Model(), ("a", "b"), 32, 1)[1]


@pytest.mark.parametrize(("full", "half", "chosen"), [(1.3, 1, "bf16"), (CLEARLY - 0.05, 1, "fp32"), (1, 2, "fp32")])
def test_sixteen_bits_are_chosen_where_they_are_clearly_faster(monkeypatch, form, full, half, chosen):
    monkeypatch.setattr(compute, "pick_precision", lambda *_: torch.bfloat16)
    assert faster_precision(Clocked(monkeypatch, full, half), form, CPU) == chosen


def test_nothing_is_probed_where_the_hardware_has_one_precision(monkeypatch, form):
    monkeypatch.setattr(compute, "pick_precision", lambda *_: torch.float32)
    assert faster_precision(None, form, CPU) == "fp32"


def test_the_probe_leaves_the_random_numbers_alone(monkeypatch, form):
    network = create_model(Model(kwargs={"drop_rate": 0.5}), ("a", "b"), 32, 1)[0]
    monkeypatch.setattr(compute, "pick_precision", lambda *_: torch.bfloat16)
    before = torch.get_rng_state()
    assert faster_precision(network, form, CPU) in ("fp32", "bf16")
    assert torch.equal(torch.get_rng_state(), before)
