"""metrics.jsonl against what a reader of decisions.csv counts by hand."""

import csv
import json
from collections import Counter
from statistics import mean, stdev

import numpy as np
import pandas as pd
import pytest

from pseudokit.labels.metrics import share_interval as spread
from pseudokit.report.load_run import read_lines, read_run
from pseudokit.report.report import page_words
from pseudokit.report.round_tables import (
    FEW_CLASSES,
    all_facts,
    class_facts,
    score_facts,
    tables,
    worth_a_look,
    write_metrics,
)
from tests.test_laws import digits, train

from .fake_run import HOSTILE, make_run

MODES = ["train", "augment", "denoise", "joint"]


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory):
    """The ledger of three real rounds a mode, over real digits, a tenth of the given labels wrong."""
    dataset, x, _ = digits()
    given_labels = dataset.given_labels >= 0
    found = {}
    for mode in MODES:
        found[mode] = tmp_path_factory.mktemp(mode)
        only = {"dataset": dataset.take(given_labels), "x": x[given_labels]} if mode == "train" else {}
        train(found[mode], mode, **only)
    return found


def by_hand(run, number):
    with open(run / f"round_{number}" / "decisions.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file)), json.loads((run / f"round_{number}" / "round.json").read_text())


@pytest.mark.parametrize("mode", MODES)
def test_labeled_rows_are_counted_right(ledgers, mode):
    run = ledgers[mode]
    facts = [line for line in all_facts(run) if "round" in line]
    assert [line["round"] for line in facts] == list(range(1, len(list(run.glob("round_*"))) + 1))
    for line in facts:
        rows, info = by_hand(run, line["round"])
        known = [
            (r["predicted"] == r["given_label"], float(r["confidence"]), r["model"]) for r in rows if r["given_label"]
        ]
        assert line["oof_accuracy"] == pytest.approx(mean(hit for hit, *_ in known))
        assert line["oof_accuracy"] == pytest.approx(info["oof_accuracy"])
        assert line["oof_accuracy_low"] < line["oof_accuracy"] < line["oof_accuracy_high"]
        folds = {}
        for hit, _, judges in known:
            folds.setdefault(info["models"][judges.split("+")[-1]]["fold"], []).append(hit)
        assert len(folds) == 3
        assert line["oof_accuracy_sd_over_folds"] == pytest.approx(stdev(map(mean, folds.values())))
        bins = {}
        for hit, confidence, _ in known:
            bins.setdefault(min(int(confidence * 10), 9), []).append(confidence - hit)
        assert line["calibration_error"] == pytest.approx(sum(abs(sum(b)) for b in bins.values()) / len(known))
        assert line["seconds"] == info["seconds"]


@pytest.mark.parametrize("mode", MODES)
def test_precision_is_that_of_labeled_rows_from_the_lowest_accepted_row_on(ledgers, mode):
    for line in all_facts(ledgers[mode]):
        rows, _ = by_hand(ledgers[mode], line["round"]) if "round" in line else ([], {})
        kind = "accept" if mode in ("augment", "joint") else "relabel"
        gave = [float(r["confidence"]) for r in rows if r["decision"] == kind]
        if not gave:
            assert "oof_precision" not in line
            continue
        above = [
            r["predicted"] == r["given_label"] for r in rows if r["given_label"] and float(r["confidence"]) >= min(gave)
        ]
        assert line["cutoff_in_use"] == min(gave)
        assert line["oof_precision_n"] == len(above) > 20
        assert line["oof_precision"] == pytest.approx(mean(above))
    assert ("oof_precision" in all_facts(ledgers[mode])[0]) == (mode != "train")


@pytest.mark.parametrize("mode", MODES)
def test_classes_and_flips_are_counted_right(ledgers, mode):
    before = None
    for line in all_facts(ledgers[mode]):
        if "round" not in line:
            continue
        rows, info = by_hand(ledgers[mode], line["round"])
        labels = [r["label"] for r in rows]
        before = before or [r["given_label"] for r in rows]
        assert line["changed"] == sum(a != b for a, b in zip(labels, before, strict=True))
        before = labels
        given_labels = Counter(r["given_label"] for r in rows if r["given_label"])
        for name in info["classes"]:
            assert line[f"prior/{name}"] == pytest.approx(given_labels[name] / given_labels.total())
            assert line[f"labels/{name}"] == sum(r["label"] == name for r in rows if r["given_label"])
        pseudo = Counter(r["label"] for r in rows if r["label"] and not r["given_label"])
        assert {k[14:]: n for k, n in line.items() if k.startswith("pseudo_labels/") and n} == pseudo
        if pool := sum(not r["given_label"] for r in rows):
            assert line["coverage"] == pytest.approx(pseudo.total() / pool)
        assert ("coverage" in line) == (pool > 0) == any(key.startswith("pseudo_labels/") for key in line)


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    return {mode: make_run(tmp_path_factory.mktemp("fake") / mode, mode) for mode in ("augment", "denoise")}


@pytest.mark.parametrize("mode", MODES)
def test_images_are_rows_of_the_last_round_and_none_is_shown_twice(ledgers, mode):
    last = len(list(ledgers[mode].glob("round_*")))
    now = {row["id"]: row for row in by_hand(ledgers[mode], last)[0]}
    before = {
        row["id"]: row["label" if last > 1 else "given_label"] for row in by_hand(ledgers[mode], max(last - 1, 1))[0]
    }
    images = [line for line in all_facts(ledgers[mode]) if "image" in line]
    assert len(images) == len({line["image"] for line in images}) <= 64
    for line in images:
        row = now[line["image"]]
        assert [line[key] for key in ("given_label", "predicted", "label")] == [
            row["given_label"],
            row["predicted"],
            row["label"],
        ]
        assert line["confidence"] == float(row["confidence"])
        assert line["why"] != "flipped" or row["label"] != before[row["id"]]
        assert line["why"] != "suspect" or (row["given_label"] and float(row["p_wrong"]) > 0.5)
    changed = {i for i, row in now.items() if row["label"] != before[i]}
    assert bool(changed) == any(line["image"] in changed for line in images)
    assert (mode == "train") == (not changed)


def test_an_interval_of_a_share_holds_the_true_share():
    sure = spread(0.9, 10)
    assert (sure["low"], sure["high"]) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert spread(1.0, 50)["high"] == pytest.approx(1)
    assert spread(1.0, 50)["low"] < 0.95
    sure = [spread(hits / 100, 100) for hits in np.random.default_rng(0).binomial(100, 0.95, 4000)]
    assert np.mean([s["low"] <= 0.95 <= s["high"] for s in sure]) == pytest.approx(0.95, abs=0.03)


def test_of_a_thousand_classes_only_those_with_a_pseudo_label_are_told():
    k = 1000
    assert k > FEW_CLASSES
    given_labels = np.r_[np.arange(k), np.full(50, -1)]
    label = np.r_[np.arange(k), np.full(20, 7), np.full(10, 999), np.full(20, -1)]
    facts = class_facts(
        pd.DataFrame({"given_label": given_labels, "label": label}), {"classes": [f"c{c}" for c in range(k)]}
    )
    assert facts == {
        "prior/c7": 0.001,
        "prior/c999": 0.001,
        "labels/c7": 1,
        "labels/c999": 1,
        "pseudo_labels/c7": 20,
        "pseudo_labels/c999": 10,
    }


@pytest.mark.parametrize("names", [HOSTILE, ["NA", "nan", "007", "null", "a\u2028b", "x/y"]])
def test_names_stay_what_they_are(tmp_path, names):
    run = make_run(tmp_path / "run", "augment", names=names, id_of="{:05d}".format)
    write_metrics(run)
    lines = read_lines(run / "metrics.jsonl")
    assert lines == all_facts(run)
    for line in lines[:2]:
        assert {key[6:] for key in line if key.startswith("prior/")} == set(names)
    assert {line["predicted"] for line in lines if "image" in line} <= set(names)
    assert all(len(line["image"]) == 5 for line in lines if "image" in line)
    assert {row[0] for row in tables(lines, 2)[1]["rows"]} == set(names)


def test_final_scores_have_a_line_an_arm_and_all_their_numbers(fakes):
    metrics = json.loads((fakes["denoise"] / "metrics.json").read_text())
    lines = {line["of"]: line for line in score_facts(metrics)}
    assert list(lines) == ["teacher", "baseline", "student", "noise"]
    for arm, splits in metrics["scores"].items():
        assert {f"test/{key}": value for key, value in splits["test"].items()}.items() <= lines[arm].items()
        assert lines[arm]["test/accuracy_low"] < lines[arm]["test/accuracy"] < lines[arm]["test/accuracy_high"]
    assert lines["noise"]["precision_at/100"] == 0.97


def test_images_are_of_three_kinds_in_turn_and_no_row_twice():
    n = 300
    given_labels = np.where(np.arange(n) < 200, 0, -1)
    confidence = np.linspace(0.5, 1, n)
    label = np.where(confidence > 0.9, 1, given_labels)
    table = pd.DataFrame(
        {
            "given_label": given_labels,
            "predicted": 1,
            "label": label,
            "confidence": confidence,
            "p_wrong": np.where(given_labels < 0, np.nan, confidence),
            "decision": np.where(label == 1, "accept", "keep"),
        }
    )
    before = pd.Series(np.where(np.arange(n) >= 290, 1, given_labels))
    rows = worth_a_look(table, before, 30)
    assert len(rows) == 30
    assert rows.index.is_unique
    kinds = {why: list(part.index) for why, part in rows.groupby("why")}
    first = int(np.flatnonzero(confidence > 0.9)[0])
    assert sorted(kinds["borderline"][:3]) == [first - 1, first, first + 1]
    assert kinds["flipped"][:3] == [289, 288, 287]
    assert kinds["suspect"][:3] == [199, 198, 197]
    assert {len(found) for found in kinds.values()} == {10}
    assert set(worth_a_look(table.iloc[:200], before[:200], 10)["why"]) == {"borderline", "suspect"}


def test_the_report_shows_them(tmp_path):
    run = make_run(tmp_path / "run", "augment")
    first = run / "round_1" / "decisions.csv"
    table = pd.read_csv(first, dtype=str, keep_default_na=False)
    table.loc[(table["decision"] == "accept") & (table["label"] != "3"), "label"] = "3"
    table.to_csv(first, index=False)
    write_metrics(run)
    data = read_run(run)
    shown = {table["title"]: table["rows"] for table in page_words(run, data)["tables"]}
    rounds, classes = shown["Held-out predictions"], shown["Classes of round 2"]
    assert [row[0] for row in rounds] == ["1", "2"]
    accepted = Counter(pd.read_csv(run / "pseudo_labels.csv", dtype=str)["label"])
    assert {row[0]: int(row[-1]) for row in classes if row[-1] != "0"} == accepted
    assert all(len(row) == len(table["header"]) for table in tables(data["facts"], 2) for row in table["rows"])
