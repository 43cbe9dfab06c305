"""The terminal shows the same sentences and numbers as the page."""

import json
import shlex
import sys

from pseudokit.report.next_commands import next_commands, shell_command
from pseudokit.report.sentences import headline
from pseudokit.report.terminal import summary

from .fake_run import Tags


def test_the_summary_has_the_headline_the_scores_and_the_rounds(denoise):
    metrics = json.loads((denoise / "metrics.json").read_text())
    text = summary(denoise)
    for sentence in headline(metrics):
        assert sentence in text
    lines = [line.split() for line in text.splitlines()]
    for model, splits in metrics["scores"].items():
        [row] = [line for line in lines if line[:2] == ["test", model]]
        assert row[3] == f"{100 * splits['test']['accuracy']:.2f}"
    rounds = [line for line in lines if line[:1] in (["1"], ["2"])]
    decided = [round["decisions"]["relabel"] for round in metrics["rounds"]]
    assert [row[1] for row in rounds] == [f"{n}" for n in decided]
    assert str(denoise / "report.html") in text


def test_a_run_without_scores_and_rounds_has_a_summary(tmp_path):
    metrics = {"mode": "train", "scores": {}, "rounds": [], "round": 1, "seconds": {"total": 1}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "metrics.jsonl").write_text("")
    assert all(sentence in summary(tmp_path) for sentence in headline(metrics))


def test_terminal_and_page_end_with_the_next_commands(denoise):
    commands = next_commands(denoise)
    assert list(commands) == ["review", "apply"]
    page = Tags((denoise / "report.html").read_text()).text
    lines = summary(denoise).splitlines()
    for line, (name, command) in zip(lines[-2:], commands.items(), strict=True):
        assert line.split(maxsplit=1) == [name, command]
        assert command in page


def test_commands_are_typed_as_the_one_that_ran(monkeypatch, tmp_path):
    used = {
        str(tmp_path / "train.py"): [sys.executable, str(tmp_path / "predict.py")],
        str(tmp_path / "pseudokit-pseudo"): [str(tmp_path / "pseudokit-predict")],
        str(tmp_path / "elsewhere" / "kernel.py"): ["python", "predict.py"],
    }
    for name in ("predict.py", "pseudokit-predict"):
        (tmp_path / name).touch(0o755)
    for script, words in used.items():
        monkeypatch.setattr(sys, "argv", [script])
        monkeypatch.setenv("PATH", "")
        assert shlex.split(shell_command("predict.py", "--run", "x")) == [*words, "--run", "x"]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "pseudokit-pseudo")])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shell_command("predict.py", "--run", "x") == "pseudokit-predict --run x"


def test_a_shell_finds_the_run_by_every_command_that_it_has_files_for(tmp_path):
    run = tmp_path / "a run's folder"
    (run / "student").mkdir(parents=True)
    for file in ("student/model.json", "labels.csv"):
        (run / file).touch()
    commands = next_commands(run)
    assert list(commands) == ["predict", "export"]
    assert all(str(run) in shlex.split(command) for command in commands.values())
