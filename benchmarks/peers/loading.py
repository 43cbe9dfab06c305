"""Three epochs from JPEG files, by the kit or with timm's loader; one process each, for speed.py.

    PYTHONPATH=src python benchmarks/peers/loading.py kit|timm FOLDER MODEL

FOLDER holds <class>/<file>.jpg. Same network, batches of 32 and precision, the one that the kit picks for the network;
both crop, mirror and change colors. The kit decodes all files first and keeps them, timm decodes in two workers as it
goes. Prints the seconds after each epoch, decoding included, and the peak of the memory in MB, of the processes
together.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ranking import Peak

SIZE, BATCH, EPOCHS = 128, 32, 3


def kit(folder: Path, name: str) -> list[float]:
    from pseudokit.config.keys import Data, Model, Train
    from pseudokit.data.images import load_images
    from pseudokit.training.batches import TrainingSet
    from pseudokit.training.loop import train_model
    from pseudokit.training.models import create_model

    start = time.monotonic()
    paths = sorted(folder.glob("*/*.jpg"))
    classes = sorted({path.parent.name for path in paths})
    labels = np.array([classes.index(path.parent.name) for path in paths])
    pixels, _ = load_images(
        np.array([str(path) for path in paths], object), Data(size=SIZE, channels=3)
    )
    decoded, each = time.monotonic() - start, len(paths) // BATCH
    network, form = create_model(Model(name=name), tuple(classes), SIZE, 3)
    train = Train(batch_size=BATCH, augment="photo", lr=1e-3)
    history = train_model(
        network, form, TrainingSet(pixels, np.arange(len(paths)), labels, EPOCHS * each, 0), train
    )[1]
    steps = (history.epoch * len(paths) / BATCH).round()
    return [
        round(decoded + float(np.interp(e * each, steps, history.seconds)), 1)
        for e in range(1, EPOCHS + 1)
    ]


def timm(folder: Path, name: str) -> list[float]:
    import timm
    from timm.data import ImageDataset, create_loader

    from pseudokit.training.device import pick_amp_dtype

    start, seconds = time.monotonic(), []
    data = ImageDataset(str(folder))
    loader = create_loader(
        data,
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        use_prefetcher=False,
        num_workers=2,
        scale=(0.5, 1.0),
        color_jitter=0.2,
        re_prob=0,
        device=torch.device("cpu"),
    )
    network = timm.create_model(name, num_classes=len(data.reader.class_to_idx)).to(
        memory_format=torch.channels_last
    )
    cpu = torch.device("cpu")
    dtype = pick_amp_dtype("auto", cpu, SIZE, network)
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-3, fused=True)
    for _ in range(EPOCHS):
        for images, labels in loader:
            images = images.to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        seconds.append(round(time.monotonic() - start, 1))
    return seconds


if __name__ == "__main__":
    peak = Peak()
    peak.start()
    seconds = {"kit": kit, "timm": timm}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
    print(json.dumps({"seconds": seconds, "mb": round(peak.mb)}))
