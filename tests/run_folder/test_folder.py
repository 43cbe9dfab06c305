"""The run folder: one owner, one config, a true status, and how it is resumed."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest

from pseudokit.config.keys import VERSION, Config
from pseudokit.config.types import UserError
from pseudokit.run_folder.folder import (
    DEFAULT_CONFIG,
    Run,
    mend_after_kill,
    open_run,
    read_status,
    reopen_run,
)
from pseudokit.system.files import read_json, write_json
from pseudokit.system.memory import note_peak
from tests.conftest import ROOT, run_script
from tests.naming import lines_naming, names, process_refused, refused
from tests.warm import Script

OPEN = """
import sys
from pseudokit.cli import main
from pseudokit.run_folder.folder import DEFAULT_CONFIG, open_run
mode, *overrides = [arg for arg in sys.argv[1:] if arg != "--fresh"]
with_run = open_run(DEFAULT_CONFIG, overrides, mode, "--fresh" in sys.argv)
main(lambda: with_run.__enter__())
"""


HOLDS = """
import fcntl, os
from contextlib import suppress
parent = os.getpid()
if os.fork():
    os.kill(parent, 9)
while os.getppid() == parent:  # it lets go of its lock before it is gone
    pass
lock = os.open(os.environ["LOCK"], os.O_RDWR)
with suppress(BlockingIOError):
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
open(os.environ["ENDS"]).read()
"""
"""A process that is killed, and its child that has the lock of the run folder until somebody opens the FIFO."""
WAITS = """
import time
def first_sleep(seconds, sleep=time.sleep):
    print("waits", flush=True)
    open({ends!r}, "w").close()
    time.sleep = sleep
