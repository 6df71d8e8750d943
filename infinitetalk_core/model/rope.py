"""Rotary position embeddings: over time, height and width for video tokens, over one axis for speakers (L-RoPE)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor

Rotate = Callable[[Tensor], Tensor]  # (B, L, H, D) -> the same shape, rotated by each token's position

BASE = 10000.0


def rotate_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (x0, x1), (x2, x3) … of the last axis by `angles` (…, D/2), in radians. Computed in float32."""
    return turn_pairs(x, angles.cos(), angles.sin())


def turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs as `rotate_pairs`, given the cosines and sines (…, D/2), which many layers share."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)


def line_angles(positions: Tensor, dim: int) -> Tensor:
    """Return the rotary angles (…, dim/2), float64, of `positions` (…) on one axis with `dim` channels."""
    steps = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float64)
    return positions.double()[..., None] * BASE ** (-steps / dim)


def video_rotation(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> Rotate:
    """Return the rotation of the tokens of a (T, H, W) grid, flattened in this order.

    A head's d channels are split into d - 4 (d // 6) for time and 2 (d // 6) each for height and width. Source: Wan
    2.1, wan/modules/model.py.
    """
    third = 2 * (head_dim // 6)
    dims = (head_dim - 2 * third, third, third)
    axes = [line_angles(torch.arange(n, device=device), d) for n, d in zip(grid, dims, strict=True)]
    t, h, w = grid
    spread = [
        repeat(axes[0], "t d -> t h w d", h=h, w=w),
        repeat(axes[1], "h d -> t h w d", t=t, w=w),
        repeat(axes[2], "w d -> t h w d", t=t, h=h),
    ]
    angles = rearrange(torch.cat(spread, dim=-1), "t h w d -> 1 (t h w) 1 d").float()
    return partial(turn_pairs, cos=angles.cos(), sin=angles.sin())
