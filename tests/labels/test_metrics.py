"""Paired gains, and the warning of rounds that agree with themselves."""

import numpy as np
import pytest

from src.labels.metrics import confirmed, paired_gain


def hits(share, n=2000, seed=0):
    return np.random.default_rng(seed).random(n) < share


def test_the_interval_of_a_paired_gain_is_that_of_the_differences():
    before = hits(0.8)
    after = before | hits(0.2, seed=1)
    found = paired_gain(before, after)
    assert found["gain"] == pytest.approx(after.mean() - before.mean())
    assert found["low"] < found["gain"] < found["high"]
    unpaired = 1.96 * np.sqrt(before.var() / 2000 + after.var() / 2000)
    assert found["high"] - found["gain"] < 0.8 * unpaired, "pairing removes what both share"
    same = paired_gain(before, before)
    assert (same["before"], same["gain"], same["low"], same["high"]) == (before.mean(), 0, 0, 0)


def test_agreement_that_trusted_samples_do_not_confirm_is_warned_of():
    same, fewer, more = hits(0.9), hits(0.9) & hits(0.95, seed=1), hits(0.9) | hits(0.3, seed=2)
    assert confirmed([same, fewer], [same, more])["warning"]
    assert not confirmed([same, more], [same, more])["warning"], "both rise"
    assert not confirmed([same, fewer], [same, fewer])["warning"], "both fall"
