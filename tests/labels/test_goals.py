"""Scores as competitions define them, what one prediction gains on another, and answers tuned for a score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pseudokit.labels.metrics import GOALS, expected, gain, known, macro_f1, measure, of_classes, ranks, score
from pseudokit.labels.thresholds import answer, tune, tuned


def said(n=600, k=6, skill=2.0, seed=0):
    """(N, K) log-probabilities of a model of some skill, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += skill
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


CLASSES = ("0", "1", "2", "3", "4", "10")


def test_every_score_is_that_of_scikit_learn():
    logs, labels = said()
    probs, predicted, every = np.exp(logs), logs.argmax(1), np.arange(6)
    one_hot = np.eye(6)[labels]
    right = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "log_loss": sk.log_loss(labels, probs),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "auc": sk.roc_auc_score(labels, probs, multi_class="ovr", average="macro"),
        "map": sk.average_precision_score(one_hot, probs, average="macro"),
        "kappa": sk.cohen_kappa_score(labels, predicted, weights="quadratic"),
        "top5": sk.top_k_accuracy_score(labels, probs, k=5, labels=every),
    }
    assert set(right) == set(GOALS)
    assert score(logs, labels, CLASSES) == pytest.approx({"n": 600} | right)


def test_kappa_goes_by_the_numbers_that_classes_are_and_not_by_their_spelling():
    assert ranks(("1", "10", "2")).tolist() == [0, 2, 1]
    assert ranks(("a", "1")) is None
    logs, labels = said(k=3)
    spelled = measure("kappa", logs, labels, ("1", "10", "2"))
    order = [0, 2, 1]
    assert spelled == pytest.approx(measure("kappa", logs[:, order], np.array(order)[labels], ("1", "2", "10")))
    assert spelled != pytest.approx(measure("kappa", logs, labels, ("1", "2", "3")))


def test_a_score_that_classes_do_not_have_is_left_out():
    assert "kappa" not in known(("cat", "dog"))
    assert "top5" not in known(("1", "2"))
    assert known(CLASSES) == list(GOALS)


def test_classes_that_do_not_occur_have_no_part_in_a_mean_over_classes():
    logs, labels = said(k=4)
    labels = np.where(labels == 3, 0, labels)
    for metric in ("auc", "map"):
        assert np.isfinite(measure(metric, logs, labels, ("a", "b", "c", "d")))
    assert set(of_classes(logs, labels, ("a", "b", "c", "d"))) == {"a", "b", "c"}
    alone = score(logs[labels == 1], labels[labels == 1], ("a", "b", "c", "d"))
    assert alone["auc"] is None, "of one class alone nothing is told apart"


@pytest.mark.parametrize("metric", GOALS)
def test_a_better_model_gains_and_a_worse_one_loses_whatever_the_score(metric):
    weak, labels = said(skill=1.0)
    noise, _ = said(skill=0.0, seed=1)
    strong = weak.copy()
    strong[np.arange(len(labels)), labels] += 1.5
    strong -= np.logaddexp.reduce(strong, axis=1, keepdims=True)
    up, error = gain(metric, weak, strong, labels, CLASSES)
    down, _ = gain(metric, strong, weak, labels, CLASSES)
    assert up > 2 * error > 0
    assert down == pytest.approx(-up)
    assert gain(metric, weak, weak, labels, CLASSES) == (0, 0)
    assert gain(metric, weak, noise, labels, CLASSES)[0] < 0


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_standard_error_of_a_gain_is_its_spread_over_samples(metric):
    gains, errors = [], []
    for seed in range(60):
        before, labels = said(400, 6, 1.0, seed)
        after = before + np.random.default_rng(1000 + seed).normal(0, 0.5, before.shape)
        found = gain(metric, before, after - np.logaddexp.reduce(after, axis=1, keepdims=True), labels, CLASSES)
        gains.append(found[0])
        errors.append(found[1])
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_macro_f1_by_counting_is_scikit_learns(pairs):
    predicted, labels = (np.array(column) for column in zip(*pairs, strict=True))
    assert macro_f1(predicted, labels) == pytest.approx(sk.f1_score(labels, predicted, average="macro"))


def test_the_accuracy_of_others_is_expected_in_a_wider_interval():
    alone, with_test = expected(0.9, 2000, 0), expected(0.9, 2000, 500)
    assert alone["low"] < 0.9 < alone["high"]
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 2000), rel=0.02)
    assert with_test["test_low"] < with_test["low"]
    assert with_test["test_high"] > with_test["high"]
    assert expected(1.0, 20, 20)["low"] < 1, "twenty hits do not prove that there is no miss"
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        found = expected(rng.binomial(2000, 0.9) / 2000, 2000, 500)
        inside += found["test_low"] <= rng.binomial(500, 0.9) / 500 <= found["test_high"]
    assert 0.92 < inside / 500 < 0.98


# ---- answers tuned for a score


def rare(seed):
    """A model that knows the classes but not how rare the third one is: its likeliest class is seldom that."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, 3000, p=[0.6, 0.37, 0.03])
    logits = rng.normal(size=(3000, 3)) + np.log([0.6, 0.37, 0.03])
    logits[np.arange(3000), labels] += 1.5
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


def test_offsets_for_macro_f1_help_on_rows_they_were_not_tuned_on():
    classes = ("a", "b", "c")
    (logs, labels), (new_logs, new_labels) = rare(0), rare(1)
    numbers = tune("macro_f1", logs, labels, classes)
    before = macro_f1(new_logs.argmax(1), new_labels)
    assert macro_f1(answer("macro_f1", numbers, new_logs, classes), new_labels) > before + 0.01
    found = tuned("macro_f1", logs, labels, classes)
    assert found["numbers"] == numbers
    assert found["after"] > found["before"] == pytest.approx(macro_f1(logs.argmax(1), labels))


def test_the_score_of_tuned_answers_is_not_that_of_the_rows_they_were_tuned_on():
    labels = np.random.default_rng(0).integers(0, 4, 80)
    logs = np.random.default_rng(1).normal(size=(80, 4))  # knows nothing: whatever is gained by tuning is chance
    classes = ("a", "b", "c", "d")
    on_the_same = macro_f1(answer("macro_f1", tune("macro_f1", logs, labels, classes), logs, classes), labels)
    found = tuned("macro_f1", logs, labels, classes)
    assert on_the_same > found["before"] + 0.05
    assert found["after"] < found["before"] + 0.05


def test_cuts_for_kappa_stay_in_order_and_help_where_a_model_says_too_much():
    rng = np.random.default_rng(0)
    place = rng.integers(0, 5, 1500)
    seen = place + 0.8 + rng.normal(0, 0.8, 1500)
    logs = -0.5 * np.abs(seen[:, None] - np.arange(5)) * 0.7
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    classes = ("0", "1", "2", "3", "4")
    found = tuned("kappa", logs, place, classes)
    assert found["numbers"] == sorted(found["numbers"])
    assert found["after"] > found["before"]


def test_nothing_is_tuned_for_other_scores_or_where_it_does_not_help():
    logs, labels = said()
    assert tuned("accuracy", logs, labels, CLASSES) is None
    sure = np.log(np.where(np.eye(6)[labels], 0.95, 0.01))
    assert tuned("macro_f1", sure, labels, CLASSES)["numbers"] is None
