"""The scripts as a user runs them: a process each, on small real data; predict.py from the first import on
(pseudo.py: test_package.py and system/test_distributed.py; what train.py calls: test_notebook.py)."""

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from pseudokit.api import export
from pseudokit.config.load import load_config
from pseudokit.data.images import load_images
from pseudokit.data.odd_images import N_UNLIKE
from pseudokit.report.terminal import summary
from pseudokit.training.models import load_model
from pseudokit.training.predict import log_probs
from tests import hostile
from tests.conftest import QUICK, run_cold, run_script
from tests.naming import process_refused
from tests.report.wandb_log import read_job
from tests.test_votes import decide

DECISIONS = [
    "id",
    "split",
    "given_label",
    "predicted",
    "confidence",
    "self_confidence",
    "p_wrong",
    "decision",
    "label",
    "reason",
    "model",
]
NOISE = ["simulate.noise=symmetric", "simulate.noise_rate=0.1"]
LABELS = ["id", "path", "given_label", "label", "source", "confidence", "round"]


def table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def ok(done: subprocess.CompletedProcess):
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == "", "no progress bar where there is no terminal"
    return done.stdout


@pytest.fixture(scope="module")
def runs(digits, tmp_path_factory):
    """One run of every mode on the same 500 rows: folder of the runs and the arguments.

    joint: wrong labels are sought with heads on the frozen network of the run `train`.
    """
    folder = tmp_path_factory.mktemp("modes")
    digits[:300][["id", "label"]].to_csv(folder / "train.csv", index=False)
    digits[300:500][["id"]].to_csv(folder / "unlabeled.csv", index=False)
    digits[500:][["id", "label"]].to_csv(folder / "test.csv", index=False)
    args = [
        f"data.image_dir={Path(digits.path[0]).parent}",
        "data.image_suffix=.png",
        f"out={folder}",
        "pseudo.tta=2",
    ]
    args += ["predict.tta=3", "predict.augment=gentle"]
    args += [
        *QUICK,
        "train.min_steps=40",
        *(f"data.{split}={folder / split}.csv" for split in ("train", "unlabeled", "test")),
    ]
    # with smaller batches, hardly a pseudo-label is certain enough
    keys = {"augment": ["pseudo.rounds=1", "train.batch_size=64"], "denoise": NOISE}
    for mode in keys:
        ok(run_script("pseudo.py", "--mode", mode, f"name={mode}", *args, *keys[mode]))
    ok(run_script("train.py", "name=train", "wandb.mode=offline", *args, "train.min_steps=80"))
    ok(run_script(*frozen(folder, args), "name=joint"))
    return folder, args


def frozen(folder: Path, args: list[str]) -> list[str]:
    """The command of the run `joint` but for its name."""
    args = [arg for arg in args if ".tta" not in arg]
    weights = folder / "train" / "student" / "model.safetensors"
    keys = ["model.freeze_backbone=true", f"model.checkpoint={weights}", "pseudo.rounds=1"]
    return ["pseudo.py", "--mode", "joint", *args, *keys, *NOISE]


@pytest.mark.parametrize("mode", ["augment", "denoise", "joint"])
def test_the_run_folder_is_as_contracted(runs, mode):
    run = runs[0] / mode
    expected = {
        "config.yaml",
        "env.json",
        "log.txt",
        "status.json",
        "samples.csv",
        "labels.csv",
        "metrics.json",
        "metrics.jsonl",
        "report.html",
        "review.html",
        "plots",
        "student",
        "round_1",
        "oof.csv",
        "oof_log_probs.npy",
    }
    expected |= {"injected.csv", "label_issues.csv"} if mode != "augment" else set()
    expected |= {"pseudo_labels.csv"} if mode != "denoise" else set()
    assert expected <= set(os.listdir(run))
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    decisions = table(run / "round_1" / "decisions.csv")
    assert list(decisions) == DECISIONS
    logits = np.load(run / "round_1" / "log_probs.npy")
    assert logits.shape == (300 if mode == "denoise" else 500, 10)
    assert logits.dtype == np.float32
    assert list(table(run / "round_1" / "ids.csv").id) == list(decisions.id)
    assert list(table(run / "samples.csv")) == ["id", "path", "split", "given_label", "group"]
    assert list(table(run / "labels.csv")) == [*LABELS, "weight"]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["mode"] == mode
    for arm in ("teacher", "student", "baseline"):
        assert metrics["scores"][arm]["test"]["n"] == 100
        assert metrics["scores"][arm]["test"]["accuracy"] > 0.6
    difference, scores = metrics["difference"], metrics["scores"]
    assert (difference["split"], difference["n"]) == ("test", 100)
    gain = scores["student"]["test"]["accuracy"] - scores["baseline"]["test"]["accuracy"]
    assert difference["gain"] == pytest.approx(gain)
    assert difference["low"] <= difference["gain"] <= difference["high"]
    for text in ((run / "report.html").read_text(), summary(run)):
        assert f"{100 * gain:+.2f} points" in text
    assert not list(run.rglob("*.part"))


