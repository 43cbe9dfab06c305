"""A killed run goes on to the bytes of one that was never killed."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, run_script
from tests.test_scripts import ok, table
from tests.warm import Script

TIMES = {"status.json", "log.txt", "env.json", ".lock", "report.html", "rounds.png"}
"""Files with wall-clock times in them; of the others, `seconds` and `waited` are left out."""


def contents(run: Path) -> dict:
    """Every contracted file of a run without its wall-clock fields."""
    found = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run).as_posix()
        if file.is_dir() or file.name in TIMES:
            continue
        if file.suffix == ".json":
            found[name] = _without_seconds(json.loads(file.read_text()))
        elif file.suffix == ".jsonl":
            found[name] = [_without_seconds(json.loads(line)) for line in file.read_text().splitlines()]
        elif file.name == "history.csv":
            found[name] = table(file).drop(columns=["seconds", "waited"]).to_csv()
        else:
            found[name] = file.read_bytes()
    return found


def _without_seconds(value):
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k != "seconds"}
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value


EVERY_OPTION = ["pseudo.fold_safe=true", "pseudo.pool_calibrate=true", "pseudo.pool_targets=soft", "train.mixup=0.2",
                "train.consistency=1", "train.consistency_ratio=1", "train.ema=0.9", "train.labelled_share=0.3",
                "train.cooldown=0.2", "train.min_steps=40", "train.epochs=0.1", "pseudo.control=false",
                "pseudo.pool_cutoff=0", "pseudo.pool_share=0.5"]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "signs"),
    [
        (["joint", "inject.kind=pair", "train.min_steps=40"],
         ["round_1/fold_0/model.json", "round_1/logits.npy", "round_2/fold_0/history.csv",
          "student/model.safetensors"]),
        (["augment", *EVERY_OPTION], ["round_2/fold_3/history.csv"]),
    ],
)  # fmt: skip
def test_a_killed_run_goes_on_to_the_same_bytes(csv_data, arguments, signs):
    folder, args = csv_data
    command = ["pseudo.py", "--mode", arguments[0], "name=x", *args, *QUICK, *arguments[1:]]
    ok(run_script(*command))
    whole = contents(folder / "runs" / "x")
    (folder / "runs" / "x").rename(folder / "whole")
    for sign in signs:
        _kill_when(folder / "runs" / "x" / sign, command)
    assert json.loads((folder / "runs/x/status.json").read_text())["state"] == "running"
    ok(run_script(*command))
    again = contents(folder / "runs" / "x")
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


def _kill_when(sign: Path, command):
    """Start the script and SIGKILL it as soon as a file appears."""
    script = Script(*command)
    while not sign.exists() and script.poll() is None:
        time.sleep(0.002)
    assert script.kill() == -signal.SIGKILL, f"the run ended before {sign} was seen"
