"""Measure how a long video drifts away from its source, chunk by chunk.

Every number compares some frames of a chunk with the source's frames of the same time, and is averaged over them.

color: the regional color difference (CIEDE2000, infinitetalk_core/chunks/regions.py) of the region that differs
most; of each region the median over the frames. 2 is just visible, 10 is another color.

overall: the same of all regions, the mean by their sizes; 1.5 is just visible. Both are None if no region could be
compared.

background: the mean distance in Lab between background pixels at the same position. background_difference: their mean
absolute difference on the scale of 0 to 255. None if there is no static background.

slope: the least-squares change of a number from one chunk to the next. Near 0 for a video without drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.regions import regional_drift, small_lab
from infinitetalk_core.errors import InputError

EVERY = 8  # frames; drift is measured on every 8th frame
STILL = 3 / 255  # largest change of a background pixel
_ENOUGH = 0.05  # share of the picture: fewer static pixels are chance


@dataclass(frozen=True)
class Drift:
    """The difference of some frames from the source; the module's docstring defines the fields."""

    color: float | None
    overall: float | None
    background: float | None
    background_difference: float | None


@dataclass(frozen=True)
class DriftCurve:
    """The drift of each chunk, in order."""

    chunks: tuple[Drift, ...]

    def slope(self, name: str) -> float | None:
        """Return the slope of a field of Drift over the chunks; None if it could not be measured in every chunk."""
        values = [getattr(chunk, name) for chunk in self.chunks]
        return None if any(value is None for value in values) else slope(values)

    def mean(self, name: str) -> float | None:
        """Return the mean of a field of Drift over the chunks; None if it could not be measured in every chunk."""
        values = [getattr(chunk, name) for chunk in self.chunks]
        return None if any(value is None for value in values) else fmean(values)

    def to_json(self) -> list[dict[str, float | None]]:
        """Return the numbers of each chunk by name."""
        return [asdict(chunk) for chunk in self.chunks]


def slope(values: Sequence[float]) -> float:
    """Return the least-squares change from one value to the next; 0 for a single value."""
    middle = (len(values) - 1) / 2
    square = sum((index - middle) ** 2 for index in range(len(values)))
    return sum((index - middle) * value for index, value in enumerate(values)) / square if square else 0.0


def still_pixels(source: Tensor, tolerance: float = STILL) -> Tensor | None:
    """Return the background: the mask (H, W) of the pixels of `source` (F, H, W, 3) that never change.

    None if the camera moves, and for a single frame. tolerance: the largest deviation, in 0 … 1 and in any channel,
    that counts as codec and camera noise.
    """
    if len(source) < 2:
        return None
    sampled = source[:: max(len(source) // 64, 1)].float()
    low, high = sampled.amin(dim=0), sampled.amax(dim=0)
    still = ((high - low) <= 2 * tolerance).all(dim=-1)
    return still if still.float().mean() >= _ENOUGH else None


def written_frames(plan: Sequence[Chunk], total: int) -> Iterator[range]:
    """Yield the range of frames that each chunk of `plan` wrote to a video of `total` frames."""
    for chunk in plan:
        first = chunk.start + chunk.context
        yield range(min(first, total), min(first + chunk.keep, total))


def drift(frames: Tensor, source: Tensor, background: Tensor | None = None) -> Drift:
    """Measure the drift of `frames` (F, H, W, 3) from `source`: as many frames, or one picture (H, W, 3).

    background: (H, W), true where nothing moves; see `still_pixels`. Raises InputError for sizes that do not fit.
    """
    source = source[None] if source.ndim == 3 else source
    if frames.shape[1:] != source.shape[1:] or len(source) not in (1, len(frames)) or len(frames) == 0:
        raise InputError(
            f"drift needs the source's frame for each frame, or one picture, of the same size; got "
            f"{tuple(frames.shape)} and {tuple(source.shape)}"
        )
    one = small_lab(source)[0] if len(source) == 1 else None
    found = regional_drift(
        (small_lab(frame[None])[0], small_lab(source[index][None])[0] if one is None else one)
        for index, frame in enumerate(frames)
    )
    if background is None:
        return Drift(found.worst, found.mean, None, None)
    own = source.expand_as(frames)[:, background].float()
    made = frames[:, background].float()
    return Drift(
        color=found.worst,
        overall=found.mean,
        background=(rgb_to_lab(made) - rgb_to_lab(own)).norm(dim=-1).mean().item(),
        background_difference=255 * (made - own).abs().mean().item(),
    )


def drift_curve(frames: Tensor, source: Tensor, plan: Sequence[Chunk], background: Tensor | None = None) -> DriftCurve:
    """Measure the drift of each chunk of a video.

    frames: (F, H, W, 3), the whole video; source: the source frame of the same time for each of them (F, H, W, 3), or
    one picture (H, W, 3); plan: the chunks of the video; background: see `drift`. Raises InputError if the plan writes
    no frames.
    """
    pieces = []
    for written in written_frames(plan, len(frames)):
        sampled = list(written)[::EVERY]
        if sampled:
            pieces.append(drift(frames[sampled], source if source.ndim == 3 else source[sampled], background))
    if not pieces:
        raise InputError(f"the plan of {len(plan)} chunks writes none of the {len(frames)} frames")
    return DriftCurve(tuple(pieces))