def test_what_is_exported_is_what_labels_csv_says(runs):
    folder = runs[0]
    printed = ok(
        run_script(
            "pseudo.py", "--mode", "export", "--run", folder / "denoise", "--format", "table"
        )
    )
    exported = folder / "denoise" / "export" / "train.csv"
    assert str(exported) in printed
    labels = table(folder / "denoise" / "labels.csv").set_index("id").label
    assert table(exported).set_index("id").label.to_dict() == labels[labels != ""].to_dict()
    soft = pd.read_parquet(export(folder / "joint", "soft")).set_index("id")
    labels = table(folder / "joint" / "labels.csv").set_index("id")
    hard = labels[labels.source.isin(["given", "relabeled"]) & (labels.weight == "1")]
    likeliest = soft.loc[hard.index].filter(regex="^p_").idxmax(axis=1).str.removeprefix("p_")
    assert likeliest.to_dict() == hard.label.to_dict()


def test_the_precision_is_on_file_with_every_model(runs):
    run = runs[0] / "augment"
    for model in ("student", "round_1/fold_0"):
        assert json.loads((run / model / "model.json").read_text())["amp_dtype"] == "fp32"


def test_every_decision_names_the_weights_that_judged(runs):
    run = runs[0] / "joint"
    decisions = table(run / "round_1" / "decisions.csv")
    hashes = {json.loads(f.read_text())["hash"] for f in run.glob("round_1/fold_*/model.json")}
    labeled = decisions[decisions.split == "train"]
    assert set(labeled.model) == hashes
    assert set("+".join(decisions[decisions.split == "unlabeled"].model).split("+")) == hashes


@pytest.mark.parametrize("views", [1, 2])
def test_teachers_average_the_views_that_were_asked_for(runs, views):
    run = runs[0] / "augment"
    decided = table(run / "round_1" / "decisions.csv")
    config = load_config(run / "config.yaml", [])
    paths = table(run / "samples.csv").set_index("id").path[decided.id]
    pixels, _ = load_images(paths.to_numpy(object), config.data)
    unlabeled, probs = np.flatnonzero(decided.split == "unlabeled"), []
    for folder in sorted(run.glob("round_1/fold_*")):
        model = load_model(folder)
        rows = np.flatnonzero(decided.model.str.contains(model.hash))
        logs = log_probs(model, pixels, rows, tta=views, spec=config.view)
        probs.append(np.exp(logs[np.searchsorted(rows, unlabeled)]))
    stored = np.exp(np.load(run / "round_1" / "log_probs.npy")[unlabeled])
    same = np.allclose(np.mean(probs, axis=0), stored, atol=1e-4)
    assert config.pseudo.tta == 2
    assert same == (views == 2)


