"""Windows of speech features for each video frame: its own and two neighbors on either side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..disk_buffer import DiskTensor

WINDOW = 5


def mirror(index: int, length: int) -> int:
    """Reflect an index beyond the end into 0 … length-1: … n-2, n-1, n-1, n-2 …; indices before the start become 0.

    The reference extends a speech that ends inside a chunk by its own last frames in reverse order
    (wan/multitalk.py), so that the mouth does not freeze on one sound in the rest of the chunk.
    """
    if index < 0:
        return 0
    index %= 2 * length
    return index if index < length else 2 * length - 1 - index


def window_indices(start: int, length: int, available: int, window: int = WINDOW) -> list[list[int]]:
    """Return feature indices (length, window) for frames start … start+length-1 of a speech of `available` frames."""
    half = window // 2
    return [[mirror(i + offset, available) for offset in range(-half, half + 1)] for i in range(start, start + length)]


def speech_windows(voices: Sequence[Tensor | DiskTensor], start: int, length: int, window: int = WINDOW) -> Tensor:
    """Return windows (S, length, window, layers, channels) of S voices, each (F, layers, channels)."""
    return torch.stack([voice[torch.tensor(window_indices(start, length, len(voice), window))] for voice in voices])
