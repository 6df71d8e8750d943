"""Measure the mouth opening of a real face with MediaPipe's face mesh.

The opening is the gap between the inner lips divided by the height of the face: no unit, 0 closed, about 0.1 wide open,
independent of the size of the face. The library is optional. Its versions up to 0.10.21 (Python 3.12 at most) contain
the weights of the mesh; later ones need a separate weights file and no longer have this interface.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk_core.errors import InputError

_UPPER_LIP, _LOWER_LIP = 13, 14  # the middles of the inner lips, in the mesh of 468 points
_FOREHEAD, _CHIN = 10, 152


def landmark_opening(frames: Tensor) -> NDArray[np.float32]:
    """Return the mouth opening (F,), lip gap by face height, in `frames` (F, H, W, 3) in [0, 1] of one real face.

    For frames without a detected face the value is interpolated from the neighboring frames that have one.
    Raises InputError if the library is missing, and if no frame shows a face.
    """
    gaps = np.full(len(frames), np.nan)
    size = np.array([frames.shape[2], frames.shape[1]])
    with _face_mesh() as mesh:
        for index, frame in enumerate(frames):
            found = mesh.process((frame.detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy())
            if found.multi_face_landmarks:
                points = found.multi_face_landmarks[0].landmark
                upper, lower, forehead, chin = (
                    np.array([points[i].x, points[i].y]) * size for i in (_UPPER_LIP, _LOWER_LIP, _FOREHEAD, _CHIN)
                )
                gaps[index] = np.linalg.norm(upper - lower) / max(np.linalg.norm(forehead - chin), 1e-6)
    seen = np.flatnonzero(np.isfinite(gaps))
    if len(seen) == 0:
        raise InputError(f"no face was found in any of the {len(frames)} frames: is one seen from the front?")
    return np.interp(np.arange(len(frames)), seen, gaps[seen]).astype(np.float32)


def _face_mesh() -> Any:
    """Return MediaPipe's face mesh tracker for one face, a context manager."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh
    except ImportError as error:
        raise InputError(
            "the mouth of a real face is measured with MediaPipe, which is not installed or too new; "
            "pip install mediapipe==0.10.21 (Python 3.12 at most)"
        ) from error
    return FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=False)
