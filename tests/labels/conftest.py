import numpy as np
import pytest


@pytest.fixture
def labels():
    """(400, 4) label sets: 1 = yes, 0 = no; the first class is rare."""
    return (np.random.default_rng(1).random((400, 4)) < (0.1, 0.3, 0.5, 0.7)).astype(int)
