"""What goes to Label Studio and comes back decides the same as a corrections file."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlparse
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.types import UserError
from pseudokit.report import label_studio as ls
from pseudokit.report.review import to_review, write_review
from pseudokit.run_folder.corrections import _faults, _normal, _read

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
        assert prediction["result"] == [ls.choice(sample["predicted"])]
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
    assert {named[name].get("value")[1:] for name in ("image", "note")} <= set(tasks_of(exported)[0]["data"])


def annotate(tasks, choices):
    """An export in which a person chose choices[i] (None: nothing) for task i, after other tries."""
    for place, (task, chosen) in enumerate(zip(tasks, choices, strict=True)):
        tries = [
            {"result": [ls.choice("NA")], "was_canceled": False, "updated_at": "2024-01-01T00:00:00Z"},
            {"result": [], "was_canceled": False, "updated_at": "2024-01-03T00:00:00Z"},
            {"result": [ls.choice("NA")], "was_canceled": True, "updated_at": "2024-01-04T00:00:00Z"},
        ]
        if chosen is None:
            task["annotations"] = tries[1:]
        else:
            last = {"result": [ls.choice(chosen)], "was_canceled": False, "updated_at": "2024-01-02T00:00:00Z"}
            task["annotations"] = [last, *tries] if place % 2 else [*tries, last]
        task["id"] = place + 1
    return tasks


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("mode", ["denoise", "augment"])
def test_annotations_decide_what_the_same_lines_of_a_csv_would(tmp_path_factory, mode, data):
    run = _run_of(mode, tmp_path_factory)
    rows = to_review(run, 0.8, 40)
    picks = st.one_of(st.none(), st.sampled_from([*HOSTILE, "(drop)", "(ambiguous)"]))
    chosen = data.draw(st.lists(picks, min_size=len(rows), max_size=len(rows)))
    tasks = ls.tasks("run", rows, ls.document_root(rows["path"]))
    (run / "export.json").write_text(json.dumps(annotate(tasks, chosen)))
    lines = []
    for row, name in zip(rows.to_dict("records"), chosen, strict=True):
        action = {"(drop)": "drop", "(ambiguous)": "ambiguous"}.get(
            name, "keep" if name == row["given_label"] else "relabel"
        )
        if name is not None:
            lines.append((row["id"], row["given_label"], action, name if action in ("keep", "relabel") else ""))
    pd.DataFrame(lines, columns=["id", "given_label", "action", "label"]).to_csv(run / "corrections.csv", index=False)
    from_json, from_csv = _read(run, run / "export.json"), _read(run, run / "corrections.csv")
    assert _normal(from_json).to_numpy().tolist() == _normal(from_csv).to_numpy().tolist()
    opened = SimpleNamespace(path=run, config=SimpleNamespace(name="run"))
    assert _faults(from_json, opened) == _faults(from_csv, opened) == []


def _run_of(mode, factory, made={}):  # noqa: B006 - one run a mode for all examples
    if mode not in made:
        made[mode] = make_run(factory.mktemp("roundtrip") / "run", mode, names=HOSTILE)
        (made[mode] / "student").mkdir()
        (made[mode] / "student" / "model.json").write_text(json.dumps({"classes": HOSTILE}))
    return made[mode]


def test_a_class_called_like_an_action_stays_a_class(exported):
    tasks = annotate(tasks_of(exported)[:2], ["(drop)", "(ambiguous)"])
    (exported / "export.json").write_text(json.dumps(tasks))
    lines = ls.read_annotations(exported / "export.json", [*HOSTILE, "(drop)"])
    assert lines.action.iloc[0] in ("keep", "relabel")
    assert list(lines.label) == ["(drop)", ""]
    assert lines.action.iloc[1] == "ambiguous"
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
    with pytest.raises(UserError, match=str(tmp_path / "x.json")) as caught:
        ls.read_annotations(tmp_path / "x.json", ["NA"])
    assert "\n" not in str(caught.value)


def test_keep_of_a_pool_row_names_the_label_to_keep(tmp_path_factory):
    run = _run_of("augment", tmp_path_factory)
    a, b, c = to_review(run, 0.8, 3).id
    file = run / "unlabeled.csv"
    file.write_text(f"id,given_label,action,label\n{a},,keep,\n\n{b},,keep,NA\n{c},,keep,alien\n")
    opened, lines = SimpleNamespace(path=run, config=SimpleNamespace(name="run")), _read(run, file)
    faults = _faults(lines, opened)
    assert [fault.partition(": ")[0] for fault in faults] == ["line 2", "line 5"], "blank lines count"
    assert "no given label" in faults[0]
    assert _normal(lines[1:2]).to_numpy().tolist() == [[b, "", "relabel", "NA"]]
