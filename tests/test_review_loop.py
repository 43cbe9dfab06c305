"""select and apply: decide again without training, and put human decisions on top."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pseudokit.run_folder.predict_runs import open_finished
from tests.conftest import QUICK, run_script
from tests.naming import names, process_error, process_refused
from tests.report.fake_run import embedded
from tests.test_scripts import ok, table
from tests.warm import kill_behind

COLUMNS = ["id", "given_label", "action", "label", "image_sha256"]


@pytest.fixture(scope="module")
def denoised(digits, tmp_path_factory):
    """A finished denoise run of 300 digits, 10 % of them flipped."""
    folder = tmp_path_factory.mktemp("review")
    digits[:300][["id", "label"]].to_csv(folder / "train.csv", index=False)
    digits[500:][["id", "label"]].to_csv(folder / "test.csv", index=False)
    image_dir = digits.path[0].rsplit("/", 1)[0]
    args = [
        f"data.image_dir={image_dir}",
        "data.image_suffix=.png",
        f"out={folder}",
        f"data.train={folder}/train.csv",
        *QUICK,
        "train.min_steps=20",
    ]
    ok(
        run_script(
            "pseudo.py",
            "--mode",
            "denoise",
            "name=x",
            *args,
            "simulate.noise=symmetric",
            "pseudo.train_baseline=false",
            "pseudo.audit_size=60",
            f"data.test={folder}/test.csv",
        )
    )
    return folder / "x"


def test_select_with_the_same_policy_decides_the_same(denoised):
    ok(run_script("pseudo.py", "--mode", "select", "--run", denoised))
    last = max(denoised.glob("round_*/decisions.csv"))
    assert (denoised / "selected.csv").read_bytes() == last.read_bytes()


def test_select_goes_by_what_the_round_recorded_whatever_became_of_samples_csv(denoised, tmp_path):
    run = shutil.copytree(denoised, tmp_path / "x")
    samples = table(run / "samples.csv")
    samples.assign(given_label=samples.given_label.replace("1", "2")).to_csv(
        run / "samples.csv", index=False
    )
    ok(run_script("pseudo.py", "--mode", "select", "--run", run))
    last = max(run.glob("round_*/decisions.csv"))
    assert (run / "selected.csv").read_bytes() == last.read_bytes()
    (run / "selected.csv").unlink()
    (run / "status.json").unlink()
    done = run_script("pseudo.py", "--mode", "select", "--run", run)
    process_error(done, run / "status.json")
    assert not (run / "selected.csv").exists(), "a mode that nobody knows decides nothing"


def test_select_with_a_cutoff_above_one_changes_no_label(denoised):
    ok(run_script("pseudo.py", "--mode", "select", "--run", denoised, "pseudo.relabel_cutoff=1.5"))
    selected = table(denoised / "selected.csv")
    assert (selected.label == selected.given_label).all()


@pytest.mark.parametrize("idle", ["train.lr=1e-4", "pseudo.tta=4", "data.learn_from_test=never"])
def test_select_refuses_what_changes_no_stored_prediction(denoised, idle):
    before = files_of(denoised)
    done = run_script(
        "pseudo.py", "--mode", "select", "--run", denoised, idle, "pseudo.relabel_cutoff=1.5"
    )
    message = process_refused(done, idle.partition("=")[0])
    assert not names(message, "pseudo.relabel_cutoff")
    assert files_of(denoised) == before


def apply(run, *args):
    return run_script("pseudo.py", "--mode", "apply", "--run", run, *args)


def files_of(run):
    """Every file of a run, byte for byte, but for the log and the lock."""
    return {
        f.relative_to(run).as_posix(): f.read_bytes()
        for f in run.rglob("*")
        if f.is_file() and f.name not in ("log.txt", ".lock")
    }


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_lines(file, lines):
    pd.DataFrame(lines, columns=COLUMNS).to_csv(file, index=False)
    return file


def test_wrong_corrections_are_all_named_and_none_is_applied(denoised, tmp_path):
    before = files_of(denoised)
    dataset = table(denoised / "samples.csv").set_index("id")
    given_labels, name = dataset.given_label[dataset.split == "train"], dataset.index
    scored = dataset.index[dataset.split == "test"][0]
    own_path = dataset.path.iloc[5]
    wrong = [  # line, what its fault names
        (("nobody", "d1", "keep", "", ""), "'nobody'"),
        ((scored, dataset.given_label[scored], "drop", "", ""), f"'{scored}'"),
        ((name[0], "alien", "keep", "", ""), "given_label", "'alien'"),
        ((name[1], given_labels.iloc[1], "burn", "", ""), "action", "'burn'"),
        ((name[2], given_labels.iloc[2], "relabel", "alien", ""), "label", "'alien'"),
        ((name[3], given_labels.iloc[3], "keep", "", "00"), "image"),
        ((name[4], given_labels.iloc[4], "keep", "no d1", ""), "label", "'no d1'"),
        ((name[6], given_labels.iloc[6], "drop", "", sha(own_path)), "image"),
        ((name[1], given_labels.iloc[1], "keep", "", ""), f"'{name[1]}'"),
    ]
    right = [(n, given_labels[n], "keep", "", "") for n in name[10:20]]
    file = write_lines(tmp_path / "bad.csv", [*(line for line, *_ in wrong), *right])
    done = apply(denoised, "--corrections", file)
    process_refused(done, file)
    faults = [fault for fault in done.stderr.split("; ") if fault.startswith("line ")]
    assert len(faults) == len(wrong)
    for number, (fault, (_, *named)) in enumerate(zip(faults, wrong, strict=True), start=2):
        assert names(fault, f"line {number}", *named)
    assert files_of(denoised) == before


def test_what_the_page_exports_is_applied(denoised, tmp_path, browser, caplog):
    """A person presses keys in review.html; the file that the browser saves goes through --mode apply.

    First the labels alone, then the student too, then both are taken back.
    """
    run = shutil.copytree(denoised, tmp_path / "x")  # pages hold the name of the run
    page = browser.new_page()
    page.goto((run / "review.html").as_uri())
    for key in ["a", "g", "d", "a", "u"]:
        page.keyboard.press(key)
    with page.expect_download() as download:
        page.keyboard.press("e")
    download.value.save_as(tmp_path / "corrections.csv")
    page.close()
    before = files_of(run)
    ok(apply(run, "--labels-only", "--corrections", tmp_path / "corrections.csv"))
    at_once = files_of(run)
    metrics = json.loads(at_once["metrics.json"])
    assert metrics["not_learned"] == 3
    assert at_once["student/model.safetensors"] == before["student/model.safetensors"]
    with caplog.at_level("INFO", "kit"):
        open_finished(run)
    assert any(names(line, "warning", run) for line in caplog.messages)

    ok(apply(run, "--corrections", tmp_path / "corrections.csv"))
    learned = files_of(run)
    assert learned["student/model.safetensors"] != before["student/model.safetensors"]
    assert learned["labels.csv"] == at_once["labels.csv"]
    same = ("noise", "audit", "oof", "reason", "round")
    after = json.loads(learned["metrics.json"])
    assert {key: after[key] for key in same} == {key: metrics[key] for key in same}
    assert "not_learned" not in after
    corrections = table(tmp_path / "corrections.csv").set_index("id")
    labels = table(run / "labels.csv").set_index("id").loc[corrections.index]
    assert sorted(corrections.action) == ["drop", "keep", "relabel"]
    assert (labels.source == "human").all()
    assert (
        labels.label
        == corrections.label.where(corrections.action != "keep", corrections.given_label)
    ).all()
    ok(apply(run, "--revert"))
    assert json.loads(files_of(run)["metrics.json"])["scores"] == metrics["scores"]
    assert files_of(run)["labels.csv"] == at_once["labels.csv"]
    ok(apply(run, "--revert"))
    assert without_seconds(files_of(run)) == without_seconds(before)


def test_corrections_of_another_run_are_called_so(denoised, tmp_path):
    before, dataset = files_of(denoised), table(denoised / "samples.csv")
    other = [
        ("x" + name, given_labels, "keep", "", "")
        for name, given_labels in zip(dataset.id[:9], dataset.given_label, strict=False)
    ]
    done = apply(denoised, "--corrections", write_lines(tmp_path / "other.csv", other))
    process_refused(done, *(f"line {number}" for number in range(2, 11)))
    named = pd.DataFrame(
        [(dataset.id[0], dataset.given_label[0], "keep", "", "", run) for run in "xy"]
    )
    named.set_axis([*COLUMNS, "run"], axis=1)[1:].to_csv(tmp_path / "y.csv", index=False)
    process_refused(apply(denoised, "--corrections", tmp_path / "y.csv"), "line 2", "'y'")
    assert files_of(denoised) == before


def test_decisions_that_would_leave_a_class_without_a_row_are_refused(denoised, tmp_path):
    before, labels = files_of(denoised), table(denoised / "labels.csv")
    gone = [
        (row.id, row.given_label, "drop", "", "")
        for row in labels.itertuples()
        if row.label == "d3"
    ]
    done = apply(denoised, "--corrections", write_lines(tmp_path / "gone.csv", gone))
    process_refused(done, "'d3'", "gone.csv")
    assert files_of(denoised) == before


def test_nothing_to_take_back(denoised):
    process_refused(apply(denoised, "--revert"), "--revert", denoised)


def decisions_on(run):
    """keep the most suspicious row, relabel and drop the next two, judge the audit's sample by the truth."""
    label_issues = table(run / "label_issues.csv")
    dataset, truth = (table(run / name).set_index("id") for name in ("samples.csv", "injected.csv"))
    keep, relabel, drop = label_issues.id[:3]
    made = {keep: ("keep", ""), relabel: ("relabel", "d7"), drop: ("drop", "")}
    for name in table(run / "audit.csv").id:
        right = truth.clean[name]
        made.setdefault(
            name, ("keep", right) if right == dataset.given_label[name] else ("relabel", right)
        )
    return [
        (name, dataset.given_label[name], *what, sha(dataset.path[name]))
        for name, what in made.items()
    ]


