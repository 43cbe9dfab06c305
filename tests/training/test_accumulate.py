"""A batch that is worked through in parts teaches what it teaches at once; so does one that did not fit the memory."""

from functools import partial
from types import MethodType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from pseudokit.config.keys import Config, Model, Train
from pseudokit.config.types import UserError
from pseudokit.training import predict
from pseudokit.training.batches import TrainingSet
from pseudokit.training.checkpoint import Checkpoints
from pseudokit.training.device import Division, compiled
from pseudokit.training.history import TrainingHistory
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model, save_model
from pseudokit.training.predict import embed, log_probs
from pseudokit.training.trainer import Trainer, TrainJob

LABELS = load_digits().target[:400].astype(np.int64)
PIXELS = (load_digits().images[:400] * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
LARGE = PIXELS.repeat(2, 1).repeat(2, 2)
STEPS = 3
CLASSES = tuple("0123456789")
RECIPE = {"batch_size": 33, "amp_dtype": "fp32", "device": "cpu", "lr": 1e-2, "optimizer": "sgd"}
EVERY_PART = {
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "loss": "balanced_cross_entropy",
    "consistency_weight": 1.0,
    "unlabeled_ratio": 2,
    "clip_grad": 0.5,
    "ema_decay": 0.5,
}


def fresh(name="test_resnet", **kwargs):
    """A network for its images, and its spec."""
    torch.manual_seed(0)
    size = 32 if name == "test_convnext" else 16
    return create_model(Model(name=name, kwargs=kwargs), CLASSES, size, 1)


def learn(network, spec, options, **more):
    """The tensors after a few steps, and the losses."""
    pixels = LARGE if spec.size == 32 else PIXELS
    unlabeled = np.arange(200, 400)
    training_set = TrainingSet(pixels, np.arange(200), LABELS[:200], STEPS, 0, unlabeled=unlabeled)
    train = Train(**RECIPE | options)
    network, history = train_model(network, spec, training_set, train, **more)
    return network.state_dict(), history.loss.to_numpy()


def limit_memory(network, n_images: int, first_step: int = 0) -> list[int]:
    """From a step on its memory is full with more images than these. Returns the images of every forward pass."""
    seen = []

    def allocate(module, inputs):
        seen.append(len(inputs[0]))
        if len(inputs[0]) > n_images and network.steps >= first_step:
            raise torch.OutOfMemoryError("CUDA out of memory")

    next(network.children()).register_forward_pre_hook(allocate)
    network.steps = 0
    return seen


class Counted(TrainingHistory):
    """Tells the network how many steps it has done, and divides its batches from a step on."""

    def __init__(self, network, division=None, at=0):
        super().__init__()
        self.network, self.division, self.at = network, division, at

    def add(self, *step):
        super().add(*step)
        self.network.steps = len(self.steps)
        if self.division and len(self.steps) == self.at:
            self.division.n_parts = 4


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_parts_of_a_batch_teach_what_the_batch_teaches():
    whole = learn(*fresh("test_convnext"), EVERY_PART)
    tensors, losses = learn(*fresh("test_convnext"), EVERY_PART | {"accumulate": 7})
    np.testing.assert_allclose(losses, whole[1], rtol=1e-5)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, whole[0][name], rtol=1e-4, atol=2e-6)
    assert not same(tensors, whole[0]), "sums in another order"


def test_a_step_that_does_not_fit_is_repeated_in_parts_to_the_same_bytes():
    """… as if it had been divided from that step on: same dropout, same mixed images, same running means."""
    network, spec = fresh(drop_rate=0.5)
    seen = limit_memory(network, 20, first_step=2)
    division = Division()
    full, losses = learn(network, spec, EVERY_PART, history=Counted(network), division=division)
    assert division.n_parts == 4
    assert max(seen[-20:]) <= 20
    network, spec = fresh(drop_rate=0.5)
    division = Division()
    history = Counted(network, division, at=2)
    divided, same_losses = learn(network, spec, EVERY_PART, history=history, division=division)
    assert same(full, divided)
    np.testing.assert_array_equal(losses, same_losses)


def test_what_a_network_needed_later_ones_of_its_model_begin_with():
    trainer = Trainer(Config(train=RECIPE), PIXELS, LABELS, CLASSES)
    passes = []

    def network_of(self, where, seed):
        network, spec = fresh()
        passes.append(limit_memory(network, 20))
        return network, spec

    object.__setattr__(trainer, "fresh_network", MethodType(network_of, trainer))
    for where in ("round_1/fold_0", "round_1/fold_1"):
        trainer.train(TrainJob(where, np.arange(200), LABELS[:200], steps=2))
    assert [max(seen[:2]) for seen in passes] == [33, 17]


@pytest.mark.parametrize(("name", "least"), [("test_convnext", 1), ("test_resnet", 2)])
def test_a_part_is_one_image_at_least_and_two_where_batches_are_normalized(name, least):
    network, spec = fresh(name)
    seen = limit_memory(network, 0)
    with pytest.raises(UserError, match=r"data\.size"):
        learn(network, spec, {"batch_size": 5})
    assert seen == [5, 3, 2, 1][: 4 if least == 1 else 2]


def test_a_checkpoint_keeps_the_parts(tmp_path):
    """The memory was full for a moment only: the training that goes on stays with what it came to."""
    network, spec = fresh()
    limit_memory(network, 20)
    options = {"checkpoint_every": 0}

    class Cut(Counted):
        def add(self, *step):
            super().add(*step)
            if len(self.steps) == 3:
                raise KeyboardInterrupt

    saved = Checkpoints(tmp_path, "key", Train(**RECIPE | options))
    with pytest.raises(KeyboardInterrupt):
        learn(network, spec, options, saved=saved, history=Cut(network))
    saved = Checkpoints(tmp_path, "key", Train(**RECIPE | options))
    assert saved.step == 2
    division = Division()
    again, _ = learn(*fresh(), options, saved=saved, division=division)
    assert division.n_parts == 2
    assert same(again, learn(*fresh(), {"accumulate": 2})[0])


def test_predictions_and_embeddings_that_do_not_fit_are_made_in_parts(monkeypatch):
    """The views of an image are drawn as for the whole batch."""
    monkeypatch.setitem(predict.MAX_BATCH_PIXELS, "cpu", 16 * 16 * 24)
    network, spec = fresh()
    model, train = TrainedModel(network, spec), Train(amp_dtype="fp32", device="cpu")
    rows = np.arange(40)

    def outputs():
        views = log_probs(model, PIXELS, rows, device="cpu", tta=2, spec="affine")
        return views, embed(network, spec, PIXELS, rows, train)

    at_once = outputs()
    seen = limit_memory(network, 12)
    for whole, parts in zip(at_once, outputs(), strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert {*seen} == {24, 12, 8}


def test_a_compiled_step_teaches_the_same_and_leaves_a_plain_network(monkeypatch, tmp_path):
    """Without the compiler of torch.compile, which takes a minute. Parts differ in size."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    options = {"accumulate": 2}
    plain, _ = learn(*fresh(), options)
    network, spec = fresh()
    tensors, _ = learn(network, spec, options | {"compile": True})
    for name, tensor in plain.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=1e-4, atol=1e-5)
    save_model(tmp_path, network, spec)
    assert load_file(tmp_path / "model.safetensors").keys() == plain.keys()


def test_what_cannot_be_compiled_is_an_error_of_its_key(monkeypatch):
    def backend(graph, inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    with pytest.raises(UserError, match=r"train\.compile.*no compiler"):
        compiled(torch.nn.Linear(1, 1))(torch.zeros(1, 1))
