"""SDEdit (arXiv 2108.01073): start sampling from the noised source video instead of from noise.

The reference's README names it as a way to keep the source's camera motion, but no code anywhere applies it to
InfiniteTalk. Here each chunk starts from the source frames of the chunk's time; the context latents stay clean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..number_lists import number_in, shortened, words_in


def noised(source: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """Return sigma · noise + (1 - sigma) · source, all of one shape: the source at noise level sigma."""
    return sigma * noise + (1 - sigma) * source


def start_at(sigmas: Tensor, strength: float) -> Tensor:
    """Return the schedule `sigmas` (steps + 1,) restarted exactly at `strength`, with the same number of steps.

    The part of the schedule below `strength`, interpolated linearly between its levels, is resampled at equal
    distances in step number, so it keeps its shape (shift). For a strength at or above the first level the result is
    `sigmas` itself, bit for bit; for 0 it has no steps. Raises InputError for a strength outside 0 … 1, and for a
    schedule that ends above it.
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
    above = min(int((levels > strength).sum()), steps) - 1  # index of the last level above `strength`
    first = above + float((levels[above] - strength) / (levels[above] - levels[above + 1]))
    positions = torch.linspace(first, steps, steps + 1, dtype=torch.float64)
    low = positions.floor().long().clamp_max(steps - 1)
    restarted = torch.lerp(levels[low], levels[low + 1], positions - low).to(sigmas)
    restarted[0] = strength
    return restarted


def parse_strengths(text: str) -> tuple[float, ...]:
    """Parse strengths, one per chunk, separated by commas, spaces or line breaks. The last applies to all later chunks.

    Raises InputError for a word that is no number from 0 to 1.
    """
    strengths = []
    for word in words_in(text):
        value = number_in(word)
        if value is None:
            raise InputError(f"{shortened(word)!r} is not a strength; write numbers from 0 to 1, such as 0.9, 0.8")
        if not 0 <= value <= 1:
            raise InputError(f"the SDEdit strength must be between 0 and 1, got {value:g}")
        strengths.append(value)
    return tuple(strengths)
