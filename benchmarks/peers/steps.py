"""The kit's training and prediction against the bare step on synthetic tensors; block by block, for speed.py.

    PYTHONPATH=src python benchmarks/peers/steps.py training|predicting|embedding|validating MODEL SIZE CONFIG
    PYTHONPATH=src python benchmarks/peers/steps.py keys MODEL SIZE CONFIG KEY=VALUE

After each batch of the kit comes a bare one, of a copy of the network. Prints the median milliseconds of both, block by
block, and the peak of the memory in MB. What the kit adds to a bare step: rows drawn, images augmented and normalized,
gradients clipped, weights averaged. validating: seconds of a whole training with data.val and of one without, in turn.
keys: in place of the bare step the kit without the key of `train`, and the seconds of the first step with it and
without it.
"""

import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ranking import most_mb
from safetensors.torch import save_file
from torch import nn

from pseudokit.config.keys import Model, Train
from pseudokit.config.load import load_config
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import pick_amp_dtype
from pseudokit.training.history import TrainingHistory
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.predict import batch_size, log_probs
from pseudokit.training.trainer import Trainer, TrainJob

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS, WARM_UP = 8, 5
PAIRS = 6
N, K = 4096, 10
CPU = torch.device("cpu")


def setting(name: str, size: int, config: str):
    """The network, its format, the section `train` of the config, images and labels."""
    unfrozen = ["model.freeze_backbone=false"]  # else it asks for weights
    train = load_config(ROOT / "configs" / config, unfrozen).train.model_copy(
        update={"linear_probe_first": False}
    )
    channels = 1 if size == 28 else 3
    network, form = create_model(Model(name=name), tuple(map(str, range(K))), size, channels)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, size, size, channels), np.uint8)
    return network, replace(form, amp_dtype=train.amp_dtype), train, pixels, rng.integers(0, K, N)


class Alternating(TrainingHistory):
    """After each step of the kit it takes a bare one, so that both see the same machine."""

    def __init__(self, bare: Callable[[], None]):
        super().__init__()
        self.bare = bare
        self.seconds = []
        self.end = time.perf_counter()

    def add(self, loss: float, lr: float, network: nn.Module) -> None:
        """Note the seconds of both steps."""
        super().add(loss, lr, network)
        self.turn()

    def turn(self, *_) -> None:
        """The kit's step is what was done since the last bare one."""
        begin = time.perf_counter()
        self.bare()
        middle, self.end = self.end, time.perf_counter()
        self.seconds.append((begin - middle, self.end - begin))

    def blocks(self) -> list[list[float]]:
        """Median milliseconds of a step, of the kit and bare, block by block, without the first ones."""
        seconds = np.array(self.seconds[WARM_UP:]).reshape(BLOCKS, -1, 2)
        return (1000 * np.median(seconds, 1)).tolist()


def n_steps(size: int) -> int:
    """Of all blocks: less than a minute of each network."""
    return WARM_UP + BLOCKS * (6 if size > 64 else 20)


