"""Euler sampling for flow matching, with the context latents replaced by their clean values at every step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

# (x (1, 16, T, h, w), sigma as a 0-d tensor) -> velocity d = dx/dsigma = noise - video, of the same shape
Velocity = Callable[[Tensor, Tensor], Tensor]


def pin(x: Tensor, context: Tensor) -> Tensor:
    """Return x (B, C, T, h, w) with its first t_c latent frames replaced by `context` (B or 1, C, t_c, h, w)."""
    return torch.cat([context.to(x).expand(len(x), -1, -1, -1, -1), x[:, :, context.shape[2] :]], dim=2)


def euler(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    context: Tensor,
    after_step: Callable[[int, Tensor], None] = lambda step, denoised: None,
) -> Tensor:
    """Integrate x (1, 16, T, h, w) from noise at sigmas[0] to the video at sigmas[-1] and return it.

    context: (1, 16, t_c, h, w), the clean context latents, put into x before each prediction and at the end. The
    reference also re-noises them at every step, which has no effect since they are overwritten before each call.
    after_step: called with the step's index and its denoised estimate, x - sigma · d, of x's shape.
    """
    x = pin(x, context)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        d = velocity(x, sigma)
        dt = sigma_next - sigma
        denoised = pin(x - d * sigma, context)
        x = pin(x + d * dt, context)
        after_step(i, denoised)
    return x
