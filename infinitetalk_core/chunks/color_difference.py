"""CIEDE2000, the standard difference between two colors.

The formula is that of CIE 142-2001 in the notation of Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula:
implementation notes, supplementary test data, and mathematical observations" (2005), with all three weights 1. Between
large areas side by side 1 is just visible; in a video, where the areas are seen one after the other, 2 to 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_25_TO_THE_7TH = 25.0**7


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Return the difference of two colors in CIE Lab, (..., 3) each, that broadcast: (...)."""
    lightness_1, a_1, b_1 = first.unbind(-1)
    lightness_2, a_2, b_2 = second.unbind(-1)
    gray = 1.5 - 0.5 * _saturation((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2)  # 1 + G
    chroma_1, hue_1 = _polar(a_1 * gray, b_1)
    chroma_2, hue_2 = _polar(a_2 * gray, b_2)
    chromatic = (chroma_1 * chroma_2) > 0
    turn = hue_2 - hue_1
    # The hue in the middle of the shorter arc; if one of the colors is gray, the sum, of which its part is 0.
    hue = (hue_1 + hue_2) / 2 + torch.where(turn.abs() > math.pi, math.pi, 0.0)
    hue = torch.where(chromatic, hue, hue_1 + hue_2)
    turn = torch.where(chromatic, turn - 2 * math.pi * torch.round(turn / (2 * math.pi)), 0.0)
    lightness, chroma = (lightness_1 + lightness_2) / 2, (chroma_1 + chroma_2) / 2
    t = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    from_middle = (lightness - 50) ** 2
    by_lightness = (lightness_2 - lightness_1) / (1 + 0.015 * from_middle / torch.sqrt(20 + from_middle))
    by_chroma = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    by_hue = 2 * torch.sqrt(chroma_1 * chroma_2) * torch.sin(turn / 2) / (1 + 0.015 * chroma * t)
    degrees = torch.remainder(torch.rad2deg(hue), 360)
    blue = math.radians(30) * torch.exp(-(((degrees - 275) / 25) ** 2))
    rotation = -2 * _saturation(chroma) * torch.sin(2 * blue)
    square = by_lightness**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue
    return torch.sqrt(square.clamp_min(0))


def _saturation(chroma: Tensor) -> Tensor:
    """Return the formula's sqrt(C^7 / (C^7 + 25^7)): 0 for grays, 1 for vivid colors."""
    power = chroma**7
    return torch.sqrt(power / (power + _25_TO_THE_7TH))


def _polar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return chroma, and hue in radians from 0 to 2 pi."""
    return torch.hypot(a, b), torch.remainder(torch.atan2(b, a), 2 * math.pi)
