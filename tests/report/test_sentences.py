"""The sentences at the top of the report hold the numbers of the run, and a verdict that the interval allows."""

import json

import pandas as pd
import pytest

from pseudokit.labels.noise import DIFFICULTY, OF_THE_CLASS, VOTES
from pseudokit.report.sentences import (
    NOISE_TYPES,
    audit_sentence,
    headline,
    pseudo_label_sentence,
    run_facts,
    trusted_sentence,
)

from .fake_run import make_run

METRICS = {"mode": "augment", "round": 1, "scores": {}, "rounds": []}
"""metrics.json of a run that scored nothing."""


def sentences_of(run):
    return [
        text.replace("\xa0", " ")
        for text in headline(json.loads((run / "metrics.json").read_text()))
    ]


def test_denoise_tells_the_wrong_labels_first_then_the_gain_then_the_noise(denoise):
    issues, first, noise, *others = sentences_of(denoise)
    table = pd.read_csv(denoise / "label_issues.csv")
    is_issue = table.p_wrong > 0.5
    is_uncertain = (table.decision != "keep") & ~is_issue
    kept = (table.decision[is_issue] == "keep").sum()
    for number in (
        f"{is_issue.sum()} of 200 given",
        f"{is_uncertain.sum()} more",
        f"{kept} kept",
        "8 relabeled",
        "12 dropped",
    ):
        assert number in issues
    scores = json.loads((denoise / "metrics.json").read_text())["scores"]
    gain = 100 * (scores["student"]["test"]["accuracy"] - scores["baseline"]["test"]["accuracy"])
    assert f"student − baseline {gain:+.2f} points" in first
    assert "200 test images" in first
    for number in (
        "10.12 %",
        "9.00 to 12.00 %",
        "10.00 %",
        "0.34 %",
        "0.9987",
    ):
        assert number in noise
    assert NOISE_TYPES["pair"] in noise
    assert others == []


def test_augment_tells_the_gain_the_pseudo_labels_and_what_to_expect(augment):
    first, pseudo_labels, out_of_fold = sentences_of(augment)
    metrics = json.loads((augment / "metrics.json").read_text())
    n = metrics["unlabeled"]["pseudo_labels"]
    assert "student − baseline" in first
    for number in (f"{n} of 150", f"{100 * n / 150:.2f} %", "98.76 %"):
        assert number in pseudo_labels
    for number in ("100.00 % of 50", "200 test"):
        assert number in out_of_fold


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.02, "helped"),
        (-0.001, 0.02, "no clear difference"),
        (-0.02, 0.001, "no clear difference"),
        (-0.02, -0.001, "hurt"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, verdict):
    difference = {"split": "test", "n": 1234, "gain": (low + high) / 2, "low": low, "high": high}
    [text] = headline(METRICS | {"difference": difference})
    assert verdict in text
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in text
    assert "1,234" in text


def test_without_a_baseline_the_accuracy_stands_with_its_interval(tmp_path):
    [text, _] = sentences_of(make_run(tmp_path / "run", "train"))
    assert "student" in text
    assert "90.00 % of 200 test images" in text
    [text] = headline(METRICS | {"scores": {"student": {"val": {"n": 9, "accuracy": 0.5}}}})
    assert "22.65 to 77.35" in text


def test_what_is_not_scored_is_said_to_be_unknown_after_what_is_known(denoise):
    [text] = headline(METRICS)
    assert "data.test" in text
    metrics = json.loads((denoise / "metrics.json").read_text())
    del metrics["difference"]
    first, *_, last = headline(metrics | {"scores": {}})
    assert "200 given labels" in first
    assert last == text


def test_the_precision_of_pseudo_labels_is_the_true_one_else_that_of_alike_labels(augment):
    metrics = json.loads((augment / "metrics.json").read_text())
    estimate = {"n": 40, "precision": 0.9, "low": 0.77, "high": 0.96}
    metrics["unlabeled"]["out_of_fold"] = estimate
    text = pseudo_label_sentence(metrics)
    assert "98.76" in text
    assert "77.00" not in text
    del metrics["unlabeled"]["accuracy"]
    text = pseudo_label_sentence(metrics)
    for number in ("90.00", "77.00 to 96.00", "40 given labels"):
        assert number in text


def test_models_that_know_nothing_say_nothing_of_the_labels(denoise):
    metrics = json.loads((denoise / "metrics.json").read_text()) | {"reason": "learned_nothing"}
    first, *others = headline(metrics)
    assert "chance" in first
    assert not any("wrong" in sentence for sentence in [first, *others])


def test_every_kind_of_noise_has_words():
    assert {*OF_THE_CLASS, DIFFICULTY, VOTES, "look-alike"} == set(NOISE_TYPES)


def test_human_decisions_and_rounds_that_changed_nothing_are_told():
    human = {"files": 2, "keep": 3, "relabel": 9}
    ended = {"round": 0, "reason": "no_change", "human": human}
    unchanged, decisions, _ = headline(METRICS | ended)
    assert "given labels" in unchanged
    assert "12 decisions" in decisions
    assert "3 keep, 9 relabel" in decisions
    for_want_of_time = headline(METRICS | {"round": 0, "reason": "time_budget"})
    assert not any("student learned" in sentence for sentence in for_want_of_time)


def test_an_audit_tells_its_shares_with_intervals_or_asks_for_reviews():
    share = {"value": 0.1, "low": 0.05, "high": 0.2}
    audit = {
        "n": 100,
        "reviewed": 100,
        "noise_rate": share,
        "flag_precision": None,
        "estimate_error": share,
    }
    text = audit_sentence({"audit": audit}).replace("\xa0", " ")
    assert "10.00 % of the given labels are wrong (5.00 to 20.00 %)" in text
    assert "+10.00 points" in text
    assert "random" not in text
    assert "random" in audit_sentence({"audit": audit | {"reviewed": 99}})
    assert "review.html" in audit_sentence({"audit": audit | {"reviewed": 0}})


def test_trusted_images_warn_where_they_do_not_confirm_the_rounds():
    trusted = {"n": 50, "gain": -0.02, "low": -0.06, "high": 0.02, "warning": True}
    text = trusted_sentence({"trusted": trusted})
    assert "-2.00 points" in text
    assert "Warning" in text
    assert "Warning" not in trusted_sentence({"trusted": trusted | {"warning": False}})


def test_the_line_below_names_mode_rounds_reason_and_time(denoise):
    facts = run_facts(json.loads((denoise / "metrics.json").read_text())).split(" · ")
    assert facts[:2] == ["mode denoise", "2 rounds"]
    assert "max_rounds" in facts[2]
    assert facts[3] == "10.0\xa0s"
