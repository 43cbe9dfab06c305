"""The run folder: whole files, one owner, resume, and what is written about the machine."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.cli import main
from pseudokit.config.keys import VERSION, Config
from pseudokit.config.types import UserError
from pseudokit.data.csv_text import read_csv
from pseudokit.run_folder.folder import DEFAULT_CONFIG, Run, environment, open_run, write_status
from pseudokit.system.files import atomic_write, read_json, seed_of, write_csv, write_json, write_npy
from tests.conftest import ROOT, run_script

OPEN = """
import sys
from pseudokit.cli import main, parse
from pseudokit.run_folder.folder import open_run
args = parse("", sys.argv[2:])
with_run = open_run(args.config, args.overrides, sys.argv[1], args.fresh)
main(lambda: with_run.__enter__())
"""


def opened(out, *args, mode="denoise") -> subprocess.CompletedProcess:
    """A process that opens the run folder `out`/x as the scripts do, and ends."""
    return run_script("-c", OPEN, mode, f"out={out}", "name=x", *args)


def begun(out, *args):
    """A run folder `out`/x in which something has been learned."""
    assert opened(out, *args).returncode == 0
    (out / "x" / "round_1" / "fold_0").mkdir(parents=True)


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_failing_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "labels.csv"
    atomic_write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    for broken in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, full)
            with pytest.raises(OSError, match="No space"):
                atomic_write(file, "new and longer")
        assert file.read_text() == "old"
        assert os.listdir(tmp_path) == ["labels.csv"]


def test_a_write_makes_the_folders_and_replaces_what_was_there(tmp_path):
    file = tmp_path / "a" / "b.bin"
    atomic_write(file, "a long text")
    atomic_write(file, b"\x00\xff")
    assert file.read_bytes() == b"\x00\xff"
    assert os.listdir(file.parent) == ["b.bin"]


def test_json_and_arrays_read_back(tmp_path):
    value = {"Größe": [1, 2.5, None], "x": {"y": True}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    array = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    write_npy(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_a_table_is_read_as_it_stands(tmp_path):
    (tmp_path / "a.csv").write_text('\ufeffid,label\n007,NA\n1e3,\nnull,None\n"a,b","say ""hi"""\n1.0,nan\n', "utf-8")
    table = read_csv(tmp_path / "a.csv")
    assert list(table) == ["id", "label"]
    assert list(table.id) == ["007", "1e3", "null", "a,b", "1.0"]
    assert list(table.label) == ["NA", "", "None", 'say "hi"', "nan"]


def test_a_row_that_ends_early_has_empty_fields(tmp_path):
    (tmp_path / "a.csv").write_text("id,label,group\n1,cat,g\n2\n3,dog\n")
    assert read_csv(tmp_path / "a.csv").to_numpy().tolist() == [["1", "cat", "g"], ["2", "", ""], ["3", "dog", ""]]


@pytest.mark.parametrize("more", ["", "x"])
def test_a_field_more_than_the_header_has_never_shifts_the_columns(tmp_path, more):
    """pandas takes the first column for an index where every row has one field more than the header."""
    file = tmp_path / "a.csv"
    file.write_text(f"id,label\n1,cat,{more}\n2,dog,{more}\n")
    with contextlib.suppress(UserError):  # to refuse it is right as well
        table = read_csv(file)
        assert list(table.id) == ["1", "2"]
        assert list(table.label) == ["cat", "dog"]


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.text("0123456789", min_size=1), names, names), min_size=1, max_size=6))
def test_any_text_in_a_table_reads_back(tmp_path_factory, rows):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame(rows, columns=["id", "a", "b"])
    write_csv(file, table)
    assert read_csv(file).to_numpy().tolist() == table.to_numpy().tolist()


