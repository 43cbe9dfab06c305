"""Copies in a run, as a user meets them: told, listed, shown first, and refused where they would flatter a score."""

import base64
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.report.report import write_report
from tests.conftest import QUICK, run_script
from tests.report.fake_run import make_run
from tests.test_scripts import table


def counted(page) -> dict[str, str]:
    """The table of counts in report.html."""
    part = page[page.index("<h2>Duplicates</h2>") :]
    return dict(
        re.findall(r"<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>", part[: part.index("</table>")])
    )


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """An augment run that accepts whatever it may. The ids of copies tell of what; its output is run.said.

    a_* are unlabeled rows, b_* of train; x0 and x1 are one image of train under two labels.
    """
    folder = tmp_path_factory.mktemp("overlap")
    images = folder / "images"
    images.mkdir()
    for row in digits[:400].itertuples():
        shutil.copy(row.path, images)
    parts = {
        "train": digits[:200],
        "unlabeled": digits[200:300],
        "test": digits[300:350],
        "val": digits[350:400],
    }
    parts = {split: part[["id", "label"]] for split, part in parts.items()}
    copies = {
        "a_of_test": ("unlabeled", 300),
        "a_of_val": ("unlabeled", 350),
        "a_of_train": ("unlabeled", 5),
        "a_of_unlabeled": ("unlabeled", 205),
        "b_of_test": ("train", 310),
        "x1": ("train", 7),
    }
    for name, (split, of) in copies.items():
        cv2.imwrite(
            str(images / f"{name}.png"),
            cv2.imread(digits.path[of], 0),
            [cv2.IMWRITE_PNG_COMPRESSION, 9],
        )
        label = digits.label[of] if name != "x1" else "d9" if digits.label[of] != "d9" else "d8"
        parts[split] = pd.concat([parts[split], pd.DataFrame({"id": [name], "label": [label]})])
    args = [
        f"data.image_dir={images}",
        "data.image_suffix=.png",
        f"out={folder}",
        *QUICK,
        "pseudo.folds=3",
        "train.min_steps=20",
    ]
    for split, part in parts.items():
        (part if split != "unlabeled" else part[["id"]]).to_csv(
            folder / f"{split}.csv", index=False
        )
        args.append(f"data.{split}={folder / split}.csv")
    done = run_script(
        "pseudo.py",
        "--mode",
        "augment",
        "name=x",
        *args,
        "pseudo.rounds=1",
        "pseudo.cutoff=0",
        "pseudo.train_baseline=false",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    path = folder / "x"
    (path / "said.txt").write_text(done.stdout)
    return path


def test_one_line_of_the_log_tells_how_many_and_where(run):
    line = next(
        line
        for line in (run / "said.txt").read_text().splitlines()
        if line.startswith("duplicates: ")
    )
    assert line.startswith("duplicates: 6 clusters, 12 rows, 1 conflicts, ")
    assert "1 clusters in train and test" in line
    assert "; 2 unlabeled images" in line
    assert line.endswith(f"see {run / 'duplicates.csv'}")


def test_copies_are_listed_and_what_disagrees_comes_first(run, digits):
    listed = table(run / "duplicates.csv")
    assert list(listed) == ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    assert list(listed.id[:2]) == ["0007", "x1"]
    assert list(listed.conflict) == ["True"] * 2 + ["False"] * 10
    pairs = {frozenset(ids) for _, ids in listed.groupby("cluster").id}
    assert pairs == {
        frozenset(pair)
        for pair in [
            ("0007", "x1"),
            ("a_of_test", "0300"),
            ("a_of_val", "0350"),
            ("a_of_train", "0005"),
            ("a_of_unlabeled", "0205"),
            ("b_of_test", "0310"),
        ]
    }
    assert set(listed.kind) == {"pixels"}


def test_copies_of_scored_rows_receive_no_pseudo_label(run):
    decided = table(run / "round_1" / "decisions.csv").set_index("id")
    assert list(decided.loc[["a_of_test", "a_of_val"], "decision"]) == ["leave"] * 2
    assert list(decided.loc[["a_of_test", "a_of_val"], "reason"]) == [
        "duplicate_of_test",
        "duplicate_of_val",
    ]
    assert list(decided.loc[["a_of_test", "a_of_val"], "label"]) == ["", ""]
    others = decided[
        (decided.split == "unlabeled") & ~decided.index.isin(["a_of_test", "a_of_val"])
    ]
    assert set(others.decision) == {"accept"}
    assert decided.loc["b_of_test", "decision"] == "keep"
    assert not {"a_of_test", "a_of_val"} & set(table(run / "labels.csv").id)


def test_a_copy_of_a_labeled_row_is_predicted_by_the_model_that_predicts_that_row(run):
    models = table(run / "round_1" / "decisions.csv").set_index("id").model
    assert models["a_of_train"] == models["0005"]
    assert models["0007"] == models["x1"]
    assert models["a_of_unlabeled"].count("+") == 2


@pytest.mark.parametrize(("overlap", "accepted"), [("same_file", False), ("copies", True)])
def test_deciding_again_heeds_data_overlap(run, overlap, accepted):
    done = run_script(
        "pseudo.py", "--mode", "select", "--run", run, f"data.learn_from_test={overlap}"
    )
    assert done.returncode == 0, done.stderr
    decided = table(run / "selected.csv").set_index("id")
    assert (decided.decision[["a_of_test", "a_of_val"]] == "accept").all() == accepted
    if not accepted:
        assert (run / "selected.csv").read_bytes() == (
            run / "round_1" / "decisions.csv"
        ).read_bytes()


def test_the_report_shows_what_disagrees_before_anything_else(run):
    page = (run / "report.html").read_text()
    section = page[page.index("Duplicates that disagree") : page.index("<h2>Scores")]
    labels = table(run / "duplicates.csv").given_label[:2]
    assert f"{labels[0]} | {labels[1]}" in section
    shown = re.findall(r'<img alt="(.*?)" title=".*?" src="data:image/png;base64,(.*?)">', section)
    assert [name for name, _ in shown] == ["0007", "x1"]
    thumbs = [cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 0) for _, data in shown]
    original = cv2.imread(table(run / "duplicates.csv").path[0], 0)
    assert all((thumb == original).all() for thumb in thumbs)
    counts = {"clusters": "6", "rows": "12", "conflicts": "1", "clusters in train and test": "1"}
    assert counts.items() <= counted(page).items()


def test_the_report_of_many_and_large_clusters_stays_short_and_inert(tmp_path):
    """30 clusters of 50 rows that are gone from the disk; the label that only one row has is still shown."""
    rows = [
        (c, f"{c}-{i}", f"/gone/{c}-{i}", "train", "<b>x" if i == 49 else "y", "near", "True")
        for c in range(1, 31)
        for i in range(50)
    ]
    columns = ["cluster", "id", "path", "split", "given_label", "kind", "conflict"]
    run = make_run(tmp_path / "run", "train")
    pd.DataFrame(rows, columns=columns).to_csv(run / "duplicates.csv", index=False)
    page = write_report(run).read_text()
    clusters = page[page.index("Duplicates that disagree") : page.index('<div class="tables">')]
    assert clusters.count("<figure>") == 20
    assert clusters.count("not readable") == 20 * 2
    assert clusters.count("<br>&lt;b&gt;x<br>") == 20
    assert "<b>" not in page
    assert counted(page) == {"clusters": "30", "rows": "1,500", "conflicts": "30"}
