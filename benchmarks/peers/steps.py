"""The kit's training and prediction against the bare step on synthetic tensors; block by block, for speed.py.

    PYTHONPATH=src python benchmarks/peers/steps.py training|predicting|embedding MODEL SIZE CONFIG

Prints milliseconds a batch of the kit and of the bare step, block by block, and the peak of the memory in MB. What the
kit adds to a bare step: rows drawn, images augmented and normalized, gradients clipped, weights averaged.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ranking import most_mb
from safetensors.torch import save_file

from pseudokit.config.keys import Model
from pseudokit.config.load import load_config
from pseudokit.training.batches import TrainingSet
from pseudokit.training.device import pick_amp_dtype
from pseudokit.training.loop import train_model
from pseudokit.training.models import TrainedModel, create_model
from pseudokit.training.predict import batch_size, log_probs
from pseudokit.training.trainer import Trainer

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


def embedding(name: str, size: int, config: str) -> list[tuple[float, float]]:
    """Images embedded, stored and written, as in a first run; the bare forward pass up to the classifier."""
    network, form, train, pixels, labels = setting(name, size, config)
    at_once = batch_size(size, CPU)
    n = 16 * at_once
    dtype = pick_amp_dtype(train.amp_dtype, CPU, size, network)
    images = torch.randn(at_once, 3, size, size).to(memory_format=torch.channels_last)
    folder = Path(tempfile.mkdtemp())
    save_file(network.state_dict(), folder / "weights.safetensors")

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

    return [(1000 * ours(b) * at_once / n, 1000 * bare() * at_once / n) for b in range(BLOCKS)]


def main(what: str, name: str, size: str, config: str) -> None:
    # The first warms up.
    measures = {"training": training, "predicting": predicting, "embedding": embedding}
    blocks = measures[what](name, int(size), config)[1:]
    print(json.dumps({"blocks": np.round(blocks, 2).tolist(), "mb": most_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
