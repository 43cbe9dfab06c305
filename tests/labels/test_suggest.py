"""Suggested rows: what is chosen, what is random, and what their labels say."""

import numpy as np
import pandas as pd
import pytest

from pseudokit.labels.suggest import compare_with_chance, suggest_rows, uncertainty

K = 3


@pytest.fixture
def rows():
    """300 rows in three groups by direction; those of the first have labels. Log-probabilities, features."""
    rng = np.random.default_rng(0)
    group = np.arange(300) % K
    features = np.eye(K)[group] * 5 + rng.normal(0, 0.5, (300, K))
    log_probs = np.log(rng.dirichlet(np.ones(K), 300))
    return group, log_probs, features


def suggest(rows, n, order=None):
    group, log_probs, features = rows
    order = np.arange(300) if order is None else order
    place = np.argsort(order)  # where each row is
    pool = np.random.default_rng(1).permutation(np.flatnonzero(group > 0))
    labeled = np.flatnonzero(group == 0)
    suggested, source = suggest_rows(
        log_probs[order], features[order], place[labeled], place[pool], n
    )
    return order[suggested], source, pool


@pytest.mark.parametrize("n", [1, 2, 10, 25, 70, 500])
def test_a_tenth_is_the_first_of_the_pool_and_no_row_comes_twice(rows, n):
    suggested, source, pool = suggest(rows, n)
    n_random = min(-(-n // 10), len(pool))
    assert list(suggested[source == "random"]) == list(pool[:n_random])
    assert len(suggested) == len({*suggested}) == min(n, len(pool))
    assert {*suggested} <= {*pool}


def test_the_order_of_the_rows_changes_nothing(rows):
    suggested, source, _ = suggest(rows, 40)
    again, source_again, _ = suggest(rows, 40, np.random.default_rng(2).permutation(300))
    assert list(again) == list(suggested)
    assert list(source_again) == list(source)


def test_groups_without_a_label_are_all_visited_before_one_is_visited_often(rows):
    suggested, source, _ = suggest(rows, 5)
    assert {*rows[0][suggested[source == "chosen"]][:2]} | {*rows[0][suggested[:1]]} == {1, 2}


def test_certain_rows_are_left_to_the_models(rows):
    group, log_probs, features = rows
    sure = group == 1
    log_probs = np.where(sure[:, None], np.log([1 - 2e-6, 1e-6, 1e-6]), log_probs)
    suggested, source, _ = suggest((group, log_probs, features), 20)
    assert (group[suggested[source == "chosen"]] == 2).all()


def test_a_copy_of_a_suggested_row_adds_nothing():
    features = np.eye(6)[[0, 1, 1, 1, 2, 3, 4]]
    log_probs = np.log(np.full((7, 2), 0.5))
    pool = np.array([4, 1, 2, 3, 5, 6])
    suggested, _ = suggest_rows(log_probs, features, np.array([0]), pool, 4)
    assert len({*features[suggested].argmax(1)}) == 4


def test_uncertainty_is_one_where_two_classes_are_as_likely():
    probs = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]])
    with np.errstate(divide="ignore"):
        log_probs = np.log(probs)
    assert uncertainty(log_probs) == pytest.approx([1, 0.6, 0])
    of_sets = np.stack([log_probs[:, :2], log_probs[:, 1:]], 1)  # two answers a row
    assert uncertainty(of_sets)[2] == pytest.approx((1 + 0) / 2)


def labeled(*batches):
    """(wrong random, random, wrong chosen, chosen) of each batch → a row a label."""
    parts = [
        pd.DataFrame({"wrong": np.arange(n) < wrong, "source": source, "batch": 10 * number})
        for number, (a, b, c, d) in enumerate(batches, 1)
        for wrong, n, source in ((a, b, "random"), (c, d, "chosen"))
    ]
    return pd.concat(parts)


def test_the_difference_has_the_interval_of_newcombe():
    # Newcombe 1998, Table II, row (a), method 10: 56/70 − 48/80
    compared = compare_with_chance(labeled((48, 80, 56, 70)))
    gain = compared["gain"]
    assert [gain["gain"], gain["low"], gain["high"]] == pytest.approx(
        [0.2, 0.0524, 0.3339], abs=1e-4
    )
    assert compared["random"]["n"] == 80
    assert compared["chosen"]["error"] == pytest.approx(0.8)


def test_labeling_ends_where_few_errors_are_left_or_twice_nothing_was_gained():
    assert compare_with_chance(labeled((0, 100, 9, 90)))["stop"] == "few_errors"
    assert compare_with_chance(labeled((2, 10, 18, 90)))["stop"] == ""
    assert compare_with_chance(labeled((2, 10, 18, 90), (3, 10, 9, 90)))["stop"] == "no_gain"
    assert compare_with_chance(labeled((2, 10, 19, 90), (3, 10, 9, 90)))["stop"] == ""
    batches = (1, 10, 50, 90), (3, 10, 9, 90), (3, 10, 9, 90)
    assert compare_with_chance(labeled(*batches))["stop"] == "no_gain"
    assert compare_with_chance(labeled((2, 10, 0, 0))) == {}
    assert compare_with_chance(labeled((0, 0, 3, 9))) == {}
