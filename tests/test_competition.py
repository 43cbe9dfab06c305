"""From a competition's files to its submission: checks, a time budget, ensembles, answers tuned for the metric."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from pseudokit.api import predict, run_command
from pseudokit.system.files import read_json
from tests.conftest import QUICK
from tests.naming import names, refused
from tests.test_scripts import table

QUICKER = [*QUICK, "train.min_steps=20", "wandb.mode=disabled"]


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """A competition's folder: train.csv, test.csv without labels, sample_submission.csv in another order."""
    folder = tmp_path_factory.mktemp("competition")
    digits[:300][["id", "label"]].to_csv(folder / "train.csv", index=False)
    digits[500:][["id"]].to_csv(folder / "test.csv", index=False)
    digits[500:][["id"]].sample(frac=1, random_state=1).assign(label="d0").to_csv(
        folder / "sample.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def args(files, digits):
    """Its arguments: ids have no suffix, and none is given."""
    images = os.path.dirname(digits.path[0])
    return [
        f"data.train={files}/train.csv",
        f"data.test={files}/test.csv",
        f"data.submission={files}/sample.csv",
        f"data.image_dir={images}",
        f"out={files}/runs",
        *QUICKER,
    ]


@pytest.fixture(scope="module")
def runs(args):
    """Two runs of different seeds, the second of which is tuned for macro F1."""
    return [
        run_command("train", [*args, "name=a"]),
        run_command("train", [*args, "name=b", "seed=1", "metric=macro_f1"]),
    ]


# ---- out of fold, and what it promises


def test_out_of_fold_rows_are_on_file_in_every_mode_and_say_what_to_expect(runs, files, digits):
    oof, logs = table(runs[0] / "oof.csv"), np.load(runs[0] / "oof_log_probs.npy")
    assert list(oof.id) == list(digits.id[:300])
    names = np.array(read_json(runs[0] / "student" / "model.json")["classes"])
    assert (names[logs.argmax(1)] == oof.predicted).all()
    np.testing.assert_array_equal(logs, np.load(runs[0] / "round_1" / "log_probs.npy"))
    metrics = read_json(runs[0] / "metrics.json")
    assert metrics["oof"]["accuracy"] == pytest.approx((oof.predicted == oof.label).mean())
    assert metrics["oof"]["interval"]["test_n"] == 100
    interval = metrics["oof"]["interval"]
    expected = f"{100 * interval['test_low']:.2f} to {100 * interval['test_high']:.2f}"
    assert expected in (runs[0] / "report.html").read_text()
    assert {"log_loss", "macro_f1", "auc", "map", "top5"} <= set(metrics["oof"])
    recall = {name: of["recall"] for name, of in metrics["oof_classes"].items()}
    assert recall == pytest.approx((oof.predicted == oof.label).groupby(oof.label).mean().to_dict())


def test_answers_are_tuned_for_the_goal_on_out_of_fold_rows(runs):
    assert not (runs[0] / "thresholds.json").exists()
    rule = read_json(runs[1] / "thresholds.json")
    assert rule["metric"] == "macro_f1"
    assert rule["before"] == pytest.approx(read_json(runs[1] / "metrics.json")["oof"]["macro_f1"])


def test_a_goal_that_the_classes_do_not_have_is_refused_before_training(args):
    refused(lambda: run_command("train", [*args, "name=wrong", "metric=kappa"]), "metric=kappa")


# ---- predict.py


def test_a_submission_that_does_not_fit_is_refused_before_training(args, files):
    keys = [*args, "name=unfit", "data.submission_positive=owl"]
    refused(lambda: run_command("train", keys), "data.submission_positive=owl")
    assert not (files / "runs" / "unfit" / "round_1").exists()


def test_the_submission_of_a_run_is_that_of_predict(runs, files, tmp_path):
    predictions = predict(runs[:1], out=tmp_path / "p.csv", submission=files / "sample.csv")
    submission = table(runs[0] / "submission.csv")
    assert "submission: 'label'" in (runs[0] / "inputs.json").read_text()
    assert list(submission.id) == list(table(files / "sample.csv").id)
    assert submission.equals(table(tmp_path / "submission.csv"))
    assert (submission.set_index("id").label[predictions.id].to_numpy() == predictions.label).all()


def test_a_run_that_lost_a_fold_does_not_predict(runs, tmp_path):
    assert "student" in read_json(runs[0] / "metrics.json")["models"]
    run = tmp_path / "copy"
    shutil.copytree(runs[0], run)
    (run / "round_1" / "fold_0" / "model.json").unlink()
    refused(lambda: predict([run], out=tmp_path / "p.csv"), f"--run {run}", "fold_0")


@pytest.mark.parametrize("weights", [None, "3,1"])
def test_an_ensemble_is_the_weighted_mean_of_its_runs(runs, tmp_path, caplog, weights):
    caplog.set_level(logging.INFO, logger="kit")
    alone = [predict([run], out=tmp_path / "p.csv").filter(regex="^p_").to_numpy() for run in runs]
    caplog.clear()
    both = predict(runs, out=tmp_path / "p.csv", weights=weights).filter(regex="^p_").to_numpy()
    (line,) = [line for line in caplog.messages if line.startswith("weights ")]
    share = np.array(json.loads(line.removeprefix("weights ").partition(":")[0]))
    assert share == pytest.approx([0.75, 0.25] if weights else [0.5, 0.5])
    np.testing.assert_allclose(both, np.average(alone, axis=0, weights=share), atol=2e-3)
    assert names(line, "accuracy")


@pytest.mark.parametrize("weights", ["1", "1,2,3", "a,b", "-1,2", "0,0", "oof"])
def test_weights_that_do_not_fit_the_runs_are_refused(runs, weights):
    refused(lambda: predict(runs, weights=weights), "--weights")


def test_runs_of_other_classes_are_refused(runs, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    for file in other.rglob("model.json"):
        file.write_text(file.read_text().replace('"d0"', '"e0"'))
    refused(lambda: predict([runs[0], other]), f"--run {other}", f"--run {runs[0]}")


# ---- the time budget


def test_a_run_cut_off_by_its_budget_has_a_submission_and_goes_on_to_what_it_would_have_been(
    args, files
):
    """A second is too short for anything: each call trains the one network that it always may."""
    cut, total = [*args, "name=cut", "time_budget=1s"], 0.001
    for models in (1, 2):
        run = run_command("train", cut)
        status = read_json(run / "status.json")
        assert (status["state"], status["reason"]) == ("stopped", "time_budget")
        assert len(list(run.glob("round_1/fold_*/model.json"))) == models
        metrics = read_json(run / "metrics.json")
        assert metrics["oof"]["n"] == 150 * models, "the rows that were judged"
        left_out = {"round 1": 2 - models, "student": 1}
        assert metrics["time_budget"]["untrained"] == {key: n for key, n in left_out.items() if n}
        page = (run / "report.html").read_text()
        assert "train.epochs: 1" in page, "what the plan changed"
        assert "Plan of the time budget" in page
        assert 0 < total < metrics["seconds"]["total"]
        total = metrics["seconds"]["total"]
        assert not (run / "student").exists()
        submitted = table(run / "submission.csv")
        assert list(submitted.id) == list(table(files / "sample.csv").id)
        assert submitted.label.str.fullmatch("d[0-9]").all()
        assert (run / "report.html").exists()
    plan = (run / "plan.json").read_bytes()
    run_command("train", [*args, "name=cut", "time_budget=3h"])
    assert read_json(run / "status.json")["state"] == "done"
    assert (run / "plan.json").read_bytes() == plan, "another budget goes on with the same plan"
    assert len(table(run / "oof.csv")) == 300
    changes = read_json(run / "plan.json")["changes"]
    assert changes["train.epochs"] < 1
    whole = run_command(
        "train", [*args, "name=whole", *(f"{key}={value}" for key, value in changes.items())]
    )
    for file in ("labels.csv", "oof.csv", "submission.csv", "student/model.safetensors"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_budget_that_is_large_enough_changes_nothing(args, runs):
    ample = run_command("train", [*args, "name=ample", "time_budget=5h"])
    assert read_json(ample / "plan.json")["changes"] == {}
    assert (ample / "submission.csv").read_bytes() == (runs[0] / "submission.csv").read_bytes()


def test_a_run_that_other_code_holds_in_this_process_is_let_go(args, runs):
    """A notebook runs cell after cell in one process."""
    assert run_command("train", [*args, "name=a"]) == runs[0]
    assert run_command("train", [*args, "name=b", "seed=1", "metric=macro_f1"]) == runs[1]
    assert len(logging.getLogger("kit").handlers) == 0
