"""Detection of cuts between the shots of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor

from .source import FrameSource

THUMBNAIL = (36, 64)
WINDOW = 12  # frames before and after that a change is compared with
# A cut changes the picture at least this much (mean absolute difference, 0 … 1) …
LEAST_CHANGE = 0.06
# … and at least this many times as much as the frames around it change. Fast motion and shaking change all of them.
RATIO = 4.0


def thumbnail(frame: Tensor) -> Tensor:
    """Downscale (H, W, 3) to (3, 36, 64), so small that noise and small movements have no effect."""
    return F.interpolate(frame.permute(2, 0, 1)[None], THUMBNAIL, mode="area")[0]


def changes(frames: Iterable[Tensor]) -> list[float]:
    """Return the mean absolute difference of each frame (H, W, 3) from the previous one; 0 for the first."""
    found: list[float] = []
    before = None
    for frame in frames:
        small = thumbnail(frame)
        found.append(0.0 if before is None else (small - before).abs().mean().item())
        before = small
    return found


def cuts_of(change: list[float]) -> list[int]:
    """Return the frames at which a new shot begins: their change (from `changes`) stands out from its neighbors."""
    cuts = []
    for i, jump in enumerate(change):
        neighbors = sorted(change[max(i - WINDOW, 1) : i] + change[i + 1 : i + 1 + WINDOW])
        # Ignore the largest neighbor, because two cuts can be close to each other.
        usual = sum(neighbors[:-1]) / len(neighbors[:-1]) if len(neighbors) > 1 else 0.0
        if jump >= LEAST_CHANGE and jump >= RATIO * usual:
            cuts.append(i)
    return cuts


def find_cuts(source: FrameSource, frames: int, report: Callable[[float], None] = lambda done: None) -> list[int]:
    """Return the frames (at 25 fps, increasing) among the first `frames` of `source` at which a new shot begins.

    Reads each frame once, in order. report: called with the fraction done; may raise to stop.
    """
    count = min(frames, source.length)

    def read() -> Iterable[Tensor]:
        for index in range(count):
            if index % 25 == 0:
                report(index / count)
            yield source.frame(index)

    return cuts_of(changes(read()))
