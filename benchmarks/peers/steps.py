"""The kit's training and prediction against the bare step on synthetic tensors; block by block, for speed.py.

    PYTHONPATH=src python benchmarks/peers/steps.py training|predicting MODEL SIZE CONFIG
    PYTHONPATH=src python benchmarks/peers/steps.py keys MODEL SIZE CONFIG KEY=VALUE

Prints milliseconds a batch of the kit and of the bare step, block by block, and the peak of the memory in MB. What the
kit adds to a bare step: rows drawn, images augmented and normalized, gradients clipped, weights averaged. keys: in
place of the bare step the kit without the key of `train`, and the seconds of the first step with it and without it.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ranking import most_mb

from pseudokit.config.keys import Model, Train
from pseudokit.config.load import load_config
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import pick_amp_dtype
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.predict import batch_size, log_probs

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS, N, K = 7, 4096, 10
CPU = torch.device("cpu")


def setting(name: str, size: int, config: str):
    """The network, its format, the section `train` of the config, images and labels."""
    train = load_config(ROOT / "configs" / config, []).train.model_copy(
        update={"linear_probe_first": False}
    )
    channels = 1 if size == 28 else 3
    network, form = create_model(Model(name=name), tuple(map(str, range(K))), size, channels)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, size, size, channels), np.uint8)
    return network, replace(form, amp_dtype=train.amp_dtype), train, pixels, rng.integers(0, K, N)


def training(name: str, size: int, config: str) -> list[tuple[float, float]]:
    network, form, train, pixels, labels = setting(name, size, config)
    steps = 20 if size > 64 else 60
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(train.batch_size, pixels.shape[3], size, size).to(
        memory_format=torch.channels_last
    )
    targets = torch.randint(K, (train.batch_size,))

    def ours() -> float:
        training_set = TrainingSet(pixels, np.arange(N), labels, steps, 0)
        return train_model(network, form, training_set, train)[1].seconds.iloc[-1]

    def bare() -> float:
        optimizer = torch.optim.AdamW(network.train().parameters(), fused=True)
        start = time.monotonic()
        for _ in range(steps):
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = torch.nn.functional.cross_entropy(network(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return time.monotonic() - start

    return [(1000 * ours() / steps, 1000 * bare() / steps) for _ in range(BLOCKS)]


def predicting(name: str, size: int, config: str) -> list[tuple[float, float]]:
    network, form, train, pixels, _ = setting(name, size, config)
    at_once = batch_size(size, CPU)
    n = min(N, 16 * at_once) // at_once * at_once
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(at_once, pixels.shape[3], size, size).to(memory_format=torch.channels_last)

    def ours() -> float:
        start = time.monotonic()
        log_probs(TrainedModel(network, form, ""), pixels, np.arange(n))
        return time.monotonic() - start

    def bare() -> float:
        network.eval()
        start = time.monotonic()
        with torch.inference_mode():
            for _ in range(n // at_once):
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    network(images)
        return time.monotonic() - start

    return [(1000 * ours() * at_once / n, 1000 * bare() * at_once / n) for _ in range(BLOCKS)]


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


def main(what: str, name: str, size: str, config: str, *key: str) -> None:
    if what == "keys":
        return keys(name, int(size), config, *key)
    # The first warms up.
    blocks = {"training": training, "predicting": predicting}[what](name, int(size), config)[1:]
    print(json.dumps({"blocks": np.round(blocks, 2).tolist(), "mb": most_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
