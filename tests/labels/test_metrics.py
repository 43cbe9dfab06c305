"""Scores are those of scikit-learn; what one prediction gains on another; rounds that agree with themselves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pseudokit.labels.metrics import (
    GOALS,
    confirmed,
    expected,
    gain,
    known,
    macro_f1,
    measure,
    of_classes,
    paired_arms,
    paired_gain,
    ranks,
    score,
    share_interval,
    unlabeled_scores,
)
from pseudokit.run_folder.evaluate import difference

CLASSES = ("0", "1", "2", "3", "4", "10")
ANIMALS = ("ant", "bee", "cat", "dog")


def predictions(n=600, k=6, skill=2.0, seed=0):
    """(N, K) log-probabilities of a model of some skill, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += skill
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), labels


def test_every_score_is_that_of_scikit_learn():
    logs, labels = predictions()
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
    logs, labels = predictions(k=3)
    spelled = measure("kappa", logs, labels, ("1", "10", "2"))
    order = [0, 2, 1]
    assert spelled == pytest.approx(
        measure("kappa", logs[:, order], np.array(order)[labels], ("1", "2", "10"))
    )
    assert spelled != pytest.approx(measure("kappa", logs, labels, ("1", "2", "3")))


def test_a_score_that_classes_do_not_have_is_left_out():
    assert "kappa" not in known(("cat", "dog"))
    assert "top5" not in known(("1", "2"))
    assert known(CLASSES) == list(GOALS)


def test_classes_that_do_not_occur_have_no_part_in_a_mean_over_classes():
    logs, labels = predictions(k=4)
    labels = np.where(labels == 3, 0, labels)
    for metric in ("auc", "map"):
        assert np.isfinite(measure(metric, logs, labels, ("a", "b", "c", "d")))
    assert set(of_classes(logs, labels, ("a", "b", "c", "d"))) == {"a", "b", "c"}
    alone = score(logs[labels == 1], labels[labels == 1], ("a", "b", "c", "d"))
    assert alone["auc"] is None, "of one class alone nothing is told apart"


@pytest.mark.parametrize("metric", GOALS)
def test_a_better_model_gains_and_a_worse_one_loses_whatever_the_score(metric):
    weak, labels = predictions(300, skill=1.0)
    noise, _ = predictions(300, skill=0.0, seed=1)
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
        before, labels = predictions(400, 6, 1.0, seed)
        after = before + np.random.default_rng(1000 + seed).normal(0, 0.5, before.shape)
        change, standard_error = gain(
            metric,
            before,
            after - np.logaddexp.reduce(after, axis=1, keepdims=True),
            labels,
            CLASSES,
        )
        gains.append(change)
        errors.append(standard_error)
    assert np.mean(errors) == pytest.approx(np.std(gains), rel=0.3)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_macro_f1_by_counting_is_scikit_learns(pairs):
    predicted, labels = (np.array(column) for column in zip(*pairs, strict=True))
    assert macro_f1(predicted, labels, tuple("abcde")) == pytest.approx(
        sk.f1_score(labels, predicted, average="macro")
    )


def test_the_accuracy_of_others_is_expected_in_a_wider_interval():
    alone, with_test = expected(0.9, 2000, 0), expected(0.9, 2000, 500)
    assert alone["low"] < 0.9 < alone["high"]
    assert alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 2000), rel=0.02)
    assert with_test["test_low"] < with_test["low"]
    assert with_test["test_high"] > with_test["high"]
    assert expected(1.0, 20, 20)["low"] < 1, "twenty hits do not prove that there is no miss"
    rng, inside = np.random.default_rng(0), 0
    for _ in range(500):
        interval = expected(rng.binomial(2000, 0.9) / 2000, 2000, 500)
        inside += interval["test_low"] <= rng.binomial(500, 0.9) / 500 <= interval["test_high"]
    assert 0.92 < inside / 500 < 0.98


def logits_of(labels, seed=0, sure=2.0):
    """Log-probabilities (N, C, 2) that lean toward the labels."""
    z = np.random.default_rng(seed).normal(sure * (2 * np.maximum(labels, 0) - 1), 2.0)
    return np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], -1)


def test_scores_of_label_sets_are_those_of_scikit_learn(labels):
    logs, scores = logits_of(labels), score(logits_of(labels), labels, ANIMALS)
    probs, predicted = np.exp(logs[..., 1]), logs.argmax(-1)
    assert scores == pytest.approx(
        {
            "n": 400,
            "accuracy": sk.accuracy_score(labels, predicted),
            "log_loss": np.mean([sk.log_loss(labels[:, c], probs[:, c]) for c in range(4)]),
            "macro_f1": sk.f1_score(labels, predicted, average="macro"),
            "auc": sk.roc_auc_score(labels, probs),
            "map": sk.average_precision_score(labels, probs),
        }
    )
    assert list(scores)[1:] == known(ANIMALS, multi_label=True)
    by_name = of_classes(logs, labels, ANIMALS)
    assert [by_name[name]["recall"] for name in ANIMALS] == pytest.approx(
        sk.recall_score(labels, predicted, average=None)
    )


