"""Noise that depends on how hard an image is, on simulated models of which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from pseudokit.config.keys import Pseudo
from pseudokit.labels.arrays import normalize
from pseudokit.labels.calibration import calibrate_models
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.difficulty import compare, estimate_difficulty_noise, fit, rate_interval
from pseudokit.labels.noise import OF_THE_CLASS, avoids_confident_rows
from pseudokit.labels.out_of_fold import FoldPredictions, average_models, average_rounds
from pseudokit.labels.posterior import Posterior

from .test_noise import MATRICES, K, logs_of, uneven, uniform, world


def people(rate=0.12, n=8_000, seed=0):
    """(probs, truth, given): good models that are less sure than they could be, and labels of people who err more often
    on hard images, and take one of two similar classes there."""
    rng = np.random.default_rng(seed)
    q, truth, _ = world(uniform(0.0), 12.0, n, seed)
    hardness = np.argsort(np.argsort(1 - q.max(1))) / n
    wrong = rng.random(n) < rate * (0.3 + 1.4 * hardness**2)
    given_labels = np.where(wrong, (truth + rng.choice([1, 2], n)) % K, truth)
    return (q + 0.002) ** 0.4, truth, given_labels


def judged(probs, given_labels):
    """The code path of a run: the predictions of two models, calibrated and averaged."""
    probs = probs / probs.sum(1, keepdims=True)
    halves = np.arange(len(given_labels)) % 2
    parts = [
        FoldPredictions(np.flatnonzero(halves == f), logs_of(probs[halves == f]), str(f), f)
        for f in (0, 1)
    ]
    parts, about = calibrate_models(parts, given_labels, given_labels)
    return average_models(parts, len(given_labels)).log_probs, about.get("likeliest_rate")


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_people_are_recognized_and_their_rate_lies_in_the_interval(seed):
    probs, truth, given_labels = people(seed=seed)
    rate = judged(probs, given_labels)[1]
    assert rate is not None
    low, high = rate_interval(rate)
    assert low < (truth != given_labels).mean() < high


@pytest.mark.parametrize("name", MATRICES)
def test_noise_of_the_class_is_not_taken_for_noise_by_difficulty(name):
    q, _, given_labels = world(MATRICES[name], sharpness=3)
    assert judged(q @ MATRICES[name], given_labels)[1] is None


@pytest.mark.parametrize("seed", range(3))
def test_noise_on_what_models_cannot_tell_apart_is_not_taken_for_noise_by_difficulty(seed):
    """The least certain rows are given their second most likely class: no trace of the truth is left there."""
    q, _, _ = world(uniform(0.0), 4.0, seed=seed)
    first, second = np.argsort(-q, axis=1)[:, :2].T
    hardest = np.argsort(q.max(1))[: len(q) // 5]
    given_labels = first.copy()
    given_labels[hardest] = second[hardest]
    assert judged(q, given_labels)[1] is None


def test_wrong_labels_of_people_are_found_better_than_by_disagreement_or_confidence():
    probs, truth, given_labels = people()
    log_probs, rate = judged(probs, given_labels)
    d = decide_labels(log_probs, given_labels, "denoise", Pseudo(), likeliest_rate=rate)
    wrong, n = truth != given_labels, len(given_labels)
    plain = f1_score(wrong, log_probs.argmax(1) != given_labels)
    assert f1_score(wrong, d.p_wrong > 0.5) > plain
    assert average_precision_score(wrong, d.p_wrong) > average_precision_score(
        wrong, -log_probs[np.arange(n), given_labels]
    )
    changed = d.decision == "relabel"
    assert changed.sum() > 20
    assert wrong[changed].mean() > 0.9


@settings(max_examples=30, deadline=None)
@over(
    st.integers(0, 10**6), st.integers(3, 8), st.floats(0.2, 6.0), st.sampled_from([0.0, 0.4, None])
)
def test_each_true_class_gives_its_labels_with_probabilities_that_sum_to_one(
    seed, k, sharpness, by_image
):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.3), 300)
    given_labels = rng.integers(0, k, 300)
    noise = fit(probs, given_labels, sharpness, by_image)
    row = np.repeat(probs[:1] ** sharpness / (probs[:1] ** sharpness).sum(), k, axis=0)
    assert np.allclose(noise.likelihood(row, np.arange(k)).sum(0), 1, atol=1e-6)
    assert (noise.rates > 0).all()
    assert (noise.rates < 1).all()
    assert np.isfinite(noise.log_likelihood(probs, given_labels)).all()


def test_the_sharper_the_models_are_taken_to_be_the_more_labels_are_wrong():
    probs, _, given_labels = people(n=4_000)
    log_probs = np.log(probs / probs.sum(1, keepdims=True))
    rates = [
        estimate_difficulty_noise(log_probs, given_labels, rate)[0].estimated_rate
        for rate in (0.02, 0.05, 0.1)
    ]
    assert rates[0] < rates[1] < rates[2]


def test_the_order_of_rows_and_unlabeled_rows_change_nothing():
    probs, _, given_labels = people(n=3_000)
    log_probs = np.log(probs / probs.sum(1, keepdims=True))
    more = (
        np.concatenate([log_probs, log_probs[:100]]),
        np.concatenate([given_labels, np.full(100, -1)]),
    )
    order = np.random.default_rng(0).permutation(len(more[1]))
    alone = decide_labels(log_probs, given_labels, "denoise", Pseudo(), likeliest_rate=0.05)
    among = decide_labels(more[0][order], more[1][order], "denoise", Pseudo(), likeliest_rate=0.05)
    back = np.argsort(order)[: len(given_labels)]
    assert np.allclose(alone.p_wrong, among.p_wrong[back], atol=1e-6)
    assert (alone.decision == among.decision[back]).all()


@pytest.mark.parametrize(("n", "k"), [(500, 6), (5_000, 2), (3_000, 80)])
def test_too_few_rows_or_two_classes_cannot_tell_it(n, k):
    rng = np.random.default_rng(0)
    probs, given_labels = rng.dirichlet(np.ones(k), n), rng.integers(0, k, n)
    assert compare(np.log(probs), given_labels, np.zeros(n), 0)[0] == -np.inf


def test_a_strange_matrix_of_rates_is_no_reason_to_fail():
    q, _, given_labels = world(uneven(3), sharpness=50, n=2_000)
    noise = fit(q, given_labels, 6.0)
    assert np.isfinite(noise.rates).all()
    assert np.isfinite(noise.confusions).all()


def confused(n=12_000, seed=0):
    """(probs, truth, given): a wrong label is what the image looks like, on some images more often than not. Nowhere is
    it rare, and some classes get it more often, so that at first sight it is noise of the class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, n)
    other = (truth + rng.choice([1, 2], n, p=[0.8, 0.2])) % K
    chance = np.clip(0.08 + rng.beta(0.5, 1.5, n), 0, 0.95)
    given_labels = np.where(rng.random(n) < chance, other, truth)
    probs = np.full((n, K), 0.01)
    probs[np.arange(n), truth] += 1 - chance
    probs[np.arange(n), other] += chance
    return probs / probs.sum(1, keepdims=True), truth, given_labels


