"""Which of the networks of a finished run predict."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from pseudokit.config.keys import Config, Model
from pseudokit.config.load import dump_config
from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.predict_runs import open_finished
from pseudokit.system.files import write_csv
from pseudokit.training.models import create_model, load_model, save_model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """finished(baseline=…, mode=…, **wins): a run folder. wins: role → (rows won by the student alone, lost, n)."""

    def made(baseline=True, mode="denoise", config=None, **wins):
        run = tmp_path_factory.mktemp("run")
        for seed, arm in enumerate(
            ("student", "baseline", "round_1/fold_0")[: 2 if mode == "denoise" else 3]
        ):
            torch.manual_seed(seed)
            if baseline or arm != "baseline":
                save_model(run / arm, *create_model(Model(), ("a", "b"), 16, 1))
        Run(run, mode, Config()).write_status("done", "done", "max_rounds")
        write_csv(run / "scored.csv", scored(wins))
        (run / "config.yaml").write_text(dump_config(config or Config()))
        return run

    return made


def scored(wins):
    rows = [pd.DataFrame(columns=["arm", "split", "id", "label", "predicted"])]
    for split, (won, lost, n) in wins.items():
        at = np.arange(n)
        right = {"student": (at < won) | (at >= won + lost), "baseline": at >= won}
        rows += [
            pd.DataFrame(
                {
                    "arm": arm,
                    "split": split,
                    "id": at,
                    "label": "a",
                    "predicted": np.where(hit, "a", "b"),
                }
            )
            for arm, hit in right.items()
        ]
    return pd.concat(rows)


def folders(run, arm=None):
    by_hash = {}
    for file in run.rglob("model.json"):
        by_hash[load_model(file.parent).hash] = file.parent.relative_to(run).as_posix()
    return {by_hash[model.hash] for model in open_finished(run, arm).models}


@pytest.mark.parametrize(
    ("wins", "expected"),
    [
        ({"val": (30, 5, 400)}, {"student"}),
        ({"val": (5, 30, 400)}, {"baseline"}),
        ({"val": (12, 9, 400)}, {"student", "baseline"}),
        ({"trusted": (5, 30, 400)}, {"baseline"}),
        ({"val": (12, 9, 400), "trusted": (30, 2, 400)}, {"student"}),
        ({"test": (5, 300, 400)}, {"student"}),
        ({"test": (5, 300, 400), "val": (30, 5, 400)}, {"student"}),
        ({}, {"student"}),
    ],
)
def test_the_arm_that_held_out_rows_favor_predicts_and_the_test_set_never_chooses(
    finished, wins, expected
):
    assert folders(finished(**wins)) == expected


def test_what_is_asked_for_outranks_the_evidence_and_one_line_says_which_it_is(finished, caplog):
    run = finished(val=(30, 5, 400))
    asked = {"student": {"student"}, "baseline": {"baseline"}, "both": {"student", "baseline"}}
    for arm, expected in asked.items():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert folders(run, arm) == expected
        (line,) = caplog.messages
        assert all(name in line for name in expected)
    configured = finished(config=Config(predict={"arm": "baseline"}), val=(30, 5, 400))
    assert folders(configured) == {"baseline"}
    assert folders(configured, "student") == {"student"}


def test_without_a_baseline_the_student_predicts_and_nobody_can_ask_for_another(finished):
    run = finished(baseline=False, config=Config(predict={"arm": "both"}), val=(5, 30, 400))
    assert folders(run) == {"student"}
    for arm in ("baseline", "both"):
        with pytest.raises(UserError, match="--arm"):
            open_finished(run, arm)


def test_after_plain_training_all_models_predict(finished):
    run = finished(baseline=False, mode="train")
    assert folders(run) == {"student", "round_1/fold_0"}
    with pytest.raises(UserError, match="--arm"):
        open_finished(run, "baseline")


def test_a_baseline_that_is_left_out_cannot_be_asked_for_in_a_config():
    for arm in ("baseline", "both"):
        with pytest.raises(ValueError, match=r"predict\.arm"):
            Config(predict={"arm": arm}, pseudo={"train_baseline": False})
    assert (
        Config(predict={"arm": "student"}, pseudo={"train_baseline": False}).predict.arm
        == "student"
    )
