"""Return of free heap memory from glibc to the system."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Call glibc's `malloc_trim`, which returns free arena memory to the system; does nothing with other C libraries.

    Without it, glibc keeps the memory that the VAE frees on the CPU after each chunk. Fragmentation then makes the
    process grow although memory in use does not: 1400 MB after a chunk, 750 MB with the call (benchmarks/RESULTS.md).
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