def two_rounds(probs, given_labels, second_probs):
    """A run of two rounds, each of two models: what it predicts, and the decisions."""
    first, second = None, None
    for predicted in (probs, second_probs):
        halves = np.arange(len(given_labels)) % 2
        models = [
            FoldPredictions(np.flatnonzero(halves == f), logs_of(predicted[halves == f]), str(f), f)
            for f in (0, 1)
        ]
        models, about = calibrate_models(models, given_labels, given_labels, earlier=first)
        second = replace(average_models(models, len(given_labels)), calibration=about)
        first = first or second
    mean = average_rounds(second, first, 2)
    rate = mean.likeliest_rate
    return mean, decide_labels(
        mean.log_probs, given_labels, "denoise", Pseudo(), likeliest_rate=rate
    )


@pytest.mark.parametrize("seed", range(3))
def test_second_models_that_stand_by_the_first_ones_are_believed_against_labels(seed):
    probs, truth, given_labels = confused(seed=seed)
    wrong = truth != given_labels
    returns = (probs.argmax(1) != given_labels) & (
        np.random.default_rng(seed).random(len(probs)) < 0.3
    )
    unsure = probs.copy()
    unsure[returns] = np.eye(K)[given_labels[returns]] * 0.5 + 0.5 / K
    _, doubted = two_rounds(probs, given_labels, unsure)
    predicted, believed = two_rounds(probs, given_labels, probs)
    assert doubted.noise in OF_THE_CLASS
    assert believed.noise == "look-alike"
    assert f1_score(wrong, believed.p_wrong > 0.5) > f1_score(wrong, doubted.p_wrong > 0.5) + 0.1
    # the next rounds hold to it
    models = [FoldPredictions(np.arange(len(probs)), logs_of(probs), "0", 0)]
    _, about = calibrate_models(models, given_labels, given_labels, earlier=predicted)
    assert about["likeliest_rate"] == 0


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("strength", [1.0, 1.5, 2.0, 3.0])
def test_noise_of_the_class_is_believed_whatever_the_models_know(name, strength):
    """Two rounds of models that see the truth through noise of their own: right on 48 to 96 % of the images."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, K, 4_000)
    chances = MATRICES[name][truth].cumsum(1)
    given_labels = (rng.random((len(truth), 1)) > chances[:, :-1]).sum(1)
    first, second = rng.normal(size=(2, len(truth), K)) + strength * np.eye(K)[truth]
    probs = [normalize(np.exp(strength * seen)) @ MATRICES[name] for seen in (first, second)]
    predicted, decisions = two_rounds(probs[0], given_labels, probs[1])
    assert predicted.likeliest_rate != 0
    assert decisions.noise != "look-alike"


def avoids(confidence, given_labels):
    """avoids_confident_rows where the first of two classes is predicted with this confidence."""
    log_probs = np.log(np.stack([confidence, 1 - confidence], 1))
    return avoids_confident_rows(Posterior(log_probs, given_labels).summary(), 2)


def test_which_rows_are_wrong_decides_whether_confident_rows_are_avoided():
    """Of the rows of one class in falling confidence: a fifth wrong anywhere, or at the end, or on few rows."""
    n = 2_000
    confidence = np.linspace(0.99, 0.6, n)
    anywhere = (np.arange(n) % 5 == 0).astype(int)
    rising = np.random.default_rng(0).random(n) < np.linspace(0, 0.4, n)
    assert not avoids(confidence, anywhere)
    assert avoids(confidence, rising.astype(int))
    assert not avoids(confidence[::50], rising[::50].astype(int)), "too few to tell"
    assert not avoids(confidence, np.zeros(n, int))
    assert not avoids(confidence, np.full(n, -1))
