"""--forecast: its interval holds what a run then measures, no judge is learned, and it says where it cannot tell."""

import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pseudokit.cli import pseudo_command
from pseudokit.config.keys import Config, Pseudo
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset
from pseudokit.run_folder.forecast import (
    DOUBLING_SD,
    KEPT,
    PRIOR_MEAN,
    PRIOR_SD,
    RUN_SD,
    SHARED,
    Simulation,
    best_policy,
    expected_gain,
    forecast_gains,
)
from pseudokit.run_folder.prepare import PreparedData
from pseudokit.training.trainer import JobRunner, Trainer
from tests.naming import lines_naming

ROW_SD = 0.3
LEARNED = np.array([0.5, 0.5, 0.75, 0.75])
"""Of the labels."""


@pytest.mark.parametrize("n", [30, 300, 3000])
@pytest.mark.parametrize("ahead", [0, 1])
def test_four_of_five_intervals_hold_the_gain_of_one_run(n, ahead):
    rng = np.random.default_rng(n + ahead)
    doublings = -np.log2(LEARNED)
    inside = []
    for _ in range(500):
        level = rng.normal(PRIOR_MEAN, PRIOR_SD)
        judges = rng.normal(0, np.sqrt(SHARED / n))
        own = rng.normal(0, np.sqrt((1 - SHARED) / n + RUN_SD**2), len(LEARNED))
        drift = rng.normal(0, DOUBLING_SD * doublings)
        gains = level / KEPT**doublings + judges + own + drift
        gain = level * KEPT**ahead + rng.normal(0, RUN_SD) + rng.normal(0, DOUBLING_SD * ahead)
        _, low, high = expected_gain(ROW_SD * gains, n * LEARNED, ROW_SD, n, n * 2**ahead)
        inside.append(low <= ROW_SD * gain <= high)
    assert 0.75 < np.mean(inside) < 0.85


@pytest.mark.parametrize("n", [20, 200, 20_000])
def test_where_nothing_is_gained_the_interval_holds_zero_and_more_judges_make_it_narrower(n):
    mean, low, high = expected_gain(np.zeros(4), n * LEARNED, ROW_SD, n, n)
    assert low < 0 < high
    assert low < mean < high
    _, low_of_more, high_of_more = expected_gain(np.zeros(4), 4 * n * LEARNED, ROW_SD, 4 * n, 4 * n)
    assert high_of_more - low_of_more < high - low


def test_a_large_gain_of_many_judges_is_believed_and_twice_the_labels_are_less_certain():
    gains = 0.05 * LEARNED ** np.log2(KEPT)
    mean, low, high = expected_gain(gains, 5000 * LEARNED, ROW_SD, 5000, 5000)
    _, low_of_twice, high_of_twice = expected_gain(gains, 5000 * LEARNED, ROW_SD, 5000, 10_000)
    assert low > 0
    assert abs(mean - 0.05) < 0.01
    assert high_of_twice - low_of_twice > high - low


@pytest.mark.parametrize(("lead", "best"), [(0.01, "as configured"), (0.03, "other")])
def test_another_policy_is_advised_only_where_its_lead_is_no_luck(lead, best):
    configured = np.array([0.02, -0.02, 0.06])
    gains = {"other": [configured + lead], "as configured": [configured]}
    assert best_policy(gains) == best


