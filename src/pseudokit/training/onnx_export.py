"""A model as ONNX: one file that predicts without this kit, and without PyTorch."""

import json
import os
import warnings
from dataclasses import replace
from functools import partial
from io import BytesIO
from textwrap import shorten

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from ..config.types import UserError
from ..data.encoding import class_scores
from ..system.files import log
from .models import MAX_ERROR_CHARACTERS, TrainedModel
from .predict import log_probs, mean_probs

MAX_DIFFERENCE = 1e-3
"""Of a probability, between the file and the kit: more changes answers."""
OPSET = 17
"""The first with layer norms as one operation; from 2022, so that old runtimes read the file."""


class PixelsToProbabilities(nn.Module):
    """Networks with what this kit does before and after them: of a council the weighted mean.

    Images are (N, H, W, C) uint8, as decoders give them; probabilities (N, K), of label sets those of yes.
    """

    def __init__(self, models: list[TrainedModel]):
        super().__init__()
        self.models = models
        self.networks = nn.ModuleList(model.network for model in models)

    def forward(self, pixels: Tensor) -> Tensor:
        total = 0
        for model in self.models:
            spec = model.spec
            images = (pixels / 255 - torch.tensor(spec.mean)) / torch.tensor(spec.std)
            logits = model.network(images.permute(0, 3, 1, 2))
            probs = logits.sigmoid() if spec.multi_label else logits.softmax(1)
            total = total + model.weight * probs
        return total / sum(model.weight for model in self.models)


def to_onnx(models: list[TrainedModel], pixels: ndarray) -> bytes:
    """The content of an ONNX file: input `pixels` as above, output `probabilities`.

    Its metadata names the classes in the order of the probabilities (JSON), the side of the images and their channels.

    Args:
        models: one network, or those of a council.
        pixels: (N, H, W, C) uint8 images that file and kit must predict alike, both in fp32 on the CPU.

    Raises:
        UserError: a package is missing, a network has no form in ONNX, or the predictions differ.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it reports to its makers
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise UserError("--format onnx needs two packages: pip install onnx onnxruntime") from None
    spec = models[0].spec
    graph = onnx.load_from_string(_trace(models, pixels[:2]))
    about = {
        "classes": json.dumps(spec.classes, ensure_ascii=False),
        "size": str(spec.size),
        "channels": "gray" if spec.channels == 1 else "RGB",
    }
    onnx.helper.set_model_props(graph, about)
    content = graph.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (probs,) = session.run(None, {"pixels": pixels})
    rows = np.arange(len(pixels))
    expected = mean_probs(models, rows, partial(_predict_in_fp32, pixels))
    difference = float(np.abs(probs - class_scores(expected)).max())
    if not difference <= MAX_DIFFERENCE:
        raise UserError(
            f"--format onnx: a probability differs by {difference:.2g} from that of the kit; nothing is written"
        )
    log.info(
        f"{len(pixels)} images are predicted as by the kit; largest difference {difference:.1e}"
    )
    return content


def _predict_in_fp32(pixels: ndarray, model: TrainedModel, rows: ndarray) -> ndarray:
    in_fp32 = replace(model, spec=replace(model.spec, amp_dtype="fp32"))
    return log_probs(in_fp32, pixels, rows, device="cpu")


def _trace(models: list[TrainedModel], pixels: ndarray) -> bytes:
    """The models in ONNX, as they compute the probabilities of these images.

    By the exporter that PyTorch had before today's: that one takes 5 to 40 times as long, needs a third package, and of
    ten networks of timm it could not write one that this one can (maxvit).
    """
    buffer = BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is the older one, and which numbers are fixed
            torch.onnx.export(
                PixelsToProbabilities(models).eval(),
                (torch.from_numpy(pixels),),
                buffer,
                dynamo=False,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamic_axes={"pixels": {0: "n"}, "probabilities": {0: "n"}},
            )
    except Exception as error:  # each operation without a form in ONNX raises a type of its own
        reason = shorten(str(error), MAX_ERROR_CHARACTERS)
        raise UserError(
            f"--format onnx: {models[0].spec.name} has no form in ONNX: {reason}"
        ) from error
    return buffer.getvalue()
