"""Answers tuned for a score help on rows that they were not tuned on."""

import numpy as np
import pytest

from pseudokit.data import encoding
from pseudokit.labels.metrics import macro_f1
from pseudokit.labels.thresholds import answer, tune, tuned

from .test_metrics import ANIMALS, CLASSES, logits_of, predictions


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
    before = macro_f1(new_logs.argmax(1), new_labels, classes)
    assert (
        macro_f1(answer("macro_f1", numbers, new_logs, classes), new_labels, classes)
        > before + 0.01
    )
    result = tuned("macro_f1", logs, labels, classes)
    assert result["numbers"] == numbers
    assert (
        result["after"]
        > result["before"]
        == pytest.approx(macro_f1(logs.argmax(1), labels, classes))
    )


def test_the_score_of_tuned_answers_is_not_that_of_the_rows_they_were_tuned_on():
    labels = np.random.default_rng(0).integers(0, 4, 80)
    # Knows nothing: whatever is gained by tuning is chance.
    logs = np.random.default_rng(1).normal(size=(80, 4))
    classes = ("a", "b", "c", "d")
    on_the_same = macro_f1(
        answer("macro_f1", tune("macro_f1", logs, labels, classes), logs, classes), labels, classes
    )
    result = tuned("macro_f1", logs, labels, classes)
    assert on_the_same > result["before"] + 0.05
    assert result["after"] < result["before"] + 0.05


def test_cuts_for_kappa_stay_in_order_and_help_where_a_model_says_too_much():
    rng = np.random.default_rng(0)
    place = rng.integers(0, 5, 1500)
    seen = place + 0.8 + rng.normal(0, 0.8, 1500)
    logs = -0.5 * np.abs(seen[:, None] - np.arange(5)) * 0.7
    logs -= np.logaddexp.reduce(logs, axis=1, keepdims=True)
    classes = ("0", "1", "2", "3", "4")
    result = tuned("kappa", logs, place, classes)
    assert result["numbers"] == sorted(result["numbers"])
    assert result["after"] > result["before"]


def test_nothing_is_tuned_for_other_scores_or_where_it_does_not_help():
    logs, labels = predictions()
    assert tuned("accuracy", logs, labels, CLASSES) is None
    sure = np.log(np.where(np.eye(6)[labels], 0.95, 0.01))
    assert tuned("macro_f1", sure, labels, CLASSES)["numbers"] is None


def test_tuned_answers_are_better_for_f1_where_a_class_is_rare(labels):
    logs = logits_of(labels) + np.array([0.0, -1.5])  # says no too often
    logs -= np.logaddexp.reduce(logs, axis=-1, keepdims=True)
    rule = tuned("macro_f1", logs, labels, ANIMALS)
    assert rule["after"] > rule["before"] + 0.02
    assert len(rule["numbers"]) == 4
    assert encoding.names(answer("macro_f1", rule["numbers"], logs, ANIMALS), ANIMALS).shape == (
        400,
    )
