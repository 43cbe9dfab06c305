"""Who learns what at the end: student, baseline, and the pool that the student may look at."""

from types import SimpleNamespace

import numpy as np
import pytest

from pseudokit.config.keys import Config
from pseudokit.data.dataset import Dataset
from pseudokit.pipeline import train_final_models
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.prepare import PreparedData
from pseudokit.self_training import SelfTrainingResult
from pseudokit.system.files import TimeBudgetExceeded

GIVEN = np.array([0, 1, 0, 1, -1, -1, -1, -1])


@pytest.mark.parametrize("mode", ["augment", "joint", "denoise"])
def test_the_student_alone_looks_at_the_pool_and_never_at_rows_that_are_refused(tmp_path, mode):
    """Rows 0…3 have a label, one of them dropped; 4…7 are the pool: one has a pseudo-label, one is refused."""
    label = np.array([0, 1, 0, -1 if mode == "joint" else 1, 1, -1, -1, -1])
    said = np.linspace(0, 1, len(label))[:, None] ** [1, 2]
    decisions = SimpleNamespace(posterior=said.__getitem__, targets=lambda: label)
    calls = arms(tmp_path, mode, SelfTrainingResult(label, decisions, 1, "max_rounds"))
    learned = np.flatnonzero(label >= 0)
    assert calls["student"]["rows"] == learned.tolist()
    assert calls["student"]["labels"] == label[learned].tolist()
    looked = {"augment": [5, 7], "joint": [3, 5, 7], "denoise": []}[mode]
    if looked:
        rows, logs = calls["student"]["unlabeled"]
        assert rows.tolist() == looked
        assert np.allclose(np.exp(logs), said[looked])
    else:
        assert calls["student"]["unlabeled"] == ()
    assert calls["baseline"]["rows"] == [0, 1, 2, 3]
    assert calls["baseline"]["unlabeled"] == ()
    assert calls["baseline"]["steps"] == calls["student"]["steps"]


@pytest.mark.parametrize(("reason", "compared"), [("collapse", True), ("time_budget", False)])
def test_a_first_round_without_labels_leaves_a_control_where_there_is_time(tmp_path, reason, compared):
    result = SelfTrainingResult(GIVEN, None, 0, reason)
    assert ("baseline" in arms(tmp_path, "augment", result)) == compared


def test_without_time_for_a_control_there_is_a_student_and_without_time_for_that_nothing(tmp_path):
    result = SelfTrainingResult(np.array([0, 1, 0, 1, 1, -1, -1, -1]), None, 1, "max_rounds")
    assert set(arms(tmp_path, "augment", result)) == {"student", "baseline"}
    assert set(arms(tmp_path, "augment", result, late="baseline")) == {"student"}
    with pytest.raises(TimeBudgetExceeded):
        arms(tmp_path, "augment", result, late="student")


def arms(folder, mode: str, result: SelfTrainingResult, late: str = "") -> dict:
    """What each arm is asked to learn from GIVEN; row 6 is refused. late: the arm for which there is no time."""
    n, empty = len(GIVEN), np.full(len(GIVEN), "", object)
    split = np.where(GIVEN >= 0, "train", "unlabeled").astype(object)
    dataset = Dataset(np.array(list("abcdefgh"), object), empty, split, GIVEN, empty, ("x", "y"))
    refused = np.where(np.arange(n) == 6, "copy_of_test", "").astype(object)
    prepared = PreparedData(dataset, dataset, np.zeros((n, 8, 8, 1), np.uint8), np.arange(n), refused, {}, 0)
    calls = {}

    def fit(where, rows, labels, pool=(), steps=None):
        if where == late:
            raise TimeBudgetExceeded
        calls[where] = {"rows": rows.tolist(), "labels": labels.tolist(), "steps": steps, "unlabeled": pool}

    train_final_models(
        Run(folder, mode, Config()), prepared, result, SimpleNamespace(fit=fit, ahead=lambda tasks: None)
    )
    return calls
