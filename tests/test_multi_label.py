"""Multi-label data through train, predict and the modes: images that show any of three colored squares."""

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit import api
from pseudokit.data.csv_text import read_csv
from pseudokit.data.encoding import NONE
from pseudokit.system.files import read_json
from tests.naming import refused
from tests.test_votes import decide

CLASSES = ["blue", "green", "red"]
FAST = [
    "train.min_steps=45",
    "train.epochs=1",
    "train.batch_size=32",
    "train.lr=4e-3",
    "train.augment=none",
    "model.name=test_resnet",
    "data.size=16",
    "data.multi_label=true",
    f"data.label_col=[{','.join(CLASSES)}]",
    "data.image_suffix=.png",
]


def names_of(row):
    return " ".join(name for name in CLASSES if row[name]) or NONE


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """train.csv (200 rows), unlabeled.csv (150), test.csv (100), sample_submission.csv; text.csv: train, in words."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for i in range(450):
        image, shown = (
            rng.integers(0, 60, (32, 32, 3)).astype(np.uint8),
            rng.random(3) < (0.3, 0.4, 0.5),
        )
        for channel in np.flatnonzero(shown):
            y, x = rng.integers(0, 20, 2)
            image[y : y + 12, x : x + 12, channel] = rng.integers(150, 256)
        cv2.imwrite(str(folder / "images" / f"s{i:03d}.png"), image)
        rows.append([f"s{i:03d}", *shown.astype(int)])
    table = pd.DataFrame(rows, columns=["id", *CLASSES])
    for name, part in {
        "train": table[:200],
        "unlabeled": table[200:350][["id"]],
        "test": table[350:],
    }.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    table[350:][["id"]].assign(red=0.5, blue=0.5, green=0.5).to_csv(
        folder / "sample_submission.csv", index=False
    )
    table[:200].assign(label=[names_of(row) for _, row in table[:200].iterrows()])[
        ["id", "label"]
    ].to_csv(folder / "text.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def options(squares):
    return [
        *FAST,
        f"data.train={squares / 'train.csv'}",
        f"data.test={squares / 'test.csv'}",
        f"data.image_dir={squares / 'images'}",
        f"out={squares / 'runs'}",
    ]


@pytest.fixture(scope="module")
def denoised(squares, options):
    more = [
        "simulate.noise=symmetric",
        "simulate.noise_rate=0.1",
        "train.min_steps=60",
        "pseudo.rounds=1",
        "pseudo.train_baseline=false",
        "name=denoised",
    ]
    return api.run_command("denoise", [*options, *more])


def test_training_predicts_each_class_by_itself_and_fills_a_submission(squares, options):
    run = api.run_command(
        "train",
        [
            *options,
            "name=plain",
            f"data.submission={squares / 'sample_submission.csv'}",
            "metric=macro_f1",
        ],
    )
    table, filled = read_csv(run / "predictions.csv"), pd.read_csv(run / "submission.csv")
    probs = table[[f"p_{name}" for name in CLASSES]].astype(float).to_numpy()
    truth = pd.read_csv(squares / "test.csv")
    assert list(table.id) == list(truth.id)
    assert ((probs > 0.5) == truth[CLASSES]).to_numpy().mean() > 0.95
    assert np.ptp(probs.sum(1)) > 1  # no softmax
    assert list(filled) == ["id", "red", "blue", "green"]
    assert filled[CLASSES].to_numpy() == pytest.approx(probs, abs=1e-6)
    scores = read_json(run / "metrics.json")
    assert scores["scores"]["student"]["test"]["accuracy"] > 0.85
    assert set(scores["oof_classes"]) == set(CLASSES)
    hits = (read_csv(run / "oof.csv").eval("label == predicted")).mean()
    assert scores["oof"]["accuracy"] == pytest.approx(hits)
    assert np.load(run / "oof_log_probs.npy").shape == (200, 3, 2)
    assert set(table.label) >= {NONE, "blue", "green red"}
    both = api.predict(
        [run, run], str(squares / "unlabeled.csv"), run / "unlabeled.csv", weights="2,1"
    )
    assert len(both) == 150


def test_unlabeled_images_get_yes_and_no_and_text_labels_give_the_same_bytes(squares, options):
    more = [f"data.unlabeled={squares / 'unlabeled.csv'}", "pseudo.rounds=1", "pseudo.cutoff=0.9"]
    more += ["pseudo.train_baseline=false"]
    run = api.run_command("augment", [*options, *more, "name=onehot"])
    table = read_csv(run / "pseudo_labels.csv")
    labels = " ".join(table.label).replace("?", " ?").split()
    assert {"blue", "green", "red"} <= set(labels)
    assert (table.confidence.astype(float) >= 0.9).all()
    unlabeled = read_json(run / "metrics.json")["unlabeled"]
    assert unlabeled["n"] == 450
    assert 150 < unlabeled["pseudo_labels"] < 450
    words = [
        f"data.train={squares / 'text.csv'}",
        "data.label_col=label",
        "data.test=null",
        "name=text",
    ]
    again = decide("augment", [*options, *more, *words])[0]
    assert (again / "pseudo_labels.csv").read_bytes() == (run / "pseudo_labels.csv").read_bytes()
    assert (again / "labels.csv").read_bytes() == (run / "labels.csv").read_bytes()


def test_wrong_answers_are_found_and_mended_class_by_class(denoised):
    noise, info = (
        read_json(denoised / "metrics.json")["noise"],
        read_json(denoised / "round_1" / "round.json"),
    )
    assert noise["n"] == 600
    assert noise["injected_rate"] == pytest.approx(0.1)
    assert noise["residual_rate"] < 0.05
    assert noise["average_precision"] > 0.8
    assert set(info["noise_by_class"]) == set(CLASSES)
    flipped = read_csv(denoised / "injected.csv").query("clean != given_label").id
    label_issues = read_csv(denoised / "label_issues.csv")
    assert label_issues.id[:30].isin(flipped).mean() > 0.9
    page = (denoised / "report.html").read_text(encoding="utf-8")
    assert "missing labels" in page
    assert "extra labels" in page


def test_a_person_corrects_a_label_set(denoised, squares):
    rows = read_csv(denoised / "label_issues.csv")[["id", "given_label"]][:3]
    file = squares / "corrections.csv"
    rows.assign(action=["relabel", "relabel", "drop"], label=["blue ?red", NONE, ""]).to_csv(
        file, index=False
    )
    api.apply(denoised, file)
    learned = read_csv(denoised / "labels.csv").set_index("id").loc[rows.id]
    assert list(learned.label) == ["blue ?red", NONE, ""]
    assert set(learned.source) == {"human"}
    rows.assign(action="relabel", label="blue pink").to_csv(file, index=False)
    refused(lambda: api.apply(denoised, file), file, "line 2", "'blue pink'")


def test_what_is_for_one_class_an_image_is_refused(squares, options):
    more = [f"data.unlabeled={squares / 'unlabeled.csv'}", "name=no"]
    for key in ("pseudo.label_propagation=2", "train.consistency_weight=1"):
        arguments = [*options, *more, key]
        named = key.partition("=")[0]
        refused(lambda a=arguments: api.run_command("augment", a), named, "data.multi_label=true")
    arguments = [*options, "data.multi_label=false", "name=no"]
    refused(
        lambda: api.run_command("train", arguments), "blue, green, red", "data.multi_label=true"
    )
