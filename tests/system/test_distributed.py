"""Several processes under torchrun do what one does, and end together."""

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from itertools import product
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pseudokit.system import distributed
from tests.conftest import QUICK, run_script, write_csv_data
from tests.naming import lines_naming, names
from tests.warm import Script

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
FORKS = ["--start-method=fork", "--run-path"]
"""Its processes find the packages loaded."""
KEYS = [
    *QUICK,
    "train.min_steps=8",
    "pseudo.folds=3",
    "train.consistency_weight=0.5",
    "train.unlabeled_ratio=1",
    "pseudo.tta=2",
]
"""Three folds for two processes: the last wave is not full."""
CUTOFF = ["pseudo.cutoff=0.2"]


def torchrun(*args) -> subprocess.CompletedProcess:
    """Two processes, each from its first import on."""
    return Script(*TORCHRUN, *args).wait()


def side_by_side(*args, until: tuple[Path, int] | None = None) -> subprocess.CompletedProcess:
    """What torchrun does, with the packages loaded already: two processes; one that fails ends the two. What both
    said. until: (file, signal), the signal that both get when the first of them has written the file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    file, number = until or (None, 0)
    scripts = [
        Script(*args, pause_at=file, RANK=str(i), LOCAL_RANK=str(i), **place) for i in range(2)
    ]
    if until:
        scripts[0].until_paused()
        for script in scripts:
            os.kill(script.pid, number)
        with suppress(BrokenPipeError):  # SIGKILL has ended it
            scripts[0].go_on()
        codes = [script.wait(60).returncode for script in scripts]
    else:
        codes = codes_until_one_fails(scripts)
    code = next(filter(None, codes), 0)
    one, two = (script.wait() for script in scripts)
    return subprocess.CompletedProcess(args, code, one.stdout + two.stdout, one.stderr + two.stderr)


def codes_until_one_fails(scripts: list[Script]) -> list[int]:
    """The exit codes of those that end; when one fails, the others get SIGTERM, and must heed it."""
    running, codes = {script.process.sentinel: script for script in scripts}, []
    while running and not any(codes):
        ended = [running.pop(sentinel) for sentinel in wait(running)]
        codes += [script.wait().returncode for script in ended]
    for script in running.values():
        script.process.terminate()
        script.wait(20)
    return codes


def bytes_of(run) -> dict[str, bytes]:
    """What must not depend on the number of processes: models, decisions, labels, scores."""
    files = [
        file
        for pattern in ("*.csv", "round_*/*.csv", "**/model.*", "round_*/log_probs.npy")
        for file in run.glob(pattern)
    ]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory):
    """One process: (folder of the runs, the command without a name, bytes of its run)."""
    folder, args = write_csv_data(digits, tmp_path_factory.mktemp("alone"))
    args = [*args, *KEYS, *CUTOFF, f"data.cache={folder / 'root'}"]
    command = ["pseudo.py", "--mode", "augment", *args]
    done = run_script(*command, "name=one")
    assert done.returncode == 0, done.stderr
    written = bytes_of(folder / "runs" / "one")
    assert "round_2/log_probs.npy" in written
    return folder / "runs", command, written


def test_no_more_processes_work_than_there_are_cores(monkeypatch):
    for machines, started, n_cores in product((1, 3), (1, 2, 5), (1, 2, 8)):
        monkeypatch.setattr(os, "cpu_count", lambda n=n_cores: n)
        monkeypatch.setenv("WORLD_SIZE", str(machines * started))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(started))
        working = []
        for number in range(machines * started):
            monkeypatch.setenv("RANK", str(number))
            if not distributed.is_surplus():
                working.append(distributed.rank())
        # other machines may have more cores: all have to agree
        assert len(working) == (min(started, n_cores) if machines == 1 else machines * started)
        assert working == [*range(distributed.size())]


def finished_runs_stay(run: Path, command: list) -> None:
    """The same command lets both processes go and writes nothing but the log."""
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    again = side_by_side(*command, f"name={run.name}")
    assert again.returncode == 0
    changed = [file.name for file in before if file.stat().st_mtime_ns != before[file]]
    assert {*changed} <= {"log.txt", ".lock"}


def test_two_processes_of_train_write_the_same_bytes_as_one(csv_data):
    folder, args = csv_data
    command = ["train.py", *args, *KEYS, f"data.cache={folder / 'root'}"]
    done = run_script(*command, "name=one")
    assert done.returncode == 0, done.stderr
    both = side_by_side(*command, "name=two")
    assert both.returncode == 0, both.stderr[-2000:]
    one, two = bytes_of(folder / "runs" / "one"), bytes_of(folder / "runs" / "two")
    _are_the_same(one, done.stdout, two, both.stdout)


def _are_the_same(one: dict, printed_by_one: str, two: dict, printed_by_two: str):
    """The files of two runs, and the lines about what was learned but for times and sizes."""
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert len([name for name in one if name.endswith("safetensors")]) >= 4
    first, second = (
        [
            re.sub(r"[\d.,]+ (s|MiB).*", "", line)
            for line in printed.splitlines()
            if "labels" in line
        ]
        for printed in (printed_by_one, printed_by_two)
    )
    assert first == second


def test_wrong_input_ends_all_of_them_with_one_line(csv_data):
    folder, args = csv_data
    (folder / "train.csv").write_text("id,label\n0001,d1\n")
    done = side_by_side("pseudo.py", "--mode", "augment", *args, f"data.cache={folder / 'root'}")
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


def test_what_fails_in_another_process_is_said_by_the_first(csv_data):
    """The second of two folds cannot be trained: no gradient is finite."""
    folder, args = csv_data
    args = [*args, f"data.cache={folder / 'root'}"]
    keys = ["train.lr=1e30", "train.optimizer=sgd", "train.schedule=constant", "pseudo.folds=2"]
    done = side_by_side("pseudo.py", "--mode", "augment", *args, *QUICK, *keys)
    assert done.returncode != 0
    assert len(lines_naming(done.stderr, "error", "train.lr")) == 1


DIES = """
import os, signal
from pathlib import Path
from pseudokit.cli import pseudo_main

