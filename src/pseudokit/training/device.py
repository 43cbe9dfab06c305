"""Where and how numbers are computed: device, number type, and the way from uint8 images to the network."""

import gc
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from ..config.types import UserError
from ..data.transforms import to_device
from ..system.distributed import cores
from ..system.files import log
from .models import MAX_ERROR_CHARACTERS, ModelSpec, batch_norms

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
MIN_BF16_PIXELS = 24
"""Side of images below which convolutions see 1×1 maps: oneDNN's bf16 gradients of these are not finite on CPUs with
AMX."""
MAX_LOADER_PROCESSES = 8
"""As many keep a GPU busy; more would compete for memory."""


def pick_device(wanted: str) -> torch.device:
    """The device of `train.device`; auto = cuda, else mps, else cpu.

    Raises:
        UserError: this machine does not have it.
    """
    kinds = {"cuda": torch.cuda, "mps": torch.backends.mps, "cpu": torch.cpu}
    available = [name for name, kind in kinds.items() if kind.is_available()]
    if wanted == "auto":
        wanted = available[0]
    if wanted not in available:
        raise UserError(f"train.device={wanted} is not available here; set train.device=auto")
    if wanted == "cuda":
        # The kernels that give the same bytes every time, where torch has them.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
        warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
    return torch.device(wanted)


def pick_amp_dtype(wanted: str, device: torch.device, size: int, network: nn.Module) -> torch.dtype:
    """The number type of `train.amp_dtype`; auto = the 16-bit type that the hardware computes natively, else fp32.

    By rule and not by a stopwatch, so that the same seed gives the same bytes. size: side of the images in pixels.
    """
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    gains = size >= MIN_BF16_PIXELS and not _is_mobile(network)
    if device.type == "cpu" and gains and cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def _is_mobile(network: nn.Module) -> bool:
    """Whether it has depthwise convolutions and batch norms, as MobileNet and EfficientNet: bf16 slows these on a CPU.

    ConvNeXt, which has other norms, gains (docs/log.md).
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    has_depthwise = any(conv.groups == conv.in_channels > 1 for conv in convolutions)
    return has_depthwise and bool(batch_norms(network))


def cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 (read on Linux only). Emulated bf16 is slower than fp32."""
    file = Path("/proc/cpuinfo")
    flags = file.read_text("ascii", "ignore") if file.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pick_workers(wanted: int | None, device: torch.device) -> int:
    """Processes that augment images beside this one. Default: none on a CPU, which training keeps busy."""
    if sys.platform != "linux":  # elsewhere a process cannot share the images
        return 0
    if wanted is not None:
        return wanted
    return 0 if device.type == "cpu" else min(MAX_LOADER_PROCESSES, cores() - 1)


def random_state() -> tuple[Tensor, Tensor | None]:
    """The state of the random numbers of CPU and GPU."""
    random_cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return torch.get_rng_state(), random_cuda


def set_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    """Draw from this state on."""
    random, random_cuda = state
    torch.set_rng_state(random)
    if random_cuda is not None:
        torch.cuda.set_rng_state(random_cuda)


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward pass of a network, compiled when it is first called.

    Raises:
        UserError: torch cannot compile it here.
    """
    from torch._dynamo.exc import TorchDynamoException

    forward = torch.compile(network)

    def run(images: Tensor) -> Tensor:
        try:
            return forward(images)
        except TorchDynamoException as error:
            reason = shorten(str(error), MAX_ERROR_CHARACTERS)
            raise UserError(f"train.compile=true fails here: {reason}; set it to false") from error

    return run


@dataclass
class Division:
    """In how many parts a batch is worked through, so that it fits into the memory of the device."""

    n_parts: int = 1

    def fit(self, work: Callable[[int], Any], max_parts: int) -> Any:
        """work(n_parts). Where the memory is full, it is repeated in twice as many parts, as are all that follow.

        It then draws the same random numbers again. max_parts: more leave parts empty.

        Raises:
            UserError: the smallest parts do not fit.
        """
        random = random_state()
        while True:
            try:
                return work(min(self.n_parts, max_parts))
            except torch.OutOfMemoryError:
                pass  # until here the error holds the tensors of the attempt
            if self.n_parts >= max_parts:
                raise UserError(
                    "out of memory in the smallest parts of a batch; end what else uses the GPU, or take a smaller "
                    "data.size or model.name"
                )
            self.n_parts = min(2 * self.n_parts, max_parts)
            gc.collect()
            torch.cuda.empty_cache()
            set_random_state(random)
            log.info(f"out of memory: batches are divided into {self.n_parts} parts from here on")

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return {"n_parts": self.n_parts}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on as a checkpoint says."""
        self.n_parts = state["n_parts"]


class Computation:
    """Where a network computes, in which number type, and how its images are normalized.

    It follows from `train.device` and `train.amp_dtype`. The network is moved to the device.

    Raises:
        UserError: this machine does not have the device.
    """

    def __init__(self, network: nn.Module, spec: ModelSpec, device: str, amp_dtype: str):
        self.spec = spec
        self.device = pick_device(device)
        self.dtype = pick_amp_dtype(amp_dtype, self.device, spec.size, network)
        mean = torch.tensor(spec.mean, device=self.device) * 255
        std = torch.tensor(spec.std, device=self.device) * 255
        self.mean = mean.expand(spec.channels)
        self.std = std.expand(spec.channels)
        self.division = Division()
        network.to(self.device)

    def run(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """Output of a network (or of a part of it), in float32. pixels: (B, H, W, C) in 0…255."""
        images = to_device(pixels, self.device).to(
            torch.float32, memory_format=torch.contiguous_format, copy=True
        )
        # By whole lines of pixels: loops over the channels of one take several times as long.
        width = images.shape[2]
        images.flatten(2).sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        is_16_bit = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=is_16_bit):
            return function(images.permute(0, 3, 1, 2)).float()  # in channels_last

    def run_in_parts(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """The same without gradients, in as many parts as the memory asks for."""
        return self.division.fit(
            lambda n_parts: torch.cat([self.run(function, part) for part in pixels.chunk(n_parts)]),
            len(pixels),
        )
