"""SDEdit (arXiv 2108.01073): start from the noised source instead of noise, so that it shows through.

The reference names it for keeping the camera; no code anywhere applies it to InfiniteTalk. Here it acts on each chunk
with the source of that chunk's time, and the context latents stay clean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError


def noised(source: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """sigma · noise + (1 − sigma) · source: the flow's point between the video and noise."""
    return sigma * noise + (1 - sigma) * source


def start_at(sigmas: Tensor, strength: float) -> Tensor:
    """The schedule `sigmas` (steps + 1,) begun exactly at `strength`, with as many steps below it.

    The schedule is read as a curve and the part below `strength` is cut into equal pieces, so its shape (shift) stays.
    A strength at or above its first level gives `sigmas` itself, to the bit; 0 a schedule without steps.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"the SDEdit strength must be between 0 (the source itself) and 1 (off), got {strength}")
    if strength >= sigmas[0]:
        return sigmas
    if strength == 0:
        return sigmas[-1:]
    if strength <= sigmas[-1] + 1e-6:
        raise InputError(
            f"the schedule ends at {sigmas[-1]:g}, above the SDEdit strength {strength:g}; use one that ends at 0"
        )
    levels, steps = sigmas.double(), len(sigmas) - 1
    above = min(int((levels > strength).sum()), steps) - 1  # the last level above
    place = above + float((levels[above] - strength) / (levels[above] - levels[above + 1]))
    places = torch.linspace(place, steps, steps + 1, dtype=torch.float64)
    low = places.floor().long().clamp_max(steps - 1)
    started = torch.lerp(levels[low], levels[low + 1], places - low).to(sigmas)
    started[0] = strength
    return started


def parse_strengths(text: str) -> tuple[float, ...]:
    """Strengths as people write them, one for each chunk, between commas, spaces or lines; the last one goes on."""
    strengths = []
    for word in text.replace(",", " ").split():
        try:
            strengths.append(float(word))
        except ValueError as error:
            raise InputError(f"{word!r} is not a strength; write numbers from 0 to 1, such as 0.9, 0.8") from error
    for value in strengths:
        if not 0 <= value <= 1:
            raise InputError(f"the SDEdit strength must be between 0 and 1, got {value:g}")
    return tuple(strengths)
