"""timm models: create, save, load. Weights are safetensors and JSON: nothing in a run folder runs code."""

import copy
import hashlib
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.keys import Model as ModelConfig
from ..config.keys import member_folder, split_folder
from ..config.types import UserError
from ..data.cache import Ranges
from ..system.files import atomic_write, read_json, write_json

REFUSED_KWARGS = {"num_classes", "in_chans", "features_only"}
"""Arguments of timm.create_model that follow from the data."""
REFUSED_KWARGS |= {"pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir"}
"""Arguments by which timm would fetch or load weights. Here they come from `checkpoint` alone."""
OVERLAY_KEYS = {"mean", "std"}
"""What pretrained_cfg_overlay may change: how pixels are normalized. Its other keys would fetch weights."""
COUNCIL = "council.json"
"""File of a run with the weight of each network of a council, once the rounds have ended; before, all count alike."""
PART_OF_NAME = re.compile("[a-z]+|[0-9]+")
MAX_ERROR_CHARACTERS = 300
"""Of what timm or torch says; a list of all tensors would fill the terminal."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model takes and gives. It is stored with every model, so that nothing is matched by position.

    size: side of its images in pixels. mean, std: of the pixels, one a channel or one for all. amp_dtype: of its
    training, and of its predictions. multi_label: whether it answers yes or no for every class. ranges: see
    load_images.
    """

    name: str
    kwargs: dict[str, Any]
    classes: list[str]
    size: int
    channels: int
    mean: list[float]
    std: list[float]
    amp_dtype: str = "auto"
    multi_label: bool = False
    ranges: Ranges = field(default_factory=dict)


@dataclass
class TrainedModel:
    """A network with what is needed to use it.

    hash: of its weights, its name in the round records. backbone: hash of the frozen network on which it is a head.
    weight: how much it counts in a mean of models.
    """

    network: nn.Module
    spec: ModelSpec
    hash: str = ""
    backbone: str | None = None
    weight: float = 1.0


def create_model(
    config: ModelConfig,
    classes: tuple[str, ...],
    size: int,
    channels: int,
    key: str = "model",
) -> tuple[nn.Module, ModelSpec]:
    """A fresh network in channels_last, and its spec. Pixels are normalized as timm says for this model.

    key: the section of the config that an error names.

    Raises:
        UserError: timm has no such model, an argument is not possible, or the weights do not fit.
    """
    from timm.data import resolve_model_data_config

    check_model(config, key)
    of_data = {"num_classes": len(classes), "in_chans": channels}
    random_state = torch.get_rng_state()
    try:
        network, kwargs = _fresh_network(config.name, config.kwargs, of_data, size)
        if config.checkpoint:
            torch.set_rng_state(random_state)
            network = _load_checkpoint(config, of_data | kwargs, network)
    except Exception as error:  # every model and file format raises its own types
        source = f"checkpoint={config.checkpoint}" if config.checkpoint else f"name, {key}.kwargs"
        reason = shorten(str(error), MAX_ERROR_CHARACTERS) or type(error).__name__
        raise UserError(
            f"{key}.{source}: cannot make {config.name} for {channels}×{size}×{size} images: {reason}"
        ) from error
    pixels = resolve_model_data_config(network)
    spec = ModelSpec(
        config.name,
        kwargs,
        list(classes),
        size,
        channels,
        mean=_per_channel(pixels["mean"], channels),
        std=_per_channel(pixels["std"], channels),
    )
    return network.to(memory_format=torch.channels_last), spec


