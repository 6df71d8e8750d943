"""Faults of known size for benchmarks/sight.py: functions from the frames of a true video to those of a faulty one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.color import lab_to_rgb, rgb_to_lab
from infinitetalk_core.chunks.color_difference import ciede2000


def turned(frames: Tensor, masks: Tensor, units: float, degrees: float = 60.0) -> Tensor:
    """Turn the color of a part by `units` of CIEDE2000, in the direction `degrees` of the plane a, b.

    frames: (F, H, W, 3); masks: the part in each frame, (F, H, W), soft edges allowed.
    """
    lab = rgb_to_lab(frames)
    usual = lab[0][masks[0] > 0.5].median(0).values
    direction = lab.new_tensor([0.0, math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    steps = torch.arange(0, 120, 0.05)[:, None] * direction
    moved = steps[(ciede2000(usual, usual + steps) - units).abs().argmin()]
    return torch.lerp(frames, lab_to_rgb(lab + moved), masks[..., None].to(frames))


def faded(frames: Tensor, masks: Tensor, share: float) -> Tensor:
    """Mix `share` of what is around into a part, such as the brows. masks: (F, H, W), boolean."""
    wider = F.max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)  # with the border of the part
    values = torch.cat((frames.permute(0, 3, 1, 2), torch.ones_like(wider)), dim=1) * (1 - wider)
    around = F.avg_pool2d(values, 11, stride=1, padding=5)
    colors = (around[:, :3] / around[:, 3:].clamp_min(1e-6)).permute(0, 2, 3, 1)
    return torch.where(wider[:, 0, ..., None] > 0, torch.lerp(frames, colors, share), frames)


def blurred(frames: Tensor, masks: Tensor, sigma: float) -> Tensor:
    """Blur a part with a Gaussian of `sigma` pixels. masks: (F, H, W)."""
    reach = max(math.ceil(3 * sigma), 1)
    line = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).to(frames)
    pictures = F.pad(frames.permute(0, 3, 1, 2), (reach,) * 4, mode="replicate").flatten(0, 1)[:, None]
    soft = F.conv2d(F.conv2d(pictures, line[None, None, None]), line[None, None, :, None])
    soft = soft.reshape(len(frames), 3, *frames.shape[1:3]).permute(0, 2, 3, 1)
    return torch.lerp(frames, soft, masks[..., None].to(frames))


def frozen(frames: Tensor, length: int, at: int = 30) -> Tensor:
    """Repeat frame `at` until `length` frames show no change."""
    out = frames.clone()
    out[at : at + length + 1] = out[at]
    return out


def flickering(frames: Tensor, units: float) -> Tensor:
    """Lighten and darken every other frame by `units` of lightness."""
    lab = rgb_to_lab(frames)
    lab[::2, ..., 0] += units
    lab[1::2, ..., 0] -= units
    return lab_to_rgb(lab)


def jumping(frames: Tensor, at: int, units: float) -> Tensor:
    """Lighten the picture by `units` from frame `at` on."""
    lab = rgb_to_lab(frames)
    lab[at:, ..., 0] += units
    return lab_to_rgb(lab)


def pulsing(frames: Tensor, keys: Sequence[int], units: float) -> Tensor:
    """Change the picture by `units` of lightness at each key frame, fading away until the next."""
    lab = rgb_to_lab(frames)
    for first, stop in zip(keys, [*keys[1:], len(frames)], strict=True):
        lab[first:stop, ..., 0] += units * torch.linspace(1, 0, stop - first)[:, None, None]
    return lab_to_rgb(lab)


def late(frames: Tensor, count: int) -> Tensor:
    """Show everything `count` frames later."""
    return torch.cat((frames[:1].expand(count, -1, -1, -1), frames[: len(frames) - count]))
