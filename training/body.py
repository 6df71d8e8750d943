"""Draw the clothes and hands of the drawn speakers, in picture coordinates."""

from __future__ import annotations

import numpy as np

from .characters import Character, Color, blend, darker, lighter
from .performance import Performance
from .shapes import Layer, Points, both, mirrored, part_of, smooth


def _worn(half: list[list[float]], character: Character, performance: Performance, steps: int = 3) -> Points:
    """Return a symmetric shape on the chest that rises with the shoulders, (F, N, 3).

    half: its right half, x measured from the middle.
    """
    points = smooth(np.array(mirrored(half), np.float32), steps)
    return _breathing(points + np.array([0.5, 0.0], np.float32), performance)


def _breathing(points: Points, performance: Performance) -> Points:
    """Move `points` (N, 2) with the shoulders: (F, N, 3)."""
    frames = np.repeat(points[None], len(performance), axis=0)
    away = np.clip(np.abs(points[:, 0] - 0.5) / 0.3, 0, 1)
    frames[..., 1] -= performance.shoulders[:, None] * (0.5 + 0.5 * away)
    return np.concatenate([frames, np.zeros_like(frames[..., :1])], axis=-1)


def shirt(character: Character, performance: Performance) -> list[Layer]:
    """Return the layers of the shirt: shoulders, one shade and a collar."""
    wide = character.shoulder_width
    neckline = [[0.0, 0.905], [0.07, 0.892], [0.118, 0.852]]
    slope = [[0.2, 0.868], [wide * 0.8, 0.905], [wide, 0.97], [wide * 1.08, 1.12], [wide * 1.1, 1.6], [0.0, 1.6]]
    trunk = _worn([*neckline, *slope], character, performance)
    side = -character.light
    shade = np.array(
        [
            [wide * 0.6, 0.89],
            [wide * 0.81, 0.908],
            [wide * 0.988, 0.97],
            [wide * 1.072, 1.12],
            [wide * 1.1, 1.6],
            [wide * 0.6, 1.6],
            [wide * 0.66, 1.15],
            [wide * 0.7, 0.98],
        ],
        np.float32,
    )
    shade[:, 0] = 0.5 + side * shade[:, 0]
    layers = [
        Layer(trunk, character.shirt),
        Layer(_breathing(smooth(shade, 3), performance), darker(character.shirt, 0.14)),
    ]
    return part_of("clothes", *layers, *_collar(character, performance))


def _pair(corners: list[list[float]], color: Color, performance: Performance) -> Layer:
    right = np.array(corners, np.float32)
    middle = np.array([0.5, 0.0], np.float32)
    sides = (right, right * np.array([-1.0, 1.0], np.float32))
    return both(*(Layer(_breathing(points + middle, performance), color) for points in sides))


def _collar(character: Character, performance: Performance) -> list[Layer]:
    style = character.shirt_style
    if style == "tee":
        rim = [[0.0, 0.905], [0.07, 0.892], [0.118, 0.852], [0.142, 0.86], [0.09, 0.918], [0.0, 0.934]]
        return [Layer(_worn(rim, character, performance), darker(character.shirt, 0.2))]
    if style == "hoodie":
        rim = [[0.0, 0.925], [0.07, 0.905], [0.112, 0.835], [0.172, 0.845], [0.15, 0.93], [0.06, 0.985], [0.0, 0.99]]
        return [Layer(_worn(rim, character, performance), lighter(character.shirt, 0.22))]
    if style == "collar":
        flap = [[0.108, 0.838], [0.002, 0.915], [0.062, 0.99], [0.152, 0.87]]
        return [_pair(flap, lighter(character.shirt, 0.3), performance)]
    under = _worn(
        [[0.0, 0.9], [0.07, 0.888], [0.112, 0.856], [0.1, 0.93], [0.04, 1.12], [0.0, 1.2]], character, performance, 2
    )
    lapel = [[0.112, 0.838], [0.03, 1.08], [0.10, 1.02], [0.15, 0.985], [0.178, 0.875]]
    return [
        Layer(under, blend(character.under, (245, 244, 240), 0.6)),
        _pair(lapel, darker(character.shirt, 0.26), performance),
    ]


_PALM = [
    [-0.045, 0.02],
    [-0.06, -0.05],
    [-0.07, -0.11],
    [-0.045, -0.13],
    [-0.028, -0.09],
    [-0.022, -0.155],
    [0.006, -0.162],
    [0.012, -0.09],
    [0.034, -0.145],
    [0.062, -0.128],
    [0.05, -0.06],
    [0.085, -0.082],
    [0.1, -0.055],
    [0.066, 0.0],
    [0.045, 0.03],
]
_SLEEVE = [[-0.07, 0.02], [0.0, 0.035], [0.07, 0.02], [0.1, 0.2], [0.12, 0.6], [-0.12, 0.6], [-0.1, 0.2]]


def hand(character: Character, performance: Performance) -> list[Layer]:
    """Return the layers of a raised hand in a lower corner, on the side given by the sign of `performance.hand`."""
    if not np.any(np.abs(performance.hand) > 0.02):
        return []
    side = np.where(performance.hand < 0, -1.0, 1.0).astype(np.float32)[:, None]
    raised = np.abs(performance.hand)[:, None]
    angle = 0.25 - 0.15 * raised + 2.0 * performance.yaw[:, None] * 0.2
    seen = np.abs(performance.hand) > 0.02

    def to_picture(corners: list[list[float]]) -> Points:
        points = smooth(corners, 3)
        x = points[:, 0] * np.cos(angle) - points[:, 1] * np.sin(angle)
        y = points[:, 0] * np.sin(angle) + points[:, 1] * np.cos(angle)
        placed = np.stack([0.5 + side * (0.38 - x), 1.22 - 0.32 * raised + y], axis=-1)
        return np.concatenate([placed, np.zeros_like(placed[..., :1])], axis=-1).astype(np.float32)

    return [
        Layer(to_picture(_PALM), character.skin, seen),
        Layer(to_picture(_SLEEVE), darker(character.shirt, 0.08), seen, part="clothes"),
    ]
