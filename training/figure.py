"""Draw the static parts of a speaker: head, hair, neck, clothes. Head layers have their origin at the head's middle."""

from __future__ import annotations

import numpy as np

from .characters import Character, Color, blend, darker, lighter
from .face import EYE_Y, MOUTH_Y, brow, eye, jaw_drop, mouth, surface
from .hair import hair_front
from .performance import Performance
from .shapes import Layer, Points, both, ellipse, mirrored, part_of, smooth


def head_outline(character: Character, performance: Performance, grow: float = 1.0) -> Points:
    """Return the outline (F, 44, 3) of skull, cheeks and a jaw that follows the mouth."""
    angle = np.linspace(0, 2 * np.pi, 44, endpoint=False, dtype=np.float32)
    y = -np.cos(angle)
    low = np.clip(y, 0, None)
    bulge = 1 + (0.16 * character.jaw - 0.03) * np.sin(np.pi * low**1.3) - 0.05 * (1 - character.jaw) * low
    x = np.sin(angle) * bulge * character.face_width * grow
    z = 0.02 + 0.06 * low**2
    points = np.stack([x, y * character.face_height * grow, z], axis=-1)
    frames = np.repeat(points[None], len(performance), axis=0)
    frames[..., 1] += jaw_drop(performance)[:, None] * low**1.5
    return frames.astype(np.float32)


def _shaded(outline: Points, character: Character) -> Points:
    """Return the lit part of a shape: its outline moved inwards on the side away from the light."""
    lit = outline.copy()
    across = np.clip(-lit[..., 0] * character.light / character.face_width, 0, None)
    lit[..., 0] += character.light * 0.045 * across**1.5
    lit[..., 1] -= 0.012 * np.clip(lit[..., 1] / character.face_height, 0, None) ** 3
    return lit


def _ears(character: Character) -> list[Layer]:
    size = character.ear_size

    def pair(outward: float, y: float, half_width: float, half_height: float, color: Color) -> Layer:
        x = character.face_width * 1.01 + outward
        left, right = (Layer(ellipse(side * x, y, half_width, half_height, -0.005), color) for side in (-1, 1))
        return both(left, right)

    layers = [
        pair(0.0, 0.0, size * 0.72, size, darker(character.skin, 0.06)),
        pair(0.004, 0.002, size * 0.36, size * 0.58, darker(character.skin, 0.2)),
    ]
    if character.earrings:
        layers += part_of("other", pair(0.006, size * 1.2, 0.016, 0.018, character.earrings))
    return layers


def _nose(character: Character) -> list[Layer]:
    size, y = character.nose_size, 0.058
    corners = [[0.0, -1.9], [0.42, -0.9], [1.0, 0.1], [0.62, 0.72], [0.0, 0.85]]
    shape = smooth(np.array(mirrored([[px * size, y + py * size] for px, py in corners]), np.float32), 3)
    bright = shape * np.array([0.72, 1.0], np.float32)
    bright[:, 0] += character.light * size * 0.18
    bright[:, 1] = y + (bright[:, 1] - y) * 0.8 - size * 0.2
    return [
        Layer(surface(shape, character, 0.05), darker(character.skin, 0.17)),
        Layer(surface(bright, character, 0.06), lighter(character.skin, 0.08)),
    ]


def _blush(character: Character) -> Layer:
    color = blend(character.skin, (236, 110, 104), 0.2)
    left, right = (
        Layer(surface(ellipse(side * 0.128, 0.078, 0.042, 0.03)[:, :2], character), color) for side in (-1, 1)
    )
    return both(left, right)


def _beard(character: Character, performance: Performance) -> list[Layer]:
    if character.beard is None:
        return []
    color = blend(darker(character.hair, 0.2), character.skin, 0.72 if character.beard == "stubble" else 0.1)
    drop = jaw_drop(performance)[:, None]
    a, b = character.face_width, character.face_height
    whiskers = [[0.0, 0.098], [0.06, 0.106], [0.105, 0.13], [0.112, 0.172], [0.075, 0.15], [0.0, 0.142]]
    layers = []
    if character.beard in ("full", "stubble"):
        outline = head_outline(character, performance, 1.012)
        below = np.flatnonzero(outline[0, :, 1] > 0.0)
        edge = [
            [-0.8 * a, 0.045],
            [-0.62 * a, 0.10],
            [-0.3 * a, 0.10],
            [0, 0.094],
            [0.3 * a, 0.10],
            [0.62 * a, 0.10],
            [0.8 * a, 0.045],
        ]
        inner = np.repeat(surface(np.array(edge, np.float32), character)[None], len(performance), axis=0)
        layers.append(Layer(np.concatenate([outline[:, below], inner], axis=1), color))
    if character.beard == "goatee":
        half = [
            [0.0, MOUTH_Y - 0.002],
            [0.062, MOUTH_Y + 0.024],
            [0.07, b - 0.05],
            [0.034, b + 0.012],
            [0.0, b + 0.022],
        ]
        points = np.repeat(smooth(np.array(mirrored(half), np.float32), 3)[None], len(performance), axis=0)
        points[..., 1] += drop
        layers.append(Layer(surface(points, character), color))
    if character.beard in ("goatee", "moustache", "full"):
        shape = smooth(np.array(mirrored(whiskers), np.float32), 3)
        layers.append(Layer(surface(shape, character, 0.02), darker(color, 0.06)))
    return part_of("beard", *layers)


def _glasses(character: Character) -> list[Layer]:
    if character.glasses is None:
        return []
    rims = []
    for side in (-1, 1):
        outer = ellipse(side * character.eye_gap, EYE_Y, 0.086, 0.082, count=26)
        inner = ellipse(side * character.eye_gap, EYE_Y, 0.073, 0.069, count=26)
        ring = np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])
        rims.append(Layer(surface(ring[:, :2], character, 0.03), character.glasses))
    bridge = np.array([[-0.026, -0.062], [0.026, -0.062], [0.026, -0.048], [-0.026, -0.048]], np.float32)
    return part_of("other", both(*rims), Layer(surface(bridge, character, 0.05), character.glasses))


def head(character: Character, performance: Performance) -> list[Layer]:
    """Return all layers of the head, from back to front. Brows are drawn over a fringe, to be always visible."""
    outline = head_outline(character, performance)
    eyes = [both(*pair) for pair in zip(eye(character, performance, -1), eye(character, performance, 1), strict=True)]
    layers = _ears(character)
    layers += [
        Layer(outline, darker(character.skin, 0.16)),
        Layer(_shaded(outline, character), character.skin),
        _blush(character),
        *_beard(character, performance),
        *mouth(character, performance),
        *_nose(character),
        *eyes,
        *hair_front(character),
        both(brow(character, performance, -1), brow(character, performance, 1)),
        *_glasses(character),
    ]
    return layers


def neck(character: Character) -> list[Layer]:
    """Return the neck and its shadow, in head coordinates; the shirt covers the lower end."""
    width = 0.078 + 0.018 * character.jaw
    half = [[0.0, 0.10], [width, 0.12], [width, 0.30], [width * 1.15, 0.38], [width * 1.7, 0.44], [0.0, 0.50]]
    shape = smooth(np.array(mirrored([[x, y, -0.02] for x, y in half]), np.float32), 3)
    half = [[0.0, 0.10], [width, 0.12], [width, 0.335], [width * 0.5, 0.362], [0.0, 0.368]]
    shadow = smooth(np.array(mirrored([[x, y, -0.02] for x, y in half]), np.float32), 3)
    return [Layer(shape, darker(character.skin, 0.1)), Layer(shadow, darker(character.skin, 0.28))]
