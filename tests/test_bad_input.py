"""Wrong input: one line that names the file, row or key and the remedy, before anything is learned."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import timm
import torch

from pseudokit.cli import predict_command, pseudo_command, train_command
from pseudokit.config.keys import Config, Data, Model
from pseudokit.config.load import dump_config, load_config
from pseudokit.run_folder.folder import DEFAULT_CONFIG, Run
from pseudokit.run_folder.prepare import prepare
from pseudokit.system.files import read_json
from pseudokit.training.models import create_model, save_model
from tests import naming
from tests.conftest import QUICK, run_script
from tests.naming import names, process_refused
from tests.wild.common import limited

SCRIPTS = {
    "train": train_command,
    "augment": pseudo_command,
    "denoise": pseudo_command,
    "joint": pseudo_command,
}
QUICK = [*QUICK, "pseudo.rounds=1", "pseudo.train_baseline=false"]


@pytest.fixture
def csv(csv_data):
    """csv(role) → its table; csv(role, table) writes it. The arguments of the data are csv.args."""
    folder, args = csv_data

    def csv(split: str, table: pd.DataFrame | None = None) -> pd.DataFrame:
        file = folder / f"{split}.csv"
        if table is not None:
            table.to_csv(file, index=False)
        return pd.read_csv(file, dtype=str, keep_default_na=False)

    csv.args, csv.folder = args, folder
    return csv


@pytest.fixture
def own_images(csv, digits, tmp_path):
    """The folder of this test's own copy of the images, so that some can be spoiled."""
    images = tmp_path / "images"
    shutil.copytree(Path(digits.path[0]).parent, images)
    csv.args[:] = [arg for arg in csv.args if not arg.startswith("data.image_dir")] + [
        f"data.image_dir={images}"
    ]
    return images


MAX_CHARACTERS = 1500
"""Of a message that a person reads to its end."""


def refused(action, *parts) -> str:
    message = naming.refused(action, *parts)
    assert len(message) < MAX_CHARACTERS
    return message


def refusal(csv, mode: str, *args) -> str:
    """The message with which a script that trains refuses; nothing was learned before."""
    chosen = [] if mode == "train" else ["--mode", mode]
    message = refused(lambda: SCRIPTS[mode]([*chosen, *csv.args, *QUICK, *map(str, args)]))
    folders = [path.name for path in csv.folder.rglob("*") if path.is_dir()]
    assert not {"round_1", "student", "baseline"} & set(folders)
    return message


# ---- what to learn from


@pytest.mark.parametrize("split", ["train", "unlabeled", "val", "trusted", "test"])
def test_a_missing_file(csv, split):
    message = refusal(csv, "joint", f"data.{split}={csv.folder / 'gone' / 'x.csv'}")
    assert names(message, f"data.{split}={csv.folder / 'gone' / 'x.csv'}")
    assert names(message, "CSV", "folder"), "what it may be"


def test_a_folder_without_images(csv):
    (csv.folder / "empty").mkdir()
    train = f"data.train={csv.folder / 'empty'}"
    assert names(refusal(csv, "train", train), train)


def test_a_label_column_that_is_not_there(csv):
    message = refusal(csv, "denoise", "data.label_col=species")
    assert names(message, "train.csv", "'species'", "'label'", "data.label_col")


def test_an_id_twice(csv):
    table = csv("train")
    csv("train", pd.concat([table, table[5:6]]))
    message = refusal(csv, "train")
    assert names(message, repr(table.id[5]), "2", "data.train")


def test_an_id_in_train_and_unlabeled(csv):
    csv("unlabeled", csv("train")[["id"]][:1])
    message = refusal(csv, "augment")
    assert names(message, repr(csv("train").id[0]), "data.train", "data.unlabeled")


def test_a_label_of_the_test_set_that_no_one_learns(csv):
    table = csv("test")
    table.loc[3, "label"] = "whale"
    csv("test", table)
    message = refusal(csv, "train")
    assert names(message, "data.test", table.id[3], "'whale'")


