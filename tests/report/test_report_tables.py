"""The tables count every row once, and hold the numbers of the run."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.data.csv_text import read_csv
from pseudokit.labels.decide import decide_labels
from pseudokit.report.load_run import read_decisions, read_run
from pseudokit.report.metrics_log import metric_lines, write_metrics
from pseudokit.report.report import page_tables, write_report
from pseudokit.report.report_tables import (
    DECISIONS,
    MAX_ROWS,
    REASONS,
    as_text,
    classes_table,
    decision_tables,
    duration,
    page_table,
    report_tables,
    time_table,
)

from .fake_run import HOSTILE, make_run


def tables_of(run):
    return page_tables(read_run(run))


def test_scores_are_those_of_metrics_json_with_their_interval(denoise):
    scores = json.loads((denoise / "metrics.json").read_text())["scores"]
    table = tables_of(denoise)["Scores"]
    assert list(table["model"]) == ["teacher", "baseline", "student"]
    for row in table.itertuples():
        assert row.accuracy == scores[row.model]["test"]["accuracy"]
        assert row.n == 200
    low, high = table["95 % interval"].iloc[-1].rstrip("\xa0%").split(" to ")
    assert float(low) < 90 < float(high)


def test_splits_that_are_not_scored_leave_no_column_or_row():
    scores = {
        "student": {
            "val": {"n": 9, "accuracy": 0.5, "auc": None},
            "test": {"n": 4, "accuracy": 0.25, "auc": None},
        }
    }
    table = report_tables({"scores": scores}, [])["Scores"]
    assert list(table["split"]) == ["test", "val"]
    assert "auc" not in table
    assert report_tables({"scores": {}}, []) == {}


def test_rounds_hold_the_decisions_and_the_agreement_of_every_round(denoise):
    table = tables_of(denoise)["Rounds"]
    lines = [line for line in metric_lines(denoise) if "round" in line]
    assert list(table["round"]) == [1, 2]
    assert list(table["relabeled"]) == [line["decisions/relabel"] for line in lines]
    assert list(table["out-of-fold agreement"]) == [line["oof_accuracy"] for line in lines]
    assert "pseudo-label" not in table


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_reasons_are_counted_by_decision_and_sum_to_the_judged_rows(mode, request):
    run = request.getfixturevalue(mode)
    decisions = read_csv(run / "round_2" / "decisions.csv")
    table = tables_of(run)["Decisions"]
    assert table["rows"].sum() == len(decisions)
    expected = {
        (DECISIONS[decision], REASONS[reason]): n
        for (decision, reason), n in decisions.groupby(["decision", "reason"]).size().items()
    }
    assert {(row.decision, row.why): row.rows for row in table.itertuples()} == expected


def test_right_is_the_share_of_true_labels_where_the_truth_is_known():
    decisions = pd.DataFrame(
        {
            "given_label": ["a", "a", "b", "b", ""],
            "label": ["a", "b", "b", "", "a"],
            "truth": ["a", "a", "b", "b", None],
            "decision": ["keep", "keep", "keep", "drop", "accept"],
            "reason": "doubtful",
        }
    )
    table = decision_tables(decisions)["Decisions"].set_index("decision")
    assert table["right"]["kept"] == pytest.approx(2 / 3)
    assert table["right"][["dropped", "pseudo-label"]].isna().all()
    unknown = decision_tables(decisions.assign(truth=None))["Decisions"]
    assert "right" not in unknown


def test_relabeled_rows_go_between_classes_the_most_frequent_pair_first(denoise):
    decisions = read_csv(denoise / "round_2" / "decisions.csv")
    pairs = decisions[decisions.decision == "relabel"].groupby(["given_label", "label"]).size()
    table = tables_of(denoise)["Relabeled"]
    assert dict(zip(table["relabeled"], table["rows"], strict=True)) == {
        f"{a} → {b}": n for (a, b), n in pairs.items()
    }
    assert table["rows"].is_monotonic_decreasing


def test_of_many_pairs_only_the_most_frequent_are_shown():
    rng = np.random.default_rng(0)
    given_labels, label = rng.integers(0, 1000, (2, 5000)).astype(str)
    given_labels[:40], label[:40], label[40:70], given_labels[40:70] = "7", "8", "NA", "nan"
    decisions = pd.DataFrame(
        {
            "given_label": given_labels,
            "label": label,
            "decision": "relabel",
            "reason": "doubtful",
            "truth": label,
        }
    )
    table = decision_tables(decisions)["Relabeled"]
    assert table.iloc[0].tolist() == ["7 → 8", 40, 1.0]
    assert table.iloc[1].tolist()[:2] == ["nan → NA", 30]
    assert len(table) == MAX_ROWS


POLICIES = [
    ("denoise", {}),
    ("denoise", {"relabel_cutoff": 0.9}),
    ("joint", {"relabel_cutoff": 0.7, "cutoff": 0.7}),
    ("augment", {}),
    ("augment", {"top_fraction": 0.5, "cutoff": 0.3}),
    ("train", {}),
]


def test_every_reason_that_a_decision_has_is_put_in_words():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 900)
    logs = rng.normal(0, 2, (900, 3))
    logs[np.arange(900), truth] += 3
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    given_labels = np.where(rng.random(900) < 0.3, rng.integers(0, 3, 900), truth)
    given_labels[rng.random(900) < 0.3] = -1
    given_labels[:300] = 0  # class 0 would lose more than half of its labels
    reasons, decided = set(), set()
    for mode, policy in POLICIES:
        refused = np.where(np.arange(900) % 50 == 0, "duplicate_of_test", "")
        decisions = decide_labels(
            logs.astype(np.float32), given_labels, mode, Pseudo(**policy), refused=refused
        )
        reasons |= set(decisions.reason)
        decided |= set(decisions.decision)
    assert len(reasons) >= 10
    assert reasons <= set(REASONS)
    assert decided <= set(DECISIONS)


def test_pseudo_labels_are_counted_by_class(augment):
    accepted = Counter(pd.read_csv(augment / "pseudo_labels.csv", dtype=str)["label"])
    table = tables_of(augment)["Classes"]
    assert dict(zip(table["class"], table["pseudo-labels"], strict=True)) == accepted
    assert table["share now"].sum() == pytest.approx(1)


def test_the_classes_whose_share_changed_most_come_first_with_their_scores():
    line = {
        "prior/x/y": 0.5,
        "prior/NA": 0.25,
        "prior/b": 0.25,
        "labels/x/y": 5,
        "labels/NA": 4,
        "labels/b": 1,
    }
    oof = {"NA": {"n": 3, "recall": 0.5, "precision": None, "auc": 0.1}}
    noise = {"b": {"rate": 0.1, "type": "pair", "extra": 0.2, "missing": 0.3}}
    table = classes_table(line, oof, noise).set_index("class")
    assert list(table.index) == ["NA", "b", "x/y"]
    assert list(table["labels now"]) == [4, 1, 5]
    assert list(table["share now"]) == [0.4, 0.1, 0.5]
    assert table["recall"]["NA"] == 0.5
    assert "precision" not in table
    assert list(table.loc["b"][["wrong labels", "missing labels", "extra labels"]]) == [
        0.1,
        0.3,
        0.2,
    ]
    many = {f"{part}/{k}": 1 for k in range(100) for part in ("prior", "labels")}
    assert len(classes_table(many, {}, {})) == MAX_ROWS


def test_time_is_shared_among_the_stages():
    table = time_table({"read": 25, "rounds": 75.0, "total": 100})
    assert list(table["stage"]) == ["read", "rounds", "other", "total"]
    assert list(table["share"]) == [0.25, 0.75, 0, 1]
    peaks = {"read": {"memory": 312.4}, "rounds": {"memory": 4200.0, "gpu_memory": 90.0}}
    table = time_table({"read": 25, "rounds": 75.0, "total": 100}, peaks)
    cells = as_text(table).iloc[:3, 3:].to_numpy().tolist()
    assert cells == [["312", "–"], ["4,200", "90"], ["–", "–"]]
    assert [duration(s) for s in (5.23, 119, 533, 7500)] == [
        "5.2\xa0s",
        "119.0\xa0s",
        "8.9\xa0min",
        "2.1\xa0h",
    ]


def test_cells_are_written_as_people_read_them():
    table = pd.DataFrame(
        {"name": ["a", "b"], "n": [1234567, 0], "log loss": [0.5, None], "share": [0.12345, None]}
    )
    assert as_text(table).values.tolist() == [
        ["a", "1,234,567", "0.5000", "12.35\xa0%"],
        ["b", "0", "–", "–"],
    ]


def test_what_the_page_shows_of_a_table():
    shown = page_table(pd.DataFrame({"class": ["a"], "why": ["b"], "n": [1]}))
    assert shown == {"columns": ["class", "why", "n"], "rows": [["a", "b", "1"]], "n_text": 2}


def test_a_run_of_a_thousand_classes(tmp_path):
    run = make_run(
        tmp_path / "run", "denoise", names=[f"class {i:04d} of a thousand" for i in range(1000)]
    )
    write_metrics(run)
    assert len(write_report(run).read_text()) < 600_000
    tables = tables_of(run)
    assert tables["Decisions"]["rows"].sum() == 200
    assert all(len(table) <= MAX_ROWS for table in tables.values())


def test_decisions_of_a_class_called_like_nothing_are_counted(tmp_path):
    run = make_run(tmp_path / "run", "augment", names=HOSTILE)
    write_metrics(run)
    assert set(tables_of(run)["Classes"]["class"]) == set(HOSTILE)
    decisions = read_decisions(run, 2)
    assert decision_tables(decisions)["Decisions"]["rows"].sum() == len(decisions)
