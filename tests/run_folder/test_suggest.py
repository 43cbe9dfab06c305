"""--mode suggest on a finished run folder: which images, what is written, what labels of people come to."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pseudokit.cli import pseudo_command
from pseudokit.data.dataset import Dataset
from pseudokit.data.encoding import parse
from pseudokit.report.load_run import read_table
from pseudokit.report.sentences import headline
from pseudokit.run_folder.corrections import decided
from pseudokit.run_folder.suggest import COLUMNS, score_suggested, suggest
from tests.naming import refused
from tests.report.fake_run import embedded, make_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """50 labeled digits and 150 others: row 60 a copy of a labeled one, 61 and 62 of each other, 63 of a test row."""
    run = make_run(tmp_path_factory.mktemp("suggest") / "few", "augment")
    samples = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
    is_test = samples.split == "test"
    samples.loc[is_test, "path"] = "test/" + samples.path[is_test]
    samples.loc[samples.id == "0264", "path"] = samples.path[64]
    samples.to_csv(run / "samples.csv", index=False)
    clusters = [(1, 3), (1, 60), (2, 61), (2, 62), (3, 63), (3, 300)]
    copies = samples.iloc[[row for _, row in clusters]]
    copies = copies.assign(cluster=[c for c, _ in clusters], kind="near", conflict=False)
    columns = ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    copies[columns].to_csv(run / "duplicates.csv", index=False)
    decisions = pd.read_csv(run / "round_2" / "decisions.csv", dtype=str, keep_default_na=False)
    decisions.loc[63, "reason"] = "duplicate_of_test"
    decisions.to_csv(run / "round_2" / "decisions.csv", index=False)
    return run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "few")


def answer(run, labels, number=1):
    """Decisions of people in force; "" = no label fits."""
    file = run / "corrections" / f"{number:04d}" / "corrections.csv"
    file.parent.mkdir(parents=True)
    actions = np.where(labels == "", "drop", "relabel")
    columns = {"id": labels.index, "given_label": "", "action": actions, "label": labels.values}
    pd.DataFrame(columns).to_csv(file, index=False)


def test_only_images_that_nobody_has_labeled_and_no_copies_of_such(run):
    suggest(run, 1000)
    ids = [int(name) for name in read_table(run / "suggested.csv", COLUMNS).id]
    allowed = {*range(50, 200)} - {60, 63, 64}
    assert len({*ids}) == len(ids)
    assert {*ids} <= allowed
    assert len({61, 62} & {*ids}) == 1
    assert len(ids) == len(allowed) - 1


def test_the_page_shows_them_shuffled_and_says_nothing_of_what_the_run_thinks(run):
    pseudo_command(["--mode", "suggest", "--run", str(run), "--n", "40"])
    table = read_table(run / "suggested.csv", COLUMNS)
    assert (table.source == "random").sum() == 4
    assert sorted(table.source) != list(table.source) != sorted(table.source)[::-1]
    content = embedded((run / "suggested.html").read_text())
    assert [sample["id"] for sample in content["samples"]] == list(table.id)
    assert [queue["places"] for queue in content["queues"]] == [list(range(40))]
    assert not any(sample["predicted"] for sample in content["samples"])
    before = (run / "suggested.csv").read_bytes()
    suggest(run, 40)
    assert (run / "suggested.csv").read_bytes() == before


def labels_of(run):
    """The rows of a run, and what people say of them."""
    samples = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False)
    dataset = Dataset.from_table(samples[samples.split != "test"], tuple("0123456789"), False)
    human = decided(run).set_index("id").label.reindex(dataset.id)
    parsed = parse(human.fillna(""), dataset.classes, False)
    return dataset, np.where(human.isna(), dataset.given_labels, parsed)


def test_labels_say_how_often_the_models_are_wrong_and_the_next_batch_has_new_images(run):
    suggest(run, 40)
    first = read_table(run / "suggested.csv", COLUMNS).set_index("id")
    assert score_suggested(run, *labels_of(run)) == {}
    labels = first.predicted.copy()
    chosen = first.index[first.source == "chosen"]
    labels[chosen[:9]] = np.where(labels[chosen[:9]] == "1", "2", "1")
    labels[chosen[9:12]] = ""
    answer(run, labels)
    scores = score_suggested(run, *labels_of(run))
    suggested = scores["few"]
    assert suggested["random"]["n"] == 4
    assert suggested["random"]["error"] == 0
    assert suggested["chosen"]["n"] == 33
    assert suggested["chosen"]["error"] == pytest.approx(9 / 33)
    assert suggested["stop"] == ""
    metrics = json.loads((run / "metrics.json").read_text())
    said = headline(metrics | {"suggested": scores})
    assert len(said) == len(headline(metrics)) + 1

    suggest(run, 40)
    both = read_table(run / "suggested.csv", COLUMNS)
    assert len(both) == 80
    assert both.id.is_unique
    assert {*both.batch} == {"50", "90"}
    assert score_suggested(run, *labels_of(run)) == scores


def test_a_new_run_that_learns_the_labels_scores_the_run_that_suggested_them(run):
    suggest(run, 40)
    table = read_table(run / "suggested.csv", COLUMNS).set_index("id")
    new = run.with_name("new")
    new.mkdir()
    samples = pd.read_csv(run / "samples.csv", dtype=str, keep_default_na=False).set_index("id")
    samples.loc[table.index, "given_label"] = table.predicted
    samples.loc[table.index, "split"] = "train"
    wrong = table.index[table.source == "random"][0]
    samples.loc[wrong, "given_label"] = "1" if table.predicted[wrong] == "0" else "0"
    for name in table.index:  # into a folder of labeled images
        samples.loc[name, "path"] = str(shutil.copy(samples.path[name], new))
    samples.rename(index="new_{}".format).to_csv(new / "samples.csv")
    dataset, labels = labels_of(new)
    scores = score_suggested(new, dataset, labels)
    assert [*scores] == ["few"]
    assert (scores["few"]["random"]["n"], scores["few"]["random"]["error"]) == (4, 1 / 4)
    assert (scores["few"]["chosen"]["n"], scores["few"]["chosen"]["error"]) == (36, 0)

    other = Path(samples.path[wrong])
    other.write_bytes(other.read_bytes() + b"another image")
    assert score_suggested(new, dataset, labels)["few"]["random"]["n"] == 3
    renamed = replace(dataset, classes=tuple(f"digit {k}" for k in range(10)))
    assert score_suggested(new, renamed, labels) == {}
    (run / "suggested.csv").write_text("id,label\n0050,1\n")
    assert score_suggested(new, dataset, labels) == {}


def test_embeddings_of_a_frozen_network_decide_what_is_alike(run):
    suggest(run, 20)
    by_log_probs = (run / "suggested.csv").read_bytes()
    rng = np.random.default_rng(0)
    np.save(run / "embeddings_a_b.npy", rng.normal(size=(400, 8)).astype(np.float32))
    suggest(run, 20)
    assert (run / "suggested.csv").read_bytes() != by_log_probs


def test_what_cannot_be_suggested_is_refused(run, tmp_path):
    refused(lambda: suggest(run, 0), "--run", "--n", 0)
    refused(lambda: suggest(make_run(tmp_path / "x", "denoise"), 10), "--run", "--n")
    (run / "metrics.json").unlink()
    refused(lambda: suggest(run, 10), "--run", run)
