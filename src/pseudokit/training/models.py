"""timm models: create with offline weights, save, load. Weights are safetensors + JSON, nothing that runs code."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.keys import Model as ModelConfig
from ..config.types import UserError
from ..system.files import atomic_write, read_json, write_json

OF_DATA = {"num_classes", "in_chans", "features_only"}
"""Arguments of timm that are not the user's."""
FETCH = {"pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir"}
"""Arguments of timm.create_model by which it would fetch or load weights; here they come from `checkpoint` alone."""
OVERLAY = {"mean", "std"}
"""What pretrained_cfg_overlay may change: how pixels are normalized. With `url` or `file` it would fetch weights."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model takes and gives: stored with every model, so that nothing is matched by position. precision: that of
    its training, and of what it predicts; multi_label: it answers yes or no for every class."""

    name: str
    kwargs: dict[str, Any]
    classes: list[str]
    size: int
    channels: int
    mean: list[float]
    std: list[float]
    amp_dtype: str = "auto"
    multi_label: bool = False


@dataclass
class TrainedModel:
    """A network with what is needed to use it. `hash` names its weights in the round records; backbone: that of the
    frozen network on which it is a head."""

    network: torch.nn.Module
    format: ModelSpec
    hash: str
    backbone: str | None = None


def create_model(config: ModelConfig, classes: tuple[str, ...], size: int, channels: int, key: str = "model"):
    """A fresh network in channels_last and its format. Mean and std are timm's for this model.

    key: the section of the config that a message names.

    Raises:
        UserError: timm has no such model, an argument is unknown, or the weights do not fit.
    """
    import timm
    from timm.data import resolve_model_data_config

    _refuse_arguments(config, key)
    options = {"num_classes": len(classes), "in_chans": channels} | config.kwargs
    overlay = {"file": config.checkpoint} | config.kwargs.get("pretrained_cfg_overlay", {})
    weights = {"pretrained": True, "pretrained_cfg_overlay": overlay} if config.checkpoint else {}
    try:
        random_state = torch.get_rng_state()
        network = timm.create_model(config.name, **options | weights)
        _check_forward(network, size, channels, len(classes))
        if weights:
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(random_state)
                _check_loaded(network, timm.create_model(config.name, **options))
    except Exception as error:  # every model and file format raises its own types
        what = (
            f"{key}.checkpoint={config.checkpoint} does not fit"
            if weights
            else f"{key}.name / {key}.kwargs: cannot make"
        )
        why = _mismatch(config, options) or " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{what} {config.name} for {channels}×{size}×{size} images: {why}") from error
    if weights and (spoilt := [name for name, value in network.state_dict().items() if not value.isfinite().all()]):
        raise UserError(
            f"{key}.checkpoint={config.checkpoint}: {spoilt[0]} holds numbers that are not finite (NaN); "
            "give another file"
        )
    pixels = resolve_model_data_config(network)
    mean, std = (_for_channels(pixels[name], channels) for name in ("mean", "std"))
    spec = ModelSpec(config.name, config.kwargs, list(classes), size, channels, mean, std)
    return network.to(memory_format=torch.channels_last), spec


def _for_channels(values: tuple[float, ...], channels: int) -> list[float]:
    """One number a channel, or one for all: grey images take the mean over the colors."""
    return list(values) if len(values) in (1, channels) else [sum(values) / len(values)]


def fetching(kwargs: dict[str, Any]) -> list[str]:
    """Arguments among these by which timm would fetch or load weights."""
    overlay = kwargs.get("pretrained_cfg_overlay", {})
    harmless = isinstance(overlay, dict) and {*overlay} <= OVERLAY
    return sorted(FETCH & {*kwargs}) + ([] if harmless else ["pretrained_cfg_overlay"])


def _refuse_arguments(config: ModelConfig, key: str) -> None:
    import timm

    if not timm.is_model(config.name):
        close = difflib.get_close_matches(config.name, timm.list_models(), 3, 0.5)
        raise UserError(f"{key}.name={config.name!r} is not a timm model; nearest: {', '.join(close) or 'none'}")
    if fetch := fetching(config.kwargs):
        raise UserError(
            f"{key}.kwargs: {fetch[0]} would fetch or load weights; give {key}.checkpoint=FILE in its place"
        )
    if own := OF_DATA & {*config.kwargs}:
        raise UserError(f"{key}.kwargs: {min(own)} follows from the data; leave it out")
    if config.checkpoint and not Path(config.checkpoint).is_file():
        raise UserError(f"{key}.checkpoint={config.checkpoint} does not exist; give a .safetensors or .pth file")


