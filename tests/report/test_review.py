"""The review page holds the right samples in the right order, and nothing in it can act."""

import base64
import hashlib
import html
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.report.report import write_report
from pseudokit.report.review import write_review

from .fake_run import HOSTILE, Tags, embedded, make_run


def test_review_holds_the_label_issues_in_order_with_the_hash_of_their_image(denoise):
    content = embedded(write_review(denoise, limit=30).read_text())
    table = pd.read_csv(denoise / "label_issues.csv", dtype=str)
    first = table[table["decision"] != "keep"]
    expected = pd.concat([first, table[table["decision"] == "keep"]])[:30]
    assert 0 < len(first) < 30
    for key in ("id", "given_label", "predicted", "decision"):
        assert [s[key] for s in content["samples"]] == list(expected[key])
    for sample, path in zip(content["samples"], expected["path"], strict=True):
        data = Path(path).read_bytes()
        assert sample["sha256"] == hashlib.sha256(data).hexdigest()
        shown = cv2.imdecode(
            np.frombuffer(base64.b64decode(sample["image"].split(",")[1]), np.uint8), 0
        )
        assert (shown == cv2.imdecode(np.frombuffer(data, np.uint8), 0)).all()


def test_the_page_of_a_round_without_files_has_no_examples(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    for file in run.glob("round_*/log_probs.npy"):
        file.unlink()
    content = embedded(write_review(run).read_text())
    assert content["examples"] == {}
    assert content["samples"][0]["near"] == [[], []]


def test_the_browser_remembers_decisions_until_what_is_reviewed_changes(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    key = embedded(write_review(run).read_text())["key"]
    assert embedded(write_review(run).read_text())["key"] == key
    assert embedded(write_review(run, limit=20).read_text())["key"] != key
    first = embedded(write_review(run).read_text())["samples"][0]["id"]
    (run / "images" / f"{int(first)}.png").write_bytes(b"another image")
    assert embedded(write_review(run).read_text())["key"] != key
    other = run.rename(tmp_path / "other")
    assert embedded(write_review(other).read_text())["key"] != key


def test_images_that_have_gone_are_shown_as_unreadable(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    gone, empty = [s["id"] for s in embedded(write_review(run).read_text())["samples"][:2]]
    (run / "images" / f"{int(gone)}.png").unlink()
    (run / "images" / f"{int(empty)}.png").write_bytes(b"")
    dataset = embedded(write_review(run).read_text())["samples"]
    assert [s["image"] for s in dataset[:2]] == ["", ""]
    assert dataset[0]["sha256"] == ""
    assert dataset[2]["image"]
    assert write_report(run).exists()


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_hostile_names_are_inert(tmp_path, mode):
    hostile_id = '{}<script>alert(2)</script>"><img onerror=x>'.format
    run = make_run(tmp_path / "run", mode, names=HOSTILE, id_of=hostile_id)
    (run / "config.yaml").write_text(f"name: {HOSTILE[0]}\n")
    (run / "env.json").write_text(json.dumps({HOSTILE[1]: HOSTILE[0]}))
    pages = write_report(run).read_text(), write_review(run).read_text()
    for page in pages:
        assert "alert(1)</script>" not in page
        assert "<script>" not in page
        assert "<img src=x" not in page
        tags = Tags(page).tags
        assert not [attrs for _, attrs in tags if any(name.startswith("on") for name in attrs)]
        assert not [tag for tag, _ in tags if tag == "b"]
    assert html.escape(HOSTILE[0]) in pages[0]
    assert sum(tag == "script" for tag, _ in Tags(pages[0]).tags) == 0
    assert sum(tag == "script" for tag, _ in Tags(pages[1]).tags) == 2
    content = embedded(pages[1])
    assert content["classes"] == HOSTILE
    assert {s["predicted"] for s in content["samples"]} <= set(HOSTILE)
    assert all("<script>alert(2)</script>" in s["id"] for s in content["samples"])
