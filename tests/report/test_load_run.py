"""A run folder is read as it is: ids, names and truth stay what they are."""

import shutil

import pandas as pd
import pytest

from pseudokit.report import load_run
from pseudokit.report.review import write_review

from .fake_run import embedded, make_run


def test_disagreements_are_exactly_the_most_confident(denoise):
    rows = load_run.read_decisions(denoise, 2)
    rows = rows.sample(frac=1, random_state=0)
    rows.loc[rows.index[:3], "given_label"] = ""  # unlabeled rows never disagree
    disagreeing = [r for r in rows.itertuples() if r.given_label not in ("", r.predicted)]
    expected = [i for _, i in sorted((-r.confidence, r.id) for r in disagreeing)]
    assert list(load_run.disagreements(rows, 15)["id"]) == expected[:15]
    tied = rows.assign(confidence=1.0)
    expected = [i for _, i in sorted((r.self_confidence, r.id) for r in disagreeing)]
    assert list(load_run.disagreements(tied, 15)["id"]) == expected[:15]


def test_nearest_cutoff_is_nearest_on_both_sides():
    table = pd.DataFrame({"id": list("abcde"), "confidence": [0.99, 0.91, 0.7, 0.88, 1.0]})
    assert list(load_run.nearest_cutoff(table, 0.9, 3)["id"]) == ["b", "d", "a"]
    assert list(load_run.nearest_cutoff(table, float("nan"), 2)["id"]) == ["c", "d"]


def test_names_that_look_like_numbers_or_nothing_stay_text(tmp_path):
    run = make_run(
        tmp_path / "run", "denoise", names=["NA", "nan", "007", "null"], id_of="{:05d}".format
    )
    rows = load_run.read_run(run)["decisions"]
    assert rows["id"].iloc[7] == "00007"
    assert set(rows["predicted"]) == {"NA", "nan", "007", "null"}
    assert rows["truth"].notna().all()
    assert set(embedded(write_review(run).read_text())["classes"]) == {"NA", "nan", "007", "null"}


def test_a_loss_curve_has_the_name_of_its_folder_and_heads_have_none(tmp_path, denoise):
    run = shutil.copytree(denoise, tmp_path / "run")
    shutil.copytree(run / "round_2" / "fold_1", run / "student")
    (run / "baseline").mkdir()
    (run / "baseline" / "history.csv").write_text("epoch,loss,lr,seconds,prior\n1,0.5,1,0.1,30\n")
    history = load_run.read_run(run)["history"]
    assert {name: list(curves) for name, curves in history.items()} == {
        "round 1": ["fold 0", "fold 1"],
        "round 2": ["fold 0", "fold 1"],
        "student": ["student"],
    }
    assert history["round 2"]["fold 1"]["loss"].iloc[-1] == pytest.approx(0.5 / 3, rel=1e-5)


def test_the_student_stands_for_the_run_on_the_most_trustworthy_split():
    scores = {"student": {"val": {}, "trusted": {}}, "teacher": {"val": {}, "test": {}}}
    assert load_run.scored_model(scores) == ("test", "teacher")
    del scores["teacher"]["test"]
    assert load_run.scored_model(scores) == ("trusted", "student")
    assert load_run.scored_model({}) == ("", "")
