"""Metrics of a chunk: seam, color drift, drift outside a pinned region, sharpness.

seam: the mean absolute difference between the last frame before the join and the first one after it, divided by the
median of the same difference between neighboring frames inside the chunk. No unit; 1 is as smooth as inside the chunk,
2 is a step twice as large. None for a chunk that begins a shot.

color drift: the distance in CIE Lab between the mean color of the video's frames and that of the source's frames of
the same time, averaged over frames. 1 is just visible; 10 looks like other lighting.

outside drift: the mean absolute difference to the source, on the scale of 0 to 255, over the pixels outside the mask
of a pinned region. 0 for pasted pixels. None without a pinned region.

sharpness: the variance of the Laplacian of the video's lightness (L of Lab), divided by that of the source's frames of
the same time. No unit; 1 is as sharp as the source, below 0.5 is visibly softer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, median

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rate import FRAMES_PER_SECOND
from .color import rgb_to_lab
from .dub import ChunkOutput
from .job import Job
from .plan import Chunk
from .reference import shown_frames

EVERY = 8  # frames; colors and sharpness are measured on every 8th frame


@dataclass(frozen=True)
class ChunkMetrics:
    """The metrics of one chunk, as the module's docstring defines them."""

    chunk: int  # counted from 1
    seconds: float  # time in the video at which the chunk's new frames begin
    seam: float | None
    color_drift: float
    outside_drift: float | None
    sharpness: float

    def __str__(self) -> str:
        parts = [
            f"chunk {self.chunk} at {self.seconds:.1f} s",
            "a new shot" if self.seam is None else f"seam {self.seam:.2f}",
            f"color drift {self.color_drift:.1f}",
            f"sharpness {self.sharpness:.2f}",
        ]
        if self.outside_drift is not None:
            parts.append(f"drift outside the mask {self.outside_drift:.2f}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, float | int | None]:
        """Return the metrics by name, rounded to 4 digits."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


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
    values = torch.stack(
        [
            _measure_frame(job, frame, shown, read)
            for frame, shown in zip(frames[::EVERY], measured_frames(job, chunk), strict=True)
        ]
    ).tolist()
    colors, own, sources, outside = zip(*values, strict=True)
    return ChunkMetrics(
        chunk=chunk.index + 1,
        seconds=first / FRAMES_PER_SECOND,
        seam=None if before is None or chunk.context == 0 else seam(before, frames),
        color_drift=fmean(colors),
        outside_drift=None if job.sampling.pinned is None else fmean(outside),
        sharpness=fmean(own) / max(fmean(sources), 1e-9),
    )


def _measure_frame(job: Job, frame: Tensor, shown: int, read: Callable[[int], Tensor]) -> Tensor:
    """Return color distance to source frame `shown`, sharpness of both, and difference outside the mask (0 … 255):
    (4,), float64."""
    made = frame.float()
    source = read(shown).to(made)
    made_lab, source_lab = rgb_to_lab(made), rgb_to_lab(source)
    drift = made.new_zeros((), dtype=torch.float64)
    if job.sampling.pinned is not None:
        outside = job.sampling.pinned.window([shown], (job.reference.height, job.reference.width))[0] == 0
        if outside.any():  # masks are in memory: nothing waits for a GPU
            drift = (made - source)[outside.to(made.device)].abs().mean().double() * 255
    distance = _color_distance(made_lab, source_lab)
    return torch.stack([n.double() for n in (distance, _sharpness(made_lab), _sharpness(source_lab), drift)])


def seam(before: Tensor, frames: Tensor) -> float:
    """Return the difference between `before` (H, W, 3) and frames[0], divided by the median inside (F, H, W, 3)."""
    step = torch.empty_like(frames[0])  # one for all: new memory for each takes longer than the numbers
    steps = torch.stack([torch.sub(b, a, out=step).abs_().mean() for a, b in pairwise((before.to(frames), *frames))])
    join, *inside = steps.tolist()
    return join / max(median(inside) if inside else join, 1e-6)


def color_distance(made: Tensor, source: Tensor) -> float:
    """Return the distance between the mean colors of two frames (H, W, 3) in Lab."""
    return _color_distance(made, source).item()


def _color_distance(made: Tensor, source: Tensor) -> Tensor:
    return (made.mean(dim=(0, 1)) - source.mean(dim=(0, 1))).norm()


def sharpness(frame: Tensor) -> float:
    """Return the variance of the Laplacian of the lightness of a frame (H, W, 3) in Lab."""
    return _sharpness(frame).item()


def _sharpness(frame: Tensor) -> Tensor:
    lightness = frame[None, None, ..., 0]
    kernel = lightness.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(lightness, kernel).var(correction=0)