def test_scores_and_predictions_average_the_views_that_were_asked_for(runs, tmp_path):
    run = runs[0] / "augment"
    scored = table(run / "scored.csv").query("arm == 'student' and split == 'test'")
    files = table(run / "samples.csv").set_index("id").path[scored.id]
    pixels, _ = load_images(files.to_numpy(object), load_config(run / "config.yaml", []).data)
    model, rows = load_model(run / "student"), np.arange(len(files))
    for views in (1, 3):
        highest = np.exp(log_probs(model, pixels, rows, tta=views, spec="gentle")).max(1)
        assert np.allclose(highest, scored.confidence.astype(float), atol=1e-4) == (views == 3)
    confidence = {}
    for name, tta in {"default": (), "one": ("--tta", 1)}.items():
        ok(run_script("predict.py", "--run", run, "--out", tmp_path / name, *tta))
        confidence[name] = table(tmp_path / name).filter(regex="^p_").astype(float).max(axis=1)
    assert np.allclose(confidence["default"], scored.confidence.astype(float), atol=1e-4)
    assert not np.allclose(confidence["one"], scored.confidence.astype(float), atol=1e-4)


def test_denoise_finds_and_repairs_most_flips(runs):
    run = runs[0] / "denoise"
    truth, labels, label_issues = (
        table(run / f).set_index("id") for f in ("injected.csv", "labels.csv", "label_issues.csv")
    )
    flipped = truth.clean != truth.given_label
    assert flipped.sum() == 30
    assert (truth.given_label == labels.given_label.reindex(truth.index)).all()
    right_after = (labels.label.reindex(truth.index) == truth.clean) | (
        labels.source.reindex(truth.index) == "dropped"
    )
    assert right_after.mean() > 0.95 > 1 - flipped.mean() - 0.05
    assert flipped[label_issues.index[:30]].mean() > 0.8
    assert list(label_issues["rank"].astype(int)) == list(range(1, 301))
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["oof"]["interval"]) == {"low", "high"}, "wrong labels promise no test score"
    noise = metrics["noise"]
    assert noise["injected_rate"] == pytest.approx(0.1)
    assert noise["residual_rate"] < 0.05
    assert noise["residual_rate"] == pytest.approx(1 - right_after.mean())


@pytest.mark.parametrize("mode", ["denoise", "joint"])
def test_terminal_page_metrics_and_table_count_the_same(runs, mode):
    run = runs[0] / mode
    issues = table(run / "label_issues.csv")
    is_issue = issues.is_issue == "True"
    assert list(is_issue) == list(issues.p_wrong.astype(float) > 0.5)
    is_uncertain = (issues.decision != "keep") & ~is_issue
    noise = json.loads((run / "metrics.json").read_text())["noise"]
    assert (noise["labels"], noise["issues"]) == (300, is_issue.sum())
    assert noise["uncertain"] == is_uncertain.sum()
    counts = issues.decision[is_issue | is_uncertain].value_counts()
    assert noise["decided"] == counts.to_dict()
    for text in ((run / "report.html").read_text(), summary(run)):
        assert f"{is_issue.sum()} of 300 given labels" in text
        assert f"{counts['relabel']} relabeled" in text
    assert list(table(run / "odd_images.csv")) == ["reason", "spreads", "id", "split", "path"]


def test_augment_labels_the_unlabeled_images_and_leaves_given_labels(runs, digits):
    run = runs[0] / "augment"
    truth = digits.set_index("id").label
    pseudo = table(run / "pseudo_labels.csv")
    assert len(pseudo) > 40
    assert (pseudo.label == truth[pseudo.id].to_numpy()).mean() > 0.9
    labels = table(run / "labels.csv")
    given = labels[labels.source == "given"]
    assert (given.given_label == given.label).all()
    assert len(given) == 300
    assert set(labels.id[labels.source == "pseudo"]) == set(pseudo.id)


def test_predict_averages_the_models_and_fills_the_submission(runs, tmp_path, digits):
    folder, _ = runs
    shuffled = digits[500:].sample(frac=1, random_state=1)
    shuffled[["id"]].assign(label="d0").to_csv(tmp_path / "sample_submission.csv", index=False)
    out = tmp_path / "predictions.csv"
    environment = hostile.watched(tmp_path, os.environ["PYTHONPATH"])
    output = ok(
        run_cold(
            "predict.py",
            "--run",
            folder / "train",
            "--data",
            folder / "test.csv",
            "--out",
            out,
            "--tta",
            2,
            "--submission",
            tmp_path / "sample_submission.csv",
            env=environment,
        )
    )
    assert not (tmp_path / "seen").exists(), "it asks nothing of the network"
    assert all(model in output for model in ("student", "round_1/fold_0", "round_1/fold_1"))
    predictions, filled = table(out), table(tmp_path / "submission.csv")
    assert list(predictions.id) == list(digits.id[500:])
    assert list(filled.id) == list(shuffled.id)
    assert (filled.label.to_numpy() == shuffled.label.to_numpy()).mean() > 0.6
    probs = predictions.filter(regex="^p_").astype(float)
    assert np.allclose(probs.sum(1), 1, atol=1e-3)
    assert (("d" + probs.columns.str[3:])[probs.to_numpy().argmax(1)] == predictions.label).all()


