"""All numbers that say whether a video looks as it should, each with the size at which eyes begin to see it.

They are taken from the frames of the delivered file, after encoding. benchmarks/sight.py puts faults of known size into
true videos and makes the table in docs/numbers.md from what each number says about them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from infinitetalk_core.chunks.lips import mouth_gaps
from infinitetalk_core.errors import InputError

from .detail import softest_part
from .drift import drift
from .faces import identity_distance
from .features import Features, features
from .sync import mouth_opening, sync
from .temporal import block_colors, flicker, frozen, jumps

EVERY = 8  # frames; what changes slowly is measured on every 8th frame
_FACES = 3  # frames in which a real face is looked for: dlib takes a second for each
_LAG = 8  # frames; the largest lag that is tried


@dataclass(frozen=True)
class Number:
    """A number of a video, and the value from which on a fault of its kind is just visible."""

    name: str
    unit: str
    visible: float
    what: str
    falls: bool = False  # whether a fault makes it smaller

    def sees(self, value: float) -> bool:
        """Return whether the number says that something is visible."""
        return value < self.visible if self.falls else value > self.visible


NUMBERS = {
    number.name: number
    for number in (
        Number("color", "CIEDE2000", 2.0, "color of the worst region, from the reference"),
        Number("color_overall", "CIEDE2000", 1.5, "color of all regions on average, from the reference"),
        Number("contrast", "of the reference's", 0.75, "contrast of eyes, brows or mouth, the weakest", falls=True),
        Number("displaced", "% of the longer side", 2.5, "place of eyes, brows or mouth between the others"),
        Number("identity", "embedding distance", 0.6, "a real face, from the reference's"),
        Number("softest_part", "of the reference's", 0.4, "sharpness of the softest part of the picture", falls=True),
        Number("flicker", "Lab units", 0.3, "what changes to and fro and does not move"),
        Number("frozen", "frames", 3.0, "longest run of repeated frames"),
        Number("jump", "Lab units", 0.4, "change at a join beyond that of the frames around it"),
        Number("pulse", "Lab units", 0.4, "change at a key frame of the file, in the same way"),
        Number("lag", "frames", 1.0, "lips after or before the voice"),
    )
}


@dataclass(frozen=True)
class Delivered:
    """The frames of a file, (F, H, W, 3) in [0, 1], and its key frames after the first."""

    frames: Tensor
    key_frames: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Delivered:
        """Read a video file whole. Raises InputError for one without frames."""
        frames, keys = [], []
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
                keys += [number] if frame.key_frame and number else []
        if not frames:
            raise InputError(f"the video {path} has no frames")
        return cls(torch.stack(frames).float() / 255, tuple(keys))


@dataclass(frozen=True)
class Truth:
    """What a video is compared with."""

    reference: Tensor  # (H, W, 3), one picture, or the source's frame of the same time for each frame (F, H, W, 3)
    joins: Sequence[int] = ()  # the first frames of chunks that continue another
    features: Mapping[str, Tensor] | None = None  # masks (H, W) in the first picture of the reference: a drawn face
    opening: ArrayLike | None = None  # (F,): the mouth opening that the voice asks for
    real_face: bool = False  # whether there is a real face, rather than a drawn one


@dataclass(frozen=True)
class Sight:
    """The numbers of a video by name, and why the others are absent."""

    values: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def visible(self) -> tuple[str, ...]:
        """The names of the numbers that say that something is visible."""
        return tuple(name for name, value in self.values.items() if NUMBERS[name].sees(value))


def look(video: Delivered, truth: Truth) -> Sight:
    """Return all numbers of a video. What cannot be measured is absent, with the reason; nothing raises for that.

    Raises InputError for frames and references whose sizes do not fit.
    """
    frames, reference = video.frames, truth.reference
    if reference.shape[-3:] != frames.shape[1:] or (reference.ndim == 4 and len(reference) != len(frames)):
        raise InputError(
            f"the reference must be one picture, or one for each frame, of the video's size; got "
            f"{tuple(reference.shape)} for {tuple(frames.shape)}"
        )
    sampled = frames[::EVERY]
    shown = reference[::EVERY] if reference.ndim == 4 else reference
    colors = block_colors(frames)
    moved = drift(sampled, shown)
    kept = _features(sampled, shown if shown.ndim == 3 else shown[0], truth.features)
    sight = Sight()
    for name, value, reason in (
        ("color", moved.color, "no region of the reference was found in the video"),
        ("color_overall", moved.overall, "no region of the reference was found in the video"),
        ("contrast", kept.weakest if kept else None, "the places of eyes, brows and mouth are not known"),
        ("displaced", kept.displaced if kept else None, "the places of eyes, brows and mouth are not known"),
        ("softest_part", softest_part(sampled, shown), "the reference has no detail"),
        ("flicker", flicker(colors), "too little of the picture stands still, or the video is too short"),
        ("frozen", frozen(colors), "nothing moves in the video"),
        ("jump", max(jumps(colors, truth.joins), default=None), "the video has no joins"),
        ("pulse", max(jumps(colors, video.key_frames), default=None), "the file has no key frames after the first"),
    ):
        _note(sight, name, value, reason)
    _try(sight, "identity", lambda: _identity(sampled, shown, truth.real_face))
    _try(sight, "lag", lambda: _lag(frames, truth))
    return sight


def _features(frames: Tensor, reference: Tensor, masks: Mapping[str, Tensor] | None) -> Features | None:
    return features(frames, reference, masks) if masks else None


def _identity(frames: Tensor, shown: Tensor, real: bool) -> float:
    if not real:
        raise InputError("the face is drawn, or there is none")
    few = frames[:: max(math.ceil(len(frames) / _FACES), 1)]
    return identity_distance(few, shown if shown.ndim == 3 else shown[0])


def _lag(frames: Tensor, truth: Truth) -> float:
    """Return by how many frames the mouth is late or early."""
    if truth.opening is None:
        raise InputError("the mouth opening that the voice asks for is not known")
    wanted = np.asarray(truth.opening, np.float64)
    if wanted.std() < 1e-6:
        raise InputError("the voice is silent")
    opening = mouth_gaps(frames, every=1)[:, 0] if truth.real_face else mouth_opening(frames)
    if opening.std() < 1e-6:
        raise InputError("the mouth is not seen, or never moves")
    return float(abs(sync(opening, wanted, min(_LAG, max(len(opening) // 2 - 1, 0))).lag))


def _try(sight: Sight, name: str, measure: Callable[[], float]) -> None:
    """Note what `measure` returns, or the reason that it gives."""
    try:
        _note(sight, name, measure(), "")
    except InputError as error:
        sight.absent[name] = str(error)


def _note(sight: Sight, name: str, value: float | None, reason: str) -> None:
    if value is None or not np.isfinite(value):
        sight.absent[name] = reason
    else:
        sight.values[name] = float(value)
