"""The autoencoder's errors of color, part by part of the picture.

An error of a pixel says little about color: a jacket that turns from yellow to orange costs less than a blurred edge.
Here colors are averaged over small neighborhoods inside one part, and every part counts the same, whatever its size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab

from .shapes import PARTS

COMPARED = tuple(PARTS.index(part) for part in ("wall", "hair", "beard", "skin", "clothes"))
NEIGHBORHOOD = 8  # pixels
_ENOUGH = 0.3  # share of a neighborhood that a part must cover
_DARKEST = 0.004  # Lab has a corner at black


def part_color_errors(made: Tensor, wanted: Tensor, parts: Tensor) -> Tensor:
    """Return the mean error (P,) in Lab of the neighborhoods inside each part of COMPARED that the clips show.

    made, wanted: (B, 3, F, H, W) in [-1, 1]; parts: (B, F, H, W), the number in PARTS of each pixel.
    """
    error = (_lab(made) - _lab(wanted)).flatten(0, 1).permute(0, 3, 1, 2)  # (B F, 3, H, W)
    found = []
    for part in COMPARED:
        inside = (parts == part).flatten(0, 1)[:, None].float()
        share = F.avg_pool2d(inside, NEIGHBORHOOD)
        enough = share[:, 0] > _ENOUGH
        if enough.any():
            mean = F.avg_pool2d(error * inside, NEIGHBORHOOD) / share.clamp_min(_ENOUGH)
            found.append(mean.permute(0, 2, 3, 1)[enough].norm(dim=-1).mean())
    return torch.stack(found) if found else error.new_zeros(1)


def _lab(pixels: Tensor) -> Tensor:
    """Return pixels (B, 3, F, H, W) in [-1, 1] as Lab (B, F, H, W, 3)."""
    return rgb_to_lab((pixels.permute(0, 2, 3, 4, 1) * 0.5 + 0.5).clamp(_DARKEST, 1))
