"""What the pictures of a report need of pixels and models: odd images, and what spoke for a prediction."""

from importlib.util import find_spec

import numpy as np
import pandas as pd

from ..data.csv_text import escape_formulas
from ..data.images import MIN_PHOTO_SIDE
from ..data.odd_images import find_odd_images, find_unlike_images
from ..report.load_run import disagreements, read_array
from ..round_store import decisions_table, model_folders
from ..self_training import SelfTrainingResult
from ..system.files import log, write_csv, write_npy
from ..training.grad_cam import grad_cam
from ..training.models import load_models
from .folder import Run
from .prepare import PreparedData

MAX_EXPLAINED = 20


def list_odd_images(run: Run, prepared: PreparedData) -> None:
    """Write odd_images.csv: what stands out of all images that the run reads, of frozen embeddings too."""
    dataset = prepared.dataset
    odd = find_odd_images(dataset.path, prepared.pixels)
    embeddings = read_array(run.path, "embeddings_*.npy")
    if embeddings is not None:
        rows = find_unlike_images(embeddings)
        odd = pd.concat([odd, pd.DataFrame({"row": rows, "reason": "unlike the others"})])
    table = odd.join(dataset.table()[["id", "split", "path"]], on="row")
    write_csv(run.path / "odd_images.csv", escape_formulas(table.drop(columns="row")))


def explain(run: Run, prepared: PreparedData, result: SelfTrainingResult) -> None:
    """Write why.csv and why.npy (n, h, w): what spoke for the most confident predictions that contradict a given label.

    Each image is explained by a model that did not learn its label. Of photos with one class each, and networks of
    convolutions.
    """
    judged, pixels, decisions = prepared.judged, prepared.pixels, result.decisions
    # The feature maps of smaller images have one to four fields, which show nothing.
    is_small = pixels.shape[1] < MIN_PHOTO_SIDE
    if decisions is None or decisions.questions or is_small:
        return
    if not find_spec("captum"):
        log.info(
            "without captum the report has no picture of what spoke for a prediction; pip install captum"
        )
        return
    models = load_models(model_folders(run.path, max(result.round, 1)))
    by_hash = {model.hash: model for model in models}
    table = decisions_table(decisions, judged, result.predicted.predicted_by)
    # several models judge a row: those of each round, and of a council
    last_model = table.model.str.split("+").str[-1]
    table = table.assign(path=judged.path, model=last_model)
    rows = disagreements(table[table.model.isin(by_hash)], MAX_EXPLAINED)
    maps = {}
    for name, group in rows.groupby("model"):
        explained = group.index.to_numpy()
        predicted = decisions.predicted[explained]
        of_model = grad_cam(by_hash[name], pixels[explained], predicted, run.config.train.device)
        maps |= dict(zip(explained, of_model, strict=False))  # a transformer has none
    if maps:
        rows = rows[rows.index.isin(list(maps))]
        write_npy(run.path / "why.npy", np.stack([maps[row] for row in rows.index]))
        write_csv(run.path / "why.csv", rows)
