"""--mode export: every form reads back as what the run decided, and nothing else of the user's changes."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.datasets import ImageFolder

from pseudokit.api import export
from pseudokit.cli import pseudo_command
from pseudokit.config.keys import Config, Data, Model, Pseudo
from pseudokit.config.load import dump_config
from pseudokit.data.csv_text import escape_formulas
from pseudokit.data.dataset import LEARNED_SPLITS, load_dataset
from pseudokit.data.duplicates import duplicates_table
from pseudokit.data.images import load_images
from pseudokit.report.tables import labels_table
from pseudokit.run_folder.corrections import applied, store_corrections, with_corrections
from pseudokit.run_folder.folder import Run
from pseudokit.system.files import write_csv, write_json
from pseudokit.training.models import ModelSpec, TrainedModel, create_model, load_models, save_model
from pseudokit.training.onnx_export import to_onnx
from pseudokit.training.predict import log_probs, mean_probs
from tests.naming import lines_naming, refused
from tests.test_laws import Teacher, digits, rounds_of


def finished(folder: Path, new: dict[str, str], mode="denoise", state="done", **data) -> Path:
    """A run on the tables of `data` whose student learned the labels `new` in place of the given ones; "" = dropped."""
    config = Config(data=data)
    dataset = load_dataset(config.data)
    table = dataset.table()
    run = folder / "run"
    write_csv(run / "samples.csv", table)
    table = table[table.split.isin(LEARNED_SPLITS)]
    table["label"] = table.id.map(new).fillna(table.given_label)
    table["source"] = np.select(
        [table.given_label == "", table.label == "", table.label != table.given_label],
        ["pseudo", "dropped", "relabeled"],
        "given",
    )
    write_csv(run / "labels.csv", table[(table.given_label != "") | (table.label != "")])
    (run / "config.yaml").write_text(dump_config(config))
    Run(run, mode, config).write_status(state, state, "max_rounds")
    write_json(run / "student" / "model.json", {"classes": list(dataset.classes)})
    return run


# ---- table


def repaired(folder: Path, before: str, new: dict[str, str], **data) -> str:
    """The lines of data.train after its export."""
    (folder / "train.csv").write_text(before, newline="")
    run = finished(folder, new, train=str(folder / "train.csv"), **data)
    return export(run, "table").read_bytes().decode()


def test_only_the_label_cells_that_changed_differ_and_a_dropped_row_is_left_out(tmp_path):
    before = (
        '\ufeff"id";"Notiz";"label"\r\n007;"a;b";"NA"\r\n010;"ein ""x""";"True"\r\n'
        "011;;\r\n012;=1;NA\r\n013;x;True\r\n"
    )
    after = repaired(tmp_path, before, {"010": "NA", "012": "", "013": "NA"}, unlabeled_values=[])
    lines, new_lines = before.split("\r\n"), after.split("\r\n")
    assert new_lines == [*lines[:2], lines[2].replace('"True"', '"NA"'), lines[3], "013;x;NA", ""]


def test_a_sign_of_no_label_is_filled_where_the_row_got_a_pseudo_label(tmp_path):
    before = "sep=;\nid;label\n1;a\n2;b\n3;-1\n4;-1\n"
    after = repaired(tmp_path, before, {"3": "a"}, mode="augment", unlabeled_values=["-1"])
    assert after == before.replace("3;-1", "3;a")


def test_an_empty_label_is_filled_where_the_row_got_a_pseudo_label(tmp_path, caplog):
    before = "image,label\n1,a\n2,b\n3,\n4,\n"
    (tmp_path / "more.csv").write_text("image\n5\n")
    with caplog.at_level("INFO"):
        after = repaired(
            tmp_path,
            before,
            {"3": "b", "5": "a"},
            unlabeled=str(tmp_path / "more.csv"),
        )
    assert after == "image,label\n1,a\n2,b\n3,b\n4,\n"
    assert lines_naming(caplog.text, "more.csv", "pseudo_labels.csv"), "row 5 has no place here"


def test_a_one_hot_table_stays_one(tmp_path):
    before = "id,cat,dog,owl\n1,1,0,0\n2,0,1,0\n3,,,\n4,0,0,1\n5,,1,\n"
    after = repaired(tmp_path, before, {"1": "dog", "3": "owl"}, label_col=["cat", "dog", "owl"])
    assert after == "id,cat,dog,owl\n1,0,1,0\n2,0,1,0\n3,,,1\n4,0,0,1\n5,,1,\n"


