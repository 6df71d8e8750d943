"""How well a mouth follows a voice.

opening: how far the mouth is open in each frame. For a drawn speaker it is counted from the pixels that have the one
color of the inside of a mouth; for a real face see `landmarks.py`. Its unit does not matter: only correlations are
taken.

sync: the Pearson correlation between the measured opening and the opening that the voice asks for, at the same frame.
1 is perfect, 0 is what chance gives. The lag is the shift, in frames of 1/25 s, at which the correlation would be
best: positive where the mouth comes late.

shuffled: the same voice at another time. Its correlation shows what chance gives for this very video.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND

MOUTH_COLOR = (112, 0, 44)  # red, green, blue, 0 … 255: the inside of every drawn mouth
# A pixel is compared by red − green, blue − green and lightness (the columns; the rows are red, green, blue). Hue tells
# a mouth from dark hair, and a blur that mixes it with skin changes hue least. Weights from 60 drawn speakers.
_COMPARED = ((1.0, 0.0, 0.667), (-1.0, -1.0, 0.667), (0.0, 1.0, 0.667))
_REACH = 0.33  # a pixel this far from the color, so compared, is no mouth at all
_FRAMES_AT_ONCE = 64
_SAME = 1e-3  # correlations this near to the best are as good


@dataclass(frozen=True)
class Sync:
    """How a mouth follows a voice."""

    correlation: float  # −1 … 1, without shifting
    lag: int  # frames; positive: the mouth is late
    best: float  # the correlation at that lag


def mouth_opening(frames: Tensor, color: tuple[int, int, int] = MOUTH_COLOR) -> NDArray[np.float32]:
    """How far the mouth of a drawn speaker is open in `frames` (F, H, W, 3): (F,), in picture heights.

    Each pixel counts by how near its color is to `color` (0 … 255). The height of the mouth is the mean of the
    heights of its columns, each weighted by itself, so that neither a rounded mouth nor stray pixels matter much.
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
    """Pearson's correlation of two tracks of equal length; 0 where one of them never changes."""
    a, b = (np.asarray(track, np.float64) for track in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    if size <= 1e-9 * max(len(a), 1):
        return 0.0
    return float(a @ b / size)


def sync(opening: ArrayLike, truth: ArrayLike, max_lag: int = 8) -> Sync:
    """How `opening` (F,) follows `truth` (F,), looking for lags of up to `max_lag` frames.

    Of lags that are as good, the one nearest to 0 is taken. A mouth that never moves has correlation 0 and lag 0.
    Raises InputError for tracks of different lengths, and for ones shorter than twice the lag.
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
    """The voice of another time: `truth` (F,) turned round by a random shift of at least a second either way.

    Raises InputError where it is too short for that.
    """
    track = np.asarray(truth, np.float64)
    if len(track) < 2 * FRAMES_PER_SECOND + 1:
        raise InputError(f"a voice must be longer than 2 s to be shuffled, got {len(track)} frames")
    return np.roll(track, random.Random(seed).randint(FRAMES_PER_SECOND, len(track) - FRAMES_PER_SECOND))
