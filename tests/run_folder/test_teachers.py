"""Earlier runs as teachers: no row is judged by a model that learned a label for it, for a copy of it, or its group."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pseudokit.api import run_command
from pseudokit.config.keys import Config
from pseudokit.config.load import load_config
from pseudokit.data.images import load_images
from pseudokit.pipeline import run_rounds
from pseudokit.round_store import RoundStore
from pseudokit.run_folder.folder import DEFAULT_CONFIG, Run
from pseudokit.run_folder.prepare import make_job_runner, prepare
from pseudokit.run_folder.teachers import read_teachers
from pseudokit.training.models import load_model
from pseudokit.training.predict import log_probs
from tests.naming import refused
from tests.same_bytes import contents

QUICK = ["train.epochs=1", "train.min_steps=5", "pseudo.folds=2", "pseudo.train_baseline=false"]
COPY, ORIGINAL = "copy", 12
"""A labeled image of the new run under a name of its own, and the row of the earlier run whose image it is."""

GROUP, UNRELATED = "family", (3, 51)
"""A group, with a row of the earlier run alone, and one that it never saw."""


@pytest.fixture(scope="module")
def data(digits, tmp_path_factory):
    """Rows of three digits, and the folder of the tables: 40 of the earlier run, of which the new one has 20; 20 more
    with a label, a copy, and 20 without."""
    folder = tmp_path_factory.mktemp("teachers")
    rows = digits[digits.label.isin(["d0", "d1", "d4"])].reset_index(drop=True)
    shutil.copytree(Path(rows.path[0]).parent, folder / "images")
    shutil.copy(rows.path[ORIGINAL], folder / "images" / f"{COPY}.png")
    copy = pd.DataFrame({"id": [COPY], "label": [rows.label[ORIGINAL]]})
    rows["group"] = rows.id.replace({rows.id[UNRELATED[0]]: GROUP})
    rows[:40].to_csv(folder / "old.csv", columns=["id", "label", "group"], index=False)
    new = pd.concat([rows[20:60], copy])
    new["group"] = new.group.fillna(COPY)
    new.to_csv(folder / "new.csv", columns=["id", "label", "group"], index=False)
    rows[60:80].to_csv(folder / "unlabeled.csv", columns=["id"], index=False)
    return folder, rows


def keys(folder: Path, train: str, **more) -> list[str]:
    more = {"data.train": folder / train, "data.image_dir": folder / "images", **more}
    return [*QUICK, *(f"{key}={value}" for key, value in ({"out": folder} | more).items())]


@pytest.fixture(scope="module")
def earlier(data) -> Path:
    folder, _ = data
    more = {"name": "earlier", "data.size": 16, "data.group_col": "group"}
    return run_command("train", keys(folder, "old.csv", **more))


def new_keys(folder: Path, **more) -> list[str]:
    more = {"data.size": 20, "data.unlabeled": folder / "unlabeled.csv", **more}
    return [*keys(folder, "new.csv", **more), "pseudo.rounds=1"]


def new_run(folder: Path, mode="augment", **more) -> Run:
    config = load_config(DEFAULT_CONFIG, new_keys(folder, **more))
    return Run(folder / config.name, mode, config)


@pytest.mark.parametrize("grouped", [False, True])
def test_each_row_is_judged_by_the_models_that_learned_nothing_of_it(data, earlier, grouped):
    folder, rows = data
    two = rows.id[21]
    relatives = {name: {name} for name in [*rows.id, COPY]}
    relatives[COPY] = {COPY, rows.id[ORIGINAL]}
    more = {}
    if grouped:  # also in another folder, where an id that was learned has another image
        images = shutil.copytree(folder / "images", folder / "moved")
        shutil.copy(rows.path[90], images / f"{two}.png")
        table = pd.read_csv(folder / "new.csv", dtype=str)
        mates = {two: "alone", rows.id[50]: rows.id[22], rows.id[UNRELATED[1]]: GROUP}
        table.group = table.group.replace(mates)
        table.to_csv(folder / "grouped.csv", index=False)
        relatives[rows.id[22]] = relatives[rows.id[50]] = {rows.id[22], rows.id[50]}
        relatives[rows.id[UNRELATED[1]]] = {rows.id[row] for row in UNRELATED}
        more = {"data.train": folder / "grouped.csv", "data.group_col": "group"}
        more["data.image_dir"] = images
    prepared = prepare(new_run(folder, name=f"spy_{grouped}", teachers=earlier, **more))
    [said] = prepared.outside.others

    decisions = pd.read_csv(earlier / "round_1" / "decisions.csv", dtype=str)
    assert len(decisions) == 40
    models = [load_model(earlier / "round_1" / f"fold_{fold}") for fold in range(2)]
    learned = [{*decisions.id[decisions.model != model.hash]} for model in models]
    judged = prepared.judged
    pixels, _ = load_images(judged.path, Config(data={"size": 16, "channels": 1}).data)
    of_models = [np.exp(log_probs(model, pixels, np.arange(len(judged)))) for model in models]
    expected = {}
    for row, name in enumerate(judged.id):
        may = [not relatives[name] & each for each in learned]
        never_seen = not relatives[name] & {*decisions.id}
        assert sum(may) == (2 if never_seen else 1)
        expected[row] = np.mean(
            [probs[row] for probs, ok in zip(of_models, may, strict=True) if ok], 0
        )
    np.testing.assert_array_equal(said.rows, list(expected))
    np.testing.assert_allclose(np.exp(said.log_probs), [*expected.values()], atol=1e-4)


def test_earlier_runs_count_by_fitted_weights_and_a_run_goes_on_with_the_same_bytes(data, earlier):
    folder, _ = data
    other = shutil.copytree(earlier, folder / "other")
    run = new_run(folder, name="both", teachers=f"[{earlier}, {other}]")

    def rounds() -> dict:
        prepared = prepare(run)
        run_rounds(run, prepared, make_job_runner(run, prepared))
        return contents(run.path)

    whole = rounds()
    [info] = RoundStore(run.path).rounds()
    one, two, own = info["file_weights"]
    assert own + one + two == pytest.approx(1, abs=1e-5)
    assert one == two
    [kept] = run.path.glob("teacher_*.npy")
    written = kept.stat().st_mtime_ns
    (run.path / "round_1" / "round.json").unlink()
    assert rounds() == whole
    assert kept.stat().st_mtime_ns == written, "what was predicted is read"
    for name in ("model.json", "model.safetensors"):
        shutil.copy(earlier / "student" / name, other / "round_1" / "fold_0")
    refused(lambda: prepare(run), run.path / "env.json")


FAULTS = {
    "missing": lambda run: shutil.rmtree(run),
    "stopped": lambda run: _edit(run / "status.json", state="stopped"),
    "without_models": lambda run: [shutil.rmtree(fold) for fold in run.glob("round_1/fold_*")],
    "lost_a_model": lambda run: shutil.rmtree(run / "round_1" / "fold_1"),
    "other_classes": lambda run: _edit(
        run / "round_1/fold_0/model.json", classes=["d0", "d1", "d5"]
    ),
    "edited": lambda run: (run / "round_1" / "decisions.csv").write_text("id,model\n"),
}


def _edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_run_that_cannot_judge_is_refused_in_one_line(data, earlier):
    folder, _ = data
    prepared = prepare(new_run(folder, name="faults"))
    parts = prepared.judged, prepared.pixels, prepared.clusters
    for fault, spoil in FAULTS.items():
        spoiled = shutil.copytree(earlier, folder / fault)
        spoil(spoiled)
        run = new_run(folder, name="faults", teachers=spoiled)
        message = refused(lambda run=run: read_teachers(run, *parts))
        assert str(spoiled) in message
    together = np.zeros_like(prepared.clusters)
    run = new_run(folder, name="faults", teachers=earlier)
    refused(lambda: read_teachers(run, *parts[:2], together), earlier)


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("train", {}),
        ("augment", {"pseudo.min_precision": 0.9}),
        ("augment", {"pseudo.leak_free_folds": True}),
        ("augment", {"predictions.unlabeled": "a.csv"}),
    ],
)
def test_keys_that_do_not_go_with_teachers_are_refused(data, mode, more):
    run = new_run(data[0], mode, name="idle", teachers="x", **more)
    refused(lambda: read_teachers(run, None, None, None), "teachers")
