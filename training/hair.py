"""Draw the hair of the speakers, behind and in front of the head, in head coordinates."""

from __future__ import annotations

import numpy as np

from .characters import Character, blend, darker, lighter
from .shapes import Layer, Points, ellipse, mirrored, part_of, smooth


def _scaled(character: Character, corners: list[list[float]], steps: int = 4) -> Points:
    """Return a smooth outline in picture widths from corners (x, y, z) in half widths and half heights of the head."""
    scale = np.array([character.face_width, character.face_height, 1.0], np.float32)
    return smooth(np.array(corners, np.float32) * scale, steps)


_BACK: dict[str, list[list[float]]] = {
    "bob": [
        [0, -1.14, -0.06],
        [0.7, -1.04, -0.06],
        [1.16, -0.5, -0.06],
        [1.24, 0.2, -0.06],
        [1.2, 0.78, -0.06],
        [0.8, 0.92, -0.06],
        [0, 0.8, -0.06],
    ],
    "long": [
        [0, -1.14, -0.06],
        [0.7, -1.04, -0.06],
        [1.14, -0.5, -0.06],
        [1.2, 0.2, -0.06],
        [1.3, 1.0, -0.06],
        [1.26, 1.75, -0.04],
        [0.7, 1.9, -0.04],
        [0, 1.8, -0.04],
    ],
    "waves": [
        [0, -1.16, -0.06],
        [0.72, -1.06, -0.06],
        [1.2, -0.6, -0.06],
        [1.16, -0.1, -0.06],
        [1.38, 0.35, -0.06],
        [1.22, 0.8, -0.06],
        [1.46, 1.25, -0.05],
        [1.15, 1.6, -0.04],
        [0.5, 1.6, -0.04],
        [0, 1.5, -0.04],
    ],
    "fringe": [
        [0, -1.14, -0.06],
        [0.7, -1.04, -0.06],
        [1.14, -0.5, -0.06],
        [1.15, 0.1, -0.06],
        [1.02, 0.5, -0.06],
        [0.5, 0.6, -0.06],
        [0, 0.6, -0.06],
    ],
}

_TOP = [
    [-1.06, -0.02, 0.0],
    [-1.1, -0.42, 0.0],
    [-0.92, -0.86, 0.0],
    [-0.5, -1.1, 0.0],
    [0.0, -1.16, 0.0],
    [0.5, -1.1, 0.0],
    [0.92, -0.86, 0.0],
    [1.1, -0.42, 0.0],
    [1.06, -0.02, 0.0],
]

_LINES: dict[str, list[list[float]]] = {
    "crop": [
        [0.93, -0.2, 0.0],
        [0.84, -0.52, 0.0],
        [0.45, -0.68, 0.0],
        [0.0, -0.7, 0.0],
        [-0.45, -0.68, 0.0],
        [-0.84, -0.52, 0.0],
        [-0.93, -0.2, 0.0],
    ],
    "part": [
        [0.95, -0.14, 0.0],
        [0.86, -0.42, 0.0],
        [0.62, -0.6, 0.0],
        [0.32, -0.8, 0.0],
        [0.02, -0.68, 0.0],
        [-0.5, -0.52, 0.0],
        [-0.86, -0.36, 0.0],
        [-0.95, -0.1, 0.0],
    ],
    "center": [
        [0.98, 0.14, 0.0],
        [0.9, -0.22, 0.0],
        [0.66, -0.52, 0.0],
        [0.3, -0.74, 0.0],
        [0.0, -0.86, 0.0],
        [-0.3, -0.74, 0.0],
        [-0.66, -0.52, 0.0],
        [-0.9, -0.22, 0.0],
        [-0.98, 0.14, 0.0],
    ],
    "fringe": [
        [0.98, 0.1, 0.0],
        [0.92, -0.26, 0.0],
        [0.74, -0.5, 0.0],
        [0.38, -0.58, 0.0],
        [0.0, -0.6, 0.0],
        [-0.38, -0.58, 0.0],
        [-0.74, -0.5, 0.0],
        [-0.92, -0.26, 0.0],
        [-0.98, 0.1, 0.0],
    ],
    "sweep": [
        [0.96, 0.06, 0.0],
        [0.88, -0.3, 0.0],
        [0.66, -0.46, 0.0],
        [0.3, -0.58, 0.0],
        [-0.1, -0.72, 0.0],
        [-0.46, -0.82, 0.0],
        [-0.72, -0.6, 0.0],
        [-0.9, -0.3, 0.0],
        [-0.98, 0.06, 0.0],
    ],
}


