"""Where and how numbers are computed: device, precision, from uint8 to the network."""

from __future__ import annotations

import os
import sys
import warnings

import torch

from ..config.types import UserError
from ..system.distributed import cores
from .models import ModelSpec, has_batch_norm

UNREPEATABLE = r"\s*(\S+) does not have a deterministic implementation"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(wanted: str) -> torch.device:
    """The device that was asked for; auto = cuda, else mps, else cpu.

    Raises:
        UserError: this machine does not have it.
    """
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(name for name, there in have.items() if there) if wanted == "auto" else wanted
    if not have[name]:
        raise UserError(f"train.device={name} is not available here; set train.device=auto")
    if name == "cuda":
        _make_repeatable()
    return torch.device(name)


def _make_repeatable() -> None:
    """Have a GPU take the kernels that come to the same bytes every time, where there are such."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    warnings.filterwarnings("ignore", UNREPEATABLE)


SMALLEST_BF16 = 24
"""Below this side convolutions see 1×1 maps, of which oneDNN's bf16 gradients are not finite on CPUs with AMX."""


def pick_amp_dtype(wanted: str, device: torch.device, size: int, network: torch.nn.Module) -> torch.dtype:
    """auto = the 16-bit type that the hardware computes natively, else fp32; on a CPU fp32 too for mobile networks.

    size: side of the images in pixels. By rule and not by a stopwatch: the same seed makes the same bytes.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and torch.cpu.is_available():
        native = torch.backends.mkldnn.is_available() and _cpu_has_bf16()
        gains = size >= SMALLEST_BF16 and not _is_mobile(network)
        return torch.bfloat16 if native and gains else torch.float32
    return torch.float32


def _is_mobile(network: torch.nn.Module) -> bool:
    """Of depthwise convolutions and batch norms, as MobileNet and EfficientNet are: these lose time by bf16 on a CPU,
    where ConvNeXt, whose norms are others, gains (docs/log.md)."""
    convolutions = (module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    return any(1 < one.groups == one.in_channels for one in convolutions) and has_batch_norm(network)


def _cpu_has_bf16() -> bool:
    """Emulated bf16 is slower than fp32, so only instructions count."""
    import numpy as np

    features = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    if "AVX512_SPR" in features:
        return True
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as info:
            return any(flag in info.read() for flag in ("avx512_bf16", "amx_bf16"))
    except OSError:
        return False


def autocast(device: torch.device, dtype: torch.dtype):
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def pick_workers(wanted: int | None, device: torch.device) -> int:
    """Processes that augment images beside this one. Default: none where the CPU trains, which is busy enough; for a
    GPU as many as there are cores left, at most 8."""
    if sys.platform != "linux":  # elsewhere a process cannot share the images
        return 0
    if wanted is not None:
        return wanted
    return 0 if device.type == "cpu" else min(8, cores() - 1)


def to_device(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To the device, from pinned memory where that lets the copy run beside the computation."""
    if device.type == "cuda" and batch.device.type == "cpu" and not batch.is_pinned():
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


def to_input(batch: torch.Tensor, spec: ModelSpec, device: torch.device) -> torch.Tensor:
    """(B, H, W, C) in 0…255 → (B, C, H, W) normalized, on the device, in channels_last."""
    mean, std = (torch.tensor(x, device=device) * 255 for x in (spec.mean, spec.std))
    batch = to_device(batch, device).float()
    return batch.sub(mean).div_(std).permute(0, 3, 1, 2)
