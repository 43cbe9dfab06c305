"""The audit's sample is a fair one, and what it says of a population holds as often as it claims."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.labels.audit import STRATA, allocate, draw_sample, estimate, stratify


def population(seed: int, n: int = 3000, rate: float = 0.08):
    """Wrong or not, p_wrong and flag of n rows; p_wrong is no probability, and some wrong rows look right."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < rate
    p_wrong = np.where(
        wrong, rng.beta(2, 0.5, n), 0.5 * rng.beta(0.5, 20, n) + 0.5 * (rng.random(n) < 0.02)
    )
    return wrong, p_wrong, p_wrong > 0.5


@pytest.fixture(scope="module")
def audited():
    """rate → of 120 populations: what an audit of 200 rows found, and the truth of the same figures."""
    return {rate: [one_audit(seed, rate) for seed in range(120)] for rate in (0.01, 0.08, 0.4)}


def one_audit(seed: int, rate: float):
    wrong, p_wrong, flagged = population(seed, rate=rate)
    stratum = stratify(p_wrong)
    rows, _ = draw_sample(stratum, 200, seed)
    truth = {
        "noise_rate": wrong.mean(),
        "flag_precision": wrong[flagged].mean(),
        "estimate_error": p_wrong.mean() - wrong.mean(),
    }
    return estimate(stratum, rows, wrong[rows], p_wrong.mean()), truth


@pytest.mark.parametrize("figure", ["noise_rate", "flag_precision", "estimate_error"])
def test_intervals_hold_the_truth_as_often_as_they_say(audited, figure):
    for rate, audits in audited.items():
        held = [
            f[figure]["low"] - 1e-9 <= truth[figure] <= f[figure]["high"] + 1e-9
            for f, truth in audits
        ]
        assert np.mean(held) >= 0.92, rate


def test_the_estimate_is_unbiased_and_its_interval_narrower_than_of_a_plain_sample(audited):
    for rate, audits in audited.items():
        misses = [
            estimates["noise_rate"]["value"] - truth["noise_rate"] for estimates, truth in audits
        ]
        assert abs(np.mean(misses)) < 3 * np.std(misses) / len(misses) ** 0.5
        if rate == 0.08:
            widths = [
                estimates["noise_rate"]["high"] - estimates["noise_rate"]["low"]
                for estimates, _ in audits
            ]
            assert np.mean(widths) < 2 * 1.96 * np.sqrt(rate * (1 - rate) / 200)


def test_every_row_of_a_stratum_is_drawn_as_often_as_any_other():
    stratum = np.repeat([0, 1, 2], [20, 30, 100])
    drawn = (
        np.bincount(
            np.concatenate([draw_sample(stratum, 60, seed)[0] for seed in range(2000)]),
            minlength=150,
        )
        / 2000
    )
    for k in range(3):
        share = drawn[stratum == k]
        assert np.ptp(share) < 8 * np.sqrt(0.25 / 2000)
        assert np.isclose(share.sum(), allocate(np.bincount(stratum), 60)[k])
    place = np.mean(
        [
            np.flatnonzero(stratum[draw_sample(stratum, 60, seed)[0]] == 0).mean()
            for seed in range(300)
        ]
    )
    assert abs(place - 29.5) < 2, "the order tells the stratum"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80), st.integers(1, 90)
)
def test_laws_of_the_sample(people, n):
    p_wrong, wrong = (np.array(column) for column in zip(*people, strict=True))
    stratum = stratify(p_wrong)
    assert ((stratum == STRATA.index("flagged")) == (p_wrong > 0.5)).all()
    doubtful = stratum == STRATA.index("doubtful")
    assert not doubtful.any() or p_wrong[doubtful].min() >= p_wrong[stratum == 2].max(initial=0)
    rows, weights = draw_sample(stratum, n, 0)
    assert len(set(rows.tolist())) == len(rows) == min(n, len(people))
    reached = np.isin(stratum, stratum[rows])
    assert np.isclose(weights.sum(), reached.sum()), "the weights do not stand for every row"
    estimates = estimate(stratum, rows, wrong[rows], 0.1)
    assert (estimates["noise_rate"] is None) == (not reached.all())
    for interval in filter(None, estimates.values()):
        assert interval["low"] <= interval["value"] + 1e-9
        assert interval["value"] <= interval["high"] + 1e-9
    if n >= len(people):  # everything is known
        assert np.allclose(list(estimates["noise_rate"].values()), wrong.mean())


def test_a_stratum_without_a_judged_row_leaves_the_rate_open():
    stratum, rows = np.repeat([0, 1, 2], 10), np.arange(15)
    estimates = estimate(stratum, rows, rows < 9, 0.1)
    assert estimates["noise_rate"] is estimates["estimate_error"] is None
    assert estimates["flag_precision"]["value"] == 0.9
    assert estimate(stratum, rows[:0], rows[:0] > 0, 0.1)["flag_precision"] is None
