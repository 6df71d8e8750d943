"""Measure how a long video drifts away from its source, chunk by chunk.

Every number compares some frames of a chunk with the source's frames of the same time, and is averaged over them.

color: the distance in CIE Lab between the mean colors of the whole picture. 1 is just visible; 10 looks like other
lighting.

identity: the difference of the person's colors from the source's, in Lab: per channel the mean difference between the
sorted values of all pixels that are not background (the earth mover's distance), then the norm over the channels. It
depends on the colors of the person, not on the position of the head.

background: the mean distance in Lab between background pixels at the same position. background_difference: their mean
absolute difference on the scale of 0 to 255. None if there is no static background.

slope: the least-squares change of a number from one chunk to the next. Near 0 for a video without drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
from torch import Tensor

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.errors import InputError

EVERY = 8  # frames; drift is measured on every 8th frame
STILL = 3 / 255  # largest change of a background pixel
_ENOUGH = 0.05  # share of the picture: fewer static pixels are chance


@dataclass(frozen=True)
class Drift:
    """The difference of some frames from the source; the module's docstring defines the fields."""

    color: float
    identity: float
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
    made, own = (rgb_to_lab(f.float()) for f in (frames, source.expand_as(frames)))
    color = (made.mean(dim=(1, 2)) - own.mean(dim=(1, 2))).norm(dim=-1).mean().item()
    person = torch.ones_like(made[0, ..., 0], dtype=torch.bool) if background is None else ~background
    if background is None:
        return Drift(color, _colors_apart(made, own), None, None)
    return Drift(
        color=color,
        identity=_colors_apart(made[:, person], own[:, person]),
        background=(made - own)[:, background].norm(dim=-1).mean().item(),
        background_difference=255 * (frames.float() - source.float())[:, background].abs().mean().item(),
    )


def _colors_apart(made: Tensor, own: Tensor) -> float:
    """Return the earth mover's distance between the colors of two equally large sets of pixels (..., 3)."""
    first, second = (pixels.reshape(-1, 3).sort(dim=0).values for pixels in (made, own))
    return (first - second).abs().mean(dim=0).norm().item() if len(first) else 0.0


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
