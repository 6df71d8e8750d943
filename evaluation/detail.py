"""Measure whether a part of the picture is softer than in the reference, such as a blurred face in a sharp room.

softest part: in windows of a quarter of the picture that overlap by half, the variance of the Laplacian of the
lightness divided by the reference's, the median over the frames, of the softest window. No unit; 1 is as sharp as the
reference, 0.4 is just visible. Windows without detail in the reference do not count; None if there are no others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab

_WINDOWS = 4  # across the picture, side by side
_DETAIL = 1.0  # the least variance of the reference, in squared Lab units


def softest_part(frames: Tensor, reference: Tensor) -> float | None:
    """Return the sharpness of the softest part of frames (F, H, W, 3) relative to `reference`: as many frames, or one
    picture (H, W, 3)."""
    own = _details(reference if reference.ndim == 4 else reference[None])
    usual = own.median(0).values
    detailed = usual >= _DETAIL
    if len(frames) == 0 or not detailed.any():
        return None
    share = (_details(frames) / own.clamp_min(1e-6)).median(0).values
    return share[detailed].min().item()


def _details(frames: Tensor) -> Tensor:
    """Return the variance of the Laplacian in the windows of frames (F, H, W, 3): (F, n)."""
    lightness = rgb_to_lab(frames.detach().cpu().float())[..., 0]
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    square = F.conv2d(lightness[:, None], kernel).square()
    size = [max(side // _WINDOWS, 1) for side in square.shape[-2:]]
    return F.avg_pool2d(square, size, stride=[max(side // 2, 1) for side in size]).flatten(1)