def test_label_sets_keep_their_form(tmp_path):
    before = "id,label\n1,red fox|cat\n2,(none)\n3,\n4,?dog|cat\n5,dog\n"
    new = {"1": "cat|dog", "2": "red fox", "3": "(none)", "4": "?dog|cat|red fox"}
    form = {"multi_label": True, "label_sep": "|"}
    assert repaired(tmp_path, before, new, **form) == (
        "id,label\n1,cat|dog\n2,red fox\n3,(none)\n4,?dog|cat|red fox\n5,dog\n"
    )
    one_hot = "id,cat,dog\n1,1,0\n2,0,0\n3,,\n4,1,\n5,0,1\n"
    new = {"1": "dog", "2": "?cat dog", "3": "cat"}
    form = {"multi_label": True, "label_col": ["cat", "dog"]}
    assert (
        repaired(tmp_path, one_hot, new, **form) == "id,cat,dog\n1,0,1\n2,,1\n3,1,0\n4,1,\n5,0,1\n"
    )


def test_other_separators_of_label_sets_come_back(tmp_path):
    before = "id,label\n1,a+b\n2,b\n3,a\n"
    after = repaired(tmp_path, before, {"2": "a b"}, multi_label=True, label_sep="+")
    assert after == "id,label\n1,a+b\n2,a+b\n3,a\n"


def test_the_run_goes_on_with_its_own_export(tmp_path):
    before = "id,label\n1,a\n2,b\n3,\n4,b\n"
    (tmp_path / "train.csv").write_text(before)
    run = finished(tmp_path, {"1": "b", "3": "a", "4": ""}, train=str(tmp_path / "train.csv"))
    dataset = load_dataset(Data(train=str(export(run, "table"))))
    assert dataset.table()[["id", "given_label"]].to_numpy().tolist() == [
        ["1", "b"],
        ["2", "b"],
        ["3", "a"],
    ]


def test_a_table_that_has_changed_since_the_run_is_refused(tmp_path):
    before = "id,label\n1,a\n2,b\n"
    (tmp_path / "train.csv").write_text(before)
    run = finished(tmp_path, {"1": "b"}, train=str(tmp_path / "train.csv"))
    for other in ("id,label\n1,a\n2,a\n", "id,label\n1,a\n2,b\n3,b\n"):
        (tmp_path / "train.csv").write_text(other)
        refused(lambda: export(run, "table"), "train.csv")
    (tmp_path / "train.csv").unlink()
    refused(lambda: export(run, "table"), "train.csv")


# ---- folder


