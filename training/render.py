"""Render pictures of a drawn speaker from a performance and a camera, and the masks of its parts."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from infinitetalk_core.errors import InputError

from .backdrop import paint_backdrop
from .body import hand, shirt
from .characters import MOUTH_INTERIOR, Character
from .figure import head, neck
from .hair import hair_back
from .performance import CameraMove, Performance
from .shapes import PARTS, Layer, Points, part_of

__all__ = ["MOUTH_INTERIOR", "PARTS", "part_masks", "render"]

Frames = NDArray[np.uint8]
Drawn = list[tuple[list[list[NDArray[np.int32]]], Layer]]  # for each layer the outlines of each frame, in pixels

_HEAD = np.array([0.5, 0.462], np.float32)  # the middle of the head in the picture
_PIVOT = np.array([0.0, 0.16, -0.05], np.float32)  # center of yaw and pitch
_NAPE = np.array([0.0, 0.33], np.float32)  # center of roll
_BACKDROP_FOLLOWS = 0.85  # share of the camera's movement: far objects move less
_FRACTION_BITS = 5
# cv2 rounds the corners of an anti-aliased polygon to whole rows; supersampling makes movements smooth.
_SUPERSAMPLING = 4


def _turned(points: Points, performance: Performance) -> Points:
    """Project points of the head (N, 3) or (F, N, 3) into the picture by the head's pose: (F, N, 2)."""
    x, y, z = np.moveaxis(points - _PIVOT, -1, 0)
    yaw, pitch, roll = (track[:, None] for track in (performance.yaw, performance.pitch, performance.roll))
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) + z * np.sin(pitch)
    x, y = x + _PIVOT[0] - _NAPE[0], y + _PIVOT[1] - _NAPE[1]
    x, y = x * np.cos(roll) - y * np.sin(roll) + _NAPE[0], x * np.sin(roll) + y * np.cos(roll) + _NAPE[1]
    x = x + _HEAD[0] + performance.shift_x[:, None]
    y = y + _HEAD[1] + (performance.shift_y - 0.5 * performance.shoulders)[:, None]
    return np.stack([x, y], axis=-1)


def _framed(points: Points, camera: CameraMove) -> Points:
    """Transform points of the scene (F, N, 2) to the camera's view."""
    x, y = points[..., 0] - 0.5, points[..., 1] - 0.5
    turn, zoom = camera.roll[:, None], camera.zoom[:, None]
    seen_x = zoom * (x * np.cos(turn) - y * np.sin(turn)) + 0.5 + camera.pan_x[:, None]
    seen_y = zoom * (x * np.sin(turn) + y * np.cos(turn)) + 0.5 + camera.pan_y[:, None]
    return np.stack([seen_x, seen_y], axis=-1)