@pytest.mark.parametrize("metric", known(ANIMALS, multi_label=True))
def test_unknown_answers_count_in_no_score(labels, metric):
    logs, some = logits_of(labels), labels.copy()
    some[::3, 0] = -1
    other = logs.copy()
    other[::3, 0] = other[::3, 0, ::-1]  # the opposite
    assert measure(metric, logs, some, ANIMALS) == pytest.approx(
        measure(metric, other, some, ANIMALS)
    )
    assert measure(metric, logs, labels, ANIMALS) != pytest.approx(
        measure(metric, other, labels, ANIMALS), abs=1e-3
    )


@pytest.mark.parametrize("metric", known(ANIMALS, multi_label=True))
def test_a_better_model_of_label_sets_gains(labels, metric):
    change, error = gain(
        metric, logits_of(labels, sure=1.0), logits_of(labels, sure=4.0), labels, ANIMALS
    )
    assert change > 3 * error > 0


def test_pseudo_labels_whose_truth_nobody_knows_count_neither_as_right_nor_as_wrong():
    label, clean = np.array([0, 1, 2, 2, -1]), np.array([0, 0, -1, -1, 1])
    assert unlabeled_scores(label, clean)["accuracy"] == 0.5
    assert "accuracy" not in unlabeled_scores(label[2:], clean[2:])


def hits(share, n=2000, seed=0):
    return np.random.default_rng(seed).random(n) < share


def test_the_interval_of_a_paired_gain_is_that_of_the_differences():
    before = hits(0.8)
    after = before | hits(0.2, seed=1)
    interval = paired_gain(before, after)
    assert interval["gain"] == pytest.approx(after.mean() - before.mean())
    assert interval["low"] < interval["gain"] < interval["high"]
    unpaired = 1.96 * np.sqrt(before.var() / 2000 + after.var() / 2000)
    assert interval["high"] - interval["gain"] < 0.8 * unpaired, "pairing removes what both share"
    same = paired_gain(before, before)
    assert (same["before"], same["gain"], same["low"], same["high"]) == (before.mean(), 0, 0, 0)


def test_agreement_that_trusted_samples_do_not_confirm_is_warned_of():
    same, fewer, more = hits(0.9), hits(0.9) & hits(0.95, seed=1), hits(0.9) | hits(0.3, seed=2)
    assert confirmed([same, fewer], [same, more])["warning"]
    assert not confirmed([same, more], [same, more])["warning"], "both rise"
    assert not confirmed([same, fewer], [same, fewer])["warning"], "both fall"


def test_the_difference_of_arms_is_that_of_the_rows_both_judged_in_the_role_that_tells_most():
    def rows(arm, split, ids, right):
        return pd.DataFrame(
            {
                "arm": arm,
                "split": split,
                "id": ids,
                "label": "a",
                "predicted": np.where(right, "a", "b"),
            }
        )

    every, rng = np.arange(300), np.random.default_rng(0)
    hits = {
        (arm, split): rng.random(300) < share
        for arm, share in (("student", 0.9), ("baseline", 0.7))
        for split in ("val", "test")
    }
    scored = pd.concat([rows(arm, split, every, right) for (arm, split), right in hits.items()])
    by_split = difference(scored.sample(frac=1, random_state=0))
    expected = paired_gain(
        hits["baseline", "test"].astype(float), hits["student", "test"].astype(float)
    )
    assert by_split == pytest.approx({"split": "test"} | expected | paired_arms(scored, ("test",)))
    both = paired_arms(scored, ("val", "trusted"))
    assert both["n"] == 300
    assert both["gain"] == pytest.approx(
        hits["student", "val"].mean() - hits["baseline", "val"].mean()
    )
    assert difference(scored[scored.arm == "student"]) is None
    unlabeled = scored.assign(label="")
    assert difference(unlabeled) is None
    assert difference(scored.iloc[:0]) is None


def test_a_paired_interval_counts_only_rows_that_differ():
    right = {"student": ["a"] * 90 + ["b"] * 10, "baseline": ["a"] * 80 + ["b"] * 20}
    tables = [
        pd.DataFrame(
            {"arm": arm, "split": "test", "id": range(100), "label": "a", "predicted": predicted}
        )
        for arm, predicted in right.items()
    ]
    gain = paired_arms(pd.concat(tables), ("test",))
    assert (gain["low"] + gain["high"]) / 2 == pytest.approx(0.1)
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(1.96 * (0.1 * 0.9 / 100) ** 0.5)


def test_the_interval_of_a_share_is_wilsons():
    assert tuple(share_interval(0.5, 100).values())[1:] == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert tuple(share_interval(0.9, 10).values())[1:] == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert tuple(share_interval(1.0, 20).values())[1:] == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert tuple(share_interval(0.0, 20).values())[1:] == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert share_interval(1.0, 50)["high"] == pytest.approx(1)
    draws = [
        share_interval(hits / 100, 100)
        for hits in np.random.default_rng(0).binomial(100, 0.95, 4000)
    ]
    assert np.mean([draw["low"] <= 0.95 <= draw["high"] for draw in draws]) == pytest.approx(
        0.95, abs=0.03
    )
