"""Reading of a video part as one batch of pictures. Only here does memory grow with the length."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InputError
from ..wording import counted
from .source import FrameSource

BYTES_A_PIXEL = 3 * 4
GIGABYTE = 1e9


def batch_bytes(source: FrameSource) -> int:
    """Return the bytes that all pictures of `source` take as one float32 batch."""
    return source.length * source.height * source.width * BYTES_A_PIXEL


def say_memory(source: FrameSource) -> str:
    """Describe the memory of that batch as text."""
    size = f"{source.width} x {source.height}"
    pictures = counted(source.length, "picture")
    return f"{batch_bytes(source) / GIGABYTE:.1f} GB of memory for {pictures} of {size}"


def read_batch(source: FrameSource, free_bytes: int, report: Callable[[int], None] = lambda done: None) -> Tensor:
    """Read all pictures of `source` into one tensor (length, H, W, 3).

    free_bytes: available memory; report: called with the number of pictures read so far; an exception from it stops
    the reading. Raises InputError, before anything is read, if the batch needs more than `free_bytes`.
    """
    if batch_bytes(source) > free_bytes:
        raise InputError(
            f"these need {say_memory(source)}, and only {free_bytes / GIGABYTE:.1f} GB are free: take fewer seconds, "
            "or connect the VIDEO itself, which needs no memory"
        )
    pictures = torch.empty(source.length, source.height, source.width, 3)
    for index in range(source.length):
        report(index)
        pictures[index] = source.frame(index)
    return pictures
