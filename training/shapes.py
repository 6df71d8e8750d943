"""Flat shapes: smooth outlines and the layers of which a drawn speaker consists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .characters import Color

Points = NDArray[np.floating]
PARTS = ("wall", "hair", "beard", "skin", "clothes", "eyes", "brows", "mouth", "other")
"""The parts of a picture. other: glasses and earrings."""


@dataclass(frozen=True)
class Layer:
    """One flat shape. `points`: (N, 3) or (F, N, 3), x right, y down, z towards the camera, in picture widths."""

    points: Points
    color: Color | NDArray[np.float32]  # one color, or (F, 3) if it changes
    visible: NDArray[np.bool_] | None = None  # (F,), None = always
    parts: int = 1  # number of outlines of equal length in `points`, which do not overlap
    part: str = "skin"  # what it is, one of PARTS


def both(left: Layer, right: Layer) -> Layer:
    """Join two outlines of one color, such as the eyes, into one layer, which halves the work."""
    return Layer(np.concatenate([left.points, right.points], axis=-2), left.color, left.visible, 2, left.part)


def part_of(part: str, *layers: Layer) -> list[Layer]:
    """Return the layers as those of one of PARTS."""
    return [replace(layer, part=part) for layer in layers]


def smooth(corners: Sequence[Sequence[float]] | Points, steps: int = 4) -> Points:
    """Return a closed Catmull-Rom curve through corners (..., K, D): (..., K * steps, D)."""
    here = np.asarray(corners, np.float32)
    before, after, later = (np.roll(here, shift, axis=-2) for shift in (1, -1, -2))
    curve = []
    for t in np.arange(steps, dtype=np.float32) / steps:
        curve.append(
            0.5
            * (
                2 * here
                + (after - before) * t
                + (2 * before - 5 * here + 4 * after - later) * t**2
                + (3 * here - before - 3 * after + later) * t**3
            )
        )
    stacked = np.stack(curve, axis=-2)
    return stacked.reshape(*here.shape[:-2], -1, here.shape[-1]).astype(np.float32)


def ellipse(x: float, y: float, half_width: float, half_height: float, z: float = 0.0, count: int = 20) -> Points:
    """Return the points (count, 3) of an ellipse that faces the camera."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False, dtype=np.float32)
    points = np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle), np.full_like(angle, z)], axis=1)
    return points.astype(np.float32)


def mirrored(half: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return a symmetric outline (x, y, z) from its right half, listed from top to bottom; x = 0 is not repeated."""
    right = [list(point) for point in half]
    left = [[-x, *rest] for x, *rest in reversed(right) if abs(x) > 1e-6]
    return right + left


def band(middle: Points, thickness: NDArray[np.float32]) -> Points:
    """Return a ribbon (..., 2N, D) along an almost horizontal line (..., N, D), `thickness` (N,) high."""
    lift = np.zeros(middle.shape[-2:], np.float32)
    lift[:, 1] = thickness / 2
    return np.concatenate([middle - lift, (middle + lift)[..., ::-1, :]], axis=-2)
