"""What goes to Label Studio comes back as the lines of a corrections file."""

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import parse_qs, urlparse
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.types import UserError
from pseudokit.data.csv_text import read_csv
from pseudokit.report import label_studio as ls
from pseudokit.report.review import write_review
from pseudokit.report.review_items import read_review_items

from .fake_run import HOSTILE, embedded, make_run


@pytest.fixture(scope="module", params=["denoise", "augment"])
def exported(request, tmp_path_factory):
    """A run with tasks, in which one class is called like an action and others like markup."""
    folder = tmp_path_factory.mktemp("studio") / "a b&c"
    run = make_run(folder, request.param, names=[*HOSTILE, "(drop)"], id_of='{}"<,'.format)
    (run / "student").mkdir()
    (run / "student" / "model.json").write_text(json.dumps({"classes": [*HOSTILE, "(drop)"]}))
    ls.write_label_studio(run)
    return run


def choice(name):
    """One choice, as Label Studio writes it."""
    value = {"choices": [name]}
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": value}


def tasks_of(run):
    return json.loads((run / "label_studio.json").read_text())


def test_tasks_are_the_rows_of_the_review_with_the_prediction(exported):
    made, shown = tasks_of(exported), embedded(write_review(exported).read_text())["samples"]
    assert len(made) >= 30
    for task, sample in zip(made, shown, strict=True):
        assert {key: task["data"][key] for key in ("id", "given_label", "image_sha256")} == {
            "id": sample["id"],
            "given_label": sample["given_label"],
            "image_sha256": sample["sha256"],
        }
        (prediction,) = task["predictions"]
        assert prediction["result"] == [choice(sample["predicted"])]
        assert prediction["score"] == sample["confidence"]


def test_the_address_of_an_image_leads_to_it_below_the_document_root(exported):
    paths = pd.read_csv(exported / "samples.csv", dtype=str)["path"]
    root = ls.document_root(paths)
    assert root == os.path.dirname(os.path.dirname(paths[0]))
    known = {os.path.realpath(path) for path in paths}
    for task in tasks_of(exported):
        below = parse_qs(urlparse(task["data"]["image"]).query)["d"][0]
        assert not below.startswith(("/", ".."))
        assert "/" in below, "Label Studio serves folders inside of its root, not the root itself"
        assert os.path.realpath(Path(root) / below) in known


def test_the_interface_offers_every_class_and_action_once_and_fits_the_tasks(exported):
    view = ElementTree.parse(exported / "label_studio.xml").getroot()
    choices = [choice.get("value") for choice in view.iter("Choice")]
    assert choices == [*HOSTILE, "(drop)", "(ambiguous)"]
    named = {element.get("name"): element for element in view if element.get("name")}
    result = tasks_of(exported)[0]["predictions"][0]["result"][0]
    assert named[result["from_name"]].get("toName") == result["to_name"] == "image"
    assert {named[name].get("value")[1:] for name in ("image", "note")} <= set(
        tasks_of(exported)[0]["data"]
    )


def annotate(tasks, choices):
    """An export in which a person chose choices[i] (None: nothing) for task i, after other tries."""
    for place, (task, chosen) in enumerate(zip(tasks, choices, strict=True)):
        tries = [
            {
                "result": [choice("NA")],
                "was_canceled": False,
                "updated_at": "2024-01-01T00:00:00Z",
            },
            {"result": [], "was_canceled": False, "updated_at": "2024-01-03T00:00:00Z"},
            {
                "result": [choice("NA")],
                "was_canceled": True,
                "updated_at": "2024-01-04T00:00:00Z",
            },
        ]
        if chosen is None:
            task["annotations"] = tries[1:]
        else:
            last = {
                "result": [choice(chosen)],
                "was_canceled": False,
                "updated_at": "2024-01-02T00:00:00Z",
            }
            task["annotations"] = [last, *tries] if place % 2 else [*tries, last]
        task["id"] = place + 1
    return tasks


@pytest.fixture(scope="module", params=["denoise", "augment"])
def items(request, tmp_path_factory):
    """A folder, and rows of a review: with given labels and predictions, or (augment) with predictions only."""
    run = make_run(tmp_path_factory.mktemp("roundtrip") / "run", request.param, names=HOSTILE)
    return run, read_review_items(run, limit=40)[0]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_annotations_come_back_as_the_lines_of_a_corrections_file(items, data):
    run, rows = items
    picks = st.one_of(st.none(), st.sampled_from([*HOSTILE, "(drop)", "(ambiguous)"]))
    chosen = data.draw(st.lists(picks, min_size=len(rows), max_size=len(rows)))
    root = ls.document_root(rows["path"])
    tasks = [ls.make_task("run", row, root) for row in rows.itertuples()]
    (run / "export.json").write_text(json.dumps(annotate(tasks, chosen)))
    expected = []
    for place, (row, name) in enumerate(zip(rows.to_dict("records"), chosen, strict=True), start=1):
        if name is None:
            continue
        decided = {
            "(drop)": ("drop", ""),
            "(ambiguous)": ("ambiguous", ""),
        }
        sha256 = hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest()
        facts = [
            row["id"],
            row["given_label"],
            *decided.get(name, ("relabel", name)),
            sha256,
            "run",
        ]
        expected.append((f"task {place}", *facts))
    lines = ls.read_annotations(run / "export.json", HOSTILE)
    columns = ["id", "given_label", "action", "label", "image_sha256", "run"]
    assert list(lines[columns].itertuples(name=None)) == expected


def test_an_export_without_dates_and_with_other_marks_can_be_read(tmp_path, items):
    _, rows = items
    tasks = [ls.make_task("run", row, "/") for row in rows[:2].itertuples()]
    tasks[0]["annotations"] = [{"result": [choice("NA")]}]
    tasks[1]["annotations"] = [{"result": [choice("NA"), {"type": "relation"}]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    assert list(ls.read_annotations(tmp_path / "export.json", HOSTILE)["label"]) == ["NA", "NA"]


def test_a_row_that_no_model_judged_is_a_task_without_a_prediction(tmp_path):
    run = make_run(tmp_path / "run", "denoise")
    (run / "label_issues.csv").unlink()
    table = (
        read_csv(run / "samples.csv")
        .iloc[[150, 151]]
        .assign(cluster="0", kind="exact", conflict="True")
    )
    table.to_csv(run / "duplicates.csv", index=False)
    ls.write_label_studio(run)
    tasks = tasks_of(run)
    assert [task["data"]["id"] for task in tasks] == list(table["id"])
    assert not any(task["predictions"] for task in tasks)


def test_a_class_called_like_an_action_stays_a_class(exported):
    tasks = annotate(tasks_of(exported)[:2], ["(drop)", "(ambiguous)"])
    (exported / "export.json").write_text(json.dumps(tasks))
    lines = ls.read_annotations(exported / "export.json", [*HOSTILE, "(drop)"])
    assert list(lines.action) == ["relabel", "ambiguous"]
    assert list(lines.label) == ["(drop)", ""]
    assert list(lines.index) == ["task 1", "task 2"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"a": 1}',
        '[{"data": {"id": "1"}, "annotations": []}]',
        '[{"id": 1, "image": "x", "label": "NA"}]',
    ],
)
def test_what_is_no_export_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError) as caught:
        ls.read_annotations(tmp_path / "x.json", ["NA"])
    assert str(tmp_path / "x.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("task 1" in str(caught.value)) == text.startswith("[")