def _fresh_network(
    name: str, kwargs: dict[str, Any], of_data: dict[str, int], size: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A network that takes images of this size, and its arguments, with one more for a transformer of another size."""
    import timm

    random_state = torch.get_rng_state()
    try:
        network = timm.create_model(name, **of_data, **kwargs)
        # Fail now, rather than in the middle of a run, where images are too small for the network.
        with torch.no_grad():
            output = network.eval()(torch.zeros(2, of_data["in_chans"], size, size))
    except Exception:
        if "dynamic_img_size" not in kwargs:
            torch.set_rng_state(random_state)
            with suppress(Exception):
                return _fresh_network(name, kwargs | {"dynamic_img_size": True}, of_data, size)
        raise
    if getattr(output, "shape", None) != (2, of_data["num_classes"]):
        raise ValueError(f"it does not make {of_data['num_classes']} numbers of an image")
    return network, kwargs


def check_model(config: ModelConfig, key: str) -> None:
    """Raises UserError where the config names what is not there."""
    import timm

    if not timm.is_model(config.name):
        raise UserError(
            f"{key}.name={config.name!r} is not a timm model; did you mean {_nearest_model(config.name)}? "
            f"Pretrained weights: {key}.checkpoint=FILE, which python -m pseudokit.weights NAME writes"
        )
    if refused := refused_kwargs(config.kwargs):
        raise UserError(
            f"{key}.kwargs: {refused[0]} follows from the data, or would load weights; leave it out (weights: "
            f"{key}.checkpoint=FILE)"
        )
    if config.checkpoint and not Path(config.checkpoint).is_file():
        raise UserError(
            f"{key}.checkpoint={config.checkpoint} does not exist; give a .safetensors or .pth file (python -m "
            f"pseudokit.weights {config.name} writes one)"
        )


def _nearest_model(name: str) -> str:
    """The timm model that shares most parts of a name, as `vit` and `16`; of several, the one that is most alike."""
    import timm

    def likeness(known: str) -> tuple[int, float]:
        shared = parts.intersection(PART_OF_NAME.findall(known))
        return len(shared), SequenceMatcher(None, name, known).ratio()

    name = name.rpartition("/")[2].lower()
    parts = {*PART_OF_NAME.findall(name)}
    return max(timm.list_models(), key=likeness)


def refused_kwargs(kwargs: dict[str, Any]) -> list[str]:
    """Which of these arguments for timm.create_model may not be given."""
    refused = REFUSED_KWARGS & kwargs.keys()
    overlay = kwargs.get("pretrained_cfg_overlay", {})
    if not isinstance(overlay, dict) or not overlay.keys() <= OVERLAY_KEYS:
        refused.add("pretrained_cfg_overlay")
    return sorted(refused)


def _load_checkpoint(config: ModelConfig, kwargs: dict[str, Any], fresh: nn.Module) -> nn.Module:
    """The network with the weights of the file, and a fresh classifier where the number of classes differs.

    timm then skips tensors that the file lacks. These are found by a comparison with the network `fresh`, which was
    drawn from the same random numbers without the file: there they are equal.
    """
    import timm

    tensors = timm.models.load_state_dict(config.checkpoint)
    if not tensors:  # timm would fetch some
        raise ValueError("it holds no tensors")
    first = next(iter(fresh.state_dict()))
    # Wrappers put their own name before that of a tensor, as Lightning's `model.`.
    wrapped = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
    prefix = min(wrapped, key=len, default="")
    if not all(name.endswith(prefix) for name in wrapped):
        raise ValueError(
            f"it holds several networks ({', '.join(wrapped)}); keep the tensors of one"
        )
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    overlay = {"state_dict": tensors} | kwargs.get("pretrained_cfg_overlay", {})
    kwargs = kwargs | {"pretrained_cfg_overlay": overlay}
    network = timm.create_model(config.name, pretrained=True, **kwargs)
    head = classifier_ids(network)
    for (name, loaded), drawn in zip(network.named_parameters(), fresh.parameters(), strict=True):
        if loaded.ndim > 1 and id(loaded) not in head and torch.equal(loaded, drawn):
            raise ValueError(f"{name} and perhaps other tensors are not in the file")
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError("it holds numbers that are not finite (NaN)")
    return network


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    """One number a channel, or one for all: gray images take the mean over the colors."""
    return [sum(values) / len(values)] if channels == 1 else list(values)


def classifier_ids(network: nn.Module) -> set[int]:
    """The id() of each tensor of the last layer of a timm model."""
    return {id(parameter) for parameter in network.get_classifier().parameters()}


@torch.no_grad()
def with_head(backbone: nn.Module, head: dict[str, Tensor]) -> nn.Module:
    """The network with this weight and bias of its last layer; all modules without it are shared with the backbone."""
    last = backbone.get_classifier()
    shared = {id(module): module for module in backbone.modules() if last not in module.modules()}
    network = copy.deepcopy(backbone, shared)
    network.get_classifier().load_state_dict(head)
    return network


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The layers that take their statistics from the batch."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def save_model(
    folder: Path,
    network: nn.Module,
    spec: ModelSpec,
    backbone: str | None = None,
    input_hash: str | None = None,
) -> TrainedModel:
    """Write model.safetensors, then model.json with its hash. The second file is the sign that the model is whole.

    backbone: hash of the frozen network in the folder `backbone` of the run; the classifier alone is written then.
    input_hash: of all that it was trained from, see TrainJob.
    """
    head = classifier_ids(network)
    tensors = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if backbone is None or id(tensor) in head:
            tensors[name] = tensor.detach().cpu().contiguous()
    data = save(tensors)
    model = TrainedModel(network, spec, _hash(data), backbone)
    about = asdict(spec) | {"hash": model.hash, "backbone": backbone, "input_hash": input_hash}
    atomic_write(folder / "model.safetensors", data)
    write_json(folder / "model.json", about)
    return model


def load_model(folder: Path) -> TrainedModel:
    """Read a model of a run.

    Raises:
        UserError: it is missing, or its weights are not those that model.json names.
    """
    import timm

    about, tensors = _read(folder)
    spec = ModelSpec(
        **{name: about[name] for name in ModelSpec.__dataclass_fields__ if name in about}
    )
    # A run folder may come from a stranger.
    if not timm.is_model(spec.name) or refused_kwargs(spec.kwargs):
        raise UserError(
            f"{folder / 'model.json'} names no model of timm ({spec.name!r}); train again with --fresh"
        )
    if backbone := about.get("backbone"):
        run, member = _run_and_member(folder)
        frozen = _load_backbone(run / member_folder("backbone", member), backbone)
        head = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
        return TrainedModel(with_head(frozen, head), spec, about["hash"], backbone)
    network = timm.create_model(
        spec.name, num_classes=len(spec.classes), in_chans=spec.channels, **spec.kwargs
    )
    network.load_state_dict(tensors)
    network = network.to(memory_format=torch.channels_last).eval()
    return TrainedModel(network, spec, about["hash"])


@lru_cache(maxsize=1)
def _load_backbone(folder: Path, expected_hash: str) -> nn.Module:
    """The frozen network of many heads."""
    backbone = load_model(folder)
    if backbone.hash != expected_hash:
        raise UserError(
            f"{folder} is not the backbone of the heads on it (hash {expected_hash}); train again with --fresh"
        )
    return backbone.network


def load_models(folders: list[Path]) -> list[TrainedModel]:
    """The model of each folder; of a council all of its networks, with their weights in a mean.

    Raises:
        UserError: see load_model.
    """
    return [model for folder in folders for model in _load_council(folder)]


def _load_council(folder: Path) -> list[TrainedModel]:
    folders = sorted(file.parent for file in folder.rglob("model.json"))
    models = [load_model(folder) for folder in folders]
    run, _ = _run_and_member(folder)
    if len(models) > 1 and (run / COUNCIL).exists():
        weights = read_json(run / COUNCIL, "weights")["weights"]
        for model, folder in zip(models, folders, strict=True):
            _, member = _run_and_member(folder)
            model.weight = weights[member]
    return models


def _run_and_member(folder: Path) -> tuple[Path, int]:
    """The run folder in which the folder of a model lies, and which member of a council the model is."""
    arm, member = split_folder(folder.as_posix())
    arm = Path(arm)
    return arm.parents[1] if arm.name.startswith("fold_") else arm.parent, member


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """model.json, and the tensors whose hash it names."""
    if not (folder / "model.json").exists():
        raise UserError(f"{folder} holds no model; run train.py or pseudo.py first")
    about = read_json(folder / "model.json", "hash", "classes")
    file = folder / "model.safetensors"
    if not file.exists() or _hash(file.read_bytes()) != about["hash"]:
        raise UserError(
            f"{file} is not the file of model.json (hash {about['hash']}); train again with --fresh"
        )
    return about, load_file(file)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
