"""Every picture shows what lies in the run folder."""

import cv2
import numpy as np
import pandas as pd
import pytest

from pseudokit.report import pictures
from pseudokit.report.load_run import read_run

from .fake_run import make_run


def points(line):
    return line.get_xydata().round(6).tolist()


def test_rows_of_equal_confidence_enter_the_coverage_curve_together(denoise):
    rows = pd.DataFrame(
        {
            "given_label": "a",
            "predicted": list("abab"),
            "truth": np.nan,
            "confidence": [0.9, 1.0, 1.0, 0.5],
        }
    )
    _, figure = pictures.coverage(
        read_run(denoise) | {"decisions": rows, "cutoffs": (0.95, float("nan"))}
    )
    curve, dot = figure.axes[0].lines
    assert points(curve) == [[0.5, 0.5], [0.75, 0.666667], [1.0, 0.5]]
    assert points(dot) == [[0.5, 0.5]], "the dot marks what lies above the cutoff"


def test_confidences_are_counted_by_what_became_of_them(augment):
    data = read_run(augment)
    _, figure = pictures.confidence(data)
    names = {text.get_text() for text in figure.legends[0].texts}
    accepted = len(data["pseudo_labels"])
    assert names == {
        "labeled, predicted = given (50)",
        f"unlabeled, accepted ({accepted})",
        f"unlabeled, not accepted ({150 - accepted})",
        "cutoff 0.8",
    }


def test_the_confusion_matrix_counts_the_rows_of_the_headline(denoise):
    data = read_run(denoise)
    _, figure = pictures.confusion(data)
    rows = data["scored"][data["scored"]["arm"] == "student"]
    expected = pd.crosstab(rows["label"], rows["predicted"]).to_numpy()
    counts = [int(text.get_text() or 0) for text in figure.axes[0].texts]
    assert np.array_equal(np.reshape(counts, (10, 10)), expected)


def test_reliability_compares_p_wrong_with_what_is_wrong(denoise):
    data = read_run(denoise)
    _, figure = pictures.reliability(data)
    rows = data["decisions"]
    is_wrong = rows["truth"] != rows["given_label"]
    in_bin = rows["p_wrong"].between(0.5, 0.6, inclusive="right")
    curve = next(points(line) for line in figure.axes[0].lines if line.get_label() == "p_wrong")
    assert curve[3] == pytest.approx(
        [rows["p_wrong"][in_bin].mean(), is_wrong[in_bin].mean()], abs=1e-6
    )


def test_every_loss_curve_has_a_look_of_its_own(denoise):
    table = pd.DataFrame({"epoch": [1.0, 2.0], "loss": [1.0, 0.5]})
    history = {"round 1": {f"fold {i}": table for i in range(24)}, "student": {"student": table}}
    # through draw_pictures, which sets the style
    drawn = pictures.draw_pictures(read_run(denoise) | {"history": history})
    assert "losses" in drawn
    _, figure = pictures.styled(pictures.losses)({"history": history})
    first, last = figure.axes
    assert len({(line.get_color(), line.get_linestyle()) for line in first.lines}) == 24
    assert {line.get_label() for line in first.lines} == set(history["round 1"])
    assert len(last.lines) == 1


@pytest.mark.parametrize("n", [1, 30, 60])
def test_odd_names_can_be_drawn(tmp_path, n):
    names = [f"class {i:02d} of $\\frac{{$" for i in range(n)]
    run = make_run(tmp_path / "run", "joint", names=names)
    for file in (run / "images").iterdir():
        file.unlink()
    for name, (_, png) in pictures.draw_pictures(read_run(run)).items():
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image.std() > 5, name


def test_the_map_shows_every_issue_and_no_more_images_than_fit(denoise, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_MAPPED", 80)
    data = read_run(denoise)
    issues = data["decisions"]["p_wrong"] > 0.5
    caption, figure = pictures.embeddings_map(data)
    [axis] = figure.axes
    [rings] = axis.lines
    shown = axis.collections[0].get_offsets().round(6).tolist()
    assert 0 < issues.sum() < 80 == len(shown)
    assert len(points(rings)) == issues.sum()
    assert all(point in shown for point in points(rings))
    assert "80 of 200" in caption


def test_the_map_lays_embeddings_out_where_there_are_some(denoise):
    data = read_run(denoise)
    rows = data["decisions"]
    group = np.arange(len(rows)) % 3
    _, figure = pictures.embeddings_map(data | {"embeddings": np.eye(5)[group]})
    places = figure.axes[0].collections[0].get_offsets().round(6)
    assert len(np.unique(places, axis=0)) == 3, "one point a group of equal images"


def test_what_spoke_for_a_prediction_stays_bright(augment):
    data = read_run(augment)
    _, figure = pictures.why_grid(data)
    shown = figure.axes[0].images[0].get_array().astype(float)
    whole = np.asarray(pictures.load_run.read_image(data["why"]["path"][0], 128)).astype(float)
    side = whole.shape[1] // 4
    assert shown[:, :side].sum() > 0.8 * whole[:, :side].sum()
    assert shown[:, -side:].sum() < 0.5 * whole[:, -side:].sum()
