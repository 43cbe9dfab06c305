"""The samples to look at come in the right order."""

import pandas as pd

from pseudokit.data.csv_text import read_csv
from pseudokit.report.review_items import read_review_items

from .fake_run import make_run


def test_label_issues_that_the_run_did_not_keep_come_first(denoise):
    items, info = read_review_items(denoise, limit=30)
    table = read_csv(denoise / "label_issues.csv")
    first = table[table["decision"] != "keep"]
    expected = pd.concat([first, table[table["decision"] == "keep"]])[:30]
    assert 0 < len(first) < 30
    for column in ("id", "path", "given_label", "predicted", "decision"):
        assert list(items[column]) == list(expected[column])
    assert list(items["p_wrong"]) == list(expected["p_wrong"].astype(float))
    assert info["round"] == 2


def test_without_label_issues_the_pseudo_labels_nearest_to_the_cutoff_are_listed(augment):
    items, _ = read_review_items(augment, limit=10)
    table = pd.read_csv(augment / "pseudo_labels.csv", dtype={"id": str})
    expected = table.iloc[(table["confidence"] - 0.8).abs().argsort(kind="stable")[:10]]
    assert list(items["id"]) == list(expected["id"])
    assert items["p_wrong"].isna().all()
    assert set(items["given_label"]) == {""}
    assert set(items["decision"]) == {"accept"}


def test_duplicates_that_disagree_come_first(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    table = read_csv(run / "samples.csv").iloc[[150, 151, 152, 30, 31]].assign(kind="exact")
    table["cluster"] = ["0", "0", "0", "1", "1"]
    table["split"] = ["train", "train", "test", "train", "train"]
    table["conflict"] = ["True", "True", "True", "False", "False"]
    table.to_csv(run / "duplicates.csv", index=False)
    items, _ = read_review_items(run, limit=5000)
    labels = table["given_label"].tolist()
    assert list(items["id"][:2]) == list(table["id"][:2])
    assert (
        items["duplicates"][0] == f"{labels[0]} (train) · {labels[1]} (train) · {labels[2]} (test)"
    )
    assert (items["duplicates"] != "").sum() == 2
    assert len(items) == items["id"].nunique() == 200
    issues = read_csv(run / "label_issues.csv").set_index("id")
    assert items["predicted"][0] == issues.predicted[items["id"][0]]
    (run / "label_issues.csv").unlink()
    alone, _ = read_review_items(run, limit=5000)
    assert list(alone["id"]) == list(table["id"][:2])
    assert set(alone["predicted"]) == {""}
    assert alone["confidence"].isna().all()
