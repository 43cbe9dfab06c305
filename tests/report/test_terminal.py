"""The terminal shows the same sentences and numbers as the page."""

import json
import shlex

from pseudokit.report.next_commands import next_commands
from pseudokit.report.report import write_report
from pseudokit.report.review import write_review
from pseudokit.report.sentences import headline
from pseudokit.report.terminal import summary

from .fake_run import Tags, make_run


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


def test_terminal_and_page_end_with_commands_that_a_shell_understands(tmp_path):
    run = make_run(tmp_path / "a run's folder", "denoise")
    (run / "student").mkdir()
    (run / "student" / "model.json").touch()
    (run / "labels.csv").touch()
    write_review(run)
    commands = next_commands(run)
    assert list(commands) == ["decide", "apply", "predict", "export"]
    text = Tags(write_report(run).read_text()).text
    lines = summary(run).splitlines()
    for line, (name, command) in zip(lines[-4:], commands.items(), strict=True):
        assert line.split(maxsplit=1) == [name, command]
        assert command in text
        assert any(word.startswith(str(run)) for word in shlex.split(command))
    (run / "review.html").unlink()
    assert list(next_commands(run)) == ["predict", "export"]
