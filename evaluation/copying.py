"""Measure how much of the reference frame's pose a video copies.

A reference should determine identity, lighting and background; pose and mouth should follow the voice. The paper's
ablation (section 3.3) finds that a model trained with references from the chunk's own time (M0) copies their content at
the wrong time, and one trained with the first or last frame of the chunk (M1) copies their poses there.

d is the mean absolute difference between a frame and the reference over the pixels that move in the source, after
subtracting the mean color of each, so that a color drift does not count as a pose. Per chunk:

own time: 1 - d(t) / median of d over the chunk's frames, where t is the chunk's frame nearest to the reference's own
time. 1: the frame at that time equals the reference; 0: it is as similar to it as the chunk's other frames; below 0:
less similar.

anywhere: 1 - (least d) / median d: whether the reference is copied at any time.

chance: `anywhere` for other frames of the source, which were not the chunk's reference. Only the part of `anywhere`
above it is copied from the reference.

mouth: the correlation of the video's mouth opening with the source's, frame by frame. Dubbing with another voice must
ignore the source's: 0 is right, 1 is the source's mouth. 0 also where the source's mouth does not move.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.reference import AfterEnd, source_frame
from infinitetalk_core.errors import InputError

from .drift import still_pixels, written_frames
from .sync import correlation

_OTHERS = 4  # source frames per chunk from which chance is estimated


@dataclass(frozen=True)
class Copying:
    """Copying averaged over the chunks; the module's docstring defines the fields."""

    own_time: float
    anywhere: float
    chance: float
    mouth: float

    @property
    def copied(self) -> float:
        """`anywhere` relative to chance: 0 if nothing of the reference's pose is copied, 1 if all of it is."""
        return (self.anywhere - self.chance) / max(1 - self.chance, 1e-6)

    def to_json(self) -> dict[str, float]:
        """Return the numbers by name."""
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
    """Measure how much a video copies its reference frames.

    frames: (F, H, W, 3), the whole video; source: (L, H, W, 3); plan: the chunks; reference_frames: for each chunk the
    source frame that was its reference, None where that was no frame of the source; mouths: the openings measured in
    the video and in the source frames of the same times, (F,) each; after_end: what the source shows after its end;
    seed: of the random frames for `chance`. Raises InputError if no chunk had a source frame as its reference.
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
    """Return the mask (H, W) of the pixels that move in the source; all pixels if none of them or every one moves."""
    still = still_pixels(source)
    return torch.ones(source.shape[1:3], dtype=torch.bool) if still is None or still.all() else ~still


def _poses(frames: Tensor, moving: Tensor) -> Tensor:
    """Return the moving pixels of `frames` (F, H, W, 3) minus the mean color of each frame: (F, n, 3)."""
    pixels = frames[:, moving].float()
    return pixels - pixels.mean(dim=1, keepdim=True)


def _apart(poses: Tensor, picture: Tensor, moving: Tensor) -> list[float]:
    """Return the mean absolute difference d of each of `poses` (F, n, 3) to `picture` (H, W, 3)."""
    apart: list[float] = (poses - _poses(picture[None], moving)).abs().mean(dim=(1, 2)).tolist()
    return apart


def _trace(apart: Sequence[float], index: int) -> float:
    """Return 1 - d / median d for the frame `index`; 0 if all differences are 0."""
    usual = median(apart)
    return 1 - apart[index] / usual if usual > 1e-6 else 0.0


def _nearest(apart: Sequence[float]) -> float:
    """Return 1 - d / median d for the frame with the least d."""
    return _trace(apart, min(range(len(apart)), key=apart.__getitem__))
