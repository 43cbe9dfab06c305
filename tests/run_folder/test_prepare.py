"""What a run learns from is read and checked once, and is the same whenever the run goes on."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.config.keys import Config, Data
from pseudokit.config.load import with_changes
from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.prepare import make_job_runner, prepare
from pseudokit.system.files import read_json


@pytest.fixture
def begun(digits, tmp_path):
    """A run of 60 labeled, 20 unlabeled and 20 test images with tables and images of its own; one network is begun."""
    (tmp_path / "images").mkdir()
    for row in digits[:100].itertuples():
        (tmp_path / "images" / f"{row.id}.png").write_bytes(Path(row.path).read_bytes())
    digits[:60][["id", "label"]].to_csv(tmp_path / "train.csv", index=False)
    digits[60:80][["id"]].to_csv(tmp_path / "unlabeled.csv", index=False)
    digits[80:100][["id", "label"]].to_csv(tmp_path / "test.csv", index=False)
    tables = {split: str(tmp_path / f"{split}.csv") for split in ("train", "unlabeled", "test")}
    data = {"image_dir": str(tmp_path / "images"), "image_suffix": ".png", **tables}
    run = Run(tmp_path / "run", "augment", Config(data=data, name="x"))
    prepare(run)
    (run.path / "round_1").mkdir()
    return run


def edit(file: Path, column: str, value: str) -> None:
    """Change the sixth row of a table."""
    table = pd.read_csv(file, dtype=str)
    table.loc[5, column] = value
    table.to_csv(file, index=False)


def test_the_input_hash_is_stored_once_and_the_same_when_the_run_goes_on(begun):
    input_hash = read_json(begun.path / "env.json")["input_hash"]
    env, samples = ((begun.path / name).read_bytes() for name in ("env.json", "samples.csv"))
    assert prepare(begun).input_hash == input_hash
    assert ((begun.path / "env.json").read_bytes(), (begun.path / "samples.csv").read_bytes()) == (
        env,
        samples,
    )


@pytest.mark.parametrize("change", ["label", "removed", "image", "copy", "key"])
def test_another_input_is_refused_and_named(begun, tmp_path, change):
    if change == "label":
        edit(tmp_path / "train.csv", "label", "d9")
    elif change == "removed":
        table = pd.read_csv(tmp_path / "train.csv", dtype=str)
        table[table.id != "0005"].to_csv(tmp_path / "train.csv", index=False)
    elif change == "image":
        file = str(tmp_path / "images" / "0005.png")
        cv2.imwrite(file, 255 - cv2.imread(file, 0))
    elif (
        change == "copy"
    ):  # of an unlabeled image, in the test set: it may not receive a pseudo-label any more
        image = cv2.imread(str(tmp_path / "images" / "0065.png"), 0)
        cv2.imwrite(str(tmp_path / "images" / "0085.png"), image)
    else:
        begun.config = begun.config.model_copy(update={"seed": 7})
    samples = (begun.path / "samples.csv").read_bytes()
    with pytest.raises(UserError) as caught:
        prepare(begun)
    assert str(begun.path / "env.json") in str(caught.value)
    assert ("1 rows" in str(caught.value) and "'0005'" in str(caught.value)) == (
        change in ("label", "removed")
    )
    assert (begun.path / "samples.csv").read_bytes() == samples


def test_what_decides_nothing_may_change_while_a_run_goes_on(begun, tmp_path):
    edit(tmp_path / "test.csv", "label", "d9")
    config = with_changes(begun.config, {"train.num_workers": 2})
    begun.config = config.model_copy(update={"time_budget": 60.0, "name": "y"})
    assert prepare(begun).input_hash == read_json(begun.path / "env.json")["input_hash"]


def test_a_run_that_has_begun_nothing_takes_other_input(begun, tmp_path):
    (begun.path / "round_1").rmdir()
    edit(tmp_path / "train.csv", "label", "d9")
    prepare(begun)
    assert pd.read_csv(begun.path / "samples.csv").given_label[5] == "d9"


@pytest.mark.parametrize(
    ("mode", "weight", "asked"), [("augment", 4, True), ("augment", 0, False), ("train", 4, False)]
)
def test_labels_are_propagated_to_unlabeled_images_alone(begun, mode, weight, asked):
    (begun.path / "round_1").rmdir()
    config = with_changes(begun.config, {"pseudo.label_propagation": weight})
    run = replace(begun, mode=mode, config=config)
    prepared = prepare(run)
    assert (make_job_runner(run, prepared).second is not None) == asked


def test_plain_training_has_one_round_and_no_baseline(begun):
    (begun.path / "round_1").rmdir()
    run = replace(begun, mode="train")
    prepared = prepare(run)
    assert run.config.pseudo.rounds == 1
    assert not run.config.pseudo.train_baseline
    assert set(prepared.judged.split) == {"train"}


def test_a_run_keeps_what_it_took_the_input_for(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 16, 16), np.uint8)
    for number, image in enumerate(images):
        (tmp_path / f"{number:02d}.PNG").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    table = pd.DataFrame({"id": range(12), "label": ["cat", "dog", "?"] * 4})
    table.to_csv(tmp_path / "t.csv", index=False)
    data = Data(train=str(tmp_path / "t.csv"), unlabeled_values=["?"])
    config = Config(name="x", data=data, simulate={"keep_labels": 6})
    prepared = prepare(Run(tmp_path / "new", "augment", config))
    told = read_json(tmp_path / "new" / "inputs.json")["taken_for"]
    assert told == list(prepared.dataset.taken_for)
    for part in ("12 rows", "','", "'id'", "10 images", "'cat': 4", "'dog': 4", "4 rows"):
        assert part in told[0]
