"""What a round keeps on disk: recalled as it was written, refused where it was edited; what it says of the noise."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pseudokit.config.keys import Pseudo
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset
from pseudokit.labels.decide import decide_labels
from pseudokit.labels.out_of_fold import OutOfFoldPredictions
from pseudokit.round_store import RoundStore, summary
from pseudokit.self_training import SelfTrainingContext, self_train
from pseudokit.system.files import read_json
from tests.labels.test_noise import MATRICES, K, logs_of, uniform, world

LABELS = load_digits().target[:120].astype(np.int64)
CLASSES = tuple("0123456789")
IDS = np.array([f"{i:03d}" for i in range(120)], object)


@dataclass
class Model:
    hash: str


def rounds(folder, ids=IDS):
    """Two rounds of denoising, a tenth of the labels wrong, with a model that knows the truth nine times out of ten.

    Returns the labels, and which models were trained.
    """
    noisy = LABELS.copy()
    noisy[:12] = (noisy[:12] + 1) % 10
    empty = np.full(120, "", object)
    dataset = Dataset(ids, empty, np.full(120, "train", object), noisy, empty, CLASSES)
    log_probs = np.log(np.full((120, 10), 0.01) + 0.9 * np.eye(10)[LABELS]).astype(np.float32)
    trained = []

    def fit(where, rows, targets):
        trained.append(where)
        return Model(where)

    def predict(model, rows):
        return log_probs[rows]

    store = RoundStore(folder)
    result = self_train(
        SelfTrainingContext(
            dataset, fit, predict, Pseudo(rounds=2), store, mode="denoise", clusters=np.arange(120)
        )
    )
    return result.label, trained


def refused(folder, *words, **options) -> None:
    with pytest.raises(UserError) as caught:
        rounds(folder, **options)
    for word in words:
        assert word in str(caught.value)


def test_rounds_as_they_were_written_are_recalled(tmp_path, caplog):
    caplog.set_level("INFO", "kit")
    before, trained = rounds(tmp_path)
    assert len(trained) == 4
    for number, line in enumerate(caplog.messages, start=1):
        info = read_json(tmp_path / f"round_{number}" / "round.json")
        names, numbers = (text.split() for text in line.splitlines()[1:])
        assert (
            dict(zip(names, numbers, strict=False)).items()
            >= {
                "round": str(number),
                **{decision: str(n) for decision, n in info["decisions"].items()},
            }.items()
        )
    caplog.clear()
    info = read_json(tmp_path / "round_2" / "round.json")
    assert set(info["files"]) == {"log_probs.npy", "ids.csv", "decisions.csv"}
    again, trained = rounds(tmp_path)
    assert caplog.messages == []
    np.testing.assert_array_equal(before, again)
    assert trained == []


@pytest.mark.parametrize("name", ["log_probs.npy", "ids.csv", "decisions.csv"])
def test_a_file_that_was_edited_or_is_gone_is_named(tmp_path, name):
    rounds(tmp_path)
    file = tmp_path / "round_1" / name
    data = file.read_bytes()
    file.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    refused(tmp_path, str(file), "--fresh")
    file.unlink()
    refused(tmp_path, str(file))
    file.write_bytes(data)
    rounds(tmp_path)


def test_a_round_of_other_samples_is_not_blended_in(tmp_path):
    rounds(tmp_path)
    others = IDS.copy()
    others[5] = "other"
    refused(tmp_path, "round_1", "--fresh", ids=others)


def summary_of(q, given_labels):
    empty = np.full(len(given_labels), "", object)
    dataset = Dataset(empty, empty, empty, given_labels, empty, tuple("abcdef"[:K]))
    decisions = decide_labels(logs_of(q), given_labels, "denoise", Pseudo())
    return summary(decisions, dataset, OutOfFoldPredictions(logs_of(q), empty))


@pytest.mark.parametrize("name", MATRICES)
def test_the_rate_of_noise_of_the_class_and_its_interval(name):
    q, truth, given_labels = world(MATRICES[name])
    info, rate = summary_of(q, given_labels), (truth != given_labels).mean()
    low, high = info["estimated_rate_interval"]
    assert abs(info["estimated_rate"] - rate) < 0.01
    assert low < info["estimated_rate"] < high
    assert info["noise_type"] == name
    assert np.shape(info["noise_matrix"]) == (K, K)


def test_what_is_hard_is_not_called_wrong_where_the_surest_rows_show_no_noise():
    q, truth, _ = world(uniform(0.2), sharpness=100)
    info = summary_of(q, truth)
    assert info["noise_type"] == "none"
    assert info["estimated_rate"] < 0.002