def copy_of(run, name):
    """A copy under the same name and beside the run, as pages hold the name and the way to the images."""
    return shutil.copytree(run, run.parent.with_name(f"{run.parent.name}_{name}") / "x")


@pytest.fixture(scope="module")
def applied(denoised, tmp_path_factory):
    """A copy of the run with corrections applied, those, and its files before and after."""
    file = write_lines(tmp_path_factory.mktemp("apply") / "c.csv", decisions_on(denoised))
    run = copy_of(denoised, "copy")
    before = files_of(run)
    ok(apply(run, "--corrections", file))
    return run, file, before, files_of(run)


def test_human_decisions_outrank_automatic_ones_and_the_student_learns_them(applied, denoised):
    run, file, before, after = applied
    decisions = table(file)
    labels = table(run / "labels.csv").set_index("id")
    assert set(labels.index[labels.source == "human"]) == set(decisions.id)
    learned = decisions.label.where(decisions.action == "relabel", decisions.given_label).where(
        decisions.action != "drop", ""
    )
    assert list(labels.label[decisions.id]) == list(learned)
    assert before["student/model.safetensors"] != after["student/model.safetensors"]
    same = [
        name
        for name in before
        if name.startswith("round_") or name in ("label_issues.csv", "audit.csv", "samples.csv")
    ]
    assert len(same) > 10
    assert all(before[name] == after[name] for name in same), (
        "what the models decided is not what a person decides"
    )
    assert json.loads(after["metrics.json"])["human"]["files"] == 1


