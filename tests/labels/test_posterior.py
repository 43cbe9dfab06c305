"""A posterior is computed in blocks: neither their size nor where the numbers lie changes a decision."""

import tracemalloc

import numpy as np
import pytest

from pseudokit.config.keys import Pseudo
from pseudokit.labels import arrays, posterior
from pseudokit.labels.arrays import normalize
from pseudokit.labels.decide import decide_labels

from .test_noise import logs_of, uniform, world

POLICIES = {
    "denoise": Pseudo(),
    "augment": Pseudo(cutoff=0.6, targets="soft", distribution_alignment=True),
    "joint": Pseudo(cutoff=0.6, top_fraction=0.8, targets="weighted"),
}


@pytest.mark.parametrize("mode", POLICIES)
def test_decisions_from_a_file_in_small_blocks_are_those_from_memory(mode, tmp_path, monkeypatch):
    q, _, given_labels = world(uniform(0.2), sharpness=3, n=3000)
    given_labels = (
        np.where(np.arange(len(given_labels)) % 3 == 0, -1, given_labels)
        if mode != "denoise"
        else given_labels
    )
    logs = logs_of(q).astype(np.float32)
    whole = decide_labels(logs, given_labels, mode, POLICIES[mode])
    np.save(tmp_path / "log_probs.npy", logs)
    monkeypatch.setattr(posterior, "BLOCK_PROBABILITIES", 100)
    monkeypatch.setattr(arrays, "MAX_BLOCK_VALUES", 100)
    parts = decide_labels(
        np.load(tmp_path / "log_probs.npy", mmap_mode="r"), given_labels, mode, POLICIES[mode]
    )
    for name in ("predicted", "decision", "label", "reason", "soft"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_allclose(parts.p_wrong, whole.p_wrong, rtol=1e-9)
    np.testing.assert_allclose(parts.targets(), whole.targets(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, float])
@pytest.mark.parametrize("k", [2, 10, 130])
@pytest.mark.parametrize("kind", ["matrix", "no matrix", "sharpened", "aligned"])
def test_many_rows_are_summed_up_in_float32(kind, k, dtype, monkeypatch):
    rng = np.random.default_rng(k)
    logs = np.log(rng.dirichlet(np.full(k, 0.2), 2000) + 1e-6)
    logs[::50, :2] = 0  # two classes are the likeliest
    logs[7], logs[8] = np.nan, -np.nan
    given_labels = rng.integers(-1, k, len(logs))
    options = {
        "matrix": {"matrix": normalize(rng.random((k, k)) + 3 * np.eye(k))},
        "no matrix": {},
        "sharpened": {"sharpness": 1.7},
        "aligned": {"prior_ratio": rng.uniform(0.5, 2, k)},
    }
    asked = posterior.Posterior(logs.astype(dtype), given_labels, **options[kind])
    rows = rng.integers(len(logs), size=1500)
    for chosen in (slice(None), rows):
        monkeypatch.setattr(posterior, "MAX_EXACT_PROBABILITIES", 10**9)
        expected = asked.summaries(chosen)
        monkeypatch.setattr(posterior, "MAX_EXACT_PROBABILITIES", 1)
        monkeypatch.setattr(arrays, "MAX_BLOCK_VALUES", 300 * k)
        for summary, exact in zip(asked.summaries(chosen), expected, strict=True):
            np.testing.assert_array_equal(summary.given_labels, exact.given_labels)
            assert (summary.best == exact.best).mean() > 0.999
            for name in ("confidence", "self_confidence", "p_wrong", "likelihood"):
                values = getattr(summary, name)
                if values is not None:
                    np.testing.assert_allclose(values, getattr(exact, name), rtol=1e-4)
                    assert values.dtype == np.float32


@pytest.mark.parametrize("mode", POLICIES)
def test_decisions_on_many_rows_are_those_on_few(mode, monkeypatch):
    q, _, given_labels = world(uniform(0.2), sharpness=3, n=3000)
    if mode != "denoise":
        given_labels[::3] = -1
    logs = logs_of(q).astype(np.float32)
    few = decide_labels(logs, given_labels, mode, POLICIES[mode])
    monkeypatch.setattr(posterior, "MAX_EXACT_PROBABILITIES", 1)
    many = decide_labels(logs, given_labels, mode, POLICIES[mode])
    for name in ("decision", "reason", "label"):
        assert (np.asarray(getattr(few, name)) == np.asarray(getattr(many, name))).mean() > 0.999
    np.testing.assert_allclose(many.weight, few.weight, atol=1e-5)


def test_memory_grows_with_the_rows_and_not_with_the_classes(tmp_path):
    n, peaks = 20_000, {}
    for k in (10, 400):
        rng = np.random.default_rng(0)
        logs = np.log(rng.dirichlet(np.full(k, 0.1), n).astype(np.float32) + 1e-9)
        np.save(tmp_path / "log_probs.npy", logs)
        stored, given_labels = np.load(tmp_path / "log_probs.npy", mmap_mode="r"), logs.argmax(1)
        tracemalloc.start()
        decide_labels(stored, given_labels, "denoise", Pseudo())
        peaks[k] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    per_block = 8 * posterior.BLOCK_PROBABILITIES
    assert peaks[400] < peaks[10] + 6 * per_block < 4 * n * 400 * 8


def test_the_most_confident_come_first_and_of_equals_the_first():
    confidence = np.array([0.5, 0.9, 0.7, 0.5, 0.9])
    for n in range(7):
        assert arrays.most_confident(confidence, n).tolist() == [1, 4, 2, 0, 3][:n]
    assert [rows.tolist() for rows in arrays.by_class(np.array([1, 0, 1, 1, 0]), 3)] == [
        [1, 4],
        [0, 2, 3],
        [],
    ]
