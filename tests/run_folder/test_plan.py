"""pseudo.py without a mode: what it takes a folder for, and that its command and config file do what they say."""

import shlex
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.cli import pseudo_command
from pseudokit.config.load import load_config
from pseudokit.data.find_data import find_data
from pseudokit.run_folder.folder import find_config
from pseudokit.run_folder.plan import make_plan, write_config
from tests.naming import lines_naming, refused

SIDE = 64
TABLE = "id,label\n0,a\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, and no caches of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write(folder, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "keys", "left_out"),
    [
        ({"train.csv": TABLE, "0.png": ""}, {"train": "train.csv"}, []),
        (
            {"labels.csv": TABLE, "images/0.png": "", "other.csv": "a,b\n", "docs/a/b/c.png": ""},
            {"train": "labels.csv", "image_dir": "images"},
            ["other.csv"],
        ),
        (
            {
                "train.csv": "image_id,species\n0,a\n",
                "test.csv": "image_id\n0\n",
                "sample_submission.csv": "image_id,species\n0,a\n",
                "train_images/0.png": "",
                "test_images/0.png": "",
            },
            {
                "train": "train.csv",
                "test": "test.csv",
                "submission": "sample_submission.csv",
                "label_col": "species",
                "image_dir": {
                    "train": "train_images",
                    "test": "test_images",
                    "unlabeled": "test_images",
                },
            },
            [],
        ),
        (
            {"train.csv": TABLE, "sampleSubmission.csv": TABLE, "0.png": ""},
            {"train": "train.csv", "test": "sampleSubmission.csv"}
            | {"submission": "sampleSubmission.csv"},
            [],
        ),
        (
            {f"{name}/0.png": "" for name in ("train/cat", "train/dog", "valid/cat", "unlabeled")},
            {"train": "train", "val": "valid", "unlabeled": "unlabeled"},
            [],
        ),
        ({"cat/0.png": "", "dog/0.png": "", ".git/0.png": ""}, {"train": "."}, []),
        ({"images/0.png": "", "notes.csv": "a,b\n"}, {}, ["notes.csv", "images"]),
    ],
)
def test_what_lies_in_a_folder_is_taken_for_what_it_is(here, files, keys, left_out):
    write(here, files)
    found, others = find_data(Path())
    assert (found, others) == (keys, left_out)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"a.csv": TABLE, "b.csv": TABLE}, ["a.csv", "b.csv", "data.train=a.csv"]),
        ({"cat/0.png": "", "dog/0.png": "", "test/0.png": ""}, ["cat", "train"]),
        ({"train.csv": "id,kind,width\n0,a,1\n"}, ["train.csv", "kind", "data.label_col="]),
        ({"images/0.png": ""}, ["images", "data.train=FILE.csv"]),
    ],
)
def test_what_only_the_user_knows_is_asked(here, files, named):
    write(here / "data", files)
    refused(
        lambda: make_plan("data", []), *[name.replace("=a.csv", "=data/a.csv") for name in named]
    )
    refused(lambda: make_plan("nowhere", []), "nowhere")


@pytest.fixture
def competition(here):
    """A folder with a blank in its name, color photos, and a test set without labels."""
    folder = here / "my photos"
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        (folder / f"{name}_images").mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (SIDE, SIDE, 3), np.uint8)
            cv2.imwrite(str(folder / f"{name}_images" / f"{name}{i}.png"), pixels)
        ids = [f"{name}{i}" for i in range(6)]
        table = pd.DataFrame({"id": ids, "label": list("abaabb")})
        table[["id", "label"][: 2 - (name == "test")]].to_csv(folder / f"{name}.csv", index=False)
    return "my photos"


def test_the_command_is_the_plan_and_a_key_of_the_user_outranks_it(competition):
    plan = make_plan(competition, ["seed=3", "data.unlabeled="])
    assert (plan.mode, plan.config) == ("denoise", "default")
    plan = make_plan(competition, ["seed=3"])
    assert (plan.mode, plan.config) == ("augment", "default"), "no pretrained weights"
    words = shlex.split(plan.command())
    assert words[-len(plan.overrides) :] == plan.overrides
    config = load_config(find_config(Path(plan.config)), plan.overrides)
    assert config.data.unlabeled == config.data.test == f"{competition}/test.csv"
    assert (config.seed, config.name, config.pseudo.folds) == (3, "my-photos", 2)


def test_photos_take_the_weights_that_lie_beside_them(competition, here):
    (here / competition / "resnet18.a1_in1k.safetensors").write_text("")
    (here / competition / "my_own.safetensors").write_text("")
    plan = make_plan(competition, ["model.freeze_backbone=true"])
    config = load_config(find_config(Path(plan.config)), plan.overrides)
    assert plan.config == "photos_few_labels"
    assert config.model.name == "resnet18.a1_in1k"
    assert config.model.checkpoint == f"{competition}/resnet18.a1_in1k.safetensors"
    written = write_config(plan, "photos")
    assert load_config(written.config, ["name=my-photos"]) == config


def test_a_written_config_is_the_plan_and_runs(competition, here, capsys, caplog):
    pseudo_command(["--init", "mine", competition, "train.epochs=1", "train.augment=none"])
    plan = make_plan(competition, ["train.epochs=1", "train.augment=none"])
    words = shlex.split(capsys.readouterr().out.splitlines()[-2])
    assert words[-4:] == ["--mode", plan.mode, "--config", "mine.yaml"]
    written = load_config("mine.yaml", ["name=my-photos"])
    assert written == load_config(find_config(Path(plan.config)), plan.overrides)
    refused(lambda: pseudo_command(["--init", "mine", competition]), "--init mine", "mine.yaml")
    pseudo_command([*words[-4:], "--check"])
    assert lines_naming(caplog.text, "random weights", "python -m pseudokit.weights")


def test_where_nothing_lies_the_digits_are_proposed(here):
    plan = make_plan("", [])
    assert (len(plan.lines), plan.mode, plan.overrides) == (1, "augment", [])
    refused(lambda: pseudo_command(["."]), here)
