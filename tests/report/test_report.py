"""The report must say what lies in the run folder, and nothing else."""

import base64
import json
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.report import load_run, sentences
from pseudokit.report.report import write_report
from pseudokit.report.review import write_review

from .fake_run import Tags, embedded, make_run


def test_headline_of_denoise(denoise):
    said = Tags((denoise / "report.html").read_text()).text
    scores = json.loads((denoise / "metrics.json").read_text())["scores"]
    student, baseline = (100 * scores[arm]["test"]["accuracy"] for arm in ("student", "baseline"))
    assert f"The student scores {student:.2f} % on 200 test samples" in said
    assert f"{student - baseline:+.2f} points against the baseline" in said
    assert "Of 200 given labels 20 were found wrong or doubtful: 8 relabeled, 12 dropped." in said
    assert "The estimated rate of wrong labels is 10.12 %" in said
    assert "wrong labels fell from 10.00 % to 0.34 %, found with an average precision of 0.9987" in said
    assert "mode denoise · 2 rounds · ended with max_rounds: all rounds were run · 10 s" in said


def test_headline_of_augment(augment):
    said = Tags((augment / "report.html").read_text()).text
    accepted = len(pd.read_csv(augment / "pseudo_labels.csv"))
    assert 0 < accepted < 150
    share = f"{100 * accepted / 150:.2f} %"
    assert f"{accepted} of 150 pool samples ({share}) received a pseudo-label, 98.76 % of them right." in said
    assert "given labels" not in said.split("mode augment")[0]
    assert "Held-out predictions" in said
    assert "Classes of round 2" in said


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_report_is_one_file_that_opens_offline(mode, request):
    page = (request.getfixturevalue(mode) / "report.html").read_text()
    links = {attrs[name] for _, attrs in Tags(page).tags for name in ("src", "href") if name in attrs}
    assert {link.split(",")[0] for link in links} == {"data:image/png;base64", "review.html"}
    assert "http://" not in page
    assert page.count("https://") == 1  # as text: env.json names a site
    assert 'src="/' not in page
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("denoise", {"grid", "confusion", "confidence", "coverage", "reliability", "noise_matrix", "rounds", "losses"}),
        ("augment", {"pool_grid", "confusion", "confidence", "coverage", "rounds", "losses"}),
    ],
)
def test_every_picture_is_a_file_and_in_the_page(mode, names, request):
    run = request.getfixturevalue(mode)
    page = (run / "report.html").read_text()
    files = {file.stem: file.read_bytes() for file in (run / "plots").iterdir()}
    assert set(files) == names
    for data in files.values():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.std() > 10, "blank"
        assert (image < 250).any(axis=0).sum() > image.shape[1] / 2, "drawn in a corner only"
        assert base64.b64encode(data).decode() in page