def test_a_run_is_tracked_offline_with_the_lines_of_metrics_jsonl(runs):
    run = runs[0] / "train"
    jobs = {job["run"].job_type: job for job in map(read_job, run.glob("wandb/offline-run-*"))}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {key: jobs["teacher"]["history"][0][key] for key in lines[0]} == lines[0]
    accuracy = json.loads((run / "metrics.json").read_text())["scores"]["student"]["test"][
        "accuracy"
    ]
    assert jobs["student"]["history"][0]["student/test/accuracy"] == accuracy
    [*_, last] = [row for row in jobs["training"]["history"] if "curves/student/loss" in row]
    loss = float(table(run / "student" / "history.csv").loss.iloc[-1])
    assert last["curves/student/loss"] == loss


def test_the_resolved_config_can_be_fed_back(runs):
    folder, _ = runs
    stored = folder / "denoise" / "config.yaml"
    assert yaml.safe_load(stored.read_text())["train"]["batch_size"] == 32
    written = [stored.with_name(name) for name in ("labels.csv", "status.json", "metrics.json")]
    before = [file.stat().st_mtime_ns for file in written]
    ok(run_script("pseudo.py", "--mode", "denoise", "--config", stored))
    assert [file.stat().st_mtime_ns for file in written] == before, "it is the same run, and done"


def test_another_config_under_the_same_name_is_refused_with_the_keys_that_differ(runs):
    folder, args = runs
    before = (folder / "augment" / "labels.csv").read_bytes()
    done = run_script(
        "pseudo.py", "--mode", "augment", "name=augment", *args, "train.lr=0.001", "seed=3"
    )
    process_refused(done, "train.lr", 0.006, 0.001, "seed", 0, 3)
    assert (folder / "augment" / "labels.csv").read_bytes() == before


def test_no_decision_depends_on_the_truth_or_on_scored_roles(digits, csv_data):
    """Wrong labels in test and trusted, and noise from a file instead of inject, change no decision."""
    folder, args = csv_data
    base = [*args, *QUICK, "train.min_steps=20", "pseudo.rounds=1"]
    noise = ["simulate.noise=symmetric", "simulate.noise_rate=0.2"]
    a, *_ = decide("joint", [*base, *noise, "name=a"])
    noisy = table(a / "injected.csv")[["id", "given_label"]]
    noisy.columns = ["id", "label"]
    noisy.to_csv(folder / "noisy.csv", index=False)
    turned = digits[500:].assign(label=np.roll(digits.label[500:], 1))[["id", "label"]]
    turned.to_csv(folder / "turned.csv", index=False)
    keys = [f"data.{split}={folder}/turned.csv" for split in ("test", "trusted")]
    b, *_ = decide("joint", [*base, *keys, f"data.train={folder}/noisy.csv", "name=b"])
    decisions = [(run / "round_1" / "decisions.csv").read_bytes() for run in (a, b)]
    assert decisions[0] == decisions[1]


