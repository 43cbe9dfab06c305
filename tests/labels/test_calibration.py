"""Temperature and bias are found through wrong labels, on simulated models of which the truth is known."""

import numpy as np
import pytest

from pseudokit.labels.calibration import calibrate, fit_scale, scale

from .test_noise import N, matrix_of, pair, uniform, world


def test_what_a_model_of_noisy_labels_predicts_is_undone():
    """Such a model predicts q · T, here at a wrong temperature as well."""
    matrix = uniform(0.3)
    q, truth, given_labels = world(matrix, sharpness=3)
    logs = np.log(q @ matrix)
    made, _ = calibrate(logs, given_labels, matrix_of(np.exp(logs), given_labels), noisy=True)
    assert np.abs(np.exp(made) - q).mean() < 0.02
    plain = -np.log((q @ matrix)[np.arange(N), truth]).mean()
    assert -made[np.arange(N), truth].mean() < plain - 0.1


@pytest.mark.parametrize("hot", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_through_wrong_labels(hot):
    matrix = pair(0.3)
    q, _, given_labels = world(matrix, sharpness=3)
    assert fit_scale(np.log(q) * hot, given_labels, matrix)[0] == pytest.approx(hot, rel=0.08)


def test_a_class_that_is_named_too_seldom_is_found_through_wrong_labels():
    matrix = uniform(0.3)
    q, _, given_labels = world(matrix, sharpness=3)
    bias = np.linspace(-0.5, 0.5, q.shape[1])
    _, bias_found = fit_scale(scale(np.log(q), 1, -bias), given_labels, matrix)
    assert np.abs(bias_found - bias).max() < 0.15


def test_where_no_matrix_describes_the_noise_no_class_is_favored():
    q, _, given_labels = world(pair(0.3), sharpness=3)
    assert (fit_scale(np.log(q), given_labels, np.eye(q.shape[1]))[1] == 0).all()


def test_scaling_keeps_distributions_and_their_order():
    logs = np.log(world(uniform(0.1), n=50)[0])
    assert np.allclose(np.exp(scale(logs, 3)).sum(1), 1)
    assert (scale(logs, 3).argmax(1) == logs.argmax(1)).all()
