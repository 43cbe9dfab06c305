"""metrics.jsonl against what a reader of decisions.csv counts by hand."""

import csv
import json
from collections import Counter
from statistics import mean

import pandas as pd
import pytest

from pseudokit.report.load_run import read_lines
from pseudokit.report.metrics_log import (
    MAX_CLASSES,
    class_counts,
    metric_lines,
    score_lines,
    write_metrics,
)
from pseudokit.round_store import RoundStore
from pseudokit.system.files import write_json
from tests.test_laws import digits, train

from .fake_run import HOSTILE, make_run

MODES = ["train", "augment", "denoise", "joint"]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Run folders with three real rounds of each mode, over real digits, a tenth of the given labels wrong."""
    dataset, x, _ = digits()
    given_labels = dataset.given_labels >= 0
    runs = {}
    for mode in MODES:
        runs[mode] = tmp_path_factory.mktemp(mode)
        only = (
            {"dataset": dataset.take(given_labels), "x": x[given_labels]} if mode == "train" else {}
        )
        train(runs[mode], mode, **only)
        rounds = RoundStore(runs[mode]).rounds()
        write_json(runs[mode] / "metrics.json", {"rounds": rounds, "scores": {}})
    return runs


def by_hand(run, number):
    with open(run / f"round_{number}" / "decisions.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads(
            (run / f"round_{number}" / "round.json").read_text()
        )


@pytest.mark.parametrize("mode", MODES)
def test_labeled_rows_are_counted_right(records, mode):
    run = records[mode]
    facts = [line for line in metric_lines(run) if "round" in line]
    assert [line["round"] for line in facts] == list(range(1, len(list(run.glob("round_*"))) + 1))
    for line in facts:
        rows, info = by_hand(run, line["round"])
        hits = [r["predicted"] == r["given_label"] for r in rows if r["given_label"]]
        assert line["oof_accuracy"] == pytest.approx(mean(hits))
        assert line["oof_accuracy"] == pytest.approx(info["oof_accuracy"])
        assert line["oof_accuracy_low"] < line["oof_accuracy"] < line["oof_accuracy_high"]
        assert line["seconds"] == info["seconds"]


@pytest.mark.parametrize("mode", MODES)
def test_classes_and_flips_are_counted_right(records, mode):
    before = None
    for line in metric_lines(records[mode]):
        if "round" not in line:
            continue
        rows, info = by_hand(records[mode], line["round"])
        labels = [r["label"] for r in rows]
        before = before or [r["given_label"] for r in rows]
        assert line["changed"] == sum(a != b for a, b in zip(labels, before, strict=True))
        before = labels
        given_labels = Counter(r["given_label"] for r in rows if r["given_label"])
        for name in info["classes"]:
            assert line[f"prior/{name}"] == pytest.approx(given_labels[name] / given_labels.total())
            assert line[f"labels/{name}"] == sum(
                r["label"] == name for r in rows if r["given_label"]
            )
        pseudo = Counter(r["label"] for r in rows if r["label"] and not r["given_label"])
        assert {
            k[14:]: n for k, n in line.items() if k.startswith("pseudo_labels/") and n
        } == pseudo
        if unlabeled := sum(not r["given_label"] for r in rows):
            assert line["coverage"] == pytest.approx(pseudo.total() / unlabeled)
        assert (
            ("coverage" in line)
            == (unlabeled > 0)
            == any(key.startswith("pseudo_labels/") for key in line)
        )


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    return {
        mode: make_run(tmp_path_factory.mktemp("fake") / mode, mode)
        for mode in ("augment", "denoise")
    }


def test_of_a_thousand_classes_only_those_with_a_pseudo_label_are_counted():
    names = [f"c{k}" for k in range(1000)]
    assert len(names) > MAX_CLASSES
    table = pd.DataFrame(
        {
            "given_label": [*names, *[""] * 50],
            "label": [*names, *["c7"] * 20, *["c999"] * 10, *[""] * 20],
        }
    )
    assert class_counts({"classes": names}, table) == {
        "prior/c7": 0.001,
        "prior/c999": 0.001,
        "labels/c7": 1,
        "labels/c999": 1,
        "pseudo_labels/c7": 20,
        "pseudo_labels/c999": 10,
    }


def test_a_label_set_counts_for_each_of_its_classes():
    table = pd.DataFrame(
        {"given_label": ["cat dog", "cat", "", ""], "label": ["cat", "cat", "cat dog", ""]}
    )
    sets = ["cat", "cat dog", "dog"]
    info = {"classes": ["cat", "dog"], "multi_label": True, "label_sets": sets}
    assert class_counts(info, table) == {
        "prior/cat": pytest.approx(2 / 3),
        "prior/dog": pytest.approx(1 / 3),
        "labels/cat": 2,
        "labels/dog": 0,
        "pseudo_labels/cat": 1,
        "pseudo_labels/dog": 1,
    }


@pytest.mark.parametrize("names", [HOSTILE, ["NA", "nan", "007", "null", "a\u2028b", "x/y"]])
def test_names_stay_what_they_are(tmp_path, names):
    run = make_run(tmp_path / "run", "augment", names=names, id_of="{:05d}".format)
    write_metrics(run)
    lines = read_lines(run / "metrics.jsonl")
    assert lines == metric_lines(run)
    for line in lines[:2]:
        assert {key[6:] for key in line if key.startswith("prior/")} == set(names)


def test_final_scores_have_a_line_an_arm_and_all_their_numbers(fakes):
    metrics = json.loads((fakes["denoise"] / "metrics.json").read_text())
    lines = {line["of"]: line for line in score_lines(metrics)}
    assert list(lines) == ["teacher", "baseline", "student", "oof", "noise", "difference"]
    for arm, splits in metrics["scores"].items():
        assert {f"test/{key}": value for key, value in splits["test"].items()}.items() <= lines[
            arm
        ].items()
        assert (
            lines[arm]["test/accuracy_low"]
            < lines[arm]["test/accuracy"]
            < lines[arm]["test/accuracy_high"]
        )
    assert lines["noise"]["precision_at/100"] == 0.97
