"""The report must say what lies in the run folder, and nothing else."""

import base64
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.report.gallery import IMAGES_PER_GROUP
from pseudokit.report.metrics_log import write_metrics
from pseudokit.report.report import conflicts, write_report
from pseudokit.report.review import write_review
from pseudokit.report.sentences import headline
from pseudokit.report.terminal import summary

from .fake_run import Tags, make_run


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_report_is_one_file_that_opens_offline(mode, request):
    page = (request.getfixturevalue(mode) / "report.html").read_text()
    links = {
        attrs[name] for _, attrs in Tags(page).tags for name in ("src", "href") if name in attrs
    }
    assert {link.split(",")[0] for link in links} == {"data:image/png;base64", "review.html"}
    assert "http://" not in page
    (told,) = json.loads((request.getfixturevalue(mode) / "inputs.json").read_text())["taken_for"]
    assert told in page.replace("&#39;", "'")
    assert page.count("https://") == 1  # as text: env.json names a site
    assert 'src="/' not in page
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (
            "denoise",
            {
                "grid",
                "map",
                "confusion",
                "confidence",
                "coverage",
                "reliability",
                "noise_matrix",
                "losses",
            },
        ),
        (
            "augment",
            {
                "why_grid",
                "unlabeled_grid",
                "map",
                "confusion",
                "confidence",
                "coverage",
                "losses",
            },
        ),
    ],
)
def test_every_picture_is_a_file_and_in_the_page(mode, names, request):
    run = request.getfixturevalue(mode)
    page = (run / "report.html").read_text()
    files = {file.stem: file.read_bytes() for file in (run / "plots").glob("*.png")}
    assert set(files) == names
    for data in files.values():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.std() > 10, "blank"
        assert (image < 250).any(axis=0).sum() > image.shape[1] / 2, "drawn in a corner only"
        assert base64.b64encode(data).decode() in page


def test_the_same_run_gives_the_same_bytes_and_old_pictures_go(denoise, tmp_path):
    run = shutil.copytree(denoise, tmp_path / denoise.name)
    (run / "plots" / "unlabeled_grid.png").write_bytes(b"of an earlier report")
    (run / "plots" / "mine.png").write_bytes(b"of the user")
    page = (denoise / "report.html").read_text().replace(str(denoise), str(run))
    is_same = write_report(run).read_text() == page
    assert is_same  # pytest would list every difference of two megabytes
    assert not (run / "plots" / "unlabeled_grid.png").exists()
    assert (run / "plots" / "mine.png").exists()
    assert not list(run.rglob("*.part"))


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_every_image_is_described_in_words(mode, request):
    page = Tags((request.getfixturevalue(mode) / "report.html").read_text())
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert len(alts) > 24
    assert all(alt.strip() for alt in alts)


def test_odd_images_are_counted_and_the_oddest_of_each_reason_shown(augment):
    page = (augment / "report.html").read_text()
    section = page[page.index("<h2>Odd images") : page.index("<h2>Pictures")]
    assert re.findall(r"<h3>(.*?)</h3>", section) == ["Blurred: 1", "Dark: 199"]
    odd = pd.read_csv(augment / "odd_images.csv", dtype=str)
    shown = re.findall(r'<small title="(.*?)">', section)
    assert shown == list(odd.id[: 1 + IMAGES_PER_GROUP])


OPTIONAL = [
    "injected.csv",
    "hidden.csv",
    "scored.csv",
    "label_issues.csv",
    "pseudo_labels.csv",
    "round_2/fold_0/history.csv",
    "round_2/log_probs.npy",
    "odd_images.csv",
    "why.csv",
]


@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_optional_files_may_be_absent(tmp_path, mode):
    run = make_run(tmp_path / "run", mode)
    for name in OPTIONAL:
        (run / name).unlink(missing_ok=True)
    page = write_report(run).read_text()
    assert "confidence.png" in {file.name for file in (run / "plots").iterdir()}
    assert "nan" not in Tags(page).text
    assert "None" not in Tags(page).text
    assert write_review(run) is None


@pytest.mark.parametrize("is_scored", [True, False])
def test_a_run_without_rounds_has_a_report(tmp_path, is_scored):
    run = make_run(tmp_path / "run", "train")
    shutil.rmtree(run / "round_1")
    metrics = json.loads((run / "metrics.json").read_text()) | {"rounds": [], "round": 0}
    del metrics["oof"]
    metrics["scores"] = {"student": {"val": {"n": 9, "accuracy": 0.5}}} if is_scored else {}
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_metrics(run)
    text = Tags(write_report(run).read_text()).text
    assert ("22.65 to 77.35 %" if is_scored else "data.test") in text
    assert write_review(run) is None


OLD_WORDS = ("pool", "judge", "control", "suspect", "look-alike")


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("train") / "run", "train")
    write_report(run)
    return run


@pytest.mark.parametrize("mode", ["denoise", "augment", "train"])
def test_page_and_terminal_use_the_words_of_the_docs(mode, request):
    run = request.getfixturevalue(mode)
    page = Tags((run / "report.html").read_text()).text
    for text in (page, summary(run)):
        assert [word for word in OLD_WORDS if word in text.lower()] == []


def test_the_page_shows_the_headline_before_every_table(denoise):
    text = Tags((denoise / "report.html").read_text()).text
    metrics = json.loads((denoise / "metrics.json").read_text())
    places = [text.index(sentence.replace("\xa0", " ")) for sentence in headline(metrics)]
    titles = [
        "Scores",
        "Rounds",
        "Classes",
        "Decisions",
        "Relabeled",
        "Best and worst images",
        "Pictures",
        "What to do next",
    ]
    places += [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)


def test_plain_training_has_no_decisions(train):
    text = Tags((train / "report.html").read_text()).text
    assert "Best and worst images" in text
    assert "Decisions" not in text
    assert "train.py" in text


def test_a_cluster_of_copies_shows_one_image_of_each_label():
    rows = [("1", "y", "True")] * 49 + [("1", "x", "True"), ("2", "y", "False"), ("1", "", "True")]
    duplicates = pd.DataFrame(rows, columns=["cluster", "given_label", "conflict"]).assign(
        kind="near"
    )
    [cluster] = conflicts(duplicates)
    assert list(cluster["given_label"]) == ["y", "x"]


def test_matplotlib_comes_only_when_drawing():
    heavy = "{'matplotlib', 'jinja2', 'cv2'} & set(sys.modules)"
    code = f"import sys, pseudokit.report.report, pseudokit.report.review; sys.exit(str({heavy}) if {heavy} else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
