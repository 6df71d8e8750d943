"""Where one shot of a video ends and another begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch.nn.functional as F
from torch import Tensor

from .source import FrameSource

THUMBNAIL = (36, 64)
WINDOW = 12  # frames before and after which a change is measured against
# A cut changes the picture this much (mean absolute difference of 0 … 1) …
LEAST_CHANGE = 0.06
# … and this many times as much as the frames around it change: fast motion and shaking change all of them.
RATIO = 4.0


def thumbnail(frame: Tensor) -> Tensor:
    """(H, W, 3) → (3, 36, 64): small enough that noise and little movements vanish."""
    return F.interpolate(frame.permute(2, 0, 1)[None], THUMBNAIL, mode="area")[0]


def changes(frames: Iterable[Tensor]) -> list[float]:
    """How much each frame (H, W, 3) differs from the one before; the first is 0."""
    found: list[float] = []
    before = None
    for frame in frames:
        small = thumbnail(frame)
        found.append(0.0 if before is None else (small - before).abs().mean().item())
        before = small
    return found


def cuts_of(change: list[float]) -> list[int]:
    """Frames at which a new shot begins, from `changes`: a jump that stands out from its surroundings."""
    cuts = []
    for i, jump in enumerate(change):
        around = sorted(change[max(i - WINDOW, 1) : i] + change[i + 1 : i + 1 + WINDOW])
        # Ignore the highest neighbour: two cuts can be close to each other.
        usual = sum(around[:-1]) / len(around[:-1]) if len(around) > 1 else 0.0
        if jump >= LEAST_CHANGE and jump >= RATIO * usual:
            cuts.append(i)
    return cuts


def find_cuts(source: FrameSource, frames: int, report: Callable[[float], None] = lambda done: None) -> list[int]:
    """Frames (at 25 fps, rising) of the first `frames` of `source` at which a new shot begins.

    Reads each frame once, in order. `report` gets the fraction done and may raise to stop.
    """
    count = min(frames, source.length)

    def read() -> Iterable[Tensor]:
        for index in range(count):
            if index % 25 == 0:
                report(index / count)
            yield source.frame(index)

    return cuts_of(changes(read()))
