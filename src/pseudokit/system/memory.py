"""The most memory that the processes of a run take at once."""

import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")
_of_others: dict[str, int] = {}
"""What other processes of torchrun have told since reset_peak."""


def reset_peak() -> None:
    """Begin a new peak. Where the system is not Linux, that of the process so far stands."""
    _of_others.clear()
    with suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()


def peak_memory() -> Counter:
    """MiB since reset_peak, in the process that took most.

    memory: resident, with the parts of mapped files that are. gpu_memory: of torch's tensors, on CUDA.
    """
    peak = Counter(memory=_resident_bytes() >> 20)
    if cuda := _cuda():
        peak["gpu_memory"] = cuda.max_memory_allocated() >> 20
    return peak | Counter(_of_others)


def note_peak(peak: Counter) -> None:
    """Count what `peak_memory` said in another process."""
    _of_others.update(peak | Counter(_of_others))


def _resident_bytes() -> int:
    with suppress(OSError):
        status = (PROCESS / "status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _cuda():
    """torch.cuda, where it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_initialized() else None
