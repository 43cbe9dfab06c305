"""The networks of a run: trained once, read back, refused if made from something else; embeddings are made once."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from numpy import ndarray
from sklearn.datasets import load_digits

from pseudokit.config.keys import Config, Model
from pseudokit.config.types import UserError
from pseudokit.system.distributed import ALONE
from pseudokit.system.files import TimeBudgetExceeded
from pseudokit.system.progress import progress
from pseudokit.training import predict
from pseudokit.training import trainer as trainer_module
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.trainer import JobRunner, Trainer, TrainJob

PIXELS = (load_digits().images[:120] * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
LABELS = load_digits().target[:120].astype(np.int64)
CLASSES = tuple("0123456789")
ROWS = np.arange(100)


def job_runner(
    folder, input_hash="these images", time_for=lambda seconds: True, **options
) -> JobRunner:
    train = {"epochs": 0.1, "batch_size": 16, "amp_dtype": "fp32", "device": "cpu"} | options
    trainer = Trainer(Config(train=train), PIXELS, LABELS, CLASSES, folder, input_hash)
    return JobRunner(trainer, time_for)


def test_a_model_of_other_labels_images_or_keys_is_refused(tmp_path):
    other = (LABELS[:100] + 1) % 10
    first = job_runner(tmp_path).fit("round_1/fold_0", ROWS, LABELS[:100])
    again = job_runner(tmp_path, num_workers=3, checkpoint_every=5).fit(
        "round_1/fold_0", ROWS, LABELS[:100]
    )
    assert first.hash == again.hash
    for runner, labels in [
        (job_runner(tmp_path), other),
        (job_runner(tmp_path, "others"), LABELS[:100]),
        (job_runner(tmp_path, lr=1e-4), LABELS[:100]),
    ]:
        with pytest.raises(UserError, match=r"round_1/fold_0/model\.json"):
            runner.fit("round_1/fold_0", ROWS, labels)


def test_curves_on_val_tensorboard_and_bars_change_no_byte(tmp_path, monkeypatch):
    """Dropout draws random numbers, batch norms count, and the average of the weights is what is scored."""
    scalars = []

    class Writer:
        def __init__(self, folder, **options):
            self.folder = folder

        def add_scalar(self, name, value, step):
            scalars.append((self.folder.name, name, step))

        def close(self):
            pass

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    hashes = set()
    for rows in ((), np.arange(100, 120)):
        runner = job_runner(tmp_path / str(len(rows)), ema_decay=0.9)
        config = runner.trainer.config.model_copy(update={"tensorboard": len(rows) > 0})
        config.model.kwargs["drop_rate"] = 0.5
        val = (rows, LABELS[list(rows)])
        runner.trainer = replace(runner.trainer, config=config, val=val)
        runner.trainer.folder.mkdir()
        with progress.shown():
            model = runner.run(TrainJob("student", ROWS, LABELS[:100], steps=12))
        hashes.add(model.hash)
    assert len(hashes) == 1
    curve = pd.read_csv(tmp_path / "20" / "student" / "history.csv")
    scored = curve.dropna(subset="val_accuracy")
    assert len(scored) == 4, "every third step"
    assert scored.val_accuracy.between(0, 1).all()
    assert ("student", "loss", 12) in scalars
    assert [step for _, name, step in scalars if name == "val_accuracy"] == [3, 6, 9, 12]
    assert "val_accuracy" not in pd.read_csv(tmp_path / "0" / "student" / "history.csv")


def test_a_baseline_is_the_same_whatever_steps_its_student_takes(tmp_path):
    """Corrections change the number of rows a little; the baseline is not trained again for that."""
    first, again = (
        job_runner(tmp_path).run(TrainJob("baseline", ROWS, LABELS[:100], steps=steps))
        for steps in (3, 4)
    )
    assert first.hash == again.hash


def test_predictions_are_those_of_the_rows_that_are_asked_for(tmp_path):
    """In their order, and the same every time."""
    runner = job_runner(tmp_path)
    model = runner.fit("round_1/fold_0", ROWS, LABELS[:100])
    whole = runner.predict(model, np.arange(120))
    np.testing.assert_allclose(
        runner.predict(model, np.array([119, 3, 3])), whole[[119, 3, 3]], atol=1e-5
    )
    np.testing.assert_array_equal(runner.predict(model, np.arange(120)), whole)


def test_the_first_network_is_trained_and_later_ones_only_if_they_end_in_time(tmp_path):
    asked = []

    def time_for(seconds: float) -> bool:
        asked.append(seconds)
        return False

    runner = job_runner(tmp_path, time_for=time_for)
    runner.run(TrainJob("round_1/fold_0", ROWS, LABELS[:100], steps=2))
    assert asked == []
    with pytest.raises(TimeBudgetExceeded):
        runner.run(TrainJob("round_1/fold_1", ROWS, LABELS[:100], steps=200))
    assert asked[0] > 0
    assert not Path(tmp_path / "round_1" / "fold_1").exists()
    runner.run(TrainJob("round_1/fold_0", ROWS, LABELS[:100], steps=2))
    assert len(asked) == 1, "what is finished is read"


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_shares_are_whole_batches_and_together_all_rows_in_order(monkeypatch, processes, views):
    monkeypatch.setitem(predict.MAX_BATCH_PIXELS, "cpu", 16 * 16 * 8)  # batches of eight
    torch.manual_seed(0)
    network, spec = create_model(Model(), ("a", "b", "c"), 16, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    trainer = Trainer(Config(train={"device": "cpu"}), pixels, np.empty(0, np.int64), spec.classes)
    rows, model = np.random.default_rng(1).permutation(60)[:43], TrainedModel(network, spec, "")
    alone, handed_out = trainer.predict(model, rows, views), []

    def map_jobs(work, jobs):
        handed_out.extend(jobs)
        return (work(job, ALONE) for job in jobs)

    monkeypatch.setattr(trainer_module, "size", lambda: processes)
    monkeypatch.setattr(trainer_module, "map_jobs", map_jobs)
    np.testing.assert_array_equal(trainer.predict(model, rows, views), alone)
    assert len(handed_out) == processes
    assert all(job.first % 8 == 0 for job in handed_out)
    assert trainer.predict(model, rows[:0], views).shape == (0, 3)


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """embedded(pixels, cut=…): (embeddings, rows that were embedded now); cut: after so many rows it is cut off."""
    monkeypatch.setitem(predict.MAX_BATCH_PIXELS, "cpu", 16 * 16 * 8)  # batches of eight
    monkeypatch.setattr(trainer_module, "BATCHES_PER_STORE", 2)
    real, rows_now = trainer_module.embed, []

    def made(pixels, cut=None):
        rows_now.clear()

        def embed(network, spec, images, rows, train):
            if len(rows_now) == cut:
                raise KeyboardInterrupt
            rows_now.extend(rows)
            return real(network, spec, images, rows, train)

        monkeypatch.setattr(trainer_module, "embed", embed)
        config = Config(
            train={"device": "cpu"},
            model={"freeze_backbone": True, "checkpoint": "unused"},
            out=str(tmp_path),
        )
        monkeypatch.setattr(
            Trainer, "fresh_network", lambda *_: create_model(Model(), ("a", "b"), 16, 1)
        )
        given_labels = np.zeros(40, np.int64)
        trainer = Trainer(config, pixels, given_labels, ("a", "b"), tmp_path, "these")
        torch.manual_seed(0)
        (embeddings,) = trainer.embeddings.values()
        return np.array(embeddings), [*rows_now]

    return made


@pytest.fixture
def noise() -> ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)


def test_embeddings_that_are_cut_off_go_on_to_the_same_bytes(tmp_path, embedded, noise):
    for cut in (0, 16, 32):
        with pytest.raises(KeyboardInterrupt):
            embedded(noise, cut)
    resumed, rows = embedded(noise)
    assert rows == [*range(48, 60)]
    for file in [*tmp_path.glob("embeddings_*"), *tmp_path.glob(".embeddings/*")]:
        file.unlink()
    whole, rows = embedded(noise)
    assert rows == [*range(60)]
    np.testing.assert_array_equal(resumed, whole)


def test_a_damaged_file_of_embeddings_is_made_anew(tmp_path, embedded, noise):
    whole, _ = embedded(noise)
    (file,) = tmp_path.glob("embeddings_*")
    data = file.read_bytes()
    for damaged in (data[:-100], data[:-100] + bytes(100), b""):
        file.write_bytes(damaged)
        again, rows = embedded(noise)
        assert rows == [], "what it held is still stored"
        assert file.read_bytes() == data
        np.testing.assert_array_equal(again, whole)
        assert [*tmp_path.glob("embeddings_*")] == [file]


def test_an_image_that_was_edited_is_embedded_anew_and_no_other(embedded, noise):
    before, _ = embedded(noise)
    assert embedded(noise)[1] == [], "they are there"
    noise[50] = 0
    after, rows = embedded(noise)
    assert rows == [50]
    assert np.flatnonzero((before != after).any(1)).tolist() == [50]


def test_arms_that_learn_the_same_are_the_same_and_labels_are_all_that_tells_them_apart():
    """Student and baseline share weights, order and augmentation; a teacher and another seed do not."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 16, 16, 1), np.uint8), rng.integers(0, 2, 40)

    def weights(where, labels=labels, seed=0):
        config = Config(train={"device": "cpu", "batch_size": 16, "augment": "gentle"}, seed=seed)
        trainer = Trainer(config, pixels, labels, ("a", "b"))
        network = trainer.train(TrainJob(where, np.arange(40), labels, steps=3))[0].network
        return torch.cat([value.flatten().float() for value in network.state_dict().values()])

    student = weights("student")
    assert torch.equal(student, weights("baseline"))
    assert not torch.equal(student, weights("baseline", 1 - labels))
    assert not torch.equal(student, weights("baseline", seed=1))
    assert not torch.equal(student, weights("round_1/fold_0"))
