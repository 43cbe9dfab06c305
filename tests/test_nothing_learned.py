"""A run on images that say nothing of their labels, end to end."""

import json

import cv2
import numpy as np
import pandas as pd

from pseudokit.api import run_command


def test_labels_of_random_images_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"{i:03d}.png", str(i % 10)) for i in range(200)]
    for name, _ in rows:
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, (16, 16), np.uint8))
    pd.DataFrame(rows, columns=["id", "label"]).to_csv(tmp_path / "train.csv", index=False)
    keys = [
        f"data.train={tmp_path / 'train.csv'}",
        f"out={tmp_path}",
        "name=run",
        "train.min_steps=20",
        "pseudo.train_baseline=false",
    ]
    run = run_command("denoise", keys)
    labels = pd.read_csv(run / "labels.csv", dtype=str)
    assert len(labels) == 200
    assert (labels.given_label == labels.label).all()
    assert json.loads((run / "status.json").read_text())["reason"] == "learned_nothing"
    assert (run / "student" / "model.json").exists()
    assert (run / "report.html").exists()