def has_batch_norm(network: torch.nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


@torch.no_grad()
def _check_forward(network: torch.nn.Module, size: int, channels: int, k: int) -> None:
    """Fail now rather than in the middle of a run where the images are too small for the network."""
    out = network.eval()(torch.zeros(2, channels, size, size))
    if getattr(out, "shape", None) != (2, k):
        raise ValueError(f"it does not make {k} numbers of an image")


def _check_loaded(network: torch.nn.Module, blank: torch.nn.Module) -> None:
    """timm skips what does not match where the number of classes differs; then a tensor is as in the blank network."""
    head = {id(parameter) for parameter in network.get_classifier().parameters()}
    pairs = zip(network.named_parameters(), blank.parameters(), strict=True)
    left = [name for (name, p), q in pairs if p.ndim > 1 and id(p) not in head and torch.equal(p, q)]
    if left:
        raise ValueError(f"{len(left)} of its tensors are not in the file, for example {left[0]}")


def _mismatch(config: ModelConfig, options: dict[str, Any]) -> str:
    """Which tensors of a weights file do not fit the network, in short; empty where the file is none, or all do."""
    import timm
    from timm.models import load_state_dict as read_weights

    try:
        theirs = read_weights(config.checkpoint)
        own = timm.create_model(config.name, **options).state_dict()
    except Exception:  # whatever is wrong with the file, or without one, has been said
        return ""
    both = own.keys() & theirs.keys()
    lacking, unknown = [n for n in own if n not in both], [n for n in theirs if n not in both]
    other = [n for n in own if n in both and own[n].shape != theirs[n].shape]
    kinds = {
        "the network's that the file lacks": lacking,
        "the file's that the network lacks": unknown,
        "of another shape": other,
    }
    said = [
        f"{len(names)} {what} ({', '.join(names[:2])}{', …' if len(names) > 2 else ''})"
        for what, names in kinds.items()
        if names
    ]
    return f"of {len(own)} tensors " + "; ".join(said) if said else ""


def save_model(
    folder: Path, network: torch.nn.Module, spec: ModelSpec, backbone: str | None = None, input_hash: str | None = None
) -> TrainedModel:
    """Write model.safetensors, then model.json with its hash (the sign that the model is whole).

    made_from: hash of what it learned and how, see Task.
    body: hash of the frozen network that lies in the folder `body` of the run; the last layer alone is written.
    """
    last = {id(tensor) for tensor in network.get_classifier().parameters()}
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict(keep_vars=True).items()
        if not backbone or id(value) in last
    }
    data = save(state)
    digest = hashlib.sha256(data).hexdigest()[:16]
    atomic_write(folder / "model.safetensors", data)
    more = {"hash": digest, "backbone": backbone, "input_hash": input_hash}
    write_json(folder / "model.json", asdict(spec) | {key: value for key, value in more.items() if value})
    return TrainedModel(network, spec, digest, backbone)


def load_model(folder: Path) -> TrainedModel:
    """Read a model of a run.

    Raises:
        UserError: it is missing, or its weights are not those that model.json names.
    """
    import timm

    meta, state = _read(folder)
    meta.pop("input_hash", None)
    backbone = meta.pop("backbone", None)
    digest = meta.pop("hash")
    if backbone:
        about, rest = _read(
            next((up / "backbone" for up in folder.parents if (up / "backbone").is_dir()), folder.parent / "backbone")
        )
        if about["hash"] != backbone:
            raise UserError(
                f"{folder / 'model.json'} is a head on another backbone (hash {backbone}); train again with --fresh"
            )
        state = rest | state
    spec = ModelSpec(**meta)
    if not timm.is_model(spec.name) or fetching(spec.kwargs):  # a run folder may come from a stranger
        raise UserError(f"{folder / 'model.json'} names no model of timm ({spec.name!r}); train again with --fresh")
    network = timm.create_model(spec.name, num_classes=len(spec.classes), in_chans=spec.channels, **spec.kwargs)
    network.load_state_dict(state)
    return TrainedModel(network.to(memory_format=torch.channels_last).eval(), spec, digest, backbone)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """model.json and the tensors whose hash it names."""
    if not (folder / "model.json").exists():
        raise UserError(f"{folder} holds no model; run train.py or pseudo.py first")
    meta, file = read_json(folder / "model.json", "hash", "classes"), folder / "model.safetensors"
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest()[:16] != meta["hash"]:
        raise UserError(f"{file} is not the file that model.json names (hash {meta['hash']}); train again with --fresh")
    return meta, load_file(file)
