"""What predict.py is made of: the models of a run, the rows to predict, the average."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from .config import Config
from .data.builtin import builtin_roles
from .data.images import load_images
from .data.roles import read_role
from .learn.models import Trained, load_model
from .learner import Stock, offer
from .run import read_json
from .settings import load_config
from .values import UserError


def open_finished(run: Path) -> Config:
    """The config of a run that has a student.

    Raises:
        UserError: it is no run folder, or its run has not come that far.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run} is no run folder; train.py and pseudo.py make one under runs/")
    if not (run / "student" / "model.json").is_file():
        raise UserError(f"--run {run} has no student yet; run its command again to go on")
    return load_config(run / "config.yaml", [])


def load_models(run: Path) -> list[Trained]:
    """The models that learned the run's final labels: the student; after train.py the fold models as well."""
    folders = [run / "student"]
    if read_json(run / "status.json")["mode"] == "train":
        folders += sorted(file.parent for file in run.glob("round_1/fold_*/model.json"))
    return [load_model(folder) for folder in folders]


def read_targets(config: Config, source: str | None) -> pd.DataFrame:
    """id and path of what is to be predicted, in the order of the file.

    Raises:
        UserError: nothing to predict is named, or it cannot be read.
    """
    data = config.data
    if source is None and data.train is None:
        data = data.model_copy(update=builtin_roles(data))
    if source is None and data.test is None:
        raise UserError("nothing to predict: give --data CSV_OR_FOLDER (the run has no data.test)")
    table = read_role(data, "test", source)
    doubled = table.id[table.id.duplicated()]
    if len(doubled):
        raise UserError(f"{source or data.test}: id {doubled.iloc[0]!r} stands twice; keep one row per id")
    return table[["id", "path"]]


def predict_files(models: list[Trained], paths: np.ndarray, config: Config, tta: int | None) -> np.ndarray:
    """(N, K) probabilities, averaged over models and views; tta: number of views, default predict.views.

    Raises:
        UserError: an image cannot be read (every row needs a prediction, so none is skipped), or tta is below 1.
    """
    tta = config.predict.views if tta is None else tta
    if tta < 1:
        raise UserError(f"--tta {tta} must be at least 1")
    form = models[0].format
    as_trained = {"size": form.size, "channels": form.channels, "on_bad_image": "refuse"}
    config = config.model_copy(update={"data": config.data.model_copy(update=as_trained)})
    pixels, _ = load_images(paths, config.data)
    stock, rows = Stock(config, pixels, np.empty(0, np.int64), form.classes), np.arange(len(paths))
    offer(stock, paths)
    return np.mean([np.exp(stock.predict(model, rows, tta)) for model in models], axis=0)
