"""A run from the votes of several people on real digits: denoise, augment, select and the files that people open."""

import numpy as np
import pandas as pd
import pytest

from pseudokit import api
from pseudokit.data.csv_text import read_csv
from pseudokit.system.files import read_json
from tests.conftest import QUICK

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
    run = api.run_command("denoise", [*options, "name=votes", "pseudo.train_baseline=false"])
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
    assert "<h2>Annotators" in page or "Annotators" in page
    # stored predictions are decided again by the same votes
    api_select(run)
    again = read_csv(run / "selected.csv").set_index("id")
    assert (again.decision == decisions.decision).all()


def api_select(run):
    from pseudokit.run_folder.reselect import reselect

    reselect(run, [])


def test_soft_given_labels_are_what_networks_learn(votes, monkeypatch):
    from pseudokit.training.trainer import JobRunner

    learned = {}
    fit = JobRunner.run

    def spy(runner, job):
        learned[job.where] = job.labels
        return fit(runner, job)

    monkeypatch.setattr(JobRunner, "run", spy)
    _, _, options = votes
    run = api.run_command("augment", [*options, "name=soft", "pseudo.cutoff=0.9"])
    assert set(learned) == {"round_1/fold_0", "round_1/fold_1", "student", "baseline"}
    for targets in learned.values():
        assert targets.shape[1] == 10
        assert targets.sum(1) == pytest.approx(np.ones(len(targets)), abs=1e-5)
    certain = learned["baseline"].max(1)
    assert (certain < 0.95).any()
    assert (certain > 0.99).any()
    assert (run / "annotators.csv").exists()
