"""All numbers of one dubbed video together, for tables. What each means stands in the module that measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from ..chunks.color import rgb_to_lab
from ..chunks.plan import Chunk
from ..chunks.reference import AfterEnd, source_frame
from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .camera_motion import CameraError, CameraTrack, camera_error, measure_camera
from .chunk import EVERY, seam, sharpness
from .copying import Copying, copying
from .drift import DriftCurve, drift_curve, still_pixels, written_frames
from .sync import Sync, correlation, mouth_opening, shuffled, sync

_LAG = 8  # frames; a lag is looked for this far
_CONTROLS = 5  # other times of the voice that chance is taken from


@dataclass(frozen=True)
class Dubbed:
    """A dubbed video and all that is known of how it came about."""

    frames: Tensor  # (F, H, W, 3) in [0, 1]
    source: Tensor  # (L, H, W, 3) in [0, 1]; one frame: a portrait
    truth: ArrayLike  # (F,): how far the voice wants the mouth open
    plan: Sequence[Chunk]
    reference_frames: Sequence[
        int | None
    ]  # for each chunk the source frame that was its reference; None: no source frame
    after_end: AfterEnd = AfterEnd.HOLD
    background: Tensor | None = None  # (H, W), true where nothing moves; without it, found in the source
    camera: CameraTrack | None = None  # the true camera; without it, the source's is measured

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.source.shape[1:] != self.frames.shape[1:] or len(self.source) == 0:
            raise InputError(
                f"the video and its source must be frames (F, H, W, 3) of one size, got {tuple(self.frames.shape)} "
                f"and {tuple(self.source.shape)}"
            )

    @property
    def shown(self) -> Tensor:
        """The source's frame of each frame's time: (F, H, W, 3)."""
        frames = [source_frame(time, len(self.source), self.after_end) for time in range(len(self.frames))]
        return self.source if frames == list(range(len(self.source))) else self.source[frames]


@dataclass(frozen=True)
class VideoMetrics:
    """The numbers of one video."""

    sync: Sync
    shuffled: float | None  # the correlation with the voice of another time; None for a voice of two seconds or less
    copying: Copying | None  # None where no chunk looked at a frame of the source
    drift: DriftCurve
    seams: tuple[float, ...]  # of each chunk that continues another
    camera: CameraError
    sharpness: float  # of the source's

    def to_json(self) -> dict[str, Any]:
        """The numbers by name, with the drift's slopes and means."""
        names = ("color", "identity", "background", "background_difference")
        return {
            "sync": asdict(self.sync),
            "shuffled": self.shuffled,
            "copying": self.copying and self.copying.to_json(),
            "drift": self.drift.to_json(),
            "drift_slope": {name: self.drift.slope(name) for name in names},
            "drift_mean": {name: self.drift.mean(name) for name in names},
            "seams": list(self.seams),
            "camera": asdict(self.camera),
            "sharpness": self.sharpness,
        }


def measure_video(video: Dubbed, seed: int = 0) -> VideoMetrics:
    """Measure all of a drawn speaker's video; seed: what is drawn by chance as a control.

    Raises InputError for tracks, plans and references that do not fit the frames, see the single measures.
    """
    opening, shown = mouth_opening(video.frames), video.shown
    background = still_pixels(video.source) if video.background is None else video.background
    return VideoMetrics(
        sync=sync(opening, video.truth, min(_LAG, max(len(opening) // 2 - 1, 0))),
        shuffled=_shuffled(opening, video.truth, seed),
        copying=None if all(at is None for at in video.reference_frames) else _copying(video, opening, shown, seed),
        drift=drift_curve(video.frames, shown, video.plan, background),
        seams=seams(video.frames, video.plan),
        camera=camera_error(measure_camera(video.frames), video.camera or measure_camera(shown)),
        sharpness=relative_sharpness(video.frames, shown),
    )


def seams(frames: Tensor, plan: Sequence[Chunk]) -> tuple[float, ...]:
    """The seam of each chunk of `frames` (F, H, W, 3) that continues another, as chunk.py defines it."""
    written = zip(plan, written_frames(plan, len(frames)), strict=True)
    return tuple(seam(frames[w.start - 1], frames[w.start : w.stop]) for c, w in written if c.context and len(w))


def relative_sharpness(frames: Tensor, source: Tensor) -> float:
    """The sharpness of `frames` (F, H, W, 3) divided by that of `source` (F, H, W, 3), of each 8th frame."""
    made, own = (fmean(sharpness(rgb_to_lab(f.float())) for f in video[::EVERY]) for video in (frames, source))
    return made / max(own, 1e-9)


def _copying(video: Dubbed, opening: ArrayLike, shown: Tensor, seed: int) -> Copying:
    mouths = (opening, mouth_opening(shown))
    return copying(
        video.frames, video.source, video.plan, video.reference_frames, mouths, after_end=video.after_end, seed=seed
    )


def _shuffled(opening: ArrayLike, truth: ArrayLike, seed: int) -> float | None:
    """The mean correlation with some other times of the voice; None where it is too short to have any."""
    if len(np.asarray(truth)) <= 2 * FRAMES_PER_SECOND:
        return None
    return fmean(correlation(opening, shuffled(truth, seed * _CONTROLS + draw)) for draw in range(_CONTROLS))