@pytest.fixture
def photos(tmp_path):
    """Two classes whose files have the same names, in a folder."""
    for number, name in enumerate(("cat/1.png", "cat/2.PNG", "dog/1.png", "dog/sub/1.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), 40 * number, np.uint8)
        file.write_bytes(cv2.imencode(".png", pixels)[1])
    return tmp_path / "photos"


@pytest.mark.parametrize("copy", [False, True])
def test_a_folder_has_every_image_once_under_its_new_label(tmp_path, photos, copy):
    new = {"photos/dog/1.png": "cat", "photos/cat/2.PNG": ""}
    run = finished(tmp_path, new, train=str(photos))
    out = export(run, "folder", tmp_path / "clean", copy=copy)
    images = ImageFolder(str(out))
    assert images.classes == ["cat", "dog"]
    brightness = sorted((np.asarray(image).mean(), images.classes[k]) for image, k in images)
    assert brightness == [(0, "cat"), (80, "cat"), (120, "dog")]
    assert all(Path(path).is_symlink() != copy for path, _ in images.samples)
    dataset = load_dataset(Data(train=str(out), allow_outside_files=not copy))
    assert sorted(dataset.table().given_label) == ["cat", "cat", "dog"]
    if copy:
        shutil.rmtree(photos)
        assert len(load_images(dataset.path, Data(size=8))[0]) == 3
    refused(lambda: export(run, "folder", out, copy=copy), "--out", out.name)


def test_a_folder_that_nobody_could_read_is_not_written(tmp_path, photos):
    table = tmp_path / "train.csv"
    for name, label, data in [
        ("cat/1.png", "a/b", {}),
        ("cat/1.png", ".hidden", {}),
        ("cat/1.png", "x", {"multi_label": True}),
        ("cat/3.png", "x", {}),
    ]:
        table.write_text(f"id,label\n{name},{label}\ndog/1.png,y\n")
        run = finished(tmp_path, {}, train=str(table), image_dir=str(photos), **data)
        refused(lambda run=run: export(run, "folder", tmp_path / "clean"))
        assert {file.name for file in tmp_path.iterdir()} == {"photos", "run", "train.csv"}


# ---- soft labels


@pytest.fixture
def self_trained(tmp_path):
    """self_trained(mode, **pseudo): a run of nearest centroids on digits; its folder, samples and what is learned."""

    def made(mode="denoise", **pseudo):
        dataset, x, _ = digits(300, labeled=200, flipped=0.2)
        if mode == "denoise":
            x, dataset = x[dataset.given_labels >= 0], dataset.take(dataset.given_labels >= 0)
        teacher = Teacher(x, 10)
        policy = Pseudo(**{"rounds": 2, "folds": 3, "cutoff": 0.6} | pseudo)
        run = Run(tmp_path / mode, mode, Config(pseudo=policy.model_dump()))
        run.write_status("done", "done", "max_rounds")
        (run.path / "config.yaml").write_text(dump_config(run.config))
        result = rounds_of(run.path, mode, dataset, teacher.fit, teacher.predict, policy)
        write_csv(run.path / "samples.csv", dataset.table())
        no_copies = duplicates_table(
            dataset, np.zeros((len(dataset), 8, 8, 1)), np.empty((2, 0), int)
        )
        write_csv(run.path / "duplicates.csv", escape_formulas(no_copies))
        write_json(run.path / "student" / "model.json", {"classes": list(dataset.classes)})
        write_json(run.path / "metrics.json", {"round": result.round})
        write_csv(run.path / "labels.csv", labels_table(result, dataset))
        return run, dataset, result

    return made


@pytest.mark.parametrize(
    ("mode", "pseudo"),
    [
        ("denoise", {"uncertain_labels": "soften"}),
        ("denoise", {"uncertain_labels": "downweight"}),
        ("denoise", {"relabel_cutoff": 0.6, "uncertain_labels": "drop"}),
        ("augment", {"targets": "weighted", "top_fraction": 0.5}),
        ("joint", {"targets": "soft"}),
        ("denoise", {"rounds": 0}),
    ],
)
def test_soft_labels_are_what_the_student_learned(self_trained, mode, pseudo):
    run, dataset, result = self_trained(mode, **pseudo)
    table = pd.read_parquet(export(run.path, "soft"))
    assert list(table.id) == list(dataset.id)
    probs = table.filter(regex="^p_").to_numpy()
    is_learned = result.label >= 0
    taught = result.targets(dataset)
    if taught.ndim == 1:
        taught = np.eye(10)[taught]
    weighted = probs * table.weight.to_numpy()[:, None]
    np.testing.assert_allclose(weighted[is_learned], taught[is_learned], atol=1e-6)
    assert ((table.weight > 0) == is_learned).all()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-4)
    sources = pd.read_csv(run.path / "labels.csv", dtype=str).set_index("id").source
    assert table.set_index("id").source[sources.index].equals(sources)
    assert (table.source[~table.id.isin(sources.index)] == "unlabeled").all()
    as_csv = pd.read_csv(export(run.path, "soft", run.path / "soft.csv"), dtype={"id": str})
    np.testing.assert_allclose(as_csv.filter(regex="^p_").to_numpy(), probs, atol=1e-5)


def test_a_persons_word_outranks_what_was_learned(self_trained):
    run, dataset, result = self_trained("denoise", uncertain_labels="soften")
    softened = np.flatnonzero(result.decisions.soft)[:2]
    decided = pd.DataFrame(
        {
            "id": dataset.id[softened],
            "given_label": dataset.table().given_label[softened],
            "action": ["relabel", "drop"],
            "label": ["3", ""],
        }
    )
    write_json(run.path / "metrics.json", {"round": result.round, "human": {"files": 1}})
    store_corrections(run, decided)
    write_json(run.path / "student" / "model.json", {"classes": list(dataset.classes)})
    assert len(applied(run.path)) == 1
    refused(lambda: export(run.path, "soft"), "labels.csv")  # which does not know of them yet
    corrected = with_corrections(run, dataset, result)
    write_csv(run.path / "labels.csv", labels_table(corrected, dataset))
    table = pd.read_parquet(export(run.path, "soft")).iloc[softened]
    assert list(table.source) == ["human", "human"]
    assert list(table.weight) == [1, 0]
    assert table.p_3.iloc[0] == 1


# ---- ONNX


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_onnx_file_predicts_pixels_as_the_kit_does_and_names_its_classes(
    tmp_path, photos, multi_label
):
    run = finished(tmp_path, {}, train=str(photos))
    torch.manual_seed(0)
    network, spec = create_model(Model(), ("cat", "dög"), 16, 3)
    spec = ModelSpec(**vars(spec) | {"multi_label": multi_label})
    model = save_model(run / "student", network, spec)
    file = export(run, "onnx")
    session = onnxruntime.InferenceSession(file)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    (probs,) = session.run(None, {"pixels": pixels})
    expected = np.exp(log_probs(model, pixels, np.arange(5), device="cpu"))
    np.testing.assert_allclose(probs, expected[..., 1] if multi_label else expected, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["cat", "dög"]
    assert (about["size"], about["channels"]) == ("16", "RGB")


def test_a_council_is_one_file(tmp_path, photos):
    run = finished(tmp_path, {}, train=str(photos))
    for seed, folder in enumerate(("student", "student/model_2")):
        torch.manual_seed(seed)
        save_model(run / folder, *create_model(Model(), ("cat", "dog"), 16, 3))
    write_json(run / "council.json", {"weights": [0.9, 0.1]})
    models = load_models([run / "student"])
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    rows = np.arange(5)
    expected = mean_probs(
        models, rows, lambda model, rows: log_probs(model, pixels, rows, device="cpu")
    )
    (probs,) = onnxruntime.InferenceSession(export(run, "onnx")).run(None, {"pixels": pixels})
    np.testing.assert_allclose(probs, expected, atol=1e-5)


class Changed(nn.Module):
    """A network that is another one in the file."""

    def forward(self, images):
        bright = images.mean((1, 2, 3))
        sign = -1 if torch.onnx.is_in_onnx_export() else 1
        return torch.stack([sign * bright, bright * 0], 1)


def test_a_file_that_predicts_something_else_is_refused():
    spec = ModelSpec("changed", {}, ["a", "b"], 8, 1, [0.5], [0.2])
    pixels = np.full((4, 8, 8, 1), 200, np.uint8)
    refused(lambda: to_onnx([TrainedModel(Changed(), spec)], pixels), "--format", "onnx")


# ---- all of them


def test_what_cannot_be_exported_is_said_in_one_line_and_nothing_is_written(tmp_path, photos):
    run = finished(tmp_path, {}, train=str(photos))
    refused(lambda: export(run, "table"), "--format", "folder", "labels.csv")
    refused(lambda: export(run, "excel"), "--format", "excel")
    refused(lambda: export(run, "soft", copy=True), "--copy")
    refused(lambda: export(run, "folder", photos), "--out", photos.name)
    shutil.rmtree(run / "student")
    refused(lambda: export(run, "onnx"), run.name)
    refused(lambda: export(tmp_path, "table"), tmp_path.name)
    assert not (run / "export").exists()
    table = tmp_path / "train.csv"
    table.write_text("id,label\ncat/1.png,a\ndog/1.png,b\n")
    run = finished(tmp_path, {}, state="running", train=str(table))
    refused(lambda: export(run, "table"), run.name)
    run = finished(tmp_path, {}, train=str(table))
    refused(lambda: export(run, "table", table), "--out", table.name)
    assert table.read_text() == "id,label\ncat/1.png,a\ndog/1.png,b\n"


def test_a_run_that_ended_without_a_student_has_a_table(tmp_path):
    (tmp_path / "train.csv").write_text("id,label\n1,a\n2,b\n")
    run = finished(tmp_path, {"1": "b"}, train=str(tmp_path / "train.csv"))
    shutil.rmtree(run / "student")
    write_json(run / "round_1" / "round.json", {"classes": ["a", "b"]})
    Run(run, "denoise", Config()).write_status("stopped", "rounds", "time_budget")
    assert export(run, "table").read_text() == "id,label\n1,b\n2,b\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--format table", "--run"),
        ("--run x", "--format"),
        ("--run x --format table --revert", "--revert"),
        ("--run x --format table a.b=1", "a.b=1"),
        ("--run x --format table --copy", "--copy"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments, named):
    refused(lambda: pseudo_command(["--mode", "export", *arguments.split()]), named)
