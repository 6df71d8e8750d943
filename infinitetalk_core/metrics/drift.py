"""How a long video walks away from its source, chunk by chunk.

Every number is taken of some frames of a chunk and the source's frames of the same time, and averaged.

color: the distance in CIE Lab between the mean colors of the whole picture. 1 is just visible, 10 is another light.

identity: how far the colors of the person are from the source's, in Lab: per channel the mean difference between the
sorted values of all pixels that are not background (the earth mover's distance), and the length of the three. Where
somebody's head is does not matter, what colors they are made of does.

background: the mean distance in Lab between pixels of the background at the same place. background_difference: their
mean absolute difference on the scale of 0 to 255. None where there is no background that stands still.

slope: the least-squares change of a number from one chunk to the next. A video that holds has a slope near 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..chunks.color import rgb_to_lab
from ..chunks.plan import Chunk
from ..errors import InputError

EVERY = 8  # frames; drift is measured on each 8th
STILL = 3 / 255  # a pixel of the background changes less than this
_ENOUGH = 0.05  # of the picture: fewer still pixels are chance


@dataclass(frozen=True)
class Drift:
    """How far some frames are from the source; the module says what each number means."""

    color: float
    identity: float
    background: float | None
    background_difference: float | None


@dataclass(frozen=True)
class DriftCurve:
    """The drift of each chunk, in order."""

    chunks: tuple[Drift, ...]

    def slope(self, name: str) -> float | None:
        """Change of a number (a field of Drift) from chunk to chunk; None where it could not be measured."""
        values = [getattr(chunk, name) for chunk in self.chunks]
        return None if any(value is None for value in values) else slope(values)

    def mean(self, name: str) -> float | None:
        """The mean of a number over all chunks; None where it could not be measured."""
        values = [getattr(chunk, name) for chunk in self.chunks]
        return None if any(value is None for value in values) else fmean(values)

    def to_json(self) -> list[dict[str, float | None]]:
        """The numbers of each chunk by name."""
        return [asdict(chunk) for chunk in self.chunks]


def slope(values: Sequence[float]) -> float:
    """The least-squares change from one value to the next; 0 for a single one."""
    middle = (len(values) - 1) / 2
    square = sum((place - middle) ** 2 for place in range(len(values)))
    return sum((place - middle) * value for place, value in enumerate(values)) / square if square else 0.0


def still_pixels(source: Tensor, tolerance: float = STILL) -> Tensor | None:
    """The background: pixels (H, W) of `source` (F, H, W, 3) that never change.

    None where the camera moves, and for a single frame.

    tolerance: what codec and camera noise may change, in 0 … 1, from the pixel's mean and in any channel.
    """
    if len(source) < 2:
        return None
    sampled = source[:: max(len(source) // 64, 1)].float()
    low, high = sampled.amin(dim=0), sampled.amax(dim=0)
    still = ((high - low) <= 2 * tolerance).all(dim=-1)
    return still if still.float().mean() >= _ENOUGH else None


def written_frames(plan: Sequence[Chunk], total: int) -> Iterator[range]:
    """The frames of a video of `total` frames that each chunk of `plan` has written."""
    for chunk in plan:
        first = chunk.start + chunk.context
        yield range(min(first, total), min(first + chunk.keep, total))


def drift(frames: Tensor, source: Tensor, background: Tensor | None = None) -> Drift:
    """The drift of `frames` (F, H, W, 3) from `source`: as many frames, or one picture (H, W, 3).

    background: (H, W), true where nothing moves; see `still_pixels`.
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
    """The earth mover's distance between the colors of two sets of pixels (..., 3), as many in both."""
    first, second = (pixels.reshape(-1, 3).sort(dim=0).values for pixels in (made, own))
    return (first - second).abs().mean(dim=0).norm().item() if len(first) else 0.0


def drift_curve(frames: Tensor, source: Tensor, plan: Sequence[Chunk], background: Tensor | None = None) -> DriftCurve:
    """The drift of each chunk of a video.

    frames: (F, H, W, 3), the whole video; source: the frame that each of them stands for (F, H, W, 3), or one picture
    (H, W, 3); plan: the chunks that made it; background: see `drift`.
    """
    pieces = []
    for written in written_frames(plan, len(frames)):
        sampled = list(written)[::EVERY]
        if sampled:
            pieces.append(drift(frames[sampled], source if source.ndim == 3 else source[sampled], background))
    if not pieces:
        raise InputError(f"the plan of {len(plan)} chunks writes none of the {len(frames)} frames")
    return DriftCurve(tuple(pieces))
