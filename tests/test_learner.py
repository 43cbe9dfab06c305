"""Predictions that several processes share are those of one; embeddings are made once."""

import numpy as np
import pytest
import torch

from pseudokit.config.keys import Config, Model
from pseudokit.system.distributed import ALONE
from pseudokit.training import jobs as learner_module
from pseudokit.training import predict
from pseudokit.training import trainer as trainer_module
from pseudokit.training.jobs import LinearProbe
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.trainer import Trainer, TrainJob


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("views", [1, 3])
def test_shares_are_whole_batches_and_together_all_rows_in_order(monkeypatch, processes, views):
    monkeypatch.setitem(predict.PIXELS, "cpu", 16 * 16 * 8)  # batches of eight
    torch.manual_seed(0)
    network, spec = create_model(Model(), ("a", "b", "c"), 16, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    trainer = Trainer(Config(train={"device": "cpu"}), pixels, np.empty(0, np.int64), spec.classes)
    rows, model = np.random.default_rng(1).permutation(60)[:43], TrainedModel(network, spec, "")
    alone, asked = trainer.predict(model, rows, views), []

    def each(work, jobs):
        asked.extend(jobs)
        return (work(job, ALONE) for job in jobs)

    monkeypatch.setattr(trainer_module, "size", lambda: processes)
    monkeypatch.setattr(trainer_module, "map_jobs", each)
    np.testing.assert_array_equal(trainer.predict(model, rows, views), alone)
    assert len(asked) == processes
    assert all(job.first % 8 == 0 for job in asked)
    assert trainer.predict(model, rows[:0], views).shape == (0, 3)


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """embedded(pixels, cut=…): what a process makes, or leaves where it is cut off in the batch of that number."""
    monkeypatch.setitem(predict.PIXELS, "cpu", 16 * 16 * 8)  # batches of eight
    monkeypatch.setattr(learner_module, "BATCHES", 2)
    real, asked = learner_module.embed, []

    def made(pixels, cut=None):
        asked.clear()

        def embed(network, spec, images, *more):
            if len(asked) == cut:
                raise KeyboardInterrupt
            asked.extend(images[1])
            return real(network, spec, images, *more)

        monkeypatch.setattr(learner_module, "embed", embed)
        config = Config(train={"device": "cpu"}, model={"freeze_backbone": True, "checkpoint": "unused"})
        monkeypatch.setattr(Trainer, "fresh_network", lambda *_: create_model(Model(), ("a", "b"), 16, 1))
        trainer = Trainer(config, pixels, np.zeros(40, np.int64), ("a", "b"))
        torch.manual_seed(0)
        return np.array(LinearProbe(tmp_path, trainer, "these").embeddings), [*asked]

    return made


def test_embeddings_that_are_cut_off_go_on_to_the_same_bytes(tmp_path, embedded):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    for cut in (0, 16, 32):
        with pytest.raises(KeyboardInterrupt):
            embedded(pixels, cut)
    found, asked = embedded(pixels)
    assert asked == [*range(48, 60)]
    for file in tmp_path.glob("embeddings_*"):
        file.unlink()
    whole, asked = embedded(pixels)
    assert asked == [*range(60)]
    np.testing.assert_array_equal(found, whole)
    (file,) = tmp_path.glob("embeddings_*")
    data = file.read_bytes()
    for damaged in (data[:-100], data[:-100] + bytes(100), b""):
        file.write_bytes(damaged)
        again, asked = embedded(pixels)
        assert asked == [*range(60)], "it is not trusted by its name"
        np.testing.assert_array_equal(again, whole)
        assert [*tmp_path.glob("embeddings_*")] == [file]


def test_embeddings_of_an_image_that_was_edited_are_made_anew(embedded):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8)
    before, _ = embedded(pixels)
    assert embedded(pixels)[1] == [], "they are there"
    pixels[50] = 0
    after, asked = embedded(pixels)
    assert asked == [*range(60)]
    assert np.flatnonzero((before != after).any(1)).tolist() == [50]


def test_arms_that_learn_the_same_are_the_same_and_labels_are_all_that_tells_them_apart():
    """Student and baseline share weights, order and augmentation; a teacher and another seed do not."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 16, 16, 1), np.uint8), rng.integers(0, 2, 40)

    def weights(where, labels=labels, seed=0):
        config = Config(train={"device": "cpu", "batch_size": 16, "augment": "gentle"}, seed=seed)
        trainer = Trainer(config, pixels, labels, ("a", "b"))
        network = trainer.work(TrainJob(where, np.arange(40), labels, steps=3)).network
        return torch.cat([value.flatten().float() for value in network.state_dict().values()])

    student = weights("student")
    assert torch.equal(student, weights("baseline"))
    assert not torch.equal(student, weights("baseline", 1 - labels))
    assert not torch.equal(student, weights("baseline", seed=1))
    assert not torch.equal(student, weights("round_1/fold_0"))
