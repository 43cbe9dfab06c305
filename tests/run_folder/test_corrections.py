"""A kill at any moment of an apply or a revert leaves what the next command can mend."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from pseudokit.config.keys import Config
from pseudokit.config.types import UserError
from pseudokit.run_folder.corrections import (
    applied,
    decided,
    learned,
    mend,
    new_decisions,
    not_learned,
    read_corrections,
    revert,
    store_corrections,
)
from pseudokit.run_folder.folder import Run
from pseudokit.system.files import write_json

TABLE = pd.DataFrame(
    {"id": ["a", "b"], "given_label": ["x", "y"], "action": ["keep", "drop"], "label": ["x", ""]}
)


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
    """But for status.json, which says how far a process came."""
    files = [
        f for f in sorted(run.rglob("*")) if f.is_file() and not f.name.startswith("status.json")
    ]
    return {f.relative_to(run).as_posix(): f.read_bytes() for f in files}


def opened(run: Path) -> Run:
    return Run(run, "denoise", Config())


def finish(run: Path, word: str):
    """What the pipeline comes to with the corrections in force: a student, where there is none, and tables."""
    for name in ("student/model.json", "student/model.safetensors"):
        if not (run / name).exists():
            (run / name).parent.mkdir(exist_ok=True, parents=True)
            (run / name).write_text(word + name)
    write_json(run / "metrics.json", {"human": {"files": len(applied(run))}})


@pytest.fixture
def run(tmp_path):
    finish(tmp_path / "run", "old ")
    (tmp_path / "run" / "corrections.csv").write_text("the user's own file")
    return tmp_path / "run"


def test_a_file_that_is_taken_back_leaves_the_student_that_was(run):
    before = contents(run)
    store_corrections(opened(run), TABLE)
    assert not (run / "student").exists()
    assert decided(run).equals(TABLE)
    finish(run, "new ")
    middle = contents(run)
    later = TABLE[1:].assign(action="relabel", label="x")
    store_corrections(opened(run), later)
    assert list(decided(run).action) == ["keep", "relabel"]
    finish(run, "newer ")
    (run / "corrections.csv").write_text("changed by the user")
    for state in (middle, before):
        revert(opened(run))
        finish(run, "not to be trained again ")
        assert contents(run) == state | {"corrections.csv": b"changed by the user"}
    with pytest.raises(UserError, match="--revert"):
        revert(opened(run))


def mend_killed_often(run: Path):
    """mend, killed early, then later, … until it comes to its end."""
    at = 0
    while killed(at, mend, run):
        at += 1


def test_the_student_stays_until_a_file_is_applied_to_more_than_labels(run):
    student = (run / "student" / "model.json").read_text()
    store_corrections(opened(run), TABLE[:1], labels_only=True)
    first = contents(run)
    store_corrections(opened(run), TABLE, labels_only=True)
    assert (run / "student" / "model.json").read_text() == student
    assert decided(run).equals(TABLE)
    assert (not_learned(run), learned(run)) == (2, [])
    store_corrections(opened(run), TABLE)
    assert not (run / "student").exists()
    assert (not_learned(run), learned(run)) == (0, applied(run))
    finish(run, "new ")
    later = TABLE[1:].assign(action="keep", label="y")
    store_corrections(opened(run), later, labels_only=True)
    assert (not_learned(run), len(learned(run))) == (1, 3)
    for n_decided in (2, 2, 1):
        revert(opened(run))
        finish(run, "not to be trained again ")
        assert len(decided(run)) == n_decided
    assert not_learned(run) == 1
    assert contents(run) == first | {"metrics.json": contents(run)["metrics.json"]}


@pytest.mark.parametrize("labels_only", [False, True])
def test_an_apply_killed_anywhere_has_happened_or_not(run, labels_only):
    before, outcomes = contents(run), set()
    for at in range(100):
        copy = run.parent / f"copy_{at}"
        shutil.copytree(run, copy)
        cut = killed(at, store_corrections, opened(copy), TABLE, labels_only)
        mend_killed_often(copy)
        happened = len(applied(copy)) == 1
        outcomes.add(happened)
        if happened:
            aside = not (copy / "student").exists()
            assert aside != labels_only, "the old student would pass for the new one"
            assert decided(copy).equals(TABLE)
            finish(copy, "new ")
            revert(opened(copy))
            finish(copy, "not to be trained again ")
        assert contents(copy) == before
        if not cut:
            break
    assert not cut
    assert outcomes == {True, False}


@pytest.mark.parametrize("files", [1, 2])
def test_a_revert_killed_anywhere_and_called_again_takes_back_one_file(run, files):
    for number in range(files):
        before = contents(run)
        store_corrections(opened(run), TABLE)
        finish(run, f"new {number} ")
    after = contents(run)
    outcomes = set()
    for at in range(100):
        copy = run.parent / f"copy_{at}"
        shutil.copytree(run, copy)
        cut = killed(at, revert, opened(copy))
        in_force = len(applied(copy))
        outcomes.add(in_force)
        if in_force == files:
            assert contents(copy) == after
        mend_killed_often(copy)
        if cut:
            revert(opened(copy))
        assert len(applied(copy)) == files - 1
        finish(copy, "not to be trained again ")
        assert contents(copy) == before
        if not cut:
            break
    assert not cut
    assert outcomes == {files, files - 1}


def test_a_file_of_the_users_own_in_the_folder_of_corrections_stays(run):
    (run / "corrections").mkdir()
    (run / "corrections" / "mine.csv").write_text("id,given_label,action,label\n")
    mend(run)
    store_corrections(opened(run), TABLE)
    finish(run, "new ")
    revert(opened(run))
    assert contents(run)["corrections/mine.csv"] == b"id,given_label,action,label\n"


def test_decisions_on_the_labels_alone_can_be_learned_later_but_not_be_put_in_force_twice(run):
    write_json(run / "student" / "model.json", {"classes": ["x", "y"]})
    rows = "a,,train,x\nb,,train,y\nc,,train,x\nd,,train,y\n"
    (run / "samples.csv").write_text(f"id,path,split,given_label\n{rows}")
    (run / "labels.csv").write_text("id,label\na,x\nb,y\nc,x\nd,y\n")
    TABLE.to_csv(run / "lines.csv", index=False)
    store_corrections(opened(run), TABLE, labels_only=True)
    assert new_decisions(opened(run), run / "lines.csv", labels_only=True) is None
    assert new_decisions(opened(run), run / "lines.csv").equals(TABLE)
    store_corrections(opened(run), TABLE)
    assert new_decisions(opened(run), run / "lines.csv") is None
    with pytest.raises(UserError, match="--run"):
        new_decisions(opened(run), run / "lines.csv", labels_only=True)


def test_every_line_that_does_not_fit_is_named_and_the_others_are_put_in_one_way(run):
    write_json(run / "student" / "model.json", {"classes": ["x", "y"]})
    (run / "samples.csv").write_text(
        "id,path,split,given_label\na,,unlabeled,\nb,,unlabeled,\nc,,train,x\nd,,train,y\n"
    )
    file = run / "lines.csv"
    good = "b,,keep,y\nc,x,relabel,x\nd,y,drop,y\n"
    file.write_text(f"id,given_label,action,label\na,,keep,\n\n{good}a,,keep,alien\n")
    with pytest.raises(UserError) as caught:
        read_corrections(opened(run), file)
    faults = str(caught.value).split("; ")
    assert faults[0].startswith(str(file))
    assert [fault.partition(": ")[0] for fault in faults[1:]] == ["line 2", "line 7"], (
        "blank lines count"
    )
    file.write_text(f"id,given_label,action,label\n{good}")
    assert read_corrections(opened(run), file).to_numpy().tolist() == [
        ["b", "", "relabel", "y"],
        ["c", "x", "keep", "x"],
        ["d", "y", "drop", ""],
    ]
