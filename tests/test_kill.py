"""A killed run goes on to the bytes of one that was never killed; so does one whose disk was full for a while."""

import json
import re

import torch

from tests.conftest import QUICK, run_script
from tests.naming import lines_naming
from tests.same_bytes import contents
from tests.test_scripts import ok
from tests.warm import kill_behind

EVERY_OPTION = [
    "pseudo.leak_free_folds=true",
    "pseudo.targets=soft",
    "train.mixup=0.2",
    "train.consistency_weight=1",
    "train.unlabeled_ratio=1",
    "train.ema_decay=0.9",
    "train.unlabeled_per_batch=2",
    "pseudo.power=2",
    "pseudo.trim=0.01",
    "train.min_steps=6",
    "train.epochs=0.1",
    "pseudo.train_baseline=false",
    "pseudo.cutoff=0",
    "pseudo.top_fraction=0.5",
    "train.checkpoint_every=0",
]


KILLED_BEHIND = [
    "round_1/fold_0/model.json",
    "round_1/fold_1/checkpoint.pt",
    "round_1/log_probs.npy",
    "round_2/fold_3/history.csv",
    "student/checkpoint.pt",
    "student/checkpoint.pt",
    "student/model.safetensors",
]


def test_a_killed_run_goes_on_to_the_same_bytes(csv_data):
    """Killed inside a network, and between two files of it."""
    folder, args = csv_data
    command = ["pseudo.py", "--mode", "augment", "name=x", *args, *QUICK, *EVERY_OPTION]
    run = folder / "runs" / "x"
    ok(run_script(*command))
    whole = contents(run)
    run.rename(folder / "whole")
    steps = []
    for sign in KILLED_BEHIND:
        pid = kill_behind(run / sign, command)
        if sign.startswith("student"):
            steps.append(torch.load(run / "student" / "checkpoint.pt")["step"])
    assert steps[:2] == [1, 2]
    assert json.loads((run / "status.json").read_text())["state"] == "running"
    done = run_script(*command)
    ok(done)
    assert lines_naming(done.stdout, pid)
    assert lines_naming(done.stdout, "student", steps[-1])
    again = contents(run)
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


def test_kills_and_full_disks_of_the_benchmark():
    """Three of its tries: a kill at a rename, one half-way through a write, and a write that fails."""
    done = run_script("benchmarks/faults.py", "kills", "disk", "--quick")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    sums = [line for line in done.stdout.splitlines() if line.startswith("| all |")]
    kills, full_disks = ([int(number) for number in re.findall(r"\d+", line)] for line in sums)
    assert kills == [2, 2, 2, 0], "tries, resumed, identical, files left"
    assert full_disks == [1, 1, 1, 0, 1, 0], "and: errors in one line, corrupt files"