def test_a_seed_depends_on_its_parts_and_on_nothing_else():
    parts = [(0, "student"), (1, "student"), (0, "round_1/fold_0"), (0, 1, "folds"), (0, "1", "folds"), ("01", "folds")]
    seeds = [seed_of(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**31 for seed in seeds)
    told = [
        run_script(
            "-c",
            f"from pseudokit.system.files import seed_of; print([seed_of(*p) for p in {parts}])",
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert told == [f"{seeds}\n"] * 2


def test_a_folder_in_use_is_refused_to_another_process_and_left_alone(tmp_path):
    hold = OPEN + "\nprint('held', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", hold, "train", f"out={tmp_path}", "name=x"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert "held\n" in holder.stdout
        (tmp_path / "x" / "precious.txt").write_text("mine")
        message = one_line(run_script("train.py", "--fresh", f"out={tmp_path}", "name=x"))
        assert str(tmp_path / "x") in message
        assert f"in use by another process ({holder.pid} on {platform.node()}: " in message
        assert (tmp_path / "x" / "precious.txt").exists()
        holder.kill()  # the lock must not outlive a process that had no time to let go
        holder.wait()
    assert (tmp_path / "x" / ".holder").exists()
    again = opened(tmp_path, mode="train")
    assert again.returncode == 0
    assert f"process {holder.pid} was killed, or its machine went away, at start" in again.stdout
    assert not (tmp_path / "x" / ".holder").exists()


def test_a_lock_that_a_data_worker_still_holds_for_a_dead_process_is_taken_over(tmp_path):
    orphan = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)"
    fork = f"{OPEN}\nimport os, time\nif os.fork():\n    os.kill(os.getpid(), 9)\n{orphan}"
    command = [sys.executable, "-c", fork, "train", f"out={tmp_path}", "name=x"]
    assert subprocess.call(command, cwd=ROOT, stdout=subprocess.DEVNULL) == -signal.SIGKILL
    threading.Timer(1, (tmp_path / "go").touch).start()  # until then filelock 3 holds it, filelock 4 does not
    assert opened(tmp_path, mode="train").returncode == 0


def test_what_a_killed_process_was_writing_is_swept_up(tmp_path):
    begun(tmp_path)
    (tmp_path / "x" / "round_1" / "log_probs.npy.part").write_text("half")
    for name in ("round_1/fold_0", "student"):
        (tmp_path / "x" / name).mkdir(exist_ok=True)
        (tmp_path / "x" / name / "checkpoint_00000007.pt").write_text("a state")
    (tmp_path / "x" / "student" / "model.json").write_text("{}")
    write_status(tmp_path / "x", "running", "student", mode="denoise")
    assert "killed" in opened(tmp_path).stdout
    left = {file.relative_to(tmp_path / "x").as_posix() for file in (tmp_path / "x").rglob("*_*.*")}
    assert left == {"round_1/fold_0/checkpoint_00000007.pt"}, "the state of a network that is not finished"
    status = read_json(tmp_path / "x" / "status.json")
    assert (status["state"], status["stage"]) == ("stopped", "student")
    assert "was killed" in status["reason"]


def test_a_state_that_was_edited_is_refused_by_name(tmp_path):
    begun(tmp_path)
    (tmp_path / "x" / "status.json").write_text('{"state": ')
    assert f"{tmp_path / 'x' / 'status.json'} is no JSON" in one_line(opened(tmp_path))


@pytest.mark.parametrize("other", [VERSION + 1, VERSION - 1])
def test_a_run_of_another_version_is_refused_and_stays_as_it_is(tmp_path, other):
    begun(tmp_path)
    stored = tmp_path / "x" / "config.yaml"
    assert stored.read_text().startswith(f"version: {VERSION}\n")
    stored.write_text(stored.read_text().replace(f"version: {VERSION}", f"version: {other}"))
    before = {file: file.read_bytes() for file in (tmp_path / "x").rglob("*.csv")}
    message = one_line(opened(tmp_path))
    assert str(stored) in message
    assert {file: file.read_bytes() for file in (tmp_path / "x").rglob("*.csv")} == before


def test_keys_on_which_no_byte_depends_may_change_while_a_run_goes_on(tmp_path):
    begun(tmp_path)
    assert opened(tmp_path, "train.num_workers=2", "train.checkpoint_every=5m", "time_budget=1h").returncode == 0


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
    message = one_line(opened(tmp_path, "train.lr=2e-2", "pseudo.folds=3", "seed=3"))
    assert "train.lr: 0.01 → 0.02" in message
    assert "pseudo.folds: 2 → 3" in message
    assert "seed" not in message
    assert "--fresh" in message
    assert "mode: denoise → joint" in one_line(opened(tmp_path, "train.lr=1e-2", "seed=3", mode="joint"))


def test_fresh_empties_the_folder_and_takes_the_new_config(tmp_path):
    begun(tmp_path, "train.lr=1e-2")
    (tmp_path / "x" / "metrics.json").write_text("{}")
    assert opened(tmp_path, "train.lr=2e-2", "--fresh", mode="joint").returncode == 0
    assert {"config.yaml", "env.json", "status.json", "log.txt"} >= {
        file.name for file in (tmp_path / "x").iterdir() if not file.name.startswith(".")
    }
    assert "lr: 0.02" in (tmp_path / "x" / "config.yaml").read_text()
    assert read_json(tmp_path / "x" / "status.json")["mode"] == "joint"


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    message = one_line(opened(tmp_path / "file" / "runs"))
    assert str(tmp_path / "file") in message
    assert "out=" in message


def test_the_environment_holds_versions_and_no_environment_variable(monkeypatch):
    monkeypatch.setenv("SOME_SECRET_TOKEN", "hunter2-hunter2")
    told = environment()
    text = json.dumps(told)
    assert "hunter2" not in text
    assert "SOME_SECRET" not in text
    assert os.environ["PATH"] not in text
    assert told["packages"]["numpy"] == np.__version__
    assert told["python"] == sys.version.split()[0]


def test_status_is_true_during_a_stage_and_seconds_add_up(tmp_path):
    run = Run(tmp_path, "joint", Config())
    for _ in range(2):
        with run.stage("read"):
            assert read_json(tmp_path / "status.json") == {
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
    write_status(run.path, "done", "done", "no_change", run.mode)
    assert read_json(tmp_path / "status.json")["reason"] == "no_change"
    assert not run.finished(), "its student is gone"
    write_json(tmp_path / "student" / "model.json", {})
    assert run.finished()


@pytest.mark.parametrize(
    ("error", "state"), [(UserError("a.csv is gone"), "failed"), (KeyboardInterrupt(), "stopped")], ids=type
)
def test_a_stage_that_ends_early_says_so(tmp_path, error, state):
    run = Run(tmp_path, "joint", Config())

    def ends_early():
        with run.stage("read"):
            raise error

    with pytest.raises(type(error)):
        ends_early()
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


def test_wrong_input_ends_with_code_2_and_one_line(capsys):
    def wrong():
        raise UserError("a.csv has no column 'y'")

    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a.csv has no column 'y'\n"


def test_a_fault_of_ours_is_not_passed_off_as_wrong_input(tmp_path):
    done = run_script("-c", "from pseudokit.cli import main\nmain(lambda: 1 / 0)")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_finished_run_is_not_done_again(tmp_path):
    begun(tmp_path)
    write_status(tmp_path / "x", "done", "done", "no_change", "denoise")
    write_json(tmp_path / "x" / "student" / "model.json", {})
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "x").iterdir() if file.name.endswith(("on", "ml"))}
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
        open_run(DEFAULT_CONFIG, [f"out={tmp_path / 'else'}", "name=y", "train.lr=1"], "denoise").__enter__()


@pytest.mark.parametrize("mode", ["augment", "denoise", "joint"])
@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
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
def test_a_cutoff_that_decides_nothing_in_the_mode_is_refused_and_the_other_key_named(mode, idle, meant, tmp_path):
    with pytest.raises(UserError) as error, open_run(DEFAULT_CONFIG, [f"out={tmp_path}", f"{idle}=0.8"], mode):
        pass
    assert idle in str(error.value)
    assert meant in str(error.value)
