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

from pseudokit.data.csv_text import read_csv
from pseudokit.report import review
from pseudokit.report.examples import CANDIDATES, SHOWN, candidates, find_examples
from pseudokit.report.report import write_report
from pseudokit.report.review import write_review

from .fake_run import HOSTILE, Tags, embedded, make_run


def test_review_holds_the_suspects_in_order_with_the_hash_of_their_image(denoise):
    content = embedded(write_review(denoise, limit=30).read_text())
    table = pd.read_csv(denoise / "label_issues.csv", dtype=str)
    first = table[table["decision"] != "keep"]
    expected = pd.concat([first, table[table["decision"] == "keep"]])[:30]
    assert 0 < len(first) < 30
    for key in ("id", "given_label", "predicted", "decision"):
        assert [s[key] for s in content["samples"]] == list(expected[key])
    assert [s["p_wrong"] for s in content["samples"]] == list(expected["p_wrong"].astype(float))
    for sample, path in zip(content["samples"], expected["path"], strict=True):
        data = Path(path).read_bytes()
        assert sample["sha256"] == hashlib.sha256(data).hexdigest()
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(sample["image"].split(",")[1]), np.uint8), 0)
        assert (shown == cv2.imdecode(np.frombuffer(data, np.uint8), 0)).all()


def test_review_of_augment_shows_the_pseudo_labels_nearest_to_the_cutoff(augment):
    dataset = embedded(write_review(augment, limit=10).read_text())["samples"]
    table = pd.read_csv(augment / "pseudo_labels.csv", dtype={"id": str})
    expected = table.iloc[(table["confidence"] - 0.8).abs().argsort(kind="stable")[:10]]
    assert [s["id"] for s in dataset] == list(expected["id"])
    assert {(s["given_label"], s["decision"], s["p_wrong"]) for s in dataset} == {("", "accept", None)}


def test_examples_agree_and_are_the_nearest(denoise):
    rows = review.to_review(denoise, 0.8, 40)
    info = {"round": 2, "classes": list("0123456789")}
    paths, near = find_examples(denoise, info, rows)
    table = read_csv(denoise / "round_2" / "decisions.csv").set_index("id")
    log_probs = pd.DataFrame(np.load(denoise / "round_2" / "log_probs.npy"), index=table.index)
    ids = read_csv(denoise / "samples.csv").drop_duplicates("path").set_index("path")["id"]
    assert len(set(paths)) == len(paths)
    agrees = table[(table["decision"] == "keep") & (table["given_label"] == table["predicted"])]
    for row, pair in zip(rows.to_dict("records"), near, strict=True):
        for name, places in zip((row["given_label"], row["predicted"]), pair, strict=True):
            pool = agrees.index[agrees["given_label"] == name].difference([row["id"]])
            distance = ((log_probs.loc[pool] - log_probs.loc[row["id"]]) ** 2).sum(axis=1)
            found = ids[[paths[k] for k in places]]
            assert set(found) <= set(pool)
            assert np.allclose(distance[found], distance.sort_values()[:SHOWN])


def test_examples_stay_few_and_spread_from_doubtful_to_certain():
    n = 50_000
    table = pd.DataFrame({"given_label": "a", "predicted": "a", "decision": "keep", "confidence": np.linspace(1, 0, n)})
    pools = candidates(table, ["a", "b"])
    assert list(pools) == ["a"]
    assert len(pools["a"]) == CANDIDATES // 2
    assert (pools["a"][0], pools["a"][-1]) == (n - 1, 0)


def test_the_page_of_a_round_without_files_has_no_examples(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    for file in run.glob("round_*/log_probs.npy"):
        file.unlink()
    content = embedded(write_review(run).read_text())
    assert content["examples"] == []
    assert content["samples"][0]["near"] == [[], []]


def test_review_key_changes_with_what_is_reviewed(denoise):
    rows = review.to_review(denoise, 0.8, 20)
    key = review.page_content("run", rows, [])["key"]
    assert review.page_content("run", rows, [])["key"] == key
    assert review.page_content("run", rows[::-1], [])["key"] != key
    assert review.page_content("other", rows, [])["key"] != key


def test_images_that_have_gone_are_shown_as_unreadable(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    gone, empty = [s["id"] for s in embedded(write_review(run).read_text())["samples"][:2]]
    (run / "images" / f"{int(gone)}.png").unlink()
    (run / "images" / f"{int(empty)}.png").write_bytes(b"")
    dataset = embedded(write_review(run).read_text())["samples"]
    assert [(s["image"], s["sha256"]) for s in dataset[:2]] == [("", ""), ("", "")]
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
