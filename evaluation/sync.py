"""Measure lip sync: how well the mouth opening follows the voice.

opening: the mouth opening in each frame. For a drawn speaker it is measured from the pixels that have the color of the
inside of a mouth; for a real face see infinitetalk_core/chunks/lips.py. Its unit does not matter, since only
correlations are computed.

sync: the Pearson correlation between the measured opening and the opening that the voice asks for, at the same frame.
1 is perfect, 0 is chance. The lag is the shift, in frames of 1/25 s, at which the correlation is largest: positive if
the mouth is late.

shuffled: the same voice shifted to another time. Its correlation is the chance level for this video.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from infinitetalk_core.errors import InputError
from infinitetalk_core.rate import FRAMES_PER_SECOND

MOUTH_COLOR = (112, 0, 44)  # red, green, blue, 0 … 255: the inside of every drawn mouth
# Pixels are compared by red - green, blue - green and lightness (the columns; the rows are red, green, blue). Hue
# distinguishes a mouth from dark hair, and a blur that mixes it with skin changes hue least. The weights were fitted to
# 60 drawn speakers.
_COMPARED = ((1.0, 0.0, 0.667), (-1.0, -1.0, 0.667), (0.0, 1.0, 0.667))
_REACH = 0.33  # distance from the mouth color at which a pixel's weight becomes 0
_FRAMES_AT_ONCE = 64
_SAME = 1e-3  # correlations within this of the best count as equal to it


@dataclass(frozen=True)
class Sync:
    """Lip sync of a video."""

    correlation: float  # -1 … 1, without a shift
    lag: int  # frames; positive: the mouth is late
    best: float  # the correlation at that lag


def mouth_opening(frames: Tensor, color: tuple[int, int, int] = MOUTH_COLOR) -> NDArray[np.float32]:
    """Return the mouth opening (F,), in picture heights, of a drawn speaker in `frames` (F, H, W, 3).

    Each pixel is weighted by how near its color is to `color` (0 … 255). The height of the mouth is the mean of the
    heights of its columns, each weighted by itself, so that the mouth's shape and stray pixels have little influence.
    Raises InputError for another shape.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(f"the mouth is measured in frames (F, H, W, 3), got {tuple(frames.shape)}")
    inside = torch.tensor(color, dtype=torch.float32) / 255
    compared = torch.tensor(_COMPARED)
    heights = []
    for part in frames.split(_FRAMES_AT_ONCE):
        distance = ((part.detach().cpu().float() - inside) @ compared).norm(dim=-1)
        columns = (1 - distance / _REACH).clamp(min=0).sum(1)
        heights.append(columns.square().sum(1) / columns.sum(1).clamp(min=1))
    return (torch.cat(heights) / frames.shape[1]).numpy() if heights else np.zeros(0, np.float32)


def correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Return Pearson's correlation of two tracks of equal length; 0 if one of them never changes."""
    a, b = (np.asarray(track, np.float64) for track in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    if size <= 1e-9 * max(len(a), 1):
        return 0.0
    return float(a @ b / size)


def sync(opening: ArrayLike, truth: ArrayLike, max_lag: int = 8) -> Sync:
    """Measure the sync of `opening` (F,) with `truth` (F,), trying lags of up to `max_lag` frames.

    Of equally good lags the one nearest to 0 is taken. A mouth that never moves has correlation 0 and lag 0.
    Raises InputError for tracks of different lengths, and for ones shorter than 2 · max_lag + 2 frames.
    """
    measured, wanted = (np.asarray(track, np.float64) for track in (opening, truth))
    if measured.shape != wanted.shape or measured.ndim != 1:
        raise InputError(f"the mouth and the voice must have as many frames, got {measured.shape} and {wanted.shape}")
    frames = len(measured)
    if frames < 2 * max_lag + 2:
        raise InputError(f"a lag of {max_lag} frames needs at least {2 * max_lag + 2} frames, got {frames}")
    found = {
        lag: correlation(measured[max(lag, 0) : frames + min(lag, 0)], wanted[max(-lag, 0) : frames - max(lag, 0)])
        for lag in range(-max_lag, max_lag + 1)
    }
    top = max(found.values())
    lag = min((lag for lag, value in found.items() if value >= top - _SAME), key=abs)
    return Sync(found[0], lag, found[lag])


def shuffled(truth: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Return `truth` (F,) rotated by a random shift of at least a second in either direction.

    Raises InputError for a track of 2 s or less.
    """
    track = np.asarray(truth, np.float64)
    if len(track) < 2 * FRAMES_PER_SECOND + 1:
        raise InputError(f"a voice must be longer than 2 s to be shuffled, got {len(track)} frames")
    return np.roll(track, random.Random(seed).randint(FRAMES_PER_SECOND, len(track) - FRAMES_PER_SECOND))
