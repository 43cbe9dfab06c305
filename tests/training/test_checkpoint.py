"""A training that is stopped at any step goes on to the bytes of one that was not."""

import signal

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pseudokit.config.keys import Model, Train
from pseudokit.config.types import UserError
from pseudokit.system.faults import Interrupted, OnSignal
from pseudokit.training.batches import TrainingSet
from pseudokit.training.checkpoint import Checkpoints
from pseudokit.training.device import Computation
from pseudokit.training.history import TrainingHistory
from pseudokit.training.loop import train_model
from pseudokit.training.models import create_model

PIXELS = (load_digits().images * 15.9).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None]
LABELS = load_digits().target.astype(np.int64)
STEPS = 9
RECIPES = {
    "every part": {
        "ema_decay": 0.9,
        "mixup": 0.2,
        "cutmix": 1.0,
        "consistency_weight": 1.0,
        "augment": "affine",
    },
    "head first": {"optimizer": "sgd", "schedule": "cosine", "linear_probe_first": True},
    "lamb": {"optimizer": "lamb", "schedule": "constant", "layer_decay": 0.8, "clip_grad": 1.0},
    "other processes": {"augment": "small", "num_workers": 2},
}


class Cut(Exception):
    """Stands for a kill."""


class Bar:
    """A progress bar that kills the process at a step."""

    def __init__(self, at: int):
        self.at = at

    def update(self, steps: int) -> None:
        self.at -= steps
        if self.at <= 0:
            raise Cut


class Noted(TrainingHistory):
    """Every step moves the bar."""

    def __init__(self, bar: Bar | None):
        super().__init__()
        self.bar = bar

    def add(self, *step) -> None:
        super().add(*step)
        if self.bar:
            self.bar.update(1)


def training_set(**options) -> TrainingSet:
    return TrainingSet(
        PIXELS,
        np.arange(300),
        LABELS[:300],
        STEPS,
        0,
        np.arange(300) > 100,
        np.arange(300, 500),
        **options,
    )


def learn(
    folder, options=(), bar=None, key="key", given_labels: TrainingSet | None = None, network=None
):
    """{tensor: bytes} and the losses of the training in this folder."""
    torch.manual_seed(0)
    fresh, spec = create_model(Model(kwargs={"drop_rate": 0.3}), tuple("0123456789"), 16, 1)
    keys = {"batch_size": 32, "amp_dtype": "fp32", "device": "cpu", "checkpoint_every": 0} | dict(
        options
    )
    train = Train(**keys)
    torch.rand(7)  # what was drawn before has no part in it
    saved = Checkpoints(folder, key, train)
    if bar:
        bar.update(saved.step)  # it begins there
    network, history = train_model(
        network or fresh,
        spec,
        given_labels or training_set(),
        train,
        saved=saved,
        history=Noted(bar),
    )
    state = {name: tensor.numpy().tobytes() for name, tensor in network.state_dict().items()}
    return state, history.drop(columns="seconds")


def steps_on_file(folder) -> int:
    assert [file.name for file in folder.iterdir()] == ["checkpoint.pt"]
    return Checkpoints(folder, "key", Train()).step


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_that_is_cut_off_goes_on_to_the_same_bytes(tmp_path, recipe):
    whole, losses = learn(None, RECIPES[recipe])
    for at in (1, 4, STEPS - 1, STEPS):  # each process does some steps more
        with pytest.raises(Cut):
            learn(tmp_path, RECIPES[recipe], Bar(at))
    assert steps_on_file(tmp_path) == STEPS - 1
    again, same = learn(tmp_path, RECIPES[recipe])
    assert [name for name in whole if whole[name] != again[name]] == []
    assert losses.equals(same)


def test_a_checkpoint_that_cannot_be_read_means_a_new_start(tmp_path):
    whole, _ = learn(None)
    with pytest.raises(Cut):
        learn(tmp_path, {}, Bar(7))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert steps_on_file(tmp_path) == 0
    assert learn(tmp_path)[0] == whole
    assert steps_on_file(tmp_path) == 9, "what is not readable goes"


def test_a_checkpoint_of_other_labels_or_keys_is_not_used(tmp_path):
    with pytest.raises(Cut):
        learn(tmp_path, {}, Bar(8), key="another")
    with pytest.raises(Cut):
        learn(tmp_path, {}, Bar(4))
    assert steps_on_file(tmp_path) == 3
    assert learn(tmp_path)[0] == learn(None)[0]


def test_it_is_written_as_seldom_as_configured(tmp_path):
    learn(tmp_path, {"checkpoint_every": 1000})
    assert not list(tmp_path.iterdir())


def test_a_signal_finishes_the_step_and_keeps_it(tmp_path):
    class Signal(Bar):
        def update(self, steps):
            self.at -= steps
            if self.at == 0:
                signal.raise_signal(signal.SIGTERM)

    handler, old = OnSignal(), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Interrupted, match="SIGTERM"):
            learn(tmp_path, {"checkpoint_every": 1000}, Signal(3))
    finally:
        signal.signal(signal.SIGTERM, old)
    assert steps_on_file(tmp_path) == 3
    assert learn(tmp_path)[0] == learn(None)[0]


def test_a_step_without_a_finite_loss_is_left_out_and_counted(tmp_path):
    """One row has no finite label: its batch teaches nothing, and leaves no trace in the statistics either."""
    targets = np.eye(10, dtype=np.float32)[LABELS[:300]]
    targets[17] = np.nan
    given_labels = TrainingSet(PIXELS, np.arange(300), targets, STEPS, 0)
    state, history = learn(tmp_path, given_labels=given_labels)
    assert history.skipped.iloc[-1] == 1
    assert np.isfinite(history.loss.drop(history.index[history.skipped.diff() > 0])).all()
    assert all(
        np.isfinite(np.frombuffer(data, np.float32)).all()
        for name, data in state.items()
        if "num" not in name
    )


def test_a_batch_that_spoils_statistics_leaves_no_trace_in_them(tmp_path):
    """Its images overflow on the way forward, and moving averages would never forget it."""
    spoiled = []

    def run(computation, function, pixels, real=Computation.run):
        if not spoiled:
            spoiled.append(True)
            pixels = pixels.float().fill_(torch.inf)
        return real(computation, function, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Computation, "run", run)
        state, history = learn(
            None, given_labels=TrainingSet(PIXELS, np.arange(300), LABELS[:300], STEPS, 0)
        )
    assert history.skipped.iloc[-1] == 1
    assert all(
        np.isfinite(np.frombuffer(data, np.float32)).all()
        for name, data in state.items()
        if "num" not in name
    )


def test_losses_that_stay_lost_end_the_training_by_its_key():
    targets = np.full((40, 10), np.nan, np.float32)
    with pytest.raises(UserError, match=r"train\.lr"):
        learn(None, given_labels=TrainingSet(PIXELS, np.arange(40), targets, 30, 0))
