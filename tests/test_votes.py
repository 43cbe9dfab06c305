"""Runs from the votes of several people on real digits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pseudokit import api
from pseudokit.config.keys import Pseudo
from pseudokit.config.load import load_config
from pseudokit.config.types import UserError
from pseudokit.data.csv_text import read_csv
from pseudokit.data.images import MIN_PHOTO_SIDE, resize
from pseudokit.data.votes import collect_votes
from pseudokit.labels.annotators import label_by_votes
from pseudokit.pipeline import run_rounds
from pseudokit.report.tables import labels_table
from pseudokit.run_folder.evaluate import write_tables
from pseudokit.run_folder.explain import explain
from pseudokit.run_folder.folder import DEFAULT_CONFIG, Run
from pseudokit.run_folder.prepare import make_job_runner, prepare
from pseudokit.run_folder.reselect import recall_result, reselect
from pseudokit.system.files import read_json, write_json
from tests.conftest import QUICK
from tests.test_laws import digits as laws_digits
from tests.test_laws import train

ACCURACIES = {"amy": 0.95, "ben": 0.75, "cem": 0.65}


@pytest.fixture
def votes(digits, csv_data):
    """train.csv with the votes of three people; the true labels by id; arguments."""
    folder, args = csv_data
    train = digits[:300]
    rng = np.random.default_rng(0)
    table = train[["id"]].copy()
    for name, accuracy in ACCURACIES.items():
        wrong = "d" + pd.Series(rng.integers(0, 10, len(train)).astype(str), train.index)
        table[name] = train.label.where(rng.random(len(train)) < accuracy, wrong)
    table.loc[:20, "ben"] = ""
    table.to_csv(folder / "train.csv", index=False)
    columns = f"data.label_col=[{','.join(ACCURACIES)}]"
    options = [*args, *QUICK, columns, "data.labels_are=votes", "pseudo.folds=2", "pseudo.rounds=1"]
    return folder, train.set_index("id").label, options


def test_a_run_from_votes_repairs_labels_and_knows_its_annotators(votes):
    _, truth, options = votes
    keys = ["name=votes", "pseudo.train_baseline=false", "train.min_steps=40"]
    run = api.run_command("denoise", [*options, *keys])
    decisions = read_csv(run / "round_1" / "decisions.csv").set_index("id")
    true = truth[decisions.index]
    assert (decisions.label != true).mean() < 0.8 * (decisions.given_label != true).mean()
    table = pd.read_csv(run / "annotators.csv").set_index("annotator")
    assert table.accuracy.sort_values(ascending=False).index.tolist() == list(ACCURACIES)
    assert table.votes.to_dict() == {"amy": 300, "ben": 279, "cem": 300}
    metrics = read_json(run / "metrics.json")
    assert metrics["noise"]["type"] == "votes"
    assert {row["annotator"] for row in metrics["annotators"]} == set(ACCURACIES)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ACCURACIES)
    # stored predictions are decided again by the same votes
    reselect(run, [])
    again = read_csv(run / "selected.csv").set_index("id")
    assert (again.decision == decisions.decision).all()
    # the table of votes stays as it is; what was learned goes out in other forms
    with pytest.raises(UserError, match="votes"):
        api.export(run, "table")
    soft = pd.read_parquet(api.export(run, "soft")).set_index("id")
    labels = read_csv(run / "labels.csv").set_index("id")
    probs = soft.filter(regex="^p_")
    assert probs.columns[probs.to_numpy().argmax(1)].str.removeprefix("p_").tolist() == list(
        labels.label[soft.index]
    )


@pytest.fixture
def tallies(digits, csv_data):
    """Counts of five votes on each image, (300, 10), a few rows without any; the true labels by id; arguments."""
    folder, args = csv_data
    train = digits[:300]
    rng = np.random.default_rng(0)
    classes = [f"d{c}" for c in range(10)]
    truth = train.label.map(classes.index).to_numpy()
    seen = np.where(rng.random((300, 5)) < 0.65, truth[:, None], rng.integers(0, 10, (300, 5)))
    counts = np.stack([(seen == c).sum(1) for c in range(10)], 1)
    counts[::10] = 0
    table = pd.DataFrame(counts, train.id, classes)
    options = [*args, *QUICK, "pseudo.folds=2", "pseudo.rounds=1", "pseudo.train_baseline=false"]
    return table, train.set_index("id").label, [f"data.train={folder / 'train.csv'}", *options]


def decide(mode, options, size=None):
    """The rounds of a run and its tables, without student and pages: its folder, labels.csv and metrics.json.

    size: to which images are enlarged after the rounds, to explain what the models predict.
    """
    config = load_config(DEFAULT_CONFIG, options)
    run = Run(Path(config.out, config.name), mode, config)
    prepared = prepare(run)
    result = run_rounds(run, prepared, make_job_runner(run, prepared))
    metrics = write_tables(run, prepared, result)
    if size:
        pixels = np.stack([resize(image, size) for image in prepared.pixels])
        explain(run, replace(prepared, pixels=pixels.reshape(-1, size, size, 1)), result)
    return run.path, read_csv(run.path / "labels.csv").set_index("id"), metrics


def test_shares_as_labels_are_repaired_as_the_votes_that_they_are(tallies, tmp_path):
    counts, truth, options = tallies
    shares = (counts / 5).astype(object)
    shares[counts.sum(axis=1) == 0] = ""
    shares.to_csv(tmp_path / "train.csv")
    columns = f"data.label_col=[{','.join(counts)}]"
    keys = ["data.labels_are=probabilities", "train.min_steps=40", "name=shares"]
    run, labels, metrics = decide("denoise", [*options, columns, *keys], size=MIN_PHOTO_SIDE)
    assert set(labels.index) == set(counts.index[counts.sum(axis=1) > 0])
    true = truth[labels.index]
    assert (labels.given_label == counts.idxmax(axis=1)[labels.index]).mean() > 0.9
    assert (labels.label != true).mean() < 0.8 * (labels.given_label != true).mean()
    assert metrics["noise"]["type"] == "votes"
    assert "annotators" not in metrics

    # what spoke for a prediction is asked of a model that did not learn the label
    why, maps = read_csv(run / "why.csv").set_index("id"), np.load(run / "why.npy")
    judges = read_csv(run / "round_1" / "decisions.csv").set_index("id").model
    assert len(why) == len(maps) > 0
    assert (why.predicted != why.given_label).all()
    assert all(model in judges[name].split("+") for name, model in why.model.items())
    assert maps.min() == 0 < maps.max() == 1


def test_counts_as_labels_with_a_weight_a_row_are_learned_in_augment(tallies, tmp_path):
    counts, truth, options = tallies
    table = counts.add_prefix("votes_")
    table["sure"] = np.where(np.arange(300) % 2, 4, 1)
    table.to_csv(tmp_path / "train.csv")
    columns = f"data.label_col=[{','.join(counts.add_prefix('votes_'))}]"
    keys = [
        "data.labels_are=counts",
        "data.weight_col=sure",
        "pseudo.cutoff=0.2",
        "train.min_steps=10",
    ]
    options = [*options, columns, *keys, "name=counts"]
    config = load_config(DEFAULT_CONFIG, options)
    run, labels, metrics = decide("augment", options)
    given = labels[labels.given_label != ""]
    assert set(given.index) == set(counts.index[counts.sum(axis=1) > 0])
    assert (given.label == given.given_label).all()
    weight = given.weight.astype(float)
    assert weight.tolist() == np.where(table.sure[given.index] == 4, 1, 0.25).tolist()
    pseudo = read_csv(run / "pseudo_labels.csv")
    assert set(counts.index[counts.sum(axis=1) == 0]) & {*pseudo.id}
    assert (pseudo.label == truth.reindex(pseudo.id).to_numpy()).any()

    # human decisions without a training know the weights
    write_json(run / "metrics.json", metrics)
    dataset, result = recall_result(Run(run, "augment", config))
    again = labels_table(replace(result, human=dataset.id == given.index[0]), dataset)
    pd.testing.assert_series_equal(again.set_index("id").weight, labels.weight.astype(float))


def test_augment_and_joint_learn_soft_given_labels_with_their_weight(tmp_path):
    dataset, x, clean = laws_digits(n=300, labeled=200, flipped=0)
    classes = dataset.classes
    rng = np.random.default_rng(0)
    rows = []
    for label in np.where(dataset.given_labels >= 0, clean, -1):
        votes = ()
        if label >= 0:
            wrong = rng.integers(0, 10, 3)
            seen = np.where(rng.random(3) < 0.75, label, wrong)
            votes = tuple((f"r{i}", classes[vote], 1.0) for i, vote in enumerate(seen))
        rows.append(votes)
    weight = np.where(np.arange(300) % 2, 1.0, 0.5)
    dataset = replace(dataset, votes=collect_votes(rows, classes), weight=weight)
    dataset = label_by_votes(dataset)
    policy = Pseudo(rounds=1, folds=2, cutoff=0.6)
    for mode in ("augment", "joint"):
        result, teacher, _ = train(tmp_path / mode, mode, dataset, x, policy)
        learned_rows, targets = teacher.fits["round_1/fold_0"]
        assert targets.sum(1) == pytest.approx(weight[learned_rows], abs=1e-5)
        assert targets == pytest.approx(dataset.given_targets[learned_rows])
        assert (dataset.soft_labels[learned_rows].max(1) < 0.9).any()
        of_student = result.targets(dataset)
        labeled = np.flatnonzero((result.label >= 0) & (dataset.given_labels >= 0))
        assert of_student[labeled].sum(1) == pytest.approx(weight[labeled], abs=1e-5)
        if mode == "augment":  # given labels stand, and stay as soft as the votes
            assert of_student[labeled] == pytest.approx(dataset.given_targets[labeled])
            assert (result.label[200:] >= 0).any()
