"""Draw the room behind a drawn speaker: a wall in two tones with a few large, low-contrast objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .characters import Character, Color, Prop, blend, darker

BACKDROP_REACH = 2.0  # width of the painted wall in picture widths, so that the camera can pan
_FRACTION_BITS = 4
_SUPERSAMPLING = 2


class _Easel:
    """A canvas in picture coordinates: 0 to 1 is the area that a static camera shows."""

    def __init__(self, size: int, wall: tuple[Color, Color]) -> None:
        side = round(size * BACKDROP_REACH)
        self.scale = float(size)
        self.offset = (side - size) / 2
        down = np.clip((np.arange(side) - self.offset) / size, -0.2, 1.2)[:, None, None]
        down = 0.5 + 0.5 * np.tanh(4.0 * (down - 0.55))
        top, bottom = (np.array(color, np.float64) for color in wall)
        self.canvas = np.ascontiguousarray(
            np.broadcast_to(np.rint(top + (bottom - top) * down).astype(np.uint8), (side, side, 3))
        )

    def polygon(self, corners: list[tuple[float, float]], color: Color) -> None:
        """Fill a polygon."""
        pixels = np.array(corners) * self.scale + self.offset - 0.5
        fixed = np.rint(pixels * (1 << _FRACTION_BITS)).astype(np.int32)
        cv2.fillPoly(self.canvas, [fixed], color, cv2.LINE_AA, _FRACTION_BITS)

    def box(self, x: float, y: float, half_width: float, half_height: float, color: Color) -> None:
        """Fill a rectangle around (x, y)."""
        left, right, up, down = x - half_width, x + half_width, y - half_height, y + half_height
        self.polygon([(left, up), (right, up), (right, down), (left, down)], color)

    def oval(self, x: float, y: float, half_width: float, half_height: float, color: Color) -> None:
        """Fill an ellipse around (x, y)."""
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        self.polygon([(x + half_width * np.cos(a), y + half_height * np.sin(a)) for a in angle], color)


def _paint(easel: _Easel, prop: Prop) -> None:
    """Draw one object on the wall."""
    x, y, s = prop.x, prop.y, prop.size
    main, accent = prop.color, prop.accent
    if prop.kind == "window":
        easel.box(x, y, s * 0.95, s * 1.15, accent)
        for dx, dy in ((-0.43, -0.53), (0.43, -0.53), (-0.43, 0.53), (0.43, 0.53)):
            easel.box(x + dx * s, y + dy * s, s * 0.36, s * 0.46, main)
    elif prop.kind == "lamp":
        easel.box(x, y - s * 1.6, s * 0.07, s * 1.2, accent)
        easel.polygon(
            [
                (x - s * 0.35, y - s * 0.5),
                (x + s * 0.35, y - s * 0.5),
                (x + s * 0.8, y + s * 0.4),
                (x - s * 0.8, y + s * 0.4),
            ],
            main,
        )
    elif prop.kind == "shelf":
        easel.box(x, y + s * 0.5, s * 1.3, s * 0.1, accent)
        for dx, tall in ((-0.75, 0.75), (-0.2, 0.55), (0.35, 0.8), (0.9, 0.5)):
            easel.box(x + dx * s, y + s * (0.4 - tall / 2), s * 0.2, s * tall / 2, main)
    elif prop.kind == "plant":
        for lean, tall in ((-0.75, 0.8), (0.75, 0.85), (0.0, 1.15)):
            easel.oval(x + lean * s * 0.6, y - s * tall * 0.5, s * 0.34, s * 0.6, blend(main, (110, 160, 120), 0.35))
        easel.polygon(
            [(x - s * 0.55, y + s * 0.1), (x + s * 0.55, y + s * 0.1), (x + s * 0.4, y + s), (x - s * 0.4, y + s)],
            accent,
        )
    elif prop.kind == "picture":
        easel.box(x, y, s * 1.0, s * 0.8, accent)
        easel.box(x, y, s * 0.8, s * 0.6, main)
        easel.oval(x, y + s * 0.12, s * 0.4, s * 0.34, darker(main, 0.12))
    else:
        easel.oval(x, y, s, s, main)
        easel.oval(x, y, s * 0.55, s * 0.55, accent)


def paint_backdrop(character: Character, size: int) -> NDArray[np.uint8]:
    """Draw the wall, slightly blurred, BACKDROP_REACH times as wide and high as the picture of `size` pixels."""
    easel = _Easel(size * _SUPERSAMPLING, character.wall)
    for prop in character.props:
        _paint(easel, prop)
    side = round(size * BACKDROP_REACH)
    wall = cv2.resize(easel.canvas, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(wall, (0, 0), size / 120).astype(np.uint8, copy=False)