@pytest.mark.parametrize("mode", ["train", "denoise", "augment"])
def test_a_class_with_fewer_rows_than_folds(csv, mode):
    table = csv("train")
    keep = (table.label != "d3") | (table.label == "d3").cumsum().le(2)
    csv("train", table[keep])
    message = refusal(csv, mode, "pseudo.folds=3")
    assert names(message, "'d3'", "2", "pseudo.folds=3")


def test_a_class_with_fewer_rows_than_folds_where_no_rounds_are_asked_for(csv):
    """train.py cross-validates once whatever pseudo.rounds says."""
    table = csv("train")
    csv("train", table[(table.label != "d3") | (table.label == "d3").cumsum().le(2)])
    message = refusal(csv, "train", "pseudo.folds=3", "pseudo.rounds=0")
    assert names(message, "'d3'", "2", "pseudo.folds=3")


def test_one_class_only(csv):
    csv("train", csv("train").assign(label="d1"))
    csv("test", csv("test")[["id"]])
    message = refusal(csv, "denoise")
    assert names(message, "data.train", "'d1'")


def test_no_label_at_all(csv):
    csv("train", csv("train").assign(label=""))
    assert names(refusal(csv, "augment"), "data.train", "'label'")


@pytest.mark.parametrize("mode", ["augment", "joint"])
def test_rows_of_test_among_the_unlabeled_where_the_rules_forbid_it(csv, mode):
    test, unlabeled = csv("test"), csv("unlabeled")
    csv("unlabeled", pd.concat([unlabeled, test[["id"]].tail(3)]))
    message = refusal(csv, mode, "data.learn_from_test=never")
    assert names(message, 3, len(unlabeled) + 3, repr(min(test.id.tail(3))))
    assert names(message, "data.learn_from_test=never", "data.test", "data.unlabeled")


@pytest.mark.parametrize("mode", ["augment", "joint"])
def test_no_unlabeled_image(csv, mode):
    assert names(refusal(csv, mode, "data.unlabeled="), "data.unlabeled")


def test_the_folder_of_a_refused_run_says_that_it_failed_and_why(csv):
    message = refusal(csv, "denoise", "data.label_col=species", "name=x")
    status = read_json(csv.folder / "runs" / "x" / "status.json")
    assert (status["state"], status["reason"]) == ("failed", message)


def test_all_rows_in_one_group(csv):
    """No fold could be held out: there would be nothing to learn for the model that predicts it."""
    csv("train", csv("train").assign(patient="p1"))
    with limited(10):
        message = refusal(csv, "denoise", "data.group_col=patient")
    assert names(message, "data.group_col")


# ---- images


def test_images_that_cannot_be_read(csv, own_images):
    ids = csv("train").id
    (own_images / f"{ids[0]}.png").write_bytes(b"")
    (own_images / f"{ids[1]}.png").write_text("an error page")
    (own_images / f"{ids[2]}.png").unlink()
    message = refusal(csv, "train")
    assert names(message, *(f"{own_images / name}.png" for name in ids[:3]))
    assert names(message, "data.bad_images=skip")


