"""Make the context of a training sample look as the context of a long video does: worn by the chunks before it.

After some chunks each part of the picture has drifted to colors of its own: a jacket to orange, a wall to pink. And
each chunk has been through the autoencoder. A model that only knows true contexts takes their colors to be right and
passes every error on; one that has seen worn ones learns to take colors from the reference.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.color import lab_to_rgb, rgb_to_lab
from infinitetalk_core.model.vae import WanVae

WORN_AT_ONCE = 20  # clips


@dataclass(frozen=True)
class Wear:
    """How contexts are worn."""

    parts: float = 0.0  # standard deviation, in Lab, of the drift of each part of the picture in each channel
    passes: int = 0  # most passes of encoding and decoding


def add_color_drift(frames: Tensor, rng: random.Random) -> Tensor:
    """Return `frames` with a color drift as after many chunks: changed gains and levels, slightly blurred."""
    gain = frames.new_tensor([rng.gauss(1, 0.02) for _ in range(3)])
    level = frames.new_tensor([rng.gauss(0, 0.01) for _ in range(3)])
    moved = (frames - 0.5) * gain + 0.5 + level
    if rng.random() < 0.5:
        soft = F.avg_pool2d(moved.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        moved = torch.lerp(moved, soft.permute(0, 2, 3, 1), rng.random() * 0.5)
    return moved.clamp(0, 1)


def add_part_drift(frames: Tensor, parts: Tensor, strength: float, rng: random.Random) -> Tensor:
    """Return `frames` (F, H, W, 3), each of whose parts has moved by another color.

    parts: (F, P, H, W), bool; strength: the standard deviation of the movement in each channel of Lab. Pixels of no
    part, at the borders, move by the mean of the parts beside them.
    """
    moves = frames.new_tensor([[rng.gauss(0, strength) for _ in range(3)] for _ in range(parts.shape[1])])
    near = F.avg_pool2d(parts.float(), 3, stride=1, padding=1)  # also fills the borders, two pixels wide at most
    share = torch.where(parts.any(1, keepdim=True), parts.float(), near)
    share = share / share.sum(1, keepdim=True).clamp_min(1e-6)
    return lab_to_rgb(rgb_to_lab(frames) + share.permute(0, 2, 3, 1) @ moves)


def drifted(frames: Tensor, parts: Tensor, wear: Wear, rng: random.Random) -> Tensor:
    """Return context frames (F, H, W, 3) with a drift of each part and of all; shapes as in `add_part_drift`."""
    moved = add_part_drift(frames, parts, wear.parts, rng) if wear.parts else frames
    return add_color_drift(moved, rng)


@torch.inference_mode()
def coded_again(vae: WanVae, clips: Tensor, passes: Tensor) -> Tensor:
    """Return clips (B, F, H, W, 3), each encoded and decoded as often as `passes` (B,) says."""
    device, again = next(vae.parameters()).device, clips.clone()
    for number in range(int(passes.max())):
        for row in (passes > number).nonzero()[:, 0].split(WORN_AT_ONCE):
            again[row] = vae.decode(vae.encode(again[row].to(device))).float().cpu().clamp(0, 1)
    return again
