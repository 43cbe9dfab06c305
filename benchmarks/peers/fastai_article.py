"""The job of the article with fastai: two folds of resnet18 on noisy MNIST; the other fold's model scores a label.

    python benchmarks/peers/fastai_article.py TABLE.csv IMAGE_FOLDER OUT.csv EPOCHS BATCH

TABLE.csv: id (path below IMAGE_FOLDER) and label. OUT.csv: id and self_confidence. As in the article: DataBlock with
PILImageBW, a resnet18 learner, get_preds. The network starts from random weights, as the kit's does, and so by one
cycle: fine_tune would spend its first epoch on a head over random features.
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    PILImageBW,
    resnet18,
    vision_learner,
)
from sklearn.model_selection import StratifiedKFold


def main(table: str, folder: str, out: str, epochs: str, batch: str) -> None:
    rows = pd.read_csv(table, dtype=str)
    rows["file"] = [str(Path(folder) / name) for name in rows.id]
    scores = torch.zeros(len(rows))
    for _, held_out in StratifiedKFold(n_splits=2, shuffle=True, random_state=1).split(
        rows.file, rows.label
    ):
        block = DataBlock(
            blocks=(ImageBlock(cls=PILImageBW), CategoryBlock),
            get_x=ColReader("file"),
            get_y=ColReader("label"),
            splitter=IndexSplitter(held_out),
        )
        loaders = block.dataloaders(rows, bs=int(batch))
        job_runner = vision_learner(loaders, resnet18, pretrained=False, n_in=1)
        with job_runner.no_bar(), job_runner.no_logging():
            job_runner.fit_one_cycle(int(epochs))
            probs, labels = job_runner.get_preds(ds_idx=1)
        scores[held_out] = probs[torch.arange(len(labels)), labels]
    rows.assign(self_confidence=scores.numpy())[["id", "self_confidence"]].to_csv(out, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