def test_the_same_run_gives_the_same_bytes_and_old_pictures_go(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    (run / "plots").mkdir()
    (run / "plots" / "pool_grid.png").write_bytes(b"of an earlier report")
    (run / "plots" / "mine.png").write_bytes(b"of the user")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not (run / "plots" / "pool_grid.png").exists()
    assert (run / "plots" / "mine.png").exists()
    assert not list(run.rglob("*.part"))


def test_disagreements_are_exactly_the_most_confident(denoise):
    rows = load_run.read_decisions(denoise / "round_2", load_run.read_truth(denoise))
    rows = rows.sample(frac=1, random_state=0)
    rows.loc[rows.index[:3], "given_label"] = ""  # pool rows never disagree
    found = load_run.disagreements(rows, 15)
    by_hand = [(-r.confidence, r.id) for r in rows.itertuples() if r.given_label not in ("", r.predicted)]
    assert list(found["id"]) == [i for _, i in sorted(by_hand)[:15]]
    tied = rows.assign(confidence=1.0)
    by_hand = [(r.self_confidence, r.id) for r in rows.itertuples() if r.given_label not in ("", r.predicted)]
    assert list(load_run.disagreements(tied, 15)["id"]) == [i for _, i in sorted(by_hand)[:15]]


def test_nearest_cutoff_is_nearest_on_both_sides():
    table = pd.DataFrame({"id": list("abcde"), "confidence": [0.99, 0.91, 0.7, 0.88, 1.0]})
    assert list(load_run.nearest_cutoff(table, 0.9, 3)["id"]) == ["b", "d", "a"]
    assert list(load_run.nearest_cutoff(table, float("nan"), 2)["id"]) == ["c", "d"]


OPTIONAL = [
    "injected.csv",
    "hidden.csv",
    "scored.csv",
    "env.json",
    "config.yaml",
    "status.json",
    "label_issues.csv",
    "pseudo_labels.csv",
    "metrics.json",
    "round_2/fold_0/history.csv",
]


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_optional_files_may_be_absent(tmp_path, mode):
    run = make_run(tmp_path / "run", mode)
    for name in OPTIONAL:
        (run / name).unlink(missing_ok=True)
    page = write_report(run).read_text()
    assert "confidence.png" in {file.name for file in (run / "plots").iterdir()}
    assert "nan" not in Tags(page).text
    assert "None" not in Tags(page).text
    assert write_review(run) is None


TRAINED = {"mode": "train", "scores": {"student": {"val": {"n": 9, "accuracy": 0.5}}}}


@pytest.mark.parametrize("metrics", [{}, TRAINED])
def test_a_run_without_rounds_has_a_report(tmp_path, metrics):
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    said = Tags(write_report(tmp_path).read_text()).text
    expected = "The student scores 50.00 % on 9 val samples (95 % interval 22.65 to 77.35 %)."
    assert (expected if metrics else "no scores yet") in said
    assert write_review(tmp_path) is None


def test_a_failed_run_says_so(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "failed", "stage": "round_1", "reason": "disk full"}')
    assert "not complete: failed at round_1. disk full" in write_report(tmp_path).read_text()


def test_names_that_look_like_numbers_or_nothing_stay_text(tmp_path):
    run = make_run(tmp_path / "run", "denoise", names=["NA", "nan", "007", "null"], id_of="{:05d}".format)
    rows = load_run.read_run(run)["decisions"]
    assert rows["id"].iloc[7] == "00007"
    assert set(rows["predicted"]) == {"NA", "nan", "007", "null"}
    assert rows["truth"].notna().all()
    assert set(embedded(write_review(run).read_text())["classes"]) == {"NA", "nan", "007", "null"}


def test_paired_interval_counts_only_rows_that_differ():
    right = {"student": ["a"] * 90 + ["b"] * 10, "baseline": ["a"] * 80 + ["b"] * 20}
    tables = [
        pd.DataFrame({"arm": arm, "split": "test", "id": range(100), "label": "a", "predicted": predicted})
        for arm, predicted in right.items()
    ]
    gain = sentences.paired(pd.concat(tables), "test", "baseline")
    assert (gain["low"] + gain["high"]) / 2 == pytest.approx(0.1)
    assert (gain["high"] - gain["low"]) / 2 == pytest.approx(1.96 * (0.1 * 0.9 / 100) ** 0.5)
    assert (gain["won"], gain["lost"]) == (10, 0)
    assert sentences.paired(pd.concat(tables), "val", "baseline") is None


def test_wrong_shares_fall_to_what_is_left(denoise):
    shares = load_run.read_run(denoise)["wrong"]
    assert [s["round"] for s in shares] == [0, 1, 2]
    assert [s["train"] for s in shares] == [0.1, 0.0, 0.0]


def test_wrong_shares_of_a_pool_leave_out_what_nobody_knows(augment):
    assert load_run.read_run(augment)["wrong"] == [{"round": 1, "unlabeled": 0.0}, {"round": 2, "unlabeled": 0.0}]


def test_matplotlib_comes_only_when_drawing():
    heavy = "{'matplotlib', 'jinja2', 'cv2'} & set(sys.modules)"
    code = f"import sys, pseudokit.report.report, pseudokit.report.review; sys.exit(str({heavy}) if {heavy} else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
