"""All metrics of one dubbed video, for tables. Each metric is defined in the module that measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.chunks.metrics import EVERY, seam, sharpness
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.reference import AfterEnd, source_frame
from infinitetalk_core.errors import InputError
from infinitetalk_core.rate import FRAMES_PER_SECOND

from .camera_motion import CameraError, CameraTrack, camera_error, measure_camera
from .copying import Copying, copying
from .drift import DriftCurve, drift_curve, still_pixels, written_frames
from .sight import Delivered, Sight, Truth, look
from .sync import Sync, correlation, mouth_opening, shuffled, sync

_LAG = 8  # frames; the largest lag that is tried
_CONTROLS = 5  # random shifts of the voice from which chance is estimated


@dataclass(frozen=True)
class Dubbed:
    """A dubbed video, its source, and how it was made."""

    frames: Tensor  # (F, H, W, 3) in [0, 1]
    source: Tensor  # (L, H, W, 3) in [0, 1]; one frame: a portrait
    truth: ArrayLike  # (F,): the mouth opening that the voice asks for
    plan: Sequence[Chunk]
    # For each chunk the source frame that was its reference; None: no frame of the source.
    reference_frames: Sequence[int | None]
    after_end: AfterEnd = AfterEnd.HOLD
    background: Tensor | None = None  # (H, W), true where nothing moves; None: detected in the source
    camera: CameraTrack | None = None  # the true camera; None: measured in the source
    features: Mapping[str, Tensor] | None = None  # masks of eyes, brows and mouth in the source's first frame
    key_frames: tuple[int, ...] = ()  # of the delivered file, after the first

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.source.shape[1:] != self.frames.shape[1:] or len(self.source) == 0:
            raise InputError(
                f"the video and its source must be frames (F, H, W, 3) of one size, got {tuple(self.frames.shape)} "
                f"and {tuple(self.source.shape)}"
            )

    @property
    def shown(self) -> Tensor:
        """The source frame at the time of each frame: (F, H, W, 3)."""
        frames = [source_frame(time, len(self.source), self.after_end) for time in range(len(self.frames))]
        return self.source if frames == list(range(len(self.source))) else self.source[frames]


@dataclass(frozen=True)
class VideoMetrics:
    """The metrics of one video."""

    sync: Sync
    shuffled: float | None  # the correlation with the voice of another time; None for a voice of two seconds or less
    copying: Copying | None  # None if no chunk had a source frame as its reference
    drift: DriftCurve
    seams: tuple[float, ...]  # of each chunk that continues another one
    camera: CameraError
    sight: Sight
    sharpness: float  # relative to the source's

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, with the drift's slopes and means."""
        names = ("color", "overall", "background", "background_difference")
        return {
            "sync": asdict(self.sync),
            "shuffled": self.shuffled,
            "copying": self.copying and self.copying.to_json(),
            "drift": self.drift.to_json(),
            "drift_slope": {name: self.drift.slope(name) for name in names},
            "drift_mean": {name: self.drift.mean(name) for name in names},
            "seams": list(self.seams),
            "camera": asdict(self.camera),
            "sight": asdict(self.sight),
            "sharpness": self.sharpness,
        }


def measure_video(video: Dubbed, seed: int = 0) -> VideoMetrics:
    """Compute all metrics of the video of a drawn speaker. seed: of the random controls.

    Raises InputError for tracks, plans and references that do not fit the frames, see the single metrics.
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
        sight=_look(video, shown),
        sharpness=relative_sharpness(video.frames, shown),
    )


def _look(video: Dubbed, shown: Tensor) -> Sight:
    """Return what eyes would see, against the source frames `shown`, or the portrait."""
    written = zip(video.plan, written_frames(video.plan, len(video.frames)), strict=True)
    joins = [frames.start for chunk, frames in written if chunk.context and len(frames)]
    reference = video.source[0] if len(video.source) == 1 else shown
    return look(Delivered(video.frames, video.key_frames), Truth(reference, joins, video.features, video.truth))


def seams(frames: Tensor, plan: Sequence[Chunk]) -> tuple[float, ...]:
    """Return the seam, as defined in chunk.py, of each chunk of `frames` (F, H, W, 3) that continues another one."""
    written = zip(plan, written_frames(plan, len(frames)), strict=True)
    return tuple(seam(frames[w.start - 1], frames[w.start : w.stop]) for c, w in written if c.context and len(w))


def relative_sharpness(frames: Tensor, source: Tensor) -> float:
    """Return the sharpness of `frames` (F, H, W, 3) divided by that of `source` (F, H, W, 3), on every 8th frame."""
    made, own = (fmean(sharpness(rgb_to_lab(f.float())) for f in video[::EVERY]) for video in (frames, source))
    return made / max(own, 1e-9)


def _copying(video: Dubbed, opening: ArrayLike, shown: Tensor, seed: int) -> Copying:
    """Measure copying with the mouth openings of the video and of the source frames `shown` (F, H, W, 3)."""
    mouths = (opening, mouth_opening(shown))
    return copying(
        video.frames, video.source, video.plan, video.reference_frames, mouths, after_end=video.after_end, seed=seed
    )


def _shuffled(opening: ArrayLike, truth: ArrayLike, seed: int) -> float | None:
    """Return the mean correlation with random shifts of the voice; None if it is too short to be shifted."""
    if len(np.asarray(truth)) <= 2 * FRAMES_PER_SECOND:
        return None
    return fmean(correlation(opening, shuffled(truth, seed * _CONTROLS + draw)) for draw in range(_CONTROLS))
