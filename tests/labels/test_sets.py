"""Label sets: text and arrays say the same, unknown answers are never counted, scores are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from pseudokit.data import encoding
from pseudokit.labels.ensemble import best_weights, mixture
from pseudokit.labels.metrics import gain, known, measure, of_classes, score
from pseudokit.labels.thresholds import answer, tuned

CLASSES = ("ant", "bee", "cat", "dog")
answers = st.integers(0, 30).flatmap(lambda n: arrays(np.int64, (n, 4), elements=st.integers(-1, 1)))


def logits_of(labels, seed=0, sure=2.0):
    """Log-probabilities (N, C, 2) that lean towards the labels."""
    z = np.random.default_rng(seed).normal(sure * (2 * np.maximum(labels, 0) - 1), 2.0)
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], -1)


@pytest.fixture
def labels():
    return (np.random.default_rng(1).random((400, 4)) < (0.1, 0.3, 0.5, 0.7)).astype(int)


@given(answers, st.sampled_from([CLASSES, ("a cat", "a dog", "ant", "bee")]))
@settings(max_examples=60, deadline=None)
def test_text_and_arrays_say_the_same(labels, classes):
    texts = encoding.names(labels, classes)
    assert (encoding.parse(texts, classes, True) == labels).all()
    assert all(encoding.is_label(text, classes, True) == bool(text) for text in texts)


def test_what_the_text_of_a_label_set_looks_like():
    rows = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [-1, -1, -1, -1], [0, -1, 1, 0]])
    assert encoding.names(rows, CLASSES).tolist() == ["ant cat", "(none)", "", "?bee cat"]
    assert not encoding.is_label("ant cow", CLASSES, True)


@given(answers)
@settings(max_examples=60, deadline=None)
def test_a_label_set_is_stratified_by_its_rarest_class(labels):
    strata, n = encoding.strata(labels), (labels == 1).sum(0)
    for row, stratum in zip(labels, strata, strict=True):
        if stratum == -1:
            assert (row < 0).all()
        elif stratum == 4:
            assert (row != 1).all()
            assert (row >= 0).any()
        else:
            assert row[stratum] == 1
            assert n[stratum] == n[row == 1].min()


def test_scores_are_those_of_scikit_learn(labels):
    logs, own = logits_of(labels), score(logits_of(labels), labels, CLASSES)
    probs, predicted = np.exp(logs[..., 1]), logs.argmax(-1)
    assert own == pytest.approx(
        {
            "n": 400,
            "accuracy": sk.accuracy_score(labels, predicted),
            "log_loss": np.mean([sk.log_loss(labels[:, c], probs[:, c]) for c in range(4)]),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "auc": sk.roc_auc_score(labels, probs),
            "map": sk.average_precision_score(labels, probs),
        }
    )
    assert list(own)[1:] == known(CLASSES, multi_label=True)
    found = of_classes(logs, labels, CLASSES)
    assert [found[name]["recall"] for name in CLASSES] == pytest.approx(
        sk.recall_score(labels, predicted, average=None)
    )


@pytest.mark.parametrize("metric", known(CLASSES, multi_label=True))
def test_unknown_answers_count_in_no_score(labels, metric):
    logs, some = logits_of(labels), labels.copy()
    some[::3, 0] = -1
    said = logs.copy()
    said[::3, 0] = said[::3, 0, ::-1]  # the opposite
    assert measure(metric, logs, some, CLASSES) == pytest.approx(measure(metric, said, some, CLASSES))
    assert measure(metric, logs, labels, CLASSES) != pytest.approx(measure(metric, said, labels, CLASSES), abs=1e-3)


@pytest.mark.parametrize("metric", known(CLASSES, multi_label=True))
def test_a_better_model_gains(labels, metric):
    change, error = gain(metric, logits_of(labels, sure=1.0), logits_of(labels, sure=4.0), labels, CLASSES)
    assert change > 3 * error > 0


def test_tuned_answers_are_better_for_f1_where_a_class_is_rare(labels):
    logs = logits_of(labels) + np.array([0.0, -1.5])  # says no too often
    logs -= np.logaddexp.reduce(logs, axis=-1, keepdims=True)
    rule = tuned("macro_f1", logs, labels, CLASSES)
    assert rule["after"] > rule["before"] + 0.02
    assert len(rule["numbers"]) == 4
    assert encoding.names(answer("macro_f1", rule["numbers"], logs, CLASSES), CLASSES).shape == (400,)


def test_the_better_of_two_runs_has_the_greater_weight(labels):
    labels = labels.copy()
    labels[::5, 2] = -1
    probs = np.exp(np.stack([logits_of(labels, 0, sure=1.0), logits_of(labels, 1, sure=4.0)]))
    weights = best_weights(probs, labels)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.7
    assert np.allclose(mixture(probs, weights).sum(-1), 1)
