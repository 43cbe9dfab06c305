"""A kill at any moment of an apply or a revert leaves what the next command can mend."""

import errno
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from pseudokit.config.keys import Config
from pseudokit.config.types import UserError
from pseudokit.run_folder.corrections import applied, decided, mend, put_aside, revert, take_back
from pseudokit.run_folder.folder import Run, mend_after_kill, read_status, write_status
from pseudokit.system.faults import fault
from pseudokit.system.files import write_json

TABLE = pd.DataFrame({"id": ["a", "b"], "given_label": ["x", "y"], "action": ["keep", "drop"], "label": ["x", ""]})


class Killed(BaseException):
    pass


kill = {"left": None, "folder": ""}
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile", "open"}


def _hook(event, args):
    """Raise before the n-th change of the folder and before every later one: a dead process changes nothing."""
    if kill["left"] is None or event not in CHANGES:
        return
    if event == "open" and not any(c in str(args[1] or "") for c in "wax"):
        return
    kill["left"] -= 1
    if kill["left"] < 0:
        raise Killed


sys.addaudithook(_hook)


def killed(at: int, step, *args) -> bool:
    """Whether step(*args) was killed before its change number `at`."""
    kill["left"] = at
    try:
        step(*args)
    except Killed:
        return True
    finally:
        kill["left"] = None
    return False


def contents(run: Path) -> dict[str, bytes]:
    return {f.relative_to(run).as_posix(): f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()}


def write_state(run: Path, word: str, files=("labels.csv", "metrics.json", "report.html")):
    for name in (*files, "student/model.json", "student/model.safetensors", "plots/rounds.png"):
        (run / name).parent.mkdir(exist_ok=True, parents=True)
        (run / name).write_text(word + name)


@pytest.fixture
def run(tmp_path):
    write_state(tmp_path / "run", "old ")
    (tmp_path / "run" / "corrections.csv").write_text("the user's own file")
    return tmp_path / "run"


def retrain(run: Path):
    """What the steps after put_aside come to; audit.csv is new."""
    write_state(run, "new ", ("labels.csv", "metrics.json", "report.html", "audit.csv"))


def test_taken_back_is_byte_for_byte_what_was(run):
    before = contents(run)
    put_aside(run, TABLE)
    assert not (run / "student").exists()
    assert decided(run).equals(TABLE)
    retrain(run)
    middle = contents(run)
    later = TABLE[1:].assign(action="relabel", label="x")
    put_aside(run, later)
    assert list(decided(run).action) == ["keep", "relabel"]
    retrain(run)
    (run / "corrections.csv").write_text("changed by the user")
    take_back(run)
    assert contents(run) == middle | {"corrections.csv": b"changed by the user"}
    take_back(run)
    assert contents(run) == before | {"corrections.csv": b"changed by the user"}


def _mend_killed_often(run: Path):
    """mend, killed early, then later, … until it comes to its end."""
    at = 0
    while killed(at, mend, run):
        at += 4


def test_an_apply_killed_anywhere_has_happened_or_not(run):
    before, outcomes = contents(run), set()
    for at in range(100):
        copy = run.parent / f"copy_{at}"
        shutil.copytree(run, copy)
        cut = killed(at, put_aside, copy, TABLE)
        _mend_killed_often(copy)
        happened = len(applied(copy)) == 1
        outcomes.add(happened)
        if happened:
            assert not (copy / "student").exists(), "the old student would pass for the new one"
            assert decided(copy).equals(TABLE)
            retrain(copy)
            take_back(copy)
        assert contents(copy) == before
        if not cut:
            break
    assert not cut
    assert outcomes == {True, False}


def test_a_revert_killed_anywhere_has_happened_or_not(run):
    before, outcomes = contents(run), set()
    put_aside(run, TABLE)
    retrain(run)
    after = contents(run)
    for at in range(200):
        copy = run.parent / f"copy_{at}"
        shutil.copytree(run, copy)
        cut = killed(at, take_back, copy)
        _mend_killed_often(copy)
        outcomes.add(len(applied(copy)))
        assert contents(copy) == (after if applied(copy) else before)
        if not cut:
            break
    assert not cut
    assert outcomes == {0, 1}


@pytest.mark.parametrize("files", [1, 2])
def test_a_revert_that_was_killed_ends_what_it_began_and_no_more(run, files):
    states = []
    for _ in range(files):
        write_json(run / "metrics.json", {"reason": "no_change"})
        write_status(run, "done", "done", "no_change", "denoise")
        states.append(contents(run))
        put_aside(run, TABLE)
        retrain(run)
    write_status(run, "done", "done", "no_change", "denoise")
    for at in range(200):
        copy = run.parent / f"copy_{at}"
        shutil.copytree(run, copy)
        cut = killed(at, revert, Run(copy, "denoise", Config()))
        if cut:
            mend_after_kill(copy)
            if read_status(copy)["state"] != "done" or len(applied(copy)) == files:
                revert(Run(copy, "denoise", Config()))
        assert len(applied(copy)) == files - 1
        assert contents(copy) == states[-1]
        if not cut:
            break
    assert not cut
    assert at > 10
    if files == 1:
        with pytest.raises(UserError, match="no corrections are in force"):
            revert(Run(copy, "denoise", Config()))


def test_a_file_of_the_users_own_in_the_folder_of_corrections_stays(run):
    (run / "corrections").mkdir()
    (run / "corrections" / "mine.csv").write_text("id,given_label,action,label\n")
    mend(run)
    put_aside(run, TABLE)
    retrain(run)
    take_back(run)
    assert contents(run)["corrections/mine.csv"] == b"id,given_label,action,label\n"


def test_a_full_disk_leaves_no_half_of_what_is_put_aside(run, monkeypatch):
    before = contents(run)

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left") as caught:
        put_aside(run, TABLE)
    assert contents(run) == before
    assert "before: No space left on device; make room" in fault(caught.value), "not the file that was read"