def test_a_folder_without_the_images(csv, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refusal(csv, "train", f"data.image_dir={tmp_path / 'empty'}")
    assert names(message, tmp_path / "empty" / csv("train").id[0])
    assert names(message, "data.image_dir", "data.image_suffix")


def test_unlabeled_images_that_are_all_bad_are_none_when_they_are_skipped(csv, own_images):
    for name in csv("unlabeled").id:
        (own_images / f"{name}.png").write_bytes(b"")
    assert names(refusal(csv, "augment", "data.bad_images=skip"), "data.unlabeled")


def test_a_class_of_bad_images_is_a_class_without_rows_when_they_are_skipped(csv, own_images):
    table = csv("train")
    for name in table.id[table.label == "d3"][1:]:
        (own_images / f"{name}.png").write_bytes(b"")
    message = refusal(csv, "denoise", "data.bad_images=skip")
    assert names(message, "'d3'", "pseudo.folds=2")


# ---- model, weights, augmentation, noise


@pytest.mark.parametrize("section", ["model", "student"])
def test_an_unknown_model(csv, section):
    message = refusal(csv, "train", f"{section}.name=resnt18")
    assert names(message, f"{section}.name='resnt18'", "resnet18")


def test_missing_weights(csv):
    checkpoint = f"model.checkpoint={csv.folder / 'none.safetensors'}"
    assert names(refusal(csv, "train", checkpoint), checkpoint)


@pytest.mark.parametrize("key", ["train.strong_augment", "student.augment"])
def test_any_view_that_changes_the_size_is_refused(csv, key):
    message = refusal(csv, "augment", f"{key}=[{{Resize: {{height: 9, width: 9}}}}]")
    assert names(message, key, "size")


@pytest.mark.parametrize("mode", ["denoise", "joint"])
def test_leak_free_rounds_are_refused_where_given_labels_may_change(csv, mode):
    message = refusal(csv, mode, "pseudo.leak_free_folds=true")
    assert names(message, "pseudo.leak_free_folds", "--mode augment")


@pytest.mark.parametrize("mode", ["denoise", "joint"])
def test_labels_that_may_be_wrong_are_not_spread(csv, mode):
    message = refusal(csv, mode, "pseudo.label_propagation=2")
    assert names(message, "pseudo.label_propagation", "--mode augment")


@pytest.mark.parametrize("other", ["test_efficientnet", "test_vit"])
def test_weights_that_do_not_fit(csv, other):
    file = csv.folder / "other.pth"
    torch.save(timm.create_model(other).state_dict(), file)
    message = refusal(csv, "train", f"model.checkpoint={file}")
    assert names(message, f"model.checkpoint={file}", "test_resnet")


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("[{Afine: {}}]", "Affine"),
        ("[{Affine: {rotat: 10}}]", "rotat"),
        ("[{Affine: 3}]", "Affine"),
        ("[HorizontalFlip]", "HorizontalFlip"),
        ("[{RandomCrop: {height: 64, width: 64}}]", "RandomCrop"),
        ("[{Resize: {height: 8, width: 8}}]", "size"),
        ("[{ToTensorV2: {}}]", "train.augment"),
        ("heavy", "heavy"),
    ],
)
def test_an_augmentation_that_does_not_work(csv, spec, named):
    message = refusal(csv, "train", f"train.augment={spec}")
    assert names(message, "train.augment", named)


def test_an_unknown_optimizer(csv):
    assert names(refusal(csv, "train", "train.optimizer=adamx"), "train.optimizer='adamx'")


@pytest.mark.parametrize("key", ["train.loss=focus", "pseudo.cutoff=focus", "pseudo.cutoff=-1"])
def test_a_loss_or_a_rule_that_does_not_exist_is_refused_before_any_training(csv, key):
    assert names(refusal(csv, "augment", key), key)


def test_a_loss_has_no_effect_on_a_frozen_backbone(csv):
    keys = ["model.freeze_backbone=true", "model.checkpoint=x", "train.loss=balanced_cross_entropy"]
    assert names(refusal(csv, "train", *keys), "train.loss", "model.freeze_backbone=true")


def test_a_noise_matrix_that_does_not_fit(csv):
    message = refusal(csv, "denoise", "simulate.noise=[[0.9,0.1],[0.1,0.9]]")
    assert names(message, "simulate.noise", "10")


# ---- where to write, and how it is called


def test_a_folder_that_cannot_be_written(csv):
    (csv.folder / "file").write_text("")
    for out in (csv.folder / "file", csv.folder / "file" / "runs"):
        message = refusal(csv, "train", f"out={out}")
        assert names(message, out, "out=")


def test_a_folder_for_the_built_in_set_that_cannot_be_written(csv):
    (csv.folder / "file").write_text("")
    message = refusal(csv, "train", "data.train=", f"data.cache={csv.folder / 'file'}")
    assert names(message, csv.folder / "file", "data.cache")