@pytest.fixture
def simulation():
    """Three blobs, 30 labels among 120 rows."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    features = (rng.normal(0, 1.2, (120, 4)) + 2 * np.eye(3, 4)[truth]).astype(np.float32)
    given_labels = np.where(np.arange(120) < 30, truth, -1)
    ids = np.array([f"{i:03d}" for i in range(120)], object)
    split = np.where(given_labels < 0, "unlabeled", "train").astype(object)
    no_group = np.full(120, "", object)
    dataset = Dataset(ids, ids, split, given_labels, no_group, ("a", "b", "c"))
    pixels = np.zeros((120, 1, 1, 1), np.uint8)
    data = PreparedData(dataset, dataset, pixels, np.arange(120), no_group, {}, 0)
    runner = JobRunner(Trainer(Config(), pixels, given_labels, dataset.classes), lambda _: True)
    return Simulation(runner, data, features, 30.0)


POLICIES = {Pseudo(rounds=1): "plain", Pseudo(rounds=2, targets="soft", cutoff=0): "soft"}


def test_no_judge_teaches_by_its_label_or_by_its_image(simulation):
    rows = np.arange(120)
    hidden = rows % 3 == 1  # some of them without a label
    judges = np.flatnonzero(hidden & (rows < 30))
    others = np.flatnonzero(~hidden)
    before = simulation.arms(hidden, np.concatenate([judges, others]), POLICIES)
    data = simulation.data
    labels = np.where(hidden & (rows < 30), 2, data.judged.given_labels)
    wrong = replace(data, judged=replace(data.judged, given_labels=labels))
    after = replace(simulation, data=wrong).arms(hidden, np.concatenate([judges, others]), POLICIES)
    features = np.where(hidden[:, None], 100, simulation.features).astype(np.float32)
    of_others = replace(simulation, features=features).arms(hidden, others, POLICIES)
    for one, two, three in zip(before, after, of_others, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one[len(judges) :], three)
    assert not np.array_equal(before[0], before[2])  # the soft student learned something else


def test_each_policy_is_measured_on_every_label_and_forecast_for_now_and_twice(simulation):
    runs = simulation.runs(POLICIES)
    assert set(runs.policy) == {"plain", "soft"}
    assert sorted(set(runs.learned)) == [15, 22.5]
    assert np.isfinite(runs[["gain", "error"]].to_numpy()).all()
    gains = forecast_gains(runs, 30)
    assert sorted(gains) == ["plain", "soft"]
    best, other = gains.values()
    assert best[0][0] >= other[0][0]
    for mean, low, high in [*best, *other]:
        assert low < mean < high


def forecast(csv_data, n_of_class: int) -> None:
    """With so many zeros and ones."""
    folder, args = csv_data
    table = pd.read_csv(folder / "train.csv", dtype=str)
    table = table[table.label.isin(["d0", "d1"])].groupby("label").head(n_of_class)
    table.to_csv(folder / "train.csv", index=False)
    keys = [key for key in args if not key.startswith("data.test=")]
    pseudo_command(["--mode", "augment", "--forecast", *keys, "name=x", "pseudo.rounds=1"])


def test_a_forecast_names_what_stands_in_for_a_network_and_leaves_no_model(
    csv_data, caplog, monkeypatch
):
    monkeypatch.setattr("pseudokit.run_folder.forecast.PROXY_STEPS", 2)
    caplog.set_level(logging.INFO, logger="kit")
    forecast(csv_data, 4)
    assert lines_naming(caplog.text, "proxy", "test_resnet", 2)
    assert lines_naming(caplog.text, "8 labels", "16 labels")
    for policy in ("as configured", "soft labels for all", "label propagation"):
        assert lines_naming(caplog.text, policy, "to")
    runs = csv_data[0] / "runs"
    assert [path.name for path in runs.iterdir()] == ["x-check"]
    assert not list(runs.rglob("*.safetensors"))


def test_too_few_labels_to_hide_half_of_them_are_told(csv_data, caplog):
    caplog.set_level(logging.INFO, logger="kit")
    forecast(csv_data, 3)
    assert lines_naming(caplog.text, "too few labels", "'d0'", 3)
    assert "as configured" not in caplog.text


@pytest.mark.parametrize(
    "arguments", [["--mode", "denoise"], ["--mode", "augment", "data.multi_label=true"]]
)
def test_a_forecast_is_refused_where_nothing_can_be_hidden(csv_data, arguments):
    with pytest.raises(UserError, match="--forecast"):
        pseudo_command([*arguments, "--forecast", *csv_data[1]])