def test_folders_of_rgb_jpegs_of_any_size_with_a_photo_pipeline(tmp_path, digits):
    rng = np.random.default_rng(0)
    for i, row in digits[:60].iterrows():
        gray = cv2.imread(row.path, 0)
        image = cv2.resize(
            np.stack([gray, gray // 2, 255 - gray], 2), (int(rng.integers(20, 90)), 48)
        )
        split, label = ("train", row.label) if i < 50 else ("unlabeled", "any/where")
        path = tmp_path / split / label / f"{row.id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    options = [
        "data.size=32",
        "train.augment=photo",
        "train.batch_size=16",
        "train.min_steps=20",
        "train.epochs=0.1",
        "pseudo.cutoff=0.1",
        "pseudo.train_baseline=false",
    ]
    folders = [
        f"data.train={tmp_path}/train",
        f"data.unlabeled={tmp_path}/unlabeled",
        f"out={tmp_path}/runs",
    ]
    ok(
        run_script(
            "pseudo.py", "--mode", "augment", "name=rgb", "pseudo.rounds=1", *folders, *options
        )
    )
    model = json.loads((tmp_path / "runs/rgb/student/model.json").read_text())
    assert (model["channels"], model["size"]) == (3, 32)
    labels = table(tmp_path / "runs/rgb/labels.csv")
    assert set(labels.id[labels.source == "pseudo"]) == {
        f"unlabeled/any/where/{i}.jpg" for i in digits.id[50:60]
    }


def test_help_and_config_errors_do_not_import_torch():
    code = (
        "import sys; sys.argv = ['pseudo.py', '--mode', 'denoise', 'train.lrr=1']\n"
        "from pseudokit.cli import pseudo_main\n"
        "try: pseudo_main()\nexcept SystemExit as e: assert e.code == 2\n"
        "assert not {'torch', 'timm', 'pandas', 'cv2'} & set(sys.modules)"
    )
    assert run_script("-c", code).returncode == 0


@pytest.fixture(scope="module")
def whole(runs):
    """As `joint`, but the student is trained as a whole."""
    keys = ["name=whole", "student.name=test_resnet.r160_in1k", "train.min_steps=80"]
    ok(run_script(*frozen(*runs), *keys))
    return runs[0] / "whole"


def test_heads_on_a_frozen_network_find_wrong_labels_and_are_saved_alone(runs):
    run = runs[0] / "joint"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["noise"]["average_precision"] > 0.9
    assert metrics["scores"]["student"]["test"]["accuracy"] > 0.8
    assert (run / "backbone" / "model.safetensors").stat().st_size > 1_000_000
    for model in ("student", "baseline", "round_1/fold_0"):
        assert (run / model / "model.safetensors").stat().st_size < 10_000
    assert len(list(run.glob("embeddings_*.npy"))) == 1
    assert (table(run / "odd_images.csv").reason == "unlike the others").sum() == N_UNLIKE
    assert not list(run.rglob("*.part"))


def test_a_student_of_another_name_is_trained_as_a_whole(whole):
    assert (whole / "student" / "model.safetensors").stat().st_size > 1_000_000
    assert (whole / "baseline" / "model.safetensors").stat().st_size > 1_000_000
    assert (whole / "round_1" / "fold_0" / "model.safetensors").stat().st_size < 10_000
    scores = json.loads((whole / "metrics.json").read_text())["scores"]
    assert scores["student"]["test"]["accuracy"] > 0.8


@pytest.mark.parametrize("name", ["joint", "whole"])
def test_a_frozen_run_predicts_what_it_scored(runs, whole, name):
    run = runs[0] / name
    ok(run_script("predict.py", "--run", run))
    label = table(run / "predictions.csv").set_index("id").label
    student = table(run / "scored.csv").query("arm == 'student'").set_index("id")
    assert (label.reindex(student.index) == student.predicted).mean() > 0.98


def test_a_frozen_run_that_lost_its_end_goes_on_to_the_same_bytes(runs):
    run = runs[0] / "joint"
    kept = {
        file: (run / file).read_bytes()
        for file in ("labels.csv", "label_issues.csv", "student/model.safetensors")
    }
    for file in (
        "student/model.json",
        "round_1/fold_1/model.json",
        *(f.name for f in run.glob("embeddings_*")),
    ):
        (run / file).unlink(missing_ok=True)
    (run / "status.json").write_text(
        (run / "status.json").read_text().replace('"done"', '"stopped"')
    )
    ok(run_script(*frozen(*runs), "name=joint"))
    for file, data in kept.items():
        assert (run / file).read_bytes() == data, file
