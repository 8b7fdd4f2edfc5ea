"""The most memory that was in use since one began to look: of the GPU where there is one, else of this process.

A process remembers its peak for life, so that in a ladder a small rung would be said to need what a large one before it
did. Linux can be told to forget; elsewhere the peak of a process is that of all it has done.
"""

import contextlib
import sys
from pathlib import Path

import torch


def reset_peak_memory() -> None:
    """From here on it counts anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int | None:
    """Bytes: what tensors took on the GPU, or of this process lay in memory; None where nobody counts (Windows)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
