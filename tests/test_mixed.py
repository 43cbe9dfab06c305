"""A round says what it was made from; a state that was mixed or edited is refused by name, not blended."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pseudokit.config.keys import Config, Pseudo, Student, Train
from pseudokit.config.types import UserError
from pseudokit.data.dataset import Dataset
from pseudokit.round_store import RoundStore, model_files
from pseudokit.run_folder.folder import read_status
from pseudokit.self_training import self_train
from pseudokit.system.files import read_json, write_json
from pseudokit.training.jobs import JobRunner, LinearProbe
from pseudokit.training.trainer import Trainer

PIXELS = (load_digits().images[:120] * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
LABELS = load_digits().target[:120].astype(np.int64)
CLASSES = tuple("0123456789")
IDS = np.array([f"{i:03d}" for i in range(120)], object)


@dataclass
class Model:
    hash: str


def rounds(folder, policy=(), labels=LABELS):
    """Two rounds of denoising with a model that knows the truth nine times out of ten."""
    empty = np.full(120, "", object)
    dataset = Dataset(IDS, empty, np.full(120, "train", object), labels, empty, CLASSES)
    said = np.log(np.full((120, 10), 0.01) + 0.9 * np.eye(10)[LABELS]).astype(np.float32)
    keys = Pseudo(**{"rounds": 2} | dict(policy))

    def fit(where, rows, targets):
        (folder / where).mkdir(parents=True, exist_ok=True)
        write_json(folder / where / "model.json", {"hash": where})
        return Model(where)

    return self_train(
        dataset, fit, lambda model, rows: said[rows], keys, RoundStore(folder), mode="denoise", clusters=np.arange(120)
    )


@pytest.fixture
def noisy():
    labels = LABELS.copy()
    labels[:12] = (labels[:12] + 1) % 10
    return labels


def refused(folder, *words, **options) -> None:
    with pytest.raises(UserError) as caught:
        rounds(folder, **options)
    for word in words:
        assert word in str(caught.value)


def test_rounds_as_they_were_written_are_recalled(tmp_path, noisy):
    before = rounds(tmp_path, labels=noisy)
    about = read_json(tmp_path / "round_2" / "round.json")
    assert set(about["input_hash"]) == {"samples", "keys", "round_1"}
    assert set(about["files"]) == {"log_probs.npy", "ids.csv", "decisions.csv"}
    again = rounds(tmp_path, labels=noisy)
    np.testing.assert_array_equal(before.label, again.label)


@pytest.mark.parametrize("name", ["log_probs.npy", "ids.csv", "decisions.csv"])
def test_a_file_that_was_edited_or_is_gone_is_named(tmp_path, noisy, name):
    rounds(tmp_path, labels=noisy)
    file = tmp_path / "round_1" / name
    data = file.read_bytes()
    file.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    refused(tmp_path, str(file), "--fresh", labels=noisy)
    file.unlink()
    refused(tmp_path, str(file), labels=noisy)
    file.write_bytes(data)
    rounds(tmp_path, labels=noisy)


def test_a_round_of_other_labels_or_keys_is_not_blended_in(tmp_path, noisy):
    rounds(tmp_path, labels=noisy)
    refused(tmp_path, "round_1", "other samples", labels=LABELS)
    refused(tmp_path, "round_1", "other keys", labels=noisy, policy={"relabel_cutoff": 0.5})


def test_a_round_of_another_run_is_not_blended_in(tmp_path, noisy):
    for name in "ab":
        rounds(tmp_path / name, labels=noisy)
    about = read_json(tmp_path / "a" / "round_1" / "round.json")
    write_json(tmp_path / "a" / "round_1" / "round.json", about | {"seconds": 99.0})
    rounds(tmp_path / "a", labels=noisy)  # what it took in time makes no other round of it
    write_json(tmp_path / "a" / "round_1" / "round.json", about | {"changed": 99})
    refused(tmp_path / "a", "round_2", "other round_1", labels=noisy)
    shutil.copytree(tmp_path / "b" / "round_1", tmp_path / "a" / "round_1", dirs_exist_ok=True)
    rounds(tmp_path / "a", labels=noisy)
    write_json(tmp_path / "a" / "round_1" / "fold_0" / "model.json", {"hash": "another"})
    refused(tmp_path / "a", "round_1/fold_0/model.json", labels=noisy)


def test_rounds_of_the_first_version_have_no_hashes_and_are_read(tmp_path, noisy):
    before = rounds(tmp_path, labels=noisy)
    for number in (1, 2):
        file = tmp_path / f"round_{number}" / "round.json"
        write_json(file, {key: value for key, value in read_json(file).items() if key not in ("files", "input_hash")})
    np.testing.assert_array_equal(before.label, rounds(tmp_path, labels=noisy).label)


def job_runner(folder, input_hash="these images", **options) -> JobRunner:
    train = Train(epochs=0.1, batch_size=16, amp_dtype="fp32", device="cpu", **options)
    trainer = Trainer(Config(train=train, student=Student()), PIXELS, LABELS, CLASSES)
    return JobRunner(folder, trainer, LinearProbe(folder, trainer, input_hash), None, lambda seconds: True, input_hash)


def test_a_model_of_other_labels_images_or_keys_is_refused(tmp_path):
    rows, other = np.arange(100), (LABELS[:100] + 1) % 10
    first = job_runner(tmp_path).fit("round_1/fold_0", rows, LABELS[:100])
    again = job_runner(tmp_path, num_workers=3, checkpoint_every=5).fit("round_1/fold_0", rows, LABELS[:100])
    assert first.hash == again.hash
    for found, labels in [
        (job_runner(tmp_path), other),
        (job_runner(tmp_path, "others"), LABELS[:100]),
        (job_runner(tmp_path, lr=1e-4), LABELS[:100]),
    ]:
        with pytest.raises(UserError, match=r"round_1/fold_0/model.json was made from other"):
            found.fit("round_1/fold_0", rows, labels)
    file = tmp_path / "round_1" / "fold_0" / "model.json"
    about = read_json(file)
    del about["input_hash"]
    write_json(file, about)
    assert job_runner(tmp_path).fit("round_1/fold_0", rows, other).hash == first.hash, "as the first version left it"


def test_a_control_is_the_same_whatever_steps_its_student_takes(tmp_path):
    """Corrections change the number of rows a little; the baseline is not trained again for that."""
    first = job_runner(tmp_path).fit("baseline", np.arange(100), LABELS[:100], steps=3)
    assert job_runner(tmp_path).fit("baseline", np.arange(100), LABELS[:100], steps=4).hash == first.hash


def test_a_model_that_is_gone_makes_no_other_mean(tmp_path):
    for fold in range(2):
        write_json(tmp_path / "round_1" / f"fold_{fold}" / "model.json", {"hash": str(fold)})
    assert len(model_files(tmp_path, 1)) == 2, "a round that is not finished names none"
    write_json(tmp_path / "round_1" / "round.json", {"round": 1, "classes": [], "models": {"0": {}, "1": {}}})
    assert len(model_files(tmp_path, 1)) == 2
    (tmp_path / "round_1" / "fold_0" / "model.json").unlink()
    with pytest.raises(UserError, match=r"round_1/round.json names 2 models, and 1 of them are there; .*--fresh"):
        model_files(tmp_path, 1)


@pytest.mark.parametrize("text", ["[]", "null", "1", "{}", "{", "[" * 100_000, '{"state": "done"}', ""])
def test_a_status_that_was_edited_is_named(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError, match=r"status\.json is no JSON as it was written; .*--fresh"):
        read_status(tmp_path)
