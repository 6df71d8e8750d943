"""Conditioning of a chunk: z1, z2 and m of the paper, CLIP tokens and audio windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .camera_control import CameraConditioning
from .plan import Chunk

LATENT_CHANNELS = 16
MASK_CHANNELS = 4
VAE_STRIDE = 8
MID_GRAY = 0.5

# (seed, shape) -> noise of that shape
Noise = Callable[[int, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class ChunkConditioning:
    """All inputs for denoising one chunk. T latent frames of h x w, S speakers."""

    chunk: Chunk
    seed: int  # for the noise, and for random numbers of the sampler
    noise: Tensor  # (1, 16, T, h, w)
    context: Tensor  # (1, 16, t_c, h, w): clean latents that stay fixed (the beginning of z1)
    reference: Tensor  # (1, 16, T, h, w): z2, the reference frame followed by mid-gray
    mask: Tensor  # (1, 4, T, h, w): m, 1 where z2 is a picture
    clip: Any  # CLIP tokens of the reference frame, or None
    audio_windows: Tensor  # (S, F, window, layers, channels)
    masks: Tensor | None  # (S+1, tokens of a frame), or None with one voice
    source: Tensor | None = None  # (1, 16, T, h, w): the source at the chunk's time, for SDEdit and pinned regions
    strength: float = 1.0  # SDEdit's t0, the noise level where denoising starts; 1: from pure noise
    denoise_mask: Tensor | None = (
        None  # (1, 1, T, h, w): 1 where the video may differ from the source; None: everywhere
    )
    camera: CameraConditioning | None = None  # input of Uni3C


def reference_video(reference: Tensor, length: int, last: Tensor | None = None) -> Tensor:
    """Return the frames (length, H, W, 3) that are encoded to z2: `reference` (H, W, 3), then mid-gray.

    last: final frame (H, W, 3), for the first-last baseline. Source: the paper's equation for z2.
    """
    frames = torch.full_like(reference, MID_GRAY).repeat(length, 1, 1, 1)
    frames[0] = reference
    if last is not None:
        frames[-1] = last
    return frames


def reference_mask(latent_frames: int, height: int, width: int, last: bool = False) -> Tensor:
    """Return m (1, 4, T, h, w): 1 at the first latent frame only, even if the chunk has more context frames.

    last: also 1 for the last of the four frames of the last latent frame, for the first-last baseline.
    """
    mask = torch.zeros(1, MASK_CHANNELS, latent_frames, height, width)
    mask[:, :, 0] = 1
    if last:
        mask[:, -1, -1] = 1
    return mask


def draw_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Draw normal noise from a chunk's seed (0 … 2^64 - 1). Uses the CPU, so it is the same for any device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
