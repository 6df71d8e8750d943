"""The join of two chunks, softened: what the codec changed on the way from one chunk to the next fades in."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .plan import Chunk

SEAM_FADE = 8  # frames
_MOST_FLASH = 0.02  # of full brightness: more is no fault of the model but light that changes in the scene


def check_seam_fade(count: int) -> int:
    """`count` back. Raises InputError for a negative one."""
    if count < 0:
        raise InputError(f"seam_fade must be 0 (off) or more frames, got {count}")
    return count


def fade_seam(frames: Tensor, chunk: Chunk, last: Tensor, count: int, tail: int) -> Tensor:
    """Let the new frames of `chunk` begin as sharp and as colored as the video before them ended.

    The context frames pass through the VAE once more and come back a little different; the new frames look like them,
    so the difference shows as a jump. `last` (H, W, 3) is the frame before the join as it was written, and the same
    frame is in `frames` (F, H, W, 3) as the VAE gave it back. Their difference is added to `count` new frames: all of
    it to the first, less and less along a cosine to the others. So is a step of the whole picture's mean color from
    the context to the first new frame, which shows as a flash where nothing moves. The last `tail` frames stay as they
    are, so nothing is carried from chunk to chunk. The reference has nothing like it.
    Returns frames in [0, 1], or the same tensor where there is nothing to fade.
    """
    count = min(count, chunk.length - chunk.context - tail)
    if chunk.context == 0 or count <= 0:
        return frames
    first = chunk.context
    lost = last.to(frames) - frames[first - 1]
    flash = (frames[first] - frames[first - 1]).mean((0, 1))
    missing = lost - flash.clamp(-_MOST_FLASH, _MOST_FLASH)
    shares = 0.5 + 0.5 * torch.cos(torch.pi * torch.arange(count) / count)
    faded = frames.clone()
    for i, share in enumerate(shares.tolist(), first):
        faded[i] = (frames[i] + share * missing).clamp(0, 1)
    return faded
