"""select and apply: decide again without training, and put human decisions on top."""

import json
import shutil

import pandas as pd
import pytest

from tests.conftest import QUICK, run_script
from tests.test_scripts import ok, table


@pytest.fixture(scope="module")
def denoised(digits, tmp_path_factory):
    """A finished denoise run of 300 digits, 10 % of them flipped."""
    folder = tmp_path_factory.mktemp("review")
    digits[:300][["id", "label"]].to_csv(folder / "train.csv", index=False)
    image_dir = digits.path[0].rsplit("/", 1)[0]
    args = [
        f"data.image_dir={image_dir}",
        "data.suffix=.png",
        f"out={folder}",
        f"data.train={folder}/train.csv",
        *QUICK,
    ]
    ok(run_script("pseudo.py", "--mode", "denoise", "name=x", *args, "inject.kind=uniform", "pseudo.control=false"))
    return folder / "x"


def test_select_with_the_same_policy_decides_the_same(denoised):
    said = ok(run_script("pseudo.py", "--mode", "select", "--run", denoised))
    assert "estimated precision" in said
    last = max(denoised.glob("round_*/decisions.csv"))
    assert (denoised / "selected.csv").read_bytes() == last.read_bytes()


def test_select_with_a_cutoff_above_one_changes_no_label(denoised):
    ok(run_script("pseudo.py", "--mode", "select", "--run", denoised, "pseudo.cutoff=1.5"))
    selected = table(denoised / "selected.csv")
    assert (selected.label == selected.given).all()


def test_wrong_corrections_are_all_named_and_none_is_applied(denoised, tmp_path):
    before = (denoised / "labels.csv").read_bytes()
    given = table(denoised / "samples.csv").set_index("id").given
    first = given.index[0]
    lines = [
        ("nobody", "d1", "keep", "", ""),
        (first, "alien", "keep", "", ""),
        (given.index[1], given.iloc[1], "burn", "", ""),
        (given.index[2], given.iloc[2], "relabel", "alien", ""),
        (given.index[3], given.iloc[3], "keep", "", "00"),
    ]
    columns = ["id", "given", "action", "label", "image_sha256"]
    pd.DataFrame(lines, columns=columns).to_csv(tmp_path / "bad.csv", index=False)
    done = run_script("pseudo.py", "--mode", "apply", "--run", denoised, "--corrections", tmp_path / "bad.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert all(f"line {n}: " in done.stderr for n in range(2, 7))
    assert (denoised / "labels.csv").read_bytes() == before
    assert (denoised / "student" / "model.json").exists()


def test_what_the_page_exports_is_applied(denoised, tmp_path, browser):
    """A person presses keys in review.html; the file that the browser saves goes through --mode apply."""
    run = shutil.copytree(denoised, tmp_path / "run")
    page = browser.new_page()
    page.goto((run / "review.html").as_uri())
    for key in ["a", "g", "d", "a", "u"]:
        page.keyboard.press(key)
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "corrections.csv")
    page.close()
    ok(run_script("pseudo.py", "--mode", "apply", "--run", run, "--corrections", tmp_path / "corrections.csv"))
    first = table(run / "corrections.csv").set_index("id")
    labels = table(run / "labels.csv").set_index("id").loc[first.index]
    assert sorted(first.action) == ["drop", "keep", "relabel"]
    assert (labels.source == "human").all()
    assert (labels.label == first.label).all()


def test_human_decisions_outrank_automatic_ones_and_the_student_learns_them(denoised, tmp_path):
    before = json.loads((denoised / "student" / "model.json").read_text())["hash"]
    suspects = table(denoised / "suspects.csv")
    keep, relabel, drop = suspects.id[:3]
    given = suspects.set_index("id").given
    lines = [
        (keep, given[keep], "keep", ""),
        (relabel, given[relabel], "relabel", "d7"),
        (drop, given[drop], "drop", ""),
    ]
    pd.DataFrame(lines, columns=["id", "given", "action", "label"]).to_csv(tmp_path / "c.csv", index=False)
    ok(run_script("pseudo.py", "--mode", "apply", "--run", denoised, "--corrections", tmp_path / "c.csv"))
    labels = table(denoised / "labels.csv").set_index("id")
    assert list(labels.source[[keep, relabel, drop]]) == ["human"] * 3
    assert list(labels.label[[keep, relabel, drop]]) == [given[keep], "d7", ""]
    assert (labels.source == "human").sum() == 3
    after = json.loads((denoised / "student" / "model.json").read_text())["hash"]
    assert after != before
    ok(run_script("pseudo.py", "--mode", "apply", "--run", denoised, "--corrections", tmp_path / "c.csv"))
    assert json.loads((denoised / "student" / "model.json").read_text())["hash"] == after, "applied twice, same student"