def test_the_same_corrections_again_change_nothing(applied):
    run, file, _, after = applied
    ok(apply(run, "--corrections", file))
    assert files_of(run) == after


def test_the_audit_tells_the_noise_rate_the_precision_of_flags_and_the_error(applied):
    run, file, before, after = applied
    drawn, label_issues, truth = (
        table(run / f"{name}.csv").set_index("id") for name in ("audit", "label_issues", "injected")
    )
    assert len(drawn) == 60
    flagged = label_issues.p_wrong.astype(float) > 0.5
    assert ((drawn.stratum == "flagged") == flagged[drawn.index]).all()
    assert drawn.weight.astype(float).sum() == pytest.approx(len(label_issues), rel=1e-4)
    assert json.loads(before["metrics.json"])["audit"] == {
        "n": 60,
        "reviewed": 0,
        "ambiguous": 0,
        "noise_rate": None,
        "flag_precision": None,
        "estimate_error": None,
    }
    metrics = json.loads(after["metrics.json"])
    audit, wrong, corrections = metrics["audit"], truth.clean != truth.given_label, table(file)
    wrong[corrections.id] = (corrections.action != "keep").to_numpy()
    assert audit["reviewed"] == 60
    for key, value in {
        "noise_rate": wrong.mean(),
        "flag_precision": wrong[flagged[flagged].index].mean(),
        "estimate_error": metrics["noise"]["estimated_rate"] - wrong.mean(),
    }.items():
        assert audit[key]["low"] - 0.01 <= value <= audit[key]["high"] + 0.01
    assert "60 of 60 rows" in (run / "log.txt").read_text()
    assert "60 of 60 rows" in (run / "report.html").read_text()


def test_the_review_page_has_the_sample_of_the_audit_as_a_queue(denoised):
    content = embedded((denoised / "review.html").read_text())
    drawn = table(denoised / "audit.csv")
    (queue,) = [queue for queue in content["queues"] if queue["name"] == "audit"]
    assert [content["samples"][place]["id"] for place in queue["places"]] == list(drawn.id)


def test_a_killed_apply_goes_on_to_the_same_bytes_and_is_taken_back_byte_for_byte(
    applied, denoised
):
    _, file, before, after = applied
    copy = copy_of(denoised, "killed")
    command = ["pseudo.py", "--mode", "apply", "--run", str(copy), "--corrections", str(file)]
    kill_behind(copy / "student" / "history.csv", command)
    first = table(file)[:1].assign(action="drop", label="")
    other = apply(copy, "--corrections", write_lines(file.with_name("other.csv"), first))
    process_refused(other, copy, "--revert")
    ok(run_script(*command))
    assert without_seconds(files_of(copy)) == without_seconds(after)
    ok(apply(copy, "--revert"))
    reverted = files_of(copy)
    assert without_seconds(reverted) == without_seconds(before)
    assert reverted["student/history.csv"] == before["student/history.csv"], (
        "the student was trained again"
    )


def without_seconds(files):
    """Bytes but for what is derived from wall-clock time."""
    skip = ("history.csv", "report.html")
    kept = {name: data for name, data in files.items() if not name.endswith(skip)}
    for name in ("metrics.json", "status.json"):
        kept[name] = json.loads(kept[name]) | {"seconds": None, "peak_mib": None}
    return kept


def test_arguments_that_contradict_are_refused():
    both = ["--run", "x", "--revert", "--corrections", "c.csv"]
    done = run_script("pseudo.py", "--mode", "apply", *both)
    process_refused(done, "--corrections", "--revert")
