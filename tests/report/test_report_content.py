"""Best and worst images, what changed and why, curves per fold: the report shows the right rows and counts them all."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.data.csv_text import read_csv
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.metrics import share_interval
from pseudokit.report import change_tables, load_run, summary
from pseudokit.report.report import write_report

from .fake_run import Tags, make_run


def table_of(page, title):
    """Cells of the body of a table of the page, by its title."""
    part = page[page.index(f">{title}</h") :]
    rows = re.findall(r"<tr><td.*?</tr>", part[: part.index("</table>")])
    return [re.findall(r"<td(?: class=\"number\")?>(.*?)</td>", row) for row in rows]


def count(text):
    return int(text.replace(",", ""))


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_reasons_are_counted_by_decision_and_sum_to_the_judged_rows(mode, request):
    run = request.getfixturevalue(mode)
    decisions = read_csv(run / "round_2" / "decisions.csv")
    rows = table_of((run / "report.html").read_text(), "Every judged row")
    assert sum(count(row[2]) for row in rows) == len(decisions)
    kinds = np.where(decisions.given_label == "", "unlabeled", "given")
    expected = {
        (change_tables.DONE[decision], change_tables.why(reason)): n
        for (kind, decision, reason), n in decisions.groupby([kinds, "decision", "reason"]).size().items()
    }
    assert {(what, why): count(n) for what, why, n, *_ in rows} == expected
    assert "_" not in "".join(why for _, why, *_ in rows).replace("relabel_precision", "")


def test_relabeled_rows_flow_between_classes_the_largest_flow_first(denoise):
    decisions = read_csv(denoise / "round_2" / "decisions.csv")
    turned = decisions[decisions.decision == "relabel"]
    rows = table_of((denoise / "report.html").read_text(), "Relabeled: from which class to which")
    flows = {(given_labels, label): count(n) for given_labels, label, n, _ in rows}
    assert flows == turned.groupby(["given_label", "label"]).size().to_dict()
    assert list(flows.values()) == sorted(flows.values(), reverse=True)


def test_pseudo_labels_are_counted_by_class(augment):
    accepted = read_csv(augment / "pseudo_labels.csv")
    rows = table_of((augment / "report.html").read_text(), "Pseudo-labels by class")
    assert {name: count(n) for name, n, _ in rows} == accepted.label.value_counts().to_dict()


def test_of_many_flows_the_small_ones_share_a_row():
    rng = np.random.default_rng(0)
    given_labels, label = rng.integers(0, 1000, (2, 5000)).astype(str)
    given_labels[:40], label[:40], label[40:70], given_labels[40:70] = "7", "8", "NA", "nan"
    rows = pd.DataFrame(
        {"given_label": given_labels, "label": label, "decision": "relabel", "reason": "doubtful", "truth": label}
    )
    table = change_tables.flows_table(rows)
    assert table["rows"][0] == ["7", "8", "40", "100.00\xa0%"]
    assert table["rows"][1][:3] == ["nan", "NA", "30"]
    assert len(table["rows"]) == change_tables.MOST + 1
    assert sum(count(row[2]) for row in table["rows"]) == 5000
    pairs = len(set(zip(given_labels, label, strict=True)))
    assert table["rows"][-1][0] == f"{pairs - change_tables.MOST:,} other pairs of classes"


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
    found = set()
    for mode, policy in POLICIES:
        refused = np.where(np.arange(900) % 50 == 0, "duplicate_of_test", "")
        decisions = decide_labels(logs.astype(np.float32), given_labels, mode, Pseudo(**policy), refused=refused)
        found |= set(decisions.reason)
    assert len(found) >= 10
    assert [reason for reason in found if change_tables.why(reason) == reason.replace("_", " ")] == []


def test_notes_say_when_nothing_was_learned_and_when_a_person_decided(denoise):
    data = load_run.read_run(denoise)
    assert change_tables.changes(data)["notes"] == [change_tables.TRUTH]
    metrics = data["metrics"] | {"round": 0, "human": {"files": 2, "keep": 3, "relabel": 9}}
    notes = change_tables.changes(data | {"metrics": metrics})["notes"]
    assert "the student had the labels as they were given" in notes[0]
    assert "on 12 rows (3 keep, 9 relabel)" in notes[1]


def test_each_fold_has_the_score_of_its_own_held_out_rows(denoise):
    data = load_run.read_run(denoise)
    assert data["folds"] == {1: {0: (100, 0.8), 1: (100, 1.0)}, 2: {0: (100, 0.8), 1: (100, 1.0)}}
    rows = table_of((denoise / "report.html").read_text().replace("\xa0", " "), summary.HELD_OUT)
    assert rows == [["1", "80.00 %", "100.00 %", "90.00 %"], ["2", "80.00 %", "100.00 %", "90.00 %"]]


def test_rows_that_several_models_judged_are_of_no_fold(tmp_path):
    table = {"given_label": list("aab"), "predicted": list("aaa"), "model": ["x", "x+y", "old+y"]}
    pd.DataFrame(table).to_csv(tmp_path / "decisions.csv", index=False)
    run = tmp_path.rename(tmp_path.with_name("round_3"))
    assert load_run.fold_scores(run, {3: {"x": {"fold": 4}, "y": {"fold": 5}}}) == {4: (1, 1.0), 5: (1, 0.0)}


def test_a_loss_curve_names_the_fold_of_its_model(denoise):
    data = load_run.read_run(denoise)
    assert [table["fold"].iloc[0] for table in data["history"]["round 1"]] == [0, 1]


def test_a_model_is_of_the_fold_that_its_hash_says(tmp_path, denoise):
    run = shutil.copytree(denoise, tmp_path / "run")
    (run / "round_2" / "fold_1").rename(run / "round_2" / "fold_10")
    (run / "round_2" / "fold_0").rename(run / "round_2" / "fold_1")
    assert [table["fold"].iloc[0] for table in load_run.read_run(run)["history"]["round 2"]] == [0, 1]


def test_the_interval_of_a_share_is_wilsons():
    assert tuple(share_interval(0.5, 100).values())[1:] == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert tuple(share_interval(1.0, 20).values())[1:] == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert tuple(share_interval(0.0, 20).values())[1:] == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_a_run_of_a_thousand_classes(tmp_path):
    run = make_run(tmp_path / "run", "denoise", names=[f"class {i:04d} of a thousand" for i in range(1000)])
    page = write_report(run).read_text()
    assert len(page) < 600_000
    assert sum(count(row[2]) for row in table_of(page, "Every judged row")) == 200
    assert len(table_of(page, "Relabeled: from which class to which")) <= change_tables.MOST + 1


def test_plain_training_shows_folds_and_images_and_no_changes(tmp_path):
    page = write_report(make_run(tmp_path / "run", "train")).read_text()
    said = Tags(page).text
    assert "Curves per fold" in said
    assert "Best and worst images" in said
    assert "What changed" not in said
    assert "agree with 90.00 % of the 200 given labels" in said
