"""Memory of the C library."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Have glibc return what is free in its arenas to the system; elsewhere nothing.

    What a VAE takes and frees on the CPU in a chunk stays there otherwise, in ever other places, so that the process
    grows without anything in use growing: measured 750 MB after a chunk in place of 1400 (benchmarks/RESULTS.md).
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
