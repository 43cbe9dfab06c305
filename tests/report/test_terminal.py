"""The terminal shows the same sentences and numbers as the page."""

import json

from pseudokit.report.sentences import headline
from pseudokit.report.terminal import summary


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
    assert [row[1] for row in rounds] == ["20", "10"]
    assert str(denoise / "report.html") in text


def test_a_run_without_scores_and_rounds_has_a_summary(tmp_path):
    metrics = {"mode": "train", "scores": {}, "rounds": [], "round": 1, "seconds": {"total": 1}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "metrics.jsonl").write_text("")
    assert all(sentence in summary(tmp_path) for sentence in headline(metrics))
