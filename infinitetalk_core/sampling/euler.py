"""Euler steps along the flow, with the context latents held clean."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

# (x (1, 16, T, h, w), sigma as a 0-d tensor) → velocity of the same shape
Velocity = Callable[[Tensor, Tensor], Tensor]


def pin(x: Tensor, context: Tensor) -> Tensor:
    """x (B, C, T, h, w) with its first latent frames replaced by the clean `context` (B, C, t_c, h, w)."""
    return torch.cat([context.to(x).expand(len(x), -1, -1, -1, -1), x[:, :, context.shape[2] :]], dim=2)


def euler(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    context: Tensor,
    after_step: Callable[[int, Tensor], None] = lambda step, x: None,
) -> Tensor:
    """Integrate from noise x (1, 16, T, h, w) at sigmas[0] to the video at sigmas[-1].

    The context latents are put in before each prediction and at the end: the reference also re-noises them at
    every step, which has no effect since they are overwritten before each call.
    """
    x = pin(x, context)
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        x = pin(x + velocity(x, sigma) * (following - sigma), context)
        after_step(i, x)
    return x
