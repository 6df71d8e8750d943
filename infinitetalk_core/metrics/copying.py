"""How rigidly a video repeats the frame it looks at.

A reference should give identity, light and background; pose and mouth should follow the voice. The paper's ablation
(section 3.3) finds that a model trained with references from the chunk's own time (M0) repeats their content at the
wrong moment, and one trained with the chunk's borders (M1) repeats their poses there.

Of a frame and the reference the difference is taken over the pixels that move in the source, without the mean color
of each, so that a drift of color is no pose. Per chunk:

own time: 1 − d(t) / median of d over the chunk's frames, where t is the chunk's frame nearest to the reference's own
time. 1: the frame at that time is the reference; 0: it is no more like it than the chunk's other frames; below 0: less.

anywhere: 1 − (least d) / median d: whether the reference turns up at any time.

chance: `anywhere` for other frames of the source, which the chunk did not look at. Only what `anywhere` has above it
is copied from the reference.

mouth: the correlation of the video's mouth with the source's own mouth, frame by frame. Dubbing with another voice
must ignore it: 0 is right, 1 is the source's mouth. 0 also where the source is silent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..chunks.plan import Chunk
from ..chunks.reference import AfterEnd, source_frame
from ..errors import InputError
from .drift import still_pixels, written_frames
from .sync import correlation

_OTHERS = 4  # frames of the source that chance is taken from, for each chunk


@dataclass(frozen=True)
class Copying:
    """How much of the references is repeated, averaged over the chunks; the module says what each number means."""

    own_time: float
    anywhere: float
    chance: float
    mouth: float

    @property
    def copied(self) -> float:
        """`anywhere` above chance: 0 nothing of the reference's pose is repeated, 1 all of it."""
        return (self.anywhere - self.chance) / max(1 - self.chance, 1e-6)

    def to_json(self) -> dict[str, float]:
        """The numbers by name."""
        return {**asdict(self), "copied": self.copied}


def copying(
    frames: Tensor,
    source: Tensor,
    plan: Sequence[Chunk],
    reference_frames: Sequence[int | None],
    mouths: tuple[ArrayLike, ArrayLike],
    *,
    after_end: AfterEnd = AfterEnd.HOLD,
    seed: int = 0,
) -> Copying:
    """How rigidly a video repeats what it looked at.

    frames: (F, H, W, 3), the whole video; source: (L, H, W, 3); plan: the chunks; looked_at: for each chunk the source
    frame that was its reference, None where that was no frame of the source; mouths: the openings measured in the
    video and in the source frames of the same times, (F,) each; after_end: what the source shows after its end; seed:
    which other frames chance is taken from. Raises InputError where no chunk looked at the source.
    """
    if len(reference_frames) != len(plan):
        raise InputError(f"each of the {len(plan)} chunks needs its reference, got {len(reference_frames)}")
    shown = [source_frame(t, len(source), after_end) for t in range(len(frames))]
    moving = _moving(source)
    rows = []
    for chunk, written, reference in zip(plan, written_frames(plan, len(frames)), reference_frames, strict=True):
        if reference is None or len(written) < 2:
            continue
        poses = _poses(frames[written.start : written.stop], moving)
        apart = _apart(poses, source[reference], moving)
        own = min(range(len(written)), key=lambda i: abs(shown[written[i]] - reference))
        draw = random.Random(seed * 1_000_003 + chunk.index)
        others = [_nearest(_apart(poses, source[draw.randrange(len(source))], moving)) for _ in range(_OTHERS)]
        rows.append((_trace(apart, own), _nearest(apart), fmean(others)))
    if not rows:
        raise InputError("copying cannot be measured: no chunk looked at a frame of the source")
    own_time, anywhere, chance = (fmean(column) for column in zip(*rows, strict=True))
    return Copying(own_time, anywhere, chance, correlation(*mouths))


def _moving(source: Tensor) -> Tensor:
    """Where a pose shows (H, W): what moves in the source; everything, where all does or nothing."""
    still = still_pixels(source)
    return torch.ones(source.shape[1:3], dtype=torch.bool) if still is None or still.all() else ~still


def _poses(frames: Tensor, moving: Tensor) -> Tensor:
    """The moving pixels of `frames` (F, H, W, 3) without the mean color of each frame: (F, n, 3)."""
    pixels = frames[:, moving].float()
    return pixels - pixels.mean(dim=1, keepdim=True)


def _apart(poses: Tensor, picture: Tensor, moving: Tensor) -> list[float]:
    """The mean absolute difference of each of `poses` (F, n, 3) to `picture` (H, W, 3)."""
    apart: list[float] = (poses - _poses(picture[None], moving)).abs().mean(dim=(1, 2)).tolist()
    return apart


def _trace(apart: Sequence[float], place: int) -> float:
    usual = median(apart)
    return 1 - apart[place] / usual if usual > 1e-6 else 0.0


def _nearest(apart: Sequence[float]) -> float:
    return _trace(apart, min(range(len(apart)), key=apart.__getitem__))