def test_wrong_keys_are_refused_before_a_run_folder_is_made(csv):
    message = refusal(csv, "augment", "train.learning_rate=1", "pseudo.fold=3", "data.size=x")
    assert names(message, "train.learning_rate", "pseudo.fold", "pseudo.folds", "data.size")
    assert not (csv.folder / "runs").exists()


def test_a_missing_config(csv):
    message = refusal(csv, "train", "--config", "configs/nowhere.yaml")
    assert names(message, "configs/nowhere.yaml", "--config")


@pytest.mark.parametrize(
    "argv", [[], ["--mode", "denois"], ["--mode", "joint", "--fres"], ["--mode"]]
)
def test_wrong_options(argv):
    refused(lambda: pseudo_command([*argv, "name=x", "--frobnicate"]), "--help")


# ---- predict.py


@pytest.fixture
def run(csv) -> Path:
    """A run with a student that has learned nothing; nobody asks it here."""
    path = csv.folder / "run"
    torch.manual_seed(0)
    network, form = create_model(Model(), tuple(f"d{i}" for i in range(10)), 16, 1)
    save_model(path / "student", network, form)
    data = dict(arg.removeprefix("data.").split("=") for arg in csv.args if arg.startswith("data."))
    (path / "config.yaml").write_text(dump_config(Config(name="run", data=Data(**data))))
    Run(path, "denoise", Config()).write_status("done", "done", "max_rounds")
    return path


def predict_refusal(run, *args) -> str:
    message = refused(lambda: predict_command(["--run", str(run), *map(str, args)]))
    assert not list(run.rglob("predictions.csv"))
    return message


def test_the_run_of_these_tests_predicts(run):
    """Otherwise the refusals below would prove little."""
    predict_command(["--run", str(run)])
    assert len(pd.read_csv(run / "predictions.csv")) == 100


def test_a_folder_that_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        assert names(predict_refusal(path), f"--run {path}")


def test_a_run_without_a_student(run):
    shutil.rmtree(run / "student")
    assert names(predict_refusal(run), f"--run {run}")


def test_a_student_whose_weights_were_changed(run):
    file = run / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert names(predict_refusal(run), file)


@pytest.mark.parametrize("tta", ["0", "-1", "two"])
def test_views_that_cannot_be(run, tta):
    assert names(predict_refusal(run, "--tta", tta), "--tta")


def test_nothing_to_predict(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        "\n".join(line for line in text.splitlines() if "  test: " not in line)
    )
    assert names(predict_refusal(run), "--data")


def test_data_that_is_not_there(run, tmp_path):
    message = predict_refusal(run, "--data", tmp_path / "gone.csv")
    assert names(message, tmp_path / "gone.csv", "--data")


def test_an_id_twice_in_what_is_to_be_predicted(run, csv):
    csv("test", pd.concat([csv("test"), csv("test")[:1]]))
    assert names(predict_refusal(run), repr(csv("test").id[0]))


def test_an_image_to_predict_that_cannot_be_read(run, csv):
    csv("test", pd.concat([csv("test"), pd.DataFrame({"id": ["nowhere"], "label": [""]})]))
    assert names(predict_refusal(run), "nowhere.png")


def test_predictions_that_cannot_be_written(run, csv):
    (csv.folder / "file").write_text("")
    for out in (csv.folder / "file" / "p.csv", csv.folder):
        assert names(predict_refusal(run, "--out", out), f"--out {out}")


def test_a_submission_that_does_not_match(run, csv):
    file = csv.folder / "sample_submission.csv"
    assert names(predict_refusal(run, "--submission", file), f"--submission {file}")
    file.write_text("id,label\nstranger,x\n")
    assert names(predict_refusal(run, "--submission", file), file, "'stranger'")
    file.write_bytes(b"")
    assert names(predict_refusal(run, "--submission", file), file)