def hair_back(character: Character) -> list[Layer]:
    """Return the hair layers behind head and shoulders."""
    deep = darker(character.hair, 0.3)
    style = character.hair_style
    if style in _BACK:
        return [Layer(_scaled(character, mirrored(_BACK[style])), deep)]
    if style == "bun":
        bun = ellipse(0.0, -1.22 * character.face_height, 0.1, 0.09, -0.05)
        glow = ellipse(-0.02 * character.light, -1.26 * character.face_height, 0.062, 0.045, -0.05)
        return [Layer(bun, deep), Layer(glow, darker(character.hair, 0.12))]
    if style == "pony":
        tail = [
            [0.75, -0.85, -0.08],
            [1.25, -0.8, -0.09],
            [1.5, -0.2, -0.09],
            [1.42, 0.5, -0.09],
            [1.2, 1.0, -0.08],
            [1.12, 0.4, -0.08],
            [1.0, -0.2, -0.08],
        ]
        points = _scaled(character, tail)
        points[:, 0] *= -character.light
        return [Layer(points, deep)]
    if style == "curls":
        angle = np.linspace(np.pi * 0.86, np.pi * 2.14, 11)
        puffs = [
            ellipse(
                1.02 * character.face_width * np.cos(a),
                (0.98 * np.sin(a) - 0.1) * character.face_height,
                0.092,
                0.092,
                -0.04,
            )
            for a in angle
        ]
        return [Layer(puff, deep) for puff in puffs]
    return []


def _crown(character: Character, line: str, lift: float = 0.0, lean: float = 0.0) -> Points:
    top = np.array(_TOP, np.float32)
    height = np.clip(-top[:, 1] - 0.5, 0, None)
    top[:, 1] -= lift * height * (1 + lean * top[:, 0])
    hairline = np.array(_LINES[line], np.float32)
    hairline[:, 2] = 0.015 + 0.13 * (1 - hairline[:, 0] ** 2) ** 1.5
    return _scaled(character, [*top.tolist(), *hairline.tolist()], 4)


def hair_front(character: Character) -> list[Layer]:
    """Return the hair layers over the head, with one large highlight."""
    style = character.hair_style
    if style == "bald":
        glow = ellipse(character.light * 0.08, -0.22, 0.05, 0.024, 0.04)
        return [Layer(glow, lighter(character.skin, 0.35))]
    line, lift, lean = {
        "crop": ("crop", 0.05, 0.0),
        "part": ("part", 0.16, -0.5),
        "bob": ("fringe", 0.0, 0.0),
        "long": ("center", 0.0, 0.0),
        "bun": ("sweep", 0.0, 0.0),
        "curls": ("crop", 0.1, 0.0),
        "quiff": ("crop", 0.42, 0.6),
        "pony": ("sweep", 0.0, 0.0),
        "fringe": ("fringe", 0.06, 0.0),
        "waves": ("sweep", 0.05, 0.0),
    }[style]
    crown = _crown(character, line, lift, lean * character.light)
    if style in ("part", "waves", "bun", "pony"):
        crown[:, 0] *= -character.light if style == "part" else character.light
    glow = np.array(
        [
            [0.15, -0.94, 0.08],
            [0.5, -0.9, 0.07],
            [0.82, -0.62, 0.05],
            [0.9, -0.4, 0.04],
            [0.7, -0.62, 0.07],
            [0.42, -0.78, 0.09],
        ],
        np.float32,
    )
    glow[:, 0] *= character.light
    layers = [Layer(crown, character.hair)]
    if style == "curls":
        layers += [
            Layer(ellipse(x * character.face_width, y * character.face_height, 0.062, 0.056, 0.08), character.hair)
            for x, y in ((-0.78, -0.66), (-0.4, -0.8), (0.0, -0.84), (0.4, -0.8), (0.78, -0.66))
        ]
    layers.append(Layer(_scaled(character, glow.tolist(), 3), blend(character.hair, (255, 236, 214), 0.22)))
    return part_of("hair", *layers)
