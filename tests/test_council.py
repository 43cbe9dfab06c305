"""A council of networks: each predicts every fold, their weighted mean counts, and students are councils too."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from pseudokit.api import predict, run_command
from pseudokit.config.keys import Config, Model, Pseudo, member_folder
from pseudokit.config.load import dump_config, load_config
from pseudokit.config.types import UserError
from pseudokit.labels.council import fit_weights
from pseudokit.labels.out_of_fold import FoldJob
from pseudokit.pipeline import run_rounds, train_final_models
from pseudokit.report.load_run import read_history, read_run
from pseudokit.report.report import page_tables
from pseudokit.run_folder.corrections import new_decisions, store_corrections
from pseudokit.run_folder.folder import Run, run_config
from pseudokit.run_folder.predict_runs import open_finished
from pseudokit.run_folder.prepare import make_job_runner, prepare
from pseudokit.run_folder.reselect import reselect
from pseudokit.training.trainer import JobRunner, Trainer
from tests.same_bytes import contents
from tests.test_laws import Teacher, rounds_of
from tests.test_laws import digits as digit_arrays


@pytest.mark.parametrize(
    ("mode", "leak_free"),
    [("augment", False), ("augment", True), ("denoise", False), ("joint", False)],
)
def test_each_member_predicts_every_fold_and_never_a_row_that_it_learned(tmp_path, mode, leak_free):
    dataset, x, clean = digit_arrays()
    if mode == "denoise":
        x, clean = x[dataset.given_labels >= 0], clean[dataset.given_labels >= 0]
        dataset = dataset.take(dataset.given_labels >= 0)
    teacher = Teacher(x, 10)
    guesses = np.log(np.random.default_rng(0).dirichlet(np.ones(10), len(dataset)))

    def predict_or_guess(model, rows):
        log_probs = teacher.predict(model, rows)
        return guesses[rows] if model.hash.endswith("model_2") else log_probs

    policy = Pseudo(rounds=2, folds=3, relabel_cutoff=0.6, cutoff=0.6, leak_free_folds=leak_free)
    result = rounds_of(tmp_path, mode, dataset, teacher.fit, predict_or_guess, policy, members=2)

    for model, rows in teacher.judged:
        assert not set(model.learned) & set(rows)
    firsts = [where for where in teacher.fits if not where.endswith("model_2")]
    assert len(teacher.fits) == 2 * len(firsts)
    for where in firsts:
        rows, labels = teacher.fits[where]
        other_rows, other_labels = teacher.fits[f"{where}/model_2"]
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_array_equal(labels, other_labels)
    info = json.loads((tmp_path / "round_1" / "round.json").read_text())
    knows, guesses_all = info["member_weights"]
    assert knows > 0.8
    assert knows + guesses_all == pytest.approx(1, abs=1e-5)
    labeled = dataset.given_labels >= 0
    decisions = pd.read_csv(tmp_path / "round_1" / "decisions.csv")
    names = decisions.model[labeled].str.split("+")
    assert all(len(each) == 2 for each in names), "votes count models"
    assert (result.label[labeled] == clean[labeled]).mean() > 0.85


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_weights_are_shares_that_explain_the_labels_no_worse_than_equal_ones(members, n, seed):
    rng = np.random.default_rng(seed)
    likelihoods = rng.uniform(size=(members, n)) ** rng.uniform(0.1, 9, (members, 1))
    weights = fit_weights(likelihoods)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    equal = np.log(likelihoods.mean(0) + 1e-12).mean()
    assert np.log(weights @ likelihoods + 1e-12).mean() >= equal - 1e-6
    np.testing.assert_allclose(fit_weights(likelihoods[::-1]), weights[::-1], atol=1e-6)
    few = fit_weights(likelihoods[:, :2])
    assert np.abs(few - 1 / members).max() < 0.03, "two labels choose no one"


def test_a_council_of_one_is_a_single_model(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model: {name: [test_resnet], checkpoint: [w]}")
    one = load_config(file, [])
    assert one == load_config(file, ["model.name=test_resnet", "model.checkpoint=w"])
    assert one.model.members == [one.model]
    file.write_text(dump_config(Config(model={"name": ["a", "b"], "checkpoint": ["x", "y"]})))
    assert [member.checkpoint for member in load_config(file, []).models_of("baseline")] == [
        "x",
        "y",
    ]


def test_a_student_of_its_own_name_is_a_single_one_trained_as_a_whole():
    model = {"name": ["a", "b"], "checkpoint": ["x", "y"], "freeze_backbone": True}
    config = Config(model=model, student={"name": "b", "checkpoint": "z"})
    assert config.models_of("student") == [Model(name="b", checkpoint="z")]
    assert [member.name for member in config.models_of("round_1/fold_0")] == ["a", "b"]


@pytest.mark.parametrize(
    ("key", "overrides"),
    [
        ("checkpoint", ["model.name=[a, b]", "model.checkpoint=x"]),
        ("checkpoint", ["model.name=[a, b]", "model.checkpoint=[x, y, z]"]),
        ("checkpoint", ["model.name=a", "model.checkpoint=[x, y]"]),
        ("student.checkpoint", ["model.name=[a, b]", "student.checkpoint=x"]),
    ],
)
def test_a_council_without_a_file_for_each_model_is_refused(tmp_path, key, overrides):
    file = tmp_path / "config.yaml"
    file.write_text("")
    with pytest.raises(UserError, match=key):
        load_config(file, overrides)


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory):
    """Two networks that differ by their random weights."""
    files = []
    for seed in range(2):
        torch.manual_seed(seed)
        files.append(tmp_path_factory.mktemp("weights") / f"{seed}.safetensors")
        save_file(timm.create_model("test_resnet").state_dict(), files[-1])
    return files


@pytest.fixture(scope="module")
def council(digits, weight_files, tmp_path_factory):
    """A finished run of two frozen networks on three digits, and the call that made it."""
    folder = tmp_path_factory.mktemp("council")
    some = digits[digits.label.isin(["d0", "d1", "d4"])]
    parts = {"train": some[:60], "unlabeled": some[60:100], "test": some[100:160]}
    keys = [f"data.image_dir={Path(digits.path[0]).parent}", "data.image_suffix=.png"]
    for split, part in parts.items():
        columns = ["id"] if split == "unlabeled" else ["id", "label"]
        part[columns].to_csv(folder / f"{split}.csv", index=False)
        keys.append(f"data.{split}={folder / f'{split}.csv'}")
    files = json.dumps([str(file) for file in weight_files])
    keys += [f"model.checkpoint={files}", "model.name=[test_resnet, test_resnet]"]
    keys += ["model.freeze_backbone=true", "pseudo.rounds=1", "pseudo.cutoff=0.5"]
    keys += ["pseudo.label_propagation=1", "name=two", f"out={folder}"]
    return run_command("augment", keys)


def train(run: Path, corrections: Path | None = None) -> None:
    """All models of a run that are not there, and with corrections the student anew; without scores and pages."""
    opened = Run(run, "augment", run_config(run))
    if corrections is not None:
        store_corrections(opened, new_decisions(opened, corrections))
    prepared = prepare(opened)
    runner = make_job_runner(opened, prepared)
    result = run_rounds(opened, prepared, runner)
    train_final_models(opened, prepared, result, runner)


def test_a_council_that_lost_its_weights_is_refused(council, tmp_path):
    shutil.copytree(council, tmp_path / "run")
    (tmp_path / "run" / "council.json").unlink()
    with pytest.raises(UserError, match=r"council\.json"):
        open_finished(tmp_path / "run", "student")
    # Before the rounds have ended there are no weights yet.
    models = open_finished(tmp_path / "run", "student", goes_on=True).models
    assert [model.weight for model in models] == [1.0, 1.0]


def test_student_and_baseline_are_councils_by_the_same_weights(council):
    run = council
    weights = json.loads((run / "council.json").read_text())["weights"]
    info = json.loads((run / "round_1" / "round.json").read_text())
    assert weights == info["member_weights"]
    council = page_tables(read_run(run))["Council"]
    assert list(council.weight) == weights
    for arm in ("student", "baseline"):
        assert {file.parent.name for file in (run / arm).rglob("model.json")} == {arm, "model_2"}
        assert [model.weight for model in open_finished(run, arm).models] == weights
    table = predict([run], out=run.parent / "predictions.csv", arm="student")
    scored = pd.read_csv(run / "scored.csv", dtype=str)
    scored = scored[scored.arm == "student"].set_index("id")
    np.testing.assert_array_equal(table.label, scored.predicted[table.id])
    assert (scored.label == scored.predicted).mean() > 0.8
    assert "round 1" not in read_history(run, [info]), "heads are fitted in one go"
    reselect(run, ["pseudo.cutoff=0.9"])
    assert len(pd.read_csv(run / "selected.csv")) == 100


def test_a_run_that_lost_members_trains_those_alone_and_has_the_same_bytes(council):
    run = council
    whole = contents(run)
    kept = run / "round_1" / "fold_0" / "model_2" / "model.safetensors"
    made = kept.stat().st_mtime_ns
    for lost in ("student", "round_1/fold_1/model_2"):
        (run / lost / "model.json").unlink()
    (run / "round_1" / "round.json").unlink()
    train(run)
    assert contents(run) == whole
    assert kept.stat().st_mtime_ns == made, "what is there is read"


def test_human_decisions_put_the_whole_council_aside_and_train_it_again(council):
    run = council
    whole = contents(run / "student")
    samples = pd.read_csv(run / "samples.csv", dtype=str)
    row = samples[samples.split == "train"].iloc[0]
    corrections = run.parent / "corrections.csv"
    corrections.write_text(f"id,given_label,action,label\n{row.id},{row.given_label},drop,\n")
    train(run, corrections)
    assert contents(run / "corrections" / "0001" / "student") == whole
    changed = contents(run / "student")
    assert changed.keys() == whole.keys()
    for member in ("model.json", "model_2/model.json"):
        assert changed[member] != whole[member]


def test_two_members_of_the_same_weights_say_what_one_says(weight_files, tmp_path):
    """Heads of both, and the labels of similar images."""
    images = load_digits().images[:60].repeat(2, 1).repeat(2, 2)
    pixels = (images * 15.9).astype(np.uint8)[..., None]
    labels = load_digits().target[:60] % 3
    single, twins = (
        Trainer(
            Config(
                model={
                    "name": ["test_resnet"] * n,
                    "checkpoint": [str(weight_files[0])] * n,
                    "freeze_backbone": True,
                },
                pseudo={"label_propagation": 1},
            ),
            pixels,
            labels,
            tuple("abc"),
            tmp_path / str(n),
        )
        for n in (1, 2)
    )
    learned, judged = np.arange(40), np.arange(40, 60)
    expected = one = None
    for trainer, member in ((single, 0), (twins, 0), (twins, 1)):
        runner = JobRunner(trainer, lambda seconds: True)
        where = member_folder("round_1/fold_0", member)
        model = runner.fit(where, learned, labels[learned])
        said = runner.predict(model, judged)
        second = runner.second(FoldJob(where, 0, learned, labels[learned], judged))
        if member == 0 and trainer is single:
            expected, one = said, second
        np.testing.assert_allclose(said, expected, atol=1e-4)
        np.testing.assert_allclose(second, one, atol=1e-4)
    assert len(twins.embeddings) == 2