time.sleep = first_sleep
"""
"""A process that opens the FIFO when it sleeps for the first time, as filelock does while it waits."""


def opened(out, *args, mode="denoise") -> subprocess.CompletedProcess:
    """A process that opens the run folder `out`/x as the scripts do, and ends."""
    return Script("-c", OPEN, mode, f"out={out}", "name=x", *args).wait()


def begun(out, *args):
    """A run folder `out`/x in which something has been learned."""
    assert opened(out, *args).returncode == 0
    (out / "x" / "round_1" / "fold_0").mkdir(parents=True)


def test_a_folder_in_use_is_refused_to_another_process_and_left_alone(tmp_path):
    hold = OPEN + "\nprint('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", hold, "train", f"out={tmp_path}", "name=x"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert any(line == "held\n" for line in holder.stdout)
        (tmp_path / "x" / "precious.txt").write_text("mine")
        done = run_script("train.py", "--fresh", f"out={tmp_path}", "name=x")
        process_refused(done, tmp_path / "x", holder.pid, platform.node())
        assert (tmp_path / "x" / "precious.txt").exists()
        holder.kill()  # the lock must not outlive a process that had no time to let go
        holder.wait()
    assert (tmp_path / "x" / ".holder").exists()
    again = opened(tmp_path, mode="train")
    assert again.returncode == 0
    assert lines_naming(again.stdout, holder.pid, "start")
    assert not (tmp_path / "x" / ".holder").exists()


def test_a_lock_that_a_data_worker_still_holds_for_a_dead_process_is_taken_over(tmp_path):
    """The worker ends when the next process waits for the lock for the first time."""
    ends = tmp_path / "ends"
    os.mkfifo(ends)
    environment = os.environ | {"LOCK": str(tmp_path / "x" / ".lock"), "ENDS": str(ends)}
    dies = [sys.executable, "-c", OPEN + HOLDS, "train", f"out={tmp_path}", "name=x"]
    with subprocess.Popen(
        dies, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert any(line == "held\n" for line in process.stdout)
        assert process.wait(timeout=60) == -signal.SIGKILL
        code = WAITS.format(ends=str(ends)) + OPEN
        taken = run_script("-c", code, "train", f"out={tmp_path}", "name=x")
        with suppress(OSError):  # it has ended, unless the test fails
            os.close(os.open(ends, os.O_WRONLY | os.O_NONBLOCK))
    assert taken.returncode == 0, taken.stderr
    assert taken.stdout.startswith("waits\n")


def test_what_a_killed_process_was_writing_is_swept_up(tmp_path):
    begun(tmp_path)
    (tmp_path / "x" / "round_1" / "log_probs.npy.part").write_text("half")
    for name in ("round_1/fold_0", "student"):
        (tmp_path / "x" / name).mkdir(exist_ok=True)
        (tmp_path / "x" / name / "checkpoint.pt").write_text("a state")
    (tmp_path / "x" / "student" / "model.json").write_text("{}")
    Run(tmp_path / "x", "denoise", Config()).write_status("running", "student")
    assert lines_naming(opened(tmp_path).stdout, os.getpid(), "student")
    left = {
        file.relative_to(tmp_path / "x").as_posix() for file in (tmp_path / "x").rglob("*/*.p*t")
    }
    assert left == {"round_1/fold_0/checkpoint.pt"}, "the state of a network that is not finished"
    status = read_json(tmp_path / "x" / "status.json")
    assert (status["state"], status["stage"]) == ("stopped", "student")
    assert names(status["reason"], os.getpid())


def test_a_state_that_was_edited_is_refused_by_name(tmp_path):
    begun(tmp_path)
    (tmp_path / "x" / "status.json").write_text('{"state": ')
    process_refused(opened(tmp_path), tmp_path / "x" / "status.json")


@pytest.mark.parametrize("other", [VERSION + 1, VERSION - 1])
def test_a_run_of_another_version_is_refused_and_stays_as_it_is(tmp_path, other):
    begun(tmp_path)
    stored = tmp_path / "x" / "config.yaml"
    assert stored.read_text().startswith(f"version: {VERSION}\n")
    stored.write_text(stored.read_text().replace(f"version: {VERSION}", f"version: {other}"))
    before = {file: file.read_bytes() for file in (tmp_path / "x").rglob("*.csv")}
    process_refused(opened(tmp_path), stored)
    assert {file: file.read_bytes() for file in (tmp_path / "x").rglob("*.csv")} == before


def test_keys_on_which_no_byte_depends_may_change_while_a_run_goes_on(tmp_path):
    begun(tmp_path)
    assert (
        opened(
            tmp_path, "train.num_workers=2", "train.checkpoint_every=5m", "time_budget=1h"
        ).returncode
        == 0
    )


def test_the_same_command_reopens_the_folder_as_it_is(tmp_path):
    begun(tmp_path, "train.lr=1e-2")
    before = (tmp_path / "x" / "config.yaml").read_bytes()
    assert opened(tmp_path, "train.lr=0.01").returncode == 0
    assert (tmp_path / "x" / "round_1" / "fold_0").is_dir()
    assert (tmp_path / "x" / "config.yaml").read_bytes() == before


def test_a_run_that_has_learned_nothing_may_be_mended_under_its_name(tmp_path):
    """The remedy of an error is often another value of a key."""
    opened(tmp_path, "data.label_col=species")
    assert opened(tmp_path, "data.label_col=class", mode="joint").returncode == 0
    assert "label_col: class" in (tmp_path / "x" / "config.yaml").read_text()
    assert read_json(tmp_path / "x" / "status.json")["mode"] == "joint"


def test_another_config_under_the_same_name_is_refused_with_the_keys_that_differ(tmp_path):
    begun(tmp_path, "train.lr=1e-2", "seed=3")
    other = opened(tmp_path, "train.lr=2e-2", "pseudo.folds=3", "seed=3")
    message = process_refused(other, "train.lr", 0.01, 0.02, "pseudo.folds", 2, 3, "--fresh")
    assert not names(message, "seed")
    other = opened(tmp_path, "train.lr=1e-2", "seed=3", mode="joint")
    process_refused(other, "mode", "denoise", "joint")


def test_fresh_empties_the_folder_and_takes_the_new_config(tmp_path):
    begun(tmp_path, "train.lr=1e-2")
    (tmp_path / "x" / "metrics.json").write_text("{}")
    assert opened(tmp_path, "train.lr=2e-2", "--fresh", mode="joint").returncode == 0
    files = {file.name for file in (tmp_path / "x").iterdir() if not file.name.startswith(".")}
    assert files == {"config.yaml", "status.json", "log.txt"}
    assert "lr: 0.02" in (tmp_path / "x" / "config.yaml").read_text()
    assert read_json(tmp_path / "x" / "status.json")["mode"] == "joint"


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    process_refused(opened(tmp_path / "file" / "runs"), tmp_path / "file", "out=")


def test_status_is_true_during_a_stage_and_seconds_add_up(tmp_path):
    run = Run(tmp_path, "joint", Config())
    for _ in range(2):
        with run.stage("read"):
            status = read_json(tmp_path / "status.json")
            assert status.pop("seconds")["total"] >= 0
            status.pop("peak_mib")
            assert status == {
                "state": "running",
                "stage": "read",
                "reason": "",
                "mode": "joint",
                "pid": os.getpid(),
                "host": platform.node(),
            }
            before = run.seconds.get("read", -1)
        assert run.seconds["read"] >= max(before, 0)
    assert set(run.times()) == {"read", "total"}
    assert not run.finished()
    run.write_status("done", "done", "no_change")
    assert read_json(tmp_path / "status.json")["reason"] == "no_change"
    assert not run.finished(), "its student is gone"
    write_json(tmp_path / "student" / "model.json", {})
    assert run.finished()


def test_a_stage_says_how_much_memory_it_took_at_once(tmp_path):
    run = Run(tmp_path, "joint", Config())
    with run.stage("read"):
        large = np.ones(2**25)  # 256 MiB
        del large
    with run.stage("rounds"):
        note_peak(Counter(gpu_memory=7.0))  # of another process
    with run.stage("rounds"):
        pass
    run.write_status("stopped", "rounds")
    peaks = read_json(tmp_path / "status.json")["peak_mib"]
    assert peaks["rounds"]["gpu_memory"] == 7, "the largest of all starts"
    assert peaks["read"]["memory"] > 256
    assert peaks["total"]["memory"] == peaks["read"]["memory"]
    if sys.platform == "linux":
        assert peaks["rounds"]["memory"] < peaks["read"]["memory"] - 200
    again = Run(tmp_path, "joint", Config())
    again.recall_costs()
    with again.stage("read"):
        pass
    assert again.costs()["peak_mib"] == peaks, "a later start took less"


def test_the_time_of_a_killed_process_counts_up_to_its_last_line(tmp_path):
    seconds = {"read": 5.0, "total": 6.0}
    status = {
        "state": "running",
        "stage": "rounds",
        "reason": "",
        "mode": "joint",
        "seconds": seconds,
    }
    write_json(tmp_path / "status.json", status)
    begun = (tmp_path / "status.json").stat().st_mtime
    (tmp_path / "log.txt").touch()
    os.utime(tmp_path / "log.txt", (begun, begun + 100))
    mend_after_kill(tmp_path)
    before = read_json(tmp_path / "status.json")["seconds"]
    assert before == {"read": 5.0, "rounds": 100.0, "total": 106.0}
    run = Run(tmp_path, "joint", Config(), seconds=before)
    with run.stage("rounds"):
        pass
    times = run.times()
    assert times["total"] >= 106
    assert times["rounds"] >= 100
    assert sum(times.values()) <= 2 * times["total"], "no second counts twice"


@pytest.mark.parametrize(
    ("error", "state"),
    [(UserError("a.csv is gone"), "failed"), (KeyboardInterrupt(), "stopped")],
    ids=type,
)
def test_a_stage_that_ends_early_says_so(tmp_path, error, state):
    run = Run(tmp_path, "joint", Config())

    def ends_early():
        with run.stage("read"):
            raise error

    with pytest.raises(type(error)):
        ends_early()
    assert set(run.times()) == {"read", "total"}, "it took its time"
    status = read_json(tmp_path / "status.json")
    assert (status["state"], status["stage"]) == (state, "read")
    assert status["reason"]
    assert not run.finished()


def test_there_is_time_for_what_fits_into_the_budget(tmp_path):
    def run(budget):
        return Run(tmp_path, "joint", Config(time_budget=budget), started=time.monotonic() - 1000)

    assert run(2000).time_for(900)
    assert not run(2000).time_for(1100)
    assert not run(900).time_for(0)
    assert run(None).time_for(1e9)


def test_a_finished_run_is_not_done_again(tmp_path):
    begun(tmp_path)
    Run(tmp_path / "x", "denoise", Config()).write_status("done", "done", "no_change")
    write_json(tmp_path / "x" / "student" / "model.json", {})
    before = {
        file: file.stat().st_mtime_ns
        for file in (tmp_path / "x").iterdir()
        if file.name.endswith(("on", "ml"))
    }
    done = run_script("pseudo.py", "--mode", "denoise", f"out={tmp_path}", "name=x")
    assert done.returncode == 0
    assert "--fresh" in done.stdout
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_run_goes_on_in_another_place_under_another_name(tmp_path):
    begun(tmp_path)
    (tmp_path / "else").mkdir()
    (tmp_path / "x").rename(tmp_path / "else" / "y")
    with open_run(DEFAULT_CONFIG, [f"out={tmp_path / 'else'}", "name=y"], "denoise") as run:
        assert run.path == tmp_path / "else" / "y"
    with pytest.raises(UserError, match=r"train\.lr"):
        open_run(
            DEFAULT_CONFIG, [f"out={tmp_path / 'else'}", "name=y", "train.lr=1"], "denoise"
        ).__enter__()


@pytest.mark.parametrize("mode", ["augment", "denoise", "joint"])
@pytest.mark.parametrize(
    "config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_config_serves_every_mode(config, mode, tmp_path):
    with open_run(config, [f"out={tmp_path}", "model.checkpoint=weights"], mode) as run:
        assert run.config.name == f"{config.stem}-{mode}"


@pytest.mark.parametrize(
    ("mode", "idle", "meant"),
    [
        ("denoise", "pseudo.cutoff", "pseudo.relabel_cutoff"),
        ("augment", "pseudo.relabel_cutoff", "pseudo.cutoff"),
    ],
)
def test_a_cutoff_that_decides_nothing_in_the_mode_is_refused_and_the_other_key_named(
    mode, idle, meant, tmp_path
):
    run = open_run(DEFAULT_CONFIG, [f"out={tmp_path}", f"{idle}=0.8"], mode)
    refused(run.__enter__, idle, meant)


@pytest.mark.parametrize(
    "text", ["[]", "null", "1", "{}", "{", "[" * 100_000, '{"state": "done"}', ""]
)
def test_a_status_that_was_edited_is_named(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError, match=r"status\.json"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    "left", [[], ["corrections"], ["corrections/0001/corrections.csv", "round_1/fold_0/model.json"]]
)
def test_a_folder_without_any_student_is_no_finished_run_and_is_refused_by_name(tmp_path, left):
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).mkdir() if name == "corrections" else (tmp_path / name).write_text("")
    with pytest.raises(UserError) as error, reopen_run(tmp_path):
        pass
    assert str(tmp_path) in str(error.value)


def test_a_folder_of_runs_is_no_run_and_what_another_process_writes_in_them_stays(tmp_path):
    student = tmp_path / "run" / "student"
    student.mkdir(parents=True)
    (student / "model.json").write_text("{}")
    (student / "model.safetensors.part").write_text("being written")
    with pytest.raises(UserError) as error, reopen_run(tmp_path):
        pass
    assert str(tmp_path) in str(error.value)
    assert (student / "model.safetensors.part").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("place", ["student", "corrections/0001/student"])
def test_a_run_is_reopened_also_while_its_student_is_put_aside(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "model.json").write_text("{}")
    Run(tmp_path, "denoise", Config()).write_status("done", "done")
    (tmp_path / "config.yaml").write_text("")
    with reopen_run(tmp_path) as run:
        assert (run.path, run.mode) == (tmp_path, "denoise")
