"""Draw the moving parts of a face: mouth, eyes, brows. Head coordinates, in picture widths, origin at its middle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .characters import MOUTH_INTERIOR, Character, Color, blend, darker, lighter
from .performance import Performance, Track
from .shapes import Layer, Points, band, ellipse, part_of

MOUTH_Y = 0.158
EYE_Y = -0.045
MOUTH_HEIGHT = 0.146  # of the largest opening: 14 of 96 pixels
_ROUNDNESS = 0.125  # depth of the middle of the face in front of its rim
_CLOSED = 0.035  # below this opening the lips touch


def surface(points: Points, character: Character, lift: float = 0.0) -> Points:
    """Place points (..., 2) of the face on its rounded surface: (..., 3)."""
    across = points[..., 0] / (character.face_width * 1.08)
    along = points[..., 1] / (character.face_height * 1.25)
    depth = _ROUNDNESS * np.sqrt(np.clip(1 - across**2 - along**2, 0.02, None)) + lift
    return np.concatenate([points, depth[..., None]], axis=-1).astype(np.float32)


def jaw_drop(performance: Performance) -> NDArray[np.float32]:
    """Return how far the chin moves down, (F,) in picture heights."""
    return (0.030 * performance.opening).astype(np.float32)


class _Mouth:
    """The opening between the lips. Its edges (F, N) are given by angle: 0 is the left corner, pi the right one."""

    def __init__(self, character: Character, performance: Performance) -> None:
        self.opening, width = performance.opening[:, None], performance.width[:, None]
        self.spread, self.rounded = np.clip(width, 0, None), np.clip(-width, 0, None)
        self.half = (0.084 + 0.020 * self.opening) * (1 + 0.2 * self.spread - 0.38 * self.rounded)
        self.height = MOUTH_HEIGHT * self.opening * (1 - 0.08 * self.spread)
        self.lift = character.smile * (0.026 + 0.006 * self.spread) * (1 - 0.75 * self.rounded)
        self.character = character

    def edges(self, angle: Track) -> tuple[Points, Points, Points]:
        """Return x, y of the upper edge, and y of the lower edge."""
        sine, cosine = np.sin(angle).clip(0, 1), np.cos(angle)
        arch = sine ** (0.8 + 0.15 * self.rounded)
        line = MOUTH_Y + 0.006 * self.character.smile - self.lift * cosine**2
        return -self.half * cosine, line - 0.24 * self.height * arch, line + 0.76 * self.height * arch

    def shape(self, x: Points, upper: Points, lower: Points) -> Points:
        """Return the closed outline (F, 2N, 3) on the face between two edges."""
        across = np.concatenate([x, x[:, ::-1]], axis=1)
        outline = np.stack([across, np.concatenate([upper, lower[:, ::-1]], axis=1)], axis=-1)
        return surface(outline.astype(np.float32), self.character, 0.012)


def mouth(character: Character, performance: Performance) -> list[Layer]:
    """Return the layers of lips, inside, tongue and teeth.

    The visible inside depends on `opening` only, grows with it, and is empty at 0.
    """
    outline = _Mouth(character, performance)
    angle = np.linspace(0, np.pi, 17, dtype=np.float32)
    sine, cosine = np.sin(angle).clip(0, 1), np.cos(angle)
    x, top, bottom = outline.edges(angle)
    pout = character.lip_fullness * (1 + 0.3 * outline.rounded) * sine**0.6
    upper_lip = 0.019 * pout * (1 - 0.22 * np.exp(-((cosine / 0.22) ** 2)))
    lower_lip = 0.025 * pout
    out = -0.009 * cosine
    line = darker(character.lips, 0.38)
    thin = 0.0035 * sine + 0.0005
    inside = _fading(line, MOUTH_INTERIOR, performance.opening, _CLOSED, 0.12)
    layers = [
        Layer(outline.shape(x + out, top, bottom + lower_lip), character.lips),
        Layer(outline.shape(x + out, top - upper_lip, bottom), darker(character.lips, 0.13)),
        Layer(outline.shape(x, top - thin, bottom + thin), line),
        Layer(outline.shape(x * 0.97, top, bottom), inside, performance.opening > _CLOSED),
    ]
    return part_of("mouth", *layers, *_tongue_and_teeth(outline, performance))


def _tongue_and_teeth(outline: _Mouth, performance: Performance) -> list[Layer]:
    """Return tongue and teeth.

    They cover less than the opening gains, and fade in, so that the dark area never shrinks while the mouth opens.
    """
    share = np.sqrt(outline.opening)
    middle = np.arccos(np.linspace(0.7, -0.7, 11, dtype=np.float32))
    x, top, bottom = outline.edges(middle)
    bed = 0.28 * share * outline.height * (1 - (np.cos(middle) / 0.72) ** 2)
    tongue = outline.shape(x, bottom - bed, bottom - 0.002)
    front = np.arccos(np.linspace(0.84, -0.84, 11, dtype=np.float32))
    x, top, bottom = outline.edges(front)
    row = 0.22 * share * outline.height * (1 - 0.4 * outline.rounded) * (1 - (np.cos(front) / 0.9) ** 4)
    teeth = outline.shape(x, top + 0.002, top + row)
    pink = blend(outline.character.lips, (222, 96, 110), 0.75)
    return [
        Layer(tongue, _fading(MOUTH_INTERIOR, pink, performance.opening, 0.25, 0.5), performance.opening > 0.25),
        Layer(
            teeth, _fading(MOUTH_INTERIOR, (252, 250, 244), performance.opening, 0.1, 0.4), performance.opening > 0.1
        ),
    ]


def _fading(first: Color, second: Color, opening: Track, start: float, stop: float) -> Points:
    """Return a color that changes from `first` to `second` while the mouth opens from `start` to `stop`: (F, 3)."""
    share = np.clip((opening - start) / (stop - start), 0, 1)[:, None]
    return (np.array(first) + (np.array(second) - np.array(first)) * share).astype(np.float32)


def _lids(character: Character, performance: Performance, x: Points, grow: float) -> tuple[Points, Points]:
    """Return the upper and lower edge (F, N) of the open eye at distances x (N,) or (F, N) from its middle."""
    size = character.eye_size * grow
    arc = np.sqrt(np.clip(1 - (x / size) ** 2, 0, 1))
    shut = np.clip(performance.blink + 0.18 * np.clip(performance.gaze_y, 0, 1), 0, 1)[:, None]
    upper, lower = -0.88 * size * arc, 0.84 * size * arc
    meet = 0.42 * size * arc
    return upper + (meet - upper) * shut, lower + (meet - lower) * performance.blink[:, None]


def eye(character: Character, performance: Performance, side: int) -> list[Layer]:
    """Return the layers of one eye, `side` -1 at the picture's left: lid, white, iris, pupil, highlight, lashes."""
    size = character.eye_size
    across = size * np.cos(np.linspace(np.pi, 0, 13, dtype=np.float32))
    tilt = -side * character.eye_tilt

    def to_picture(x: NDArray[np.float32], y: NDArray[np.float32], lift: float = 0.0) -> Points:
        x, y = np.broadcast_arrays(x, y)
        points = np.stack([x + side * character.eye_gap, y + tilt * x + EYE_Y], axis=-1)
        return surface(points.astype(np.float32), character, lift)

    upper, lower = _lids(character, performance, across, 1.0)
    white = to_picture(np.concatenate([across, across[::-1]]), np.concatenate([upper, lower[:, ::-1]], axis=1))

    def disc(radius: float, x: float = 0.0, y: float = 0.0) -> Points:
        circle = ellipse(x, y, radius, radius * 1.06, count=18)
        circle_x = circle[:, 0] + 0.30 * size * performance.gaze_x[:, None]
        circle_y = circle[:, 1] + 0.22 * size * performance.gaze_y[:, None]
        above, below = _lids(character, performance, circle_x, 0.97)
        return to_picture(circle_x, np.clip(circle_y, above, below))

    lash = np.stack([np.broadcast_to(across * 1.06, upper.shape), upper], axis=-1)
    lash[..., 1] -= 0.002
    weight = (0.011 + 0.004 * character.lashes) * (0.35 + 0.65 * np.sin(np.linspace(0.15, np.pi - 0.15, 13)))
    ribbon = band(lash.astype(np.float32), weight.astype(np.float32))
    awake = performance.blink < 0.6
    layers = [
        Layer(
            surface(ellipse(side * character.eye_gap, EYE_Y, size * 1.12, size * 1.1)[:, :2], character),
            darker(character.skin, 0.13),
        ),
        Layer(white, (252, 252, 250), performance.blink < 0.95),
        Layer(disc(size * 0.74), darker(character.iris, 0.25), performance.blink < 0.9),
        Layer(disc(size * 0.61), lighter(character.iris, 0.12), performance.blink < 0.8),
        Layer(disc(size * 0.36), (30, 28, 38), performance.blink < 0.8),
        Layer(disc(size * 0.20, 0.25 * size, -0.28 * size), (255, 255, 255), awake),
        Layer(to_picture(ribbon[..., 0], ribbon[..., 1], 0.004), darker(blend(character.hair, (40, 32, 36), 0.7), 0.2)),
    ]
    if character.lashes:
        wing = np.array([[1.0, 0.05], [1.34, -0.28], [0.78, -0.42]], np.float32) * size
        fall = (upper[:, 10:11] + 0.5 * size) * 0.9
        layers.append(Layer(to_picture(side * wing[:, 0], wing[:, 1] + fall, 0.004), layers[-1].color))
    lid, *open_eye = layers
    return [lid, *part_of("eyes", *open_eye)]


def brow(character: Character, performance: Performance, side: int) -> Layer:
    """Return one eyebrow, a tapering ribbon that rises and arches with `performance.brow`."""
    along = np.linspace(-1, 1, 9, dtype=np.float32)
    raised = performance.brow[:, None]
    x = along * character.eye_size * 1.18 * side
    y = -character.eye_size * 1.42 - character.brow_arch * (1 - (along - 0.1) ** 2) - 0.006 * (1 - along)
    y = EYE_Y + y - raised * (0.022 + 0.006 * (1 - along**2))
    points = np.stack([np.broadcast_to(x + side * character.eye_gap, y.shape), y], axis=-1)
    thickness = character.brow_thickness * np.clip(1.05 - 0.45 * (along + 0.3).clip(0, None) ** 1.5, 0.3, 1)
    ribbon = band(points.astype(np.float32), thickness.astype(np.float32))
    color = blend(darker(character.hair, 0.25), darker(character.skin, 0.55), 0.35)
    if sum(character.skin) - sum(color) < 150:
        color = darker(color, 0.45)
    return Layer(surface(ribbon, character, 0.012), color, part="brows")