second = Path(__file__).with_name("second")

def replace(source, target, replace=os.replace):
    replace(source, target)
    if str(target).endswith("fold_0/model.json"):
        os.kill(int(second.read_text()), signal.SIGKILL)

if os.environ["RANK"] == "1":
    second.write_text(str(os.getpid()))
else:
    os.replace = replace
pseudo_main()
"""
"""pseudo.py. The first process kills the second when it has written a network, in which both had a part."""


def test_a_process_that_dies_ends_the_run_and_the_same_command_goes_on(alone, tmp_path):
    """It writes the bytes that one process writes."""
    runs, command, one = alone
    command = [*command, "name=killed"]
    (tmp_path / "dies.py").write_text(DIES)
    done = Script(*TORCHRUN, *FORKS, tmp_path / "dies.py", *command[1:]).wait(timeout=60)
    assert done.returncode != 0
    # torchrun sees the signal, or the first process sees sooner that the other has gone.
    assert any(sign in done.stderr for sign in ("SIGKILL", "Signal 9", "torchrun died"))
    assert not (runs / "killed" / "student").exists()
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert bytes_of(runs / "killed") == one
    finished_runs_stay(runs / "killed", command)


TEAM_STEPS = 6
TEAM = [
    "pseudo.py",
    "--mode",
    "augment",
    "model.name=test_convnext",
    "data.size=32",
    *QUICK,
    "train.epochs=0.1",
    f"train.min_steps={TEAM_STEPS}",
    "train.lr=1e-3",
    "train.consistency_weight=1",
    "train.unlabeled_ratio=1",
    "train.loss=balanced_cross_entropy",
    "train.batch_size=33",
    "pseudo.train_baseline=false",
    "pseudo.rounds=1",
    "pseudo.cutoff=0.3",
]
"""Two folds and a student, no baseline: the student has both processes. It has no batch norm."""


def test_a_team_trains_a_network_to_what_one_process_would(csv_data):
    folder, args = csv_data
    command = [*TEAM, *args, f"data.cache={folder / 'root'}"]
    assert run_script(*command, "name=one").returncode == 0
    both = side_by_side(*command, "name=two")
    assert both.returncode == 0, both.stderr[-2000:]
    one, two = (
        {
            name: load_file(folder / "runs" / run / name / "model.safetensors")
            for name in ("round_1/fold_0", "round_1/fold_1", "student")
        }
        for run in ("one", "two")
    )
    for name, tensors in one.items():
        exact = name != "student"
        for key, tensor in tensors.items():
            torch.testing.assert_close(two[name][key], tensor, rtol=0, atol=0 if exact else 1e-3)
    assert any((two["student"][key] != tensor).any() for key, tensor in one["student"].items()), (
        "sums in another order"
    )


def test_a_team_that_is_cut_off_goes_on_to_the_same_bytes(csv_data):
    """Each of the two has random numbers of its own: the parts of a batch differ in size."""
    folder, args = csv_data
    command = [
        *TEAM,
        *args,
        f"data.cache={folder / 'root'}",
        "model.kwargs={drop_path_rate: 0.2}",
        "train.checkpoint_every=0",
    ]
    whole = side_by_side(*command, "name=whole")
    assert whole.returncode == 0, whole.stderr[-2000:]
    run, steps = folder / "runs" / "cut", []
    checkpoint = run / "student" / "checkpoint.pt"
    for end in (signal.SIGKILL, signal.SIGTERM):
        stopped = side_by_side(*command, "name=cut", until=(checkpoint, end))
        assert stopped.returncode in (-end, 128 + end), stopped.stderr[-2000:]
        steps.append(torch.load(checkpoint, weights_only=True)["step"])
    done = side_by_side(*command, "name=cut")
    assert done.returncode == 0, done.stderr[-2000:]
    assert names(stopped.stderr, "SIGTERM")
    assert 0 < steps[0] < steps[-1]
    assert lines_naming(done.stdout, "student", steps[-1], TEAM_STEPS)
    assert bytes_of(run) == bytes_of(folder / "runs" / "whole")


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: (namespace, address, device) of each."""
    ends = [
        (f"kit{os.getpid()}{end}", f"10.213.77.{i}", f"v{os.getpid()}{end}")
        for i, end in ((1, "a"), (2, "b"))
    ]
    (one, _, first), (two, _, second) = ends
    setup = [
        f"netns add {one}",
        f"netns add {two}",
        f"link add {first} netns {one} type veth peer {second} netns {two}",
    ]
    for name, address, device in ends:
        setup += [
            f"-n {name} addr add {address}/24 dev {device}",
            f"-n {name} link set {device} up",
        ]
        setup += [f"-n {name} link set lo up"]
    try:
        for command in setup:
            if (
                not shutil.which("ip")
                or subprocess.run(["ip", *command.split()], capture_output=True).returncode
            ):
                pytest.skip("this machine does not let us make network namespaces")
        yield ends
    finally:
        for name, _, _ in ends:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_two_hosts_write_the_same_bytes_as_one_process(alone, hosts):
    runs, command, one = alone
    place = {"MASTER_ADDR": hosts[0][1], "MASTER_PORT": "29731", "WORLD_SIZE": "2"}
    place |= {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    scripts = [
        Script(*command, "name=hosts", host=host, RANK=str(i), GLOO_SOCKET_IFNAME=device, **place)
        for i, (host, _, device) in enumerate(hosts)
    ]
    assert codes_until_one_fails(scripts) == [0, 0]
    two = bytes_of(runs / "hosts")
    assert [name for name in one if one[name] != two.get(name)] == []
