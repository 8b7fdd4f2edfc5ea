"""Peak memory since the last reset: of the GPU where there is one, else of this process.

The peak of a process is never reset by itself, so in a ladder a small rung would report that of a large one before it.
Linux can reset it; elsewhere the peak is that of the whole process.
"""

import contextlib
import sys
from pathlib import Path

import torch


def reset_peak_memory() -> None:
    """Resets the peak, where this is possible."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int | None:
    """Bytes: of tensors on the GPU, or resident memory of this process; None where it is not measured (Windows)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
