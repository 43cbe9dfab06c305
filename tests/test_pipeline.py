"""Who learns what at the end: student, baseline, and the unlabeled images that the student may look at."""

from types import SimpleNamespace

import numpy as np
import pytest

from pseudokit.config.keys import Config
from pseudokit.data.dataset import Dataset
from pseudokit.pipeline import run_rounds, train_final_models
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.prepare import PreparedData
from pseudokit.self_training import SelfTrainingResult
from pseudokit.system.files import TimeBudgetExceeded

GIVEN = np.array([0, 1, 0, 1, -1, -1, -1, -1])


@pytest.mark.parametrize("mode", ["augment", "joint", "denoise"])
def test_the_student_alone_looks_at_unlabeled_images_and_never_at_rows_that_are_refused(
    tmp_path, mode
):
    """Rows 0…3 have a label, one of them dropped; 4…7 are unlabeled: one has a pseudo-label, one is refused."""
    label = np.array([0, 1, 0, -1 if mode == "joint" else 1, 1, -1, -1, -1])
    probs = np.linspace(0, 1, len(label))[:, None] ** [1, 2]
    decisions = SimpleNamespace(posterior=probs.__getitem__, targets=lambda: label)
    result = SelfTrainingResult(label, decisions, 1, "max_rounds")
    calls = arms(tmp_path, mode, result, propagation=1)
    learned = np.flatnonzero(label >= 0)
    assert calls["student"]["rows"] == learned.tolist()
    assert calls["student"]["labels"] == label[learned].tolist()
    looked = {"augment": [5, 7], "joint": [3, 5, 7], "denoise": []}[mode]
    if looked:
        rows, logs = calls["student"]["unlabeled"]
        assert rows.tolist() == looked
        assert np.allclose(np.exp(logs), probs[looked])
        plain = arms(tmp_path, mode, result)["student"]["unlabeled"]
        assert plain[0].tolist() == looked
        assert plain[1] is None, "teachers share in the answer where labels are propagated"
    else:
        assert calls["student"]["unlabeled"] == ()
    assert calls["baseline"]["rows"] == [0, 1, 2, 3]
    assert calls["baseline"]["unlabeled"] == ()
    assert calls["baseline"]["steps"] == calls["student"]["steps"]


@pytest.mark.parametrize(("reason", "compared"), [("collapse", True), ("time_budget", False)])
def test_a_first_round_without_labels_leaves_a_baseline_where_there_is_time(
    tmp_path, reason, compared
):
    result = SelfTrainingResult(GIVEN, None, 0, reason)
    assert ("baseline" in arms(tmp_path, "augment", result)) == compared


def test_without_time_for_a_control_there_is_a_student_and_without_time_for_that_nothing(tmp_path):
    result = SelfTrainingResult(np.array([0, 1, 0, 1, 1, -1, -1, -1]), None, 1, "max_rounds")
    assert set(arms(tmp_path, "augment", result)) == {"student", "baseline"}
    assert set(arms(tmp_path, "augment", result, late="baseline")) == {"student"}
    with pytest.raises(TimeBudgetExceeded):
        arms(tmp_path, "augment", result, late="student")


def arms(
    folder, mode: str, result: SelfTrainingResult, late: str = "", propagation: float = 0
) -> dict:
    """What each arm is asked to learn from GIVEN; row 6 is refused. late: the arm for which there is no time."""
    n, empty = len(GIVEN), np.full(len(GIVEN), "", object)
    split = np.where(GIVEN >= 0, "train", "unlabeled").astype(object)
    dataset = Dataset(np.array(list("abcdefgh"), object), empty, split, GIVEN, empty, ("x", "y"))
    refused = np.where(np.arange(n) == 6, "copy_of_test", "").astype(object)
    prepared = PreparedData(
        dataset, dataset, np.zeros((n, 8, 8, 1), np.uint8), np.arange(n), refused, {}, 0
    )
    calls = {}

    def run(job):
        if job.where == late:
            raise TimeBudgetExceeded
        calls[job.where] = {
            "rows": job.rows.tolist(),
            "labels": job.labels.tolist(),
            "steps": job.steps,
            "unlabeled": job.unlabeled,
        }

    train_final_models(
        Run(folder, mode, Config(pseudo={"label_propagation": propagation})),
        prepared,
        result,
        SimpleNamespace(run=run, ahead=lambda jobs: None),
    )
    return calls


@pytest.mark.parametrize("stands_on_rounds", ["corrections", "student", ""])
def test_human_decisions_and_a_student_add_no_rounds_to_a_run_that_a_time_budget_ended(
    tmp_path, stands_on_rounds
):
    """Round 1 is done when the budget ends. Without one, rounds are added only if nothing stands on the first."""
    spent = rounds_trained(tmp_path, time_budget=1e-9)
    assert spent == {"round_1"}
    if stands_on_rounds == "corrections":
        step = tmp_path / "corrections" / "0001"
        (step / "student").mkdir(parents=True)
        (step / "corrections.csv").write_text("id,given_label,action,label\nr000,x,drop,\n")
    elif stands_on_rounds == "student":
        (tmp_path / "student").mkdir()
        (tmp_path / "student" / "model.json").write_text("{}")
    more = rounds_trained(tmp_path, time_budget=None)
    assert ("round_2" in more) == (not stands_on_rounds)
    assert (tmp_path / "round_2" / "round.json").exists() == (not stands_on_rounds)
    assert "round_1" not in more


def rounds_trained(folder, time_budget: float | None) -> set[str]:
    """Run rounds of denoise on 60 rows, a fifth of them labeled wrong; returns those that a model was trained in."""
    n = 60
    truth = np.arange(n) % 2
    given_labels = np.where(np.arange(n) % 5 == 0, 1 - truth, truth)
    ids, empty = np.array([f"r{i:03d}" for i in range(n)], object), np.full(n, "", object)
    split = np.full(n, "train", object)
    dataset = Dataset(ids, empty, split, given_labels, empty, ("x", "y"))
    refused = np.full(n, "", object)
    prepared = PreparedData(
        dataset, dataset, np.zeros((n, 8, 8, 1), np.uint8), np.arange(n), refused, {}, 0
    )
    trained = set()

    def fit(where, rows, labels):
        trained.add(where.partition("/")[0])
        return SimpleNamespace(hash=where.replace("/", "_"))

    def predict(model, rows, views):
        """The truth, with a higher confidence in every round."""
        p_right = 0.6 + 0.1 * int(model.hash.split("_")[1])
        return np.log(np.where(truth[rows, None] == np.arange(2), p_right, 1 - p_right))

    # only round 2 reaches the cutoff, so that round 1 is not the last one for want of a change
    pseudo = {"rounds": 3, "folds": 2, "relabel_cutoff": 0.72}
    config = Config(pseudo=pseudo, time_budget=time_budget)
    runner = SimpleNamespace(fit=fit, predict=predict, second=None, run_fold_jobs_ahead=None)
    run_rounds(Run(folder, "denoise", config), prepared, runner)
    return trained