def _pixels(
    layers: list[Layer], turned: bool, performance: Performance, camera: CameraMove, side: int
) -> list[list[list[NDArray[np.int32]]]]:
    """Return for every layer and frame the outlines (N, 2) in fixed-point pixels, as cv2 takes them."""
    frames = len(performance)
    wide = [np.broadcast_to(layer.points, (frames, *layer.points.shape[-2:])) for layer in layers]
    scene = np.concatenate(wide, axis=1)
    placed = _turned(scene, performance) if turned else scene[..., :2]
    # cv2's origin is the middle of the first pixel.
    pixels = np.rint((_framed(placed, camera) * side - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32)
    counts = [layer.points.shape[-2] for layer in layers]
    outlines = np.split(pixels, np.cumsum(counts)[:-1], axis=1)
    return [
        [list(frame) for frame in np.ascontiguousarray(part).reshape(frames, layer.parts, -1, 2)]
        for part, layer in zip(outlines, layers, strict=True)
    ]


def _colors(layer: Layer, frames: int) -> list[tuple[float, ...]]:
    if isinstance(layer.color, tuple):
        return [layer.color] * frames
    return [tuple(row) for row in layer.color.tolist()]


def _backdrops(character: Character, camera: CameraMove, size: int) -> Iterator[Frames]:
    """Yield the background of each frame, (size, 4 * size, 3); it is redrawn only when the camera moves."""
    wall = paint_backdrop(character, size)
    middle = wall.shape[0] / 2 - 0.5
    before, picture = None, wall
    for pan_x, pan_y, zoom, roll in zip(camera.pan_x, camera.pan_y, camera.zoom, camera.roll, strict=True):
        view = (pan_x, pan_y, zoom, roll)
        if view != before:
            factor = float(zoom) ** _BACKDROP_FOLLOWS
            cos, sin = factor * np.cos(roll), factor * np.sin(roll)
            to_x = size * (0.5 + _BACKDROP_FOLLOWS * pan_x) - 0.5 - cos * middle + sin * middle
            to_y = size * (0.5 + _BACKDROP_FOLLOWS * pan_y) - 0.5 - sin * middle - cos * middle
            affine = np.array([[cos, -sin, to_x], [sin, cos, to_y]], np.float64)
            seen = cv2.warpAffine(wall, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            wide = cv2.resize(seen, (size * _SUPERSAMPLING, size), interpolation=cv2.INTER_NEAREST)
            picture, before = wide.astype(np.uint8, copy=False), view
        yield picture


def _scene(character: Character, performance: Performance, camera: CameraMove, side: int) -> Drawn:
    """Return all layers in front of the wall, from back to front. Raises InputError for tracks that do not fit."""
    if len(camera) != len(performance):
        raise InputError(
            f"The performance has {len(performance)} frames, the camera {len(camera)}; they must be equal."
        )
    stages: list[tuple[list[Layer], bool]] = [
        (part_of("hair", *hair_back(character)), True),
        (neck(character), True),
        (shirt(character, performance), False),
        (head(character, performance), True),
        (hand(character, performance), False),
    ]
    drawn: Drawn = []
    for layers, turned in stages:
        if layers:
            drawn += zip(_pixels(layers, turned, performance, camera, side), layers, strict=True)
    return drawn


def render(character: Character, performance: Performance, camera: CameraMove, size: int = 96) -> Frames:
    """Draw the performance (F frames) seen by the camera: (F, size, size, 3) RGB. The bytes are reproducible."""
    frames, side = len(performance), size * _SUPERSAMPLING
    scene = _scene(character, performance, camera, side)
    drawn = [(points, _colors(layer, frames), layer.visible) for points, layer in scene]
    out = np.empty((frames, size, size, 3), np.uint8)
    canvas = np.empty((side, side, 3), np.uint8)
    rows = canvas.reshape(size, _SUPERSAMPLING, side, 3)
    for index, backdrop in enumerate(_backdrops(character, camera, size)):
        rows[:] = backdrop[:, None]
        for points, colors, visible in drawn:
            if visible is None or visible[index]:
                cv2.fillPoly(canvas, points[index], colors[index], cv2.LINE_8, _FRACTION_BITS)
        # Halving twice is much faster in cv2 than one step by four.
        half = cv2.resize(canvas, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        cv2.resize(half, (size, size), dst=out[index], interpolation=cv2.INTER_AREA)
    return out


def part_masks(
    character: Character, performance: Performance, camera: CameraMove, size: int = 96, least: float = 0.75
) -> NDArray[np.bool_]:
    """Return what belongs to which of PARTS in the pictures of `render`: (F, len(PARTS), size, size).

    least: the share of a pixel that a part must cover; above 0.5 a pixel belongs to one part at most, and the border
    between two to none.
    """
    side = size * _SUPERSAMPLING
    scene = _scene(character, performance, camera, side)
    out = np.empty((len(performance), len(PARTS), size, size), np.bool_)
    for index, masks in enumerate(out):
        canvas = np.full((side, side), PARTS.index("wall"), np.uint8)
        for points, layer in scene:
            if layer.visible is None or layer.visible[index]:
                cv2.fillPoly(canvas, points[index], PARTS.index(layer.part), cv2.LINE_8, _FRACTION_BITS)
        for part, mask in enumerate(masks):
            # The mean of a block of 0s and values equal to the number of pixels is the count of the part's pixels.
            inside = (canvas == part).astype(np.uint8) * _SUPERSAMPLING**2
            count = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA)
            mask[:] = count >= least * _SUPERSAMPLING**2
    return out
