"""Smoothing of the seam between two chunks: the VAE's change of the context frames fades in instead of jumping."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .plan import Chunk

SEAM_FADE = 8  # frames
_MAX_FLASH = 0.02  # share of full brightness; a larger step is light that changes in the scene, not an artifact


def check_seam_fade(count: int) -> int:
    """Return `count`. Raises InputError if it is negative."""
    if count < 0:
        raise InputError(f"seam_fade must be 0 (off) or more frames, got {count}")
    return count


def fade_seam(
    frames: Tensor, chunk: Chunk, last: Tensor, count: int, next_context: int, in_place: bool = False
) -> Tensor:
    """Correct the first new frames of `chunk` so that sharpness and color continue from the previous chunk.

    The context frames pass through the VAE once more, which changes them slightly; the new frames resemble the changed
    ones, so the change is visible as a jump. `last` (H, W, 3) is the frame before the seam as it was written, and
    `frames` (F, H, W, 3) contains the same frame as the VAE decoded it. Their difference is added to `count` new frames
    with weights that fall along a cosine from 1. A step of the picture's mean color from the context to the first new
    frame, visible as a flash in still scenes, is compensated in the same way. The last `next_context` frames stay
    unchanged, so corrections do not accumulate over chunks. The reference has no such step. in_place: change `frames`
    itself, which saves a copy of the whole chunk for a few frames.
    Returns frames in [0, 1], or the same tensor if there is nothing to fade.
    """
    count = min(count, chunk.length - chunk.context - next_context)
    if chunk.context == 0 or count <= 0:
        return frames
    first = chunk.context
    lost = last.to(frames) - frames[first - 1]
    flash = (frames[first] - frames[first - 1]).mean((0, 1))
    missing = lost - flash.clamp(-_MAX_FLASH, _MAX_FLASH)
    shares = 0.5 + 0.5 * torch.cos(torch.pi * torch.arange(count) / count)
    faded = frames if in_place else frames.clone()
    for i, share in enumerate(shares.tolist(), first):
        faded[i] = (faded[i] + share * missing).clamp(0, 1)
    return faded
