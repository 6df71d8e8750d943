"""Metrics of a chunk: seam, color drift, drift outside a pinned region, sharpness, lip sync of a real face.

seam: the mean absolute difference between the last frame before the join and the first one after it, divided by the
median of the same difference between neighboring frames inside the chunk. No unit; 1 is as smooth as inside the chunk,
2 is a step twice as large. None for a chunk that begins a shot.

color drift: the regional color difference (regions.py, CIEDE2000) between the video's frames and the source's frames of
the same time: of the region that differs most, and the mean over all regions. No unit; 2 is just visible, 10 is another
color. None if the source shows nothing that can be found again.

outside drift: the mean absolute difference to the source, on the scale of 0 to 255, over the pixels outside the mask
of a pinned region. 0 for pasted pixels. None without a pinned region.

sharpness: the variance of the Laplacian of the video's lightness (L of Lab), divided by that of the source's frames of
the same time. No unit; 1 is as sharp as the source, below 0.5 is visibly softer.

lip sync, lip lag: how well the mouth of a real face follows the voice, and by how many frames it is late (lips.py).
None with the reason, such as that the optional library is not installed. Of two speakers, each in an area of the
picture, those of the worst one, and of each one beside.

tries: where the chunk was made again for its lips (lip_tries.py), the seed and the lip sync of each try.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rate import FRAMES_PER_SECOND
from .color import rgb_to_lab
from .dub import ChunkOutput
from .job import Job
from .plan import Chunk
from .reference import shown_frames
from .regions import regional_drift, small_lab
from .speaker_lips import chunk_lips

EVERY = 8  # frames; sharpness is measured on every 8th frame
_COLORS_EVERY = 2  # of those; colors change slowly


@dataclass(frozen=True)
class ChunkMetrics:
    """The metrics of one chunk, as the module's docstring defines them."""

    chunk: int  # counted from 1
    seconds: float  # time in the video at which the chunk's new frames begin
    seam: float | None
    color_drift: float | None  # of the worst region
    color_drift_mean: float | None  # of all regions
    outside_drift: float | None
    sharpness: float
    lip_sync: float | None = None
    lip_lag: int | None = None
    lips_absent: str | None = None  # why there is no lip sync
    lips_by_speaker: list[dict[str, Any]] | None = None  # the three above for each of several
    tries: list[dict[str, Any]] | None = None

    def __str__(self) -> str:
        parts = [
            f"chunk {self.chunk} at {self.seconds:.1f} s",
            "a new shot" if self.seam is None else f"seam {self.seam:.2f}",
            "color drift not measured"
            if self.color_drift is None
            else f"color drift {self.color_drift:.1f} in the worst region, {self.color_drift_mean:.1f} on average",
            f"sharpness {self.sharpness:.2f}",
        ]
        if self.outside_drift is not None:
            parts.append(f"drift outside the mask {self.outside_drift:.2f}")
        if self.lip_sync is not None:
            parts.append(f"lip sync {self.lip_sync:.2f} at a lag of {self.lip_lag} frames")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the metrics by name, rounded to 4 digits."""
        return {name: _rounded(value) for name, value in asdict(self).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def measured_frames(job: Job, chunk: Chunk) -> list[int]:
    """Return the source frames that the measured frames of `chunk` are compared with."""
    shown = shown_frames(chunk, job.reference.source.length, job.reference.settings.after_end)
    return shown[chunk.context : chunk.context + chunk.keep : EVERY]


def measure(
    job: Job, finished: ChunkOutput, before: Tensor | None, read: Callable[[int], Tensor] | None = None
) -> ChunkMetrics:
    """Measure the chunk `finished`. before: (H, W, 3), the last frame written before it, or None.

    read: returns a frame of the source at the video's size, by default by reading it. Computes on the device of the
    frames, frame by frame, so that it does not take a chunk's memory twice, and fetches all numbers at once.
    """
    chunk, frames = finished.chunk, finished.frames
    read = read or job.reference.picture
    first = chunk.start + chunk.context
    values: list[Tensor] = []
    small: list[tuple[Tensor, Tensor]] = []
    shown_before = None
    for index, shown in enumerate(measured_frames(job, chunk)):
        made = frames[index * EVERY].float()
        source = read(shown).to(made)
        values.append(_measure_frame(job, made, source, shown))
        if index % _COLORS_EVERY == 0:
            same = shown == shown_before  # such as a portrait, which has the same regions again
            small.append((small_lab(made[None])[0], small[-1][1] if same else small_lab(source[None])[0]))
            shown_before = shown
    drift = regional_drift(small)
    tries = finished.tries
    lips = chunk_lips(job, chunk, frames) if tries is None else tries.lips
    own, sources, outside = zip(*torch.stack(values).tolist(), strict=True)
    return ChunkMetrics(
        chunk=chunk.index + 1,
        seconds=first / FRAMES_PER_SECOND,
        seam=None if before is None or chunk.context == 0 else seam(before, frames),
        color_drift=drift.worst,
        color_drift_mean=drift.mean,
        outside_drift=None if job.sampling.pinned is None else fmean(outside),
        sharpness=fmean(own) / max(fmean(sources), 1e-9),
        **lips.to_json(),
        tries=None if tries is None else tries.to_json(),
    )


def _measure_frame(job: Job, made: Tensor, source: Tensor, shown: int) -> Tensor:
    """Return sharpness of a frame and of source frame `shown`, and their difference outside the mask (0 … 255):
    (3,), float64."""
    drift = made.new_zeros((), dtype=torch.float64)
    if job.sampling.pinned is not None:
        outside = job.sampling.pinned.window([shown], (job.reference.height, job.reference.width))[0] == 0
        if outside.any():  # masks are in memory: nothing waits for a GPU
            drift = (made - source)[outside.to(made.device)].abs().mean().double() * 255
    return torch.stack([n.double() for n in (_sharpness(rgb_to_lab(made)), _sharpness(rgb_to_lab(source)), drift)])


def seam(before: Tensor, frames: Tensor) -> float:
    """Return the difference between `before` (H, W, 3) and frames[0], divided by the median inside (F, H, W, 3)."""
    step = torch.empty_like(frames[0])  # one for all: new memory for each takes longer than the numbers
    steps = torch.stack([torch.sub(b, a, out=step).abs_().mean() for a, b in pairwise((before.to(frames), *frames))])
    join, *inside = steps.tolist()
    return join / max(median(inside) if inside else join, 1e-6)


def sharpness(frame: Tensor) -> float:
    """Return the variance of the Laplacian of the lightness of a frame (H, W, 3) in Lab."""
    return _sharpness(frame).item()


def _sharpness(frame: Tensor) -> Tensor:
    lightness = frame[None, None, ..., 0]
    kernel = lightness.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(lightness, kernel).var(correction=0)
