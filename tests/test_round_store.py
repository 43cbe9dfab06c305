"""What a round says of the noise as a whole."""

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.data.dataset import Dataset
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.out_of_fold import OutOfFoldPredictions
from pseudokit.round_store import summary
from tests.labels.test_noise import MATRICES, K, logs_of, uniform, world


def said(q, given_labels):
    empty = np.full(len(given_labels), "", object)
    dataset = Dataset(empty, empty, empty, given_labels, empty, tuple("abcdef"[:K]))
    decisions = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
    return summary(decisions, dataset, OutOfFoldPredictions(logs_of(q), empty))


@pytest.mark.parametrize("name", MATRICES)
def test_the_rate_of_noise_of_the_class_and_its_interval(name):
    q, truth, given_labels = world(MATRICES[name])
    info, rate = said(q, given_labels), (truth != given_labels).mean()
    low, high = info["estimated_rate_interval"]
    assert abs(info["estimated_rate"] - rate) < 0.01
    assert low < info["estimated_rate"] < high
    assert info["noise_type"] == name
    assert np.shape(info["noise_matrix_low"]) == (K, K)


def test_what_is_hard_is_not_called_wrong_where_the_surest_rows_show_no_noise():
    q, truth, _ = world(uniform(0.2), sharpness=100)
    info = said(q, truth)
    assert info["noise_type"] == "none"
    assert info["estimated_rate"] < 0.002
