"""What goes to Weights & Biases, read back from the files of an offline run; and that nothing else goes anywhere."""

import logging
import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from pseudokit.config.keys import Wandb
from pseudokit.report import tracking
from pseudokit.report.load_run import read_lines
from pseudokit.report.metrics_log import write_metrics
from tests.conftest import ROOT
from tests.naming import lines_naming

from .fake_run import make_run, write_csv
from .wandb_log import read_job

PLOTS = {"losses", "confusion"}
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """A home folder without any credentials; the environment of a process that has none."""
    for name in [
        name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"
    ]:
        monkeypatch.delenv(name)
    for name in (
        "WANDB_DATA_DIR",
        "WANDB_CACHE_DIR",
        "WANDB_SERVICE",
    ):  # set on the way: to be forgotten afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


@pytest.fixture
def requests(monkeypatch, no_account):
    """What arrives at a server that answers nobody, and stands in for wandb's own and for every proxy."""
    received = []

    def listen(server):
        while True:
            try:
                guest, _ = server.accept()
            except OSError:
                return
            with guest:
                guest.settimeout(1)
                received.append(guest.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in PROXIES:
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        monkeypatch.setenv("WANDB_BASE_URL", address)
        threading.Thread(target=listen, args=[server], daemon=True).start()
        yield received
        server.shutdown(socket.SHUT_RDWR)


def finished(folder, mode):
    """A run folder with metrics.jsonl and two plots."""
    run = make_run(folder / "few", mode)
    write_metrics(run)
    (run / "plots").mkdir()
    for name in PLOTS:
        shutil.copy(run / "images" / "0.png", run / "plots" / f"{name}.png")
    return run


def test_an_offline_run_is_in_the_run_folder_and_reaches_nobody(
    tmp_path, requests, capfd, monkeypatch
):
    run = finished(tmp_path, "denoise")
    monkeypatch.setenv("WANDB_PROJECT", "p")
    with tracking.tracked(run, Wandb(mode="offline")):
        (run / "student").mkdir()
        write_csv(run / "student" / "history.csv", epoch=[1, 2], loss=[0.5, 0.25], lr=0.1)
    assert list((tmp_path / "home").iterdir()) == []
    assert requests == []
    assert capfd.readouterr() == ("", "")
    folders = sorted((run / "wandb").glob("offline-run-*"))
    jobs = {job["run"].job_type: job for job in map(read_job, folders)}
    assert len(folders) == len(jobs) == 3
    assert {(job["run"].run_group, job["run"].project) for job in jobs.values()} == {("few", "p")}
    assert jobs["teacher"]["config"]["train"] == {"lr": 0.006}
    lines = read_lines(run / "metrics.jsonl")
    rounds = [line for line in lines if "round" in line]
    logged = [
        {key: row.get(key) for key in line}
        for row, line in zip(jobs["teacher"]["history"], rounds, strict=False)
    ]
    assert logged == rounds
    assert [row["_step"] for row in jobs["teacher"]["history"]][:2] == [1, 2]
    curves = [
        {key: value for key, value in row.items() if key[0] != "_"}
        for row in jobs["training"]["history"]
    ]
    student = "curves/student/"
    assert [row[f"{student}loss"] for row in curves if f"{student}loss" in row] == [0.5, 0.25]
    assert not any("round_1/fold_0" in key for row in curves for key in row)
    _student_has_scores_and_plots(jobs["student"], lines)
    _teacher_has_scores_and_tables(jobs["teacher"], run)


def _student_has_scores_and_plots(job, lines):
    logged = {key: value for row in job["history"] for key, value in row.items()}
    scores = [line for line in lines if line.get("of") in ("student", "baseline")]
    expected = {
        f"{line['of']}/{key}": value
        for line in scores
        for key, value in line.items()
        if key != "of"
    }
    assert expected == {key: logged.get(key) for key in expected}
    assert "student/test/accuracy_low" in expected
    assert {key[6:] for key in logged if key.startswith("plots/")} == PLOTS
    assert all((job["files"] / logged[f"plots/{name}"]["path"]).exists() for name in PLOTS)


def _teacher_has_scores_and_tables(job, run):
    logged = {key: value for row in job["history"] for key, value in row.items()}
    assert "teacher/test/accuracy" in logged
    assert (job["files"] / logged["tables/Rounds"]["path"]).exists()
    assert all(file.is_relative_to(run) for file in job["artifacts"].values())


def test_what_is_told_twice_is_told_of_the_same_two_jobs(tmp_path, no_account, monkeypatch):
    """As where a run was killed in between; a student that was trained again makes others."""
    run = finished(tmp_path, "augment")
    monkeypatch.setenv("WANDB_PROJECT", "p")

    def jobs():
        shutil.rmtree(run / "wandb", ignore_errors=True)
        with tracking.tracked(run, Wandb(mode="offline")):
            pass
        return {folder.name.rsplit("-", 1)[1] for folder in (run / "wandb").glob("offline-run-*")}

    first = jobs()
    assert len(first) == 3
    assert len(jobs() & first) == 2, "curves are those of one process"
    (run / "student").mkdir(exist_ok=True)
    (run / "student" / "model.json").write_text('{"hash": "another"}')
    assert not jobs() & first


def test_disabled_leaves_nothing_and_does_not_import_wandb(tmp_path):
    code = (
        "import sys, pathlib; from pseudokit.report.tracking import tracked\n"
        "from pseudokit.config.keys import Wandb\n"
        f"with tracked(pathlib.Path({str(tmp_path)!r}), Wandb()): assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


def test_online_with_a_server_that_does_not_answer_ends_with_a_warning(
    tmp_path, requests, monkeypatch, caplog
):
    run = finished(tmp_path, "denoise")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(tracking, "TIMEOUT_SECONDS", 5.0)
    start = time.monotonic()
    with caplog.at_level(logging.INFO, "kit"), tracking.tracked(run, Wandb(mode="online")):
        pass
    assert time.monotonic() - start < 30
    assert len(lines_naming(caplog.text, "wandb.mode=online")) == 1
    assert requests, "or the other tests could not tell that nobody was called"


def test_online_without_a_key_does_not_ask_even_in_a_terminal(tmp_path, no_account):
    run = finished(tmp_path, "denoise")
    code = (
        "import logging, pathlib, sys; from pseudokit.report.tracking import tracked\n"
        "from pseudokit.config.keys import Wandb\n"
        "logging.basicConfig(level='INFO')\n"
        f"with tracked(pathlib.Path({str(run)!r}), Wandb(mode='online')): pass\n"
        "assert sys.stdin.isatty(); assert sys.stderr.isatty(); print('the run goes on')"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    received, reader = (
        [],
        threading.Thread(target=lambda: received.append(_read_all(ours)), daemon=True),
    )
    reader.start()
    try:
        assert process.wait(timeout=60) == 0, "does it wait for an answer?"
    finally:
        process.kill()
        reader.join(10)
    os.close(ours)
    text = b"".join(received).decode()
    assert len(lines_naming(text, "wandb.mode=online")) == 1
    assert "No API key configured" in text
    assert text.endswith("the run goes on\r\n")
    assert text.count("\n") == 2, text


def _read_all(descriptor) -> bytes:
    content = b""
    while True:
        try:
            part = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            return content
        if not part:
            return content
        content += part