def training(name: str, size: int, config: str) -> list[list[float]]:
    network, form, train, pixels, labels = setting(name, size, config)
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(train.batch_size, pixels.shape[3], size, size).to(
        memory_format=torch.channels_last
    )
    targets = torch.randint(K, (train.batch_size,))
    other = copy.deepcopy(network).train()
    optimizer = torch.optim.AdamW(other.parameters(), fused=True)

    def bare() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = torch.nn.functional.cross_entropy(other(images), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    history = Alternating(bare)
    training_set = TrainingSet(pixels, np.arange(N), labels, n_steps(size), 0)
    train_model(network, form, training_set, train, history=history)
    return history.blocks()


def predicting(name: str, size: int, config: str) -> list[list[float]]:
    network, form, train, pixels, _ = setting(name, size, config)
    at_once = batch_size(size, CPU)
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(at_once, pixels.shape[3], size, size).to(memory_format=torch.channels_last)
    other = copy.deepcopy(network).eval()

    def bare() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            other(images)

    history = Alternating(bare)
    network.register_forward_pre_hook(history.turn)
    rows = np.arange(at_once * n_steps(size)) % N
    log_probs(TrainedModel(network, form, ""), pixels, rows)
    return history.blocks()


def keys(name: str, size: int, config: str, key: str) -> None:
    """With a key of the section `train`, and without it."""
    network, form, train, pixels, labels = setting(name, size, config)
    changed, value = key.split("=")
    with_key = Train(**train.model_dump(exclude_defaults=True) | {changed: value})
    rows = np.arange(8 * train.batch_size) % N
    training_set = TrainingSet(pixels, rows, labels[rows], 12, 0)

    def seconds(recipe: Train) -> np.ndarray:
        """Of each step."""
        history = train_model(network, form, training_set, recipe)[1]
        return np.diff(history.seconds, prepend=0)

    recipes = with_key, train
    first = [seconds(recipe)[0] for recipe in recipes]
    blocks = [[1000 * np.median(seconds(r)[2:]) for r in recipes] for _ in range(BLOCKS // 2)]
    print(json.dumps({"blocks": np.round(blocks, 2).tolist(), "first": first, "mb": most_mb()}))


def embedding(name: str, size: int, config: str) -> list[tuple[float, float]]:
    """Images embedded, stored and written, as in a first run; the bare forward pass up to the classifier."""
    network, form, train, pixels, labels = setting(name, size, config)
    at_once = batch_size(size, CPU)
    n = 16 * at_once
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(at_once, 3, size, size).to(memory_format=torch.channels_last)
    folder = Path(tempfile.mkdtemp())
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")

    def ours(block: int) -> float:
        out = folder / str(block)
        keys = [
            f"out={out}",
            f"model.name={name}",
            f"model.checkpoint={folder}/weights.safetensors",
        ]
        settings = load_config(ROOT / "configs" / config, keys)
        trainer = Trainer(settings, pixels[:n], labels[:n], tuple(form.classes), out)
        made = trainer.backbones
        start = time.monotonic()
        assert trainer.embeddings[made[0].hash].shape == (n, network.num_features)
        return time.monotonic() - start

    def bare() -> float:
        network.eval()
        start = time.monotonic()
        with torch.inference_mode():
            for _ in range(n // at_once):
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    network.forward_head(network.forward_features(images), pre_logits=True)
        return time.monotonic() - start

    blocks = [(ours(block), bare()) for block in range(BLOCKS)]
    return (1000 * np.array(blocks) * at_once / n)[1:]  # the first warms up


def validating(name: str, size: int, config: str) -> list[list[float]]:
    """Seconds of a training of 40 steps with a curve on data.val, and of the same without one."""
    *_, pixels, labels = setting(name, size, config)
    rows, val = np.split(np.arange(N), [N // 2])
    keys = [f"model.name={name}", "model.checkpoint=", "train.linear_probe_first=false"]
    settings = load_config(ROOT / "configs" / config, keys)
    job = TrainJob("student", rows, labels[rows], steps=40)

    def seconds(val_rows: np.ndarray) -> float:
        pair = (val_rows, labels[val_rows])
        classes = tuple(map(str, range(K)))
        trainer = Trainer(settings, pixels, labels[rows], classes, val=pair)
        _, history = trainer.train(job)
        assert ("val_accuracy" in history) == (len(val_rows) > 0)
        return float(history.seconds.iloc[-1])

    seconds(val)  # warms up
    return [[seconds(val), seconds(val[:0])] for _ in range(PAIRS)]


def main(what: str, name: str, size: str, config: str, *key: str) -> None:
    if what == "keys":
        return keys(name, int(size), config, *key)
    measures = {
        "training": training,
        "predicting": predicting,
        "embedding": embedding,
        "validating": validating,
    }
    blocks = measures[what](name, int(size), config)
    print(json.dumps({"blocks": np.round(blocks, 3).tolist(), "mb": most_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
