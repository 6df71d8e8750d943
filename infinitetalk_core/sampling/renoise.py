"""Sampling for models that are distilled to predict the video: each step noises its estimate anew.

So does SoulX-FlashTalk (flash_talk/src/pipeline/flash_talk_pipeline.py, `generate`), as latent consistency models do.
Its loop draws the noise of the steps after that of the chunk, from one generator; here that generator is the chunk's
own, so that a chunk can be made again alone.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .sdedit import noised

# (x (1, 16, T, h, w), sigma as a 0-d tensor) -> the denoised estimate, of the same shape
Denoise = Callable[[Tensor, Tensor], Tensor]


def renoise(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    seed: int,
    after_step: Callable[[int, Tensor, Tensor], None] = lambda step, denoised, x: None,
) -> Tensor:
    """Return the video's latents from x (1, 16, T, h, w) at sigmas[0].

    Each step estimates the video and, but for the last, noises the estimate to the next level with new noise, drawn on
    the CPU from the chunk's seed. The context latents are kept clean by `denoise`. after_step: called with the step's
    index, its estimate and its x.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.randn(x.shape, generator=generator)  # the chunk's own noise (`draw_noise`), which x begins with
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, sigma)
        after_step(i, denoised, x)
        x = denoised
        if sigma_next > 0:
            x = noised(denoised, torch.randn(x.shape, generator=generator).to(x), sigma_next.to(x))
    return x
