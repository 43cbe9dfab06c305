"""Best and worst images are the right rows."""

import re
import shutil

import pandas as pd

from pseudokit.data.csv_text import read_csv
from pseudokit.report import load_run
from pseudokit.report.gallery import IMAGES_PER_GROUP, gallery

from .fake_run import Tags


def test_worst_and_best_images_are_the_right_rows(denoise):
    rows = [r for r in read_csv(denoise / "scored.csv").to_dict("records") if r["arm"] == "student"]
    rows.sort(key=lambda r: -float(r["confidence"]))
    wrong = [r["id"] for r in rows if r["label"] != r["predicted"]]
    right = [r for r in rows if r["label"] == r["predicted"]]
    first = {r["label"]: r["id"] for r in reversed(right)}  # the most confident of each class
    second = {r["label"]: r["id"] for r in reversed(right) if r["id"] not in first.values()}
    by_confidence = [r["id"] for r in right]
    best = [sorted(ids.values(), key=by_confidence.index) for ids in (first, second)]
    page = (denoise / "report.html").read_text()
    section = page[page.index("<h2>Best and worst images") : page.index("<h2>Pictures")]
    shown = re.findall(r'<small title="(.*?)">', section)
    assert len(wrong) > IMAGES_PER_GROUP
    assert shown == wrong[:IMAGES_PER_GROUP] + (best[0] + best[1])[:IMAGES_PER_GROUP]
    assert section.count("not readable") == 0
    assert section.count('src="data:image/png') == 2 * IMAGES_PER_GROUP
    assert f"{len(wrong)} of 200 are wrong" in Tags(page).text


def test_without_scores_the_images_are_out_of_fold_rows(denoise, tmp_path):
    run = shutil.copytree(denoise, tmp_path / "run")
    (run / "injected.csv").unlink()
    metrics = load_run.read_run(run)["metrics"] | {"scores": {}}
    [(_, _, worst), (_, _, best)] = gallery(
        load_run.read_run(run) | {"metrics": metrics, "scored": None}
    )
    rows = read_csv(run / "round_2" / "decisions.csv")
    differ = rows[rows.given_label != rows.predicted]
    differ = differ.sort_values("confidence", key=lambda column: -column.astype(float))[
        :IMAGES_PER_GROUP
    ]
    columns = ["id", "given_label", "predicted"]
    shown = worst[["id", "label", "predicted"]]
    assert shown.to_numpy().tolist() == differ[columns].to_numpy().tolist()
    assert (best["label"] == best["predicted"]).all()


def test_an_id_in_two_splits_has_the_image_of_its_split(tmp_path):
    rows = pd.DataFrame(
        {
            "arm": "student",
            "id": ["a"],
            "split": "test",
            "label": "x",
            "predicted": "x",
            "confidence": 1.0,
        }
    )
    samples = pd.DataFrame(
        {"id": ["a", "a"], "split": ["unlabeled", "test"], "path": ["unlabeled.png", "test.png"]}
    )
    metrics = {"scores": {"student": {"test": {"n": 1, "accuracy": 1.0}}}}
    samples.to_csv(tmp_path / "samples.csv")
    rows.to_csv(tmp_path / "scored.csv")
    scored = load_run.read_rows(tmp_path, "scored.csv", " ".join(rows))
    [(_, _, group)] = gallery({"scored": scored, "decisions": None, "metrics": metrics})
    assert list(group["path"]) == ["test.png"]
