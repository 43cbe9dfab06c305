"""Corrections that a spreadsheet or a Label Studio project of one's own has changed: resolved, or refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudokit.config.keys import Config
from pseudokit.config.types import UserError
from pseudokit.run_folder.corrections import read_corrections
from pseudokit.run_folder.folder import Run
from pseudokit.system.files import write_json
from tests.naming import is_one_line
from tests.naming import names as named

HEAD = "id,given_label,action,label\n"
ROWS = {"0007": "a", "0012": "b", "0100": "a", "x/0007": "b", "5.0": "a"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("run"), ["a", "b"], ROWS)


def make(folder, classes, rows):
    """A run of these classes with labeled rows (id → given label)."""
    write_json(folder / "student" / "model.json", {"classes": classes})
    lines = "".join(f"{name},,train,{label}\n" for name, label in rows.items())
    (folder / "samples.csv").write_text("id,path,split,given_label\n" + lines)
    return Run(folder, "denoise", Config())


def read(run, content, name="c.csv"):
    """[id, given label, action, label] of each decision."""
    file = run.path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_corrections(run, file).to_numpy().tolist()


def refusal(run, content, *parts, name="c.csv"):
    with pytest.raises(UserError) as caught:
        read(run, content, name)
    line = str(caught.value)
    assert is_one_line(line)
    assert named(line, name, *parts), line


PLAIN = HEAD + "0007,a,relabel,b\n0012,b,keep,\n"
MEANT = [["0007", "a", "relabel", "b"], ["0012", "b", "keep", "b"]]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("00", ""),
        PLAIN.replace("0007", "7.0").replace("0012", "12.0"),
        PLAIN.replace(",", ";").encode("utf-8-sig"),
        PLAIN.replace(",", ";").replace("0007", "7,0").replace("0012", "12,0"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace("\n", "\r\n").replace("00", "") + ",,,\r\n",
        PLAIN.replace("0007", " 0007 "),
    ],
)
def test_what_a_spreadsheet_changed_is_resolved(run, content):
    assert read(run, content) == MEANT


@pytest.mark.parametrize("name", ["8", "7.5", "1,200", "7e0", "12 Jul", "X/0007", "0x7"])
def test_an_id_that_fits_no_row_is_refused(run, name):
    refusal(run, HEAD + f'"{name}",a,relabel,b\n', "line 2", repr(name))


def test_an_id_that_fits_several_rows_or_stands_twice_is_refused(run, tmp_path):
    refusal(run, HEAD + "0007,a,relabel,b\n7,a,keep,\n", "line 3", "'0007'")
    several = make(tmp_path, ["a", "b"], {"007": "a", "0007": "a", "01": "b"})
    refusal(several, HEAD + "7,a,relabel,b\n", "line 2", "'7'")
    assert read(several, HEAD + "007,a,relabel,b\n1,b,keep,\n") == [
        ["007", "a", "relabel", "b"],
        ["01", "b", "keep", "b"],
    ]


@pytest.mark.parametrize(
    ("classes", "given", "label"),
    [
        (["False", "True"], "FALSE", "TRUE"),
        (["00", "01"], "0", "1"),
        (["0", "1"], "0.0", "1,0"),
        (["0.0", "1.0"], "0", "1"),
    ],
)
def test_classes_are_those_of_the_run_in_another_spelling(tmp_path, classes, given, label):
    run = make(tmp_path, classes, {"01": classes[0], "02": classes[1]})
    content = HEAD.replace(",", ";") + f"1;{given};relabel;{label}\n2;{label};drop;\n"
    assert read(run, content) == [
        ["01", classes[0], "relabel", classes[1]],
        ["02", classes[1], "drop", ""],
    ]
    refusal(run, HEAD + "1,7,relabel,1\n", "line 2", "'7'")
    refusal(run, HEAD + f'1,"{given}",relabel,7\n', "line 2", "'7'")


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_a_damaged_file_says_what_the_file_said_or_is_refused(tmp_path_factory, data):
    draw = data.draw
    folder = tmp_path_factory.mktemp("damaged")
    ids = draw(
        st.lists(st.sampled_from(["7", "07", "0012", "12", "0", "100"]), min_size=2, unique=True)
    )
    labels = ["a", "b", "a", "b", "b", "a"][: len(ids)]
    run = make(folder, ["a", "b"], dict(zip(ids, labels, strict=True)))
    rows = dict(zip(ids, labels, strict=True))
    lines = [[name, rows[name], "relabel", "ab"[rows[name] == "a"]] for name in ids]
    damage = draw(st.sampled_from([lambda i: str(int(i)), lambda i: f"{int(i)}.0", str.strip]))
    content = HEAD + "".join(",".join([damage(line[0]), *line[1:]]) + "\n" for line in lines)
    content = content.replace(",", draw(st.sampled_from(",;\t")))
    try:
        got = read(run, content.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))))
    except UserError:
        assert len({int(name) for name in ids}) < len(ids)
    else:
        assert got == sorted(lines)


@pytest.mark.parametrize("content", [HEAD, HEAD + ",,,\n\n", HEAD.encode("utf-16")])
def test_a_file_without_a_decision_is_refused(run, content):
    refusal(run, content)


# ---- Label Studio


def export(*marks, canceled=False):
    """An export of one task for each dict of block → choice."""
    tasks = []
    for name, blocks in zip(ROWS, marks, strict=False):
        result = [
            {"from_name": block, "type": "choices", "value": {"choices": [choice]}}
            for block, choice in blocks.items()
        ]
        result.append({"from_name": "box", "type": "rectanglelabels", "value": {"x": 1}})
        task = {"id": name, "given_label": ROWS[name], "image_sha256": "", "run": ""}
        annotations = [{"result": result, "was_canceled": canceled}]
        tasks.append({"data": task, "annotations": annotations})
    return json.dumps(tasks)


@pytest.mark.parametrize("block", ["label", "choice", "Diagnose 1", ""])
def test_the_one_block_of_choices_counts_whatever_its_name(run, block):
    content = export({block: "b"}, {}, {block: "(drop)"})
    wanted = [["0007", "a", "relabel", "b"], ["0100", "a", "drop", ""]]
    assert read(run, content, "c.json") == wanted


def test_our_own_block_counts_beside_others(run):
    content = export({"quality": "good", "label": "b"}, {"quality": "bad"})
    assert read(run, content, "c.json") == [["0007", "a", "relabel", "b"]]


@pytest.mark.parametrize(
    "marks", [[{"choice": "b", "quality": "a"}], [{"choice": "b"}, {"quality": "a"}]]
)
def test_one_of_several_blocks_is_not_guessed(run, marks):
    refusal(run, export(*marks), "choice", "quality", name="c.json")


@pytest.mark.parametrize(
    "content", ["[]", export({}), export(), export({"choice": "b"}, canceled=True)]
)
def test_an_export_that_decides_nothing_is_refused(run, content):
    refusal(run, content, name="c.json")
