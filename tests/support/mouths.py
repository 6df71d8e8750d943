"""Mouths, voices that they follow, and points of a face, simple enough that their lip sync is known."""

from __future__ import annotations

import numpy as np
import torch

from infinitetalk_core.audio.sound import Sound


def mouth(frames: int, seed: int) -> np.ndarray:
    """Return a mouth opening (frames,), 0 … 1, that opens and closes about as fast as in speech."""
    track = np.convolve(np.random.default_rng(seed).normal(size=frames + 4), np.hanning(5), "valid")
    return np.clip(0.5 + 0.4 * track / track.std(), 0, 1)


def voice(opening: np.ndarray, rate: int = 16000) -> Sound:
    """Return a vowel that is as loud as the mouth is open."""
    seconds = np.arange(len(opening) * rate // 25) / rate
    loud = np.interp(seconds * 25, np.arange(len(opening)) + 0.5, opening)
    vowel = sum(np.sin(2 * np.pi * hz * seconds + hz) for hz in (500, 800, 1000, 3200, 3600))
    return Sound(torch.from_numpy(0.1 * loud * vowel).float()[None], rate)


def face(x: float, y: float, size: float, turned: float = 0.0) -> np.ndarray:
    """Return 68 points, of which those that count have a place."""
    points = np.tile([x + size / 2, y + size / 2], (68, 1)).astype(float)
    points[2, 0], points[14, 0] = x, x + size
    points[30, 0] += turned * size / 2
    points[27, 1], points[8, 1] = y + 0.2 * size, y + size
    return points


def open_mouth(points: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Return points (F, 68, 2) with the lower lip moved down by an opening (F,), 0 … 1."""
    points = points.copy()
    points[:, [65, 66, 67, 56, 57, 58], 1] += 20 * opening[:, None]
    return points
