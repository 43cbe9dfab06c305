"""Paired gains, and the warning of rounds that agree with themselves."""

import numpy as np
import pandas as pd
import pytest

from pseudokit.labels.metrics import confirmed, paired_arms, paired_gain
from pseudokit.run_folder.evaluate import difference


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


def test_the_difference_of_arms_is_that_of_the_rows_both_judged_in_the_role_that_tells_most():
    def rows(arm, split, ids, right):
        return pd.DataFrame(
            {"arm": arm, "split": split, "id": ids, "label": "a", "predicted": np.where(right, "a", "b")}
        )

    every, rng = np.arange(300), np.random.default_rng(0)
    hits = {
        (arm, split): rng.random(300) < share
        for arm, share in (("student", 0.9), ("baseline", 0.7))
        for split in ("val", "test")
    }
    scored = pd.concat([rows(arm, split, every, right) for (arm, split), right in hits.items()])
    found = difference(scored.sample(frac=1, random_state=0))
    expected = paired_gain(hits["baseline", "test"].astype(float), hits["student", "test"].astype(float))
    assert found == pytest.approx({"split": "test", "n": 300} | {key: expected[key] for key in ("gain", "low", "high")})
    both = paired_arms(scored, ("val", "trusted"), "baseline")
    assert both["n"] == 300
    assert both["gain"] == pytest.approx(hits["student", "val"].mean() - hits["baseline", "val"].mean())
    assert difference(scored[scored.arm == "student"]) is None
    unlabeled = scored.assign(label="")
    assert difference(unlabeled) is None
    assert difference(scored.iloc[:0]) is None