def test_all_that_is_wrong_is_told_at_once(run, tmp_path):
    weights = run / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    sample, data = tmp_path / "sample.csv", tmp_path / "gone.csv"
    message = predict_refusal(
        run, "--run", tmp_path, "--data", data, "--submission", sample, "--weights", "2,x"
    )
    assert names(message, weights, f"--run {tmp_path}", f"--data {data}")
    assert names(message, f"--submission {sample}", "--weights=2,x")


# ---- a finished run


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        (["select"], "--run"),
        (["apply"], "--run"),
        (["apply", "--run", "x"], "--corrections"),
    ],
)
def test_what_to_work_on_is_not_named(argv, missing):
    refused(lambda: pseudo_command(["--mode", *argv]), f"--mode {argv[0]}", missing)


@pytest.mark.parametrize(
    ("named", "argv"),
    [
        ("--check", ["select", "--run", "x", "--check"]),
        ("--config", ["select", "--run", "x", "--config", "photos"]),
        ("--corrections", ["select", "--run", "x", "--corrections", "c.csv"]),
        ("--check", ["apply", "--run", "x", "--revert", "--check"]),
        ("--fresh", ["apply", "--run", "x", "--revert", "--fresh"]),
        ("train.lr=1", ["apply", "--run", "x", "--revert", "train.lr=1"]),
        ("--run", ["denoise", "--run", "x"]),
        ("--revert", ["denoise", "--revert"]),
    ],
)
def test_what_a_mode_would_not_heed_is_refused(named, argv):
    refused(lambda: pseudo_command(["--mode", *argv]), f"--mode {argv[0]}", named)


def test_work_on_a_folder_that_is_no_run(tmp_path):
    for more in (["select"], ["apply", "--corrections", "x.csv"]):
        argv = ["--mode", *more, "--run", str(tmp_path)]
        refused(lambda argv=argv: pseudo_command(argv), f"--run {tmp_path}")


@pytest.mark.parametrize("content", [None, b"", b"id,label\n1,x\n", b"\xff\xfe\x00"])
def test_corrections_that_cannot_be_read_leave_the_student_alone(run, content):
    file = run.parent / "corrections.csv"
    if content is not None:
        file.write_bytes(content)
    argv = ["--mode", "apply", "--run", str(run), "--corrections", str(file)]
    refused(lambda: pseudo_command(argv), file)
    assert (run / "student" / "model.json").exists()


# ---- as a process


def test_a_wrong_key_ends_the_process_with_code_2(tmp_path):
    done = run_script("train.py", "lr=1", f"out={tmp_path}")
    process_refused(done, "lr", "train.lr")
    assert done.stdout == ""
    assert not os.listdir(tmp_path)


def test_truncated_images_end_the_process_with_code_2_and_one_line(csv, own_images):
    """The decoder has an opinion of its own on each of them, which belongs nowhere on the terminal."""
    files = [own_images / f"{name}.png" for name in csv("train").id[:4]]
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for file, ending, cut in zip(
        files, (".png", ".png", ".jpg", ".tiff"), (0.5, 0.99, 0.5, 0.5), strict=True
    ):
        data = cv2.imencode(ending, photo)[1].tobytes()
        file.write_bytes(data[: int(cut * len(data))])
    process_refused(run_script("pseudo.py", "--mode", "denoise", *csv.args, "name=x"), *files)
    assert "round_1" not in os.listdir(csv.folder / "runs" / "x")


def test_predicting_with_no_run_ends_the_process_with_code_2(tmp_path):
    process_refused(run_script("predict.py", "--run", tmp_path), f"--run {tmp_path}")


# ---- what is no mistake


def test_unlabeled_images_that_the_mode_does_not_use_may_be_missing(csv, own_images):
    for name in csv("unlabeled").id:
        (own_images / f"{name}.png").unlink()
    run = Run(csv.folder / "runs" / "x", "train", load_config(DEFAULT_CONFIG, csv.args))
    assert set(prepare(run).dataset.split) == {"train", "test"}
