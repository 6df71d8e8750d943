"""Planning of groups of pictures: the stretches of the video that are encoded together, each from a key frame on.

A key frame is coded without its predecessors, so its errors differ from theirs: what stands still moves a little there.
Groups therefore begin inside a chunk, away from its join, or at a cut, where nothing of it can be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .plan import Chunk

GROUP_FRAMES = 100  # 4 s: what a player decodes at most to show a frame that it jumps to, give or take half a chunk
JOIN_MARGIN = 12  # least distance in frames between a join and a key frame, where chunks are long enough


@dataclass(frozen=True)
class Group:
    """Frames start … stop-1 of the video, encoded by one encoder."""

    index: int
    start: int
    stop: int

    def overlaps(self, start: int, stop: int) -> bool:
        """Return whether the group has any of the frames start … stop-1."""
        return start < self.stop and self.start < stop


def plan_groups(chunks: Sequence[Chunk]) -> list[Group]:
    """Cover the frames of the video that `chunks` make with groups of about GROUP_FRAMES frames."""
    starts = [0]
    for chunk in chunks:
        if chunk.context == 0 and chunk.first > 0:
            starts.append(chunk.first)
        margin = min(JOIN_MARGIN, chunk.keep // 2)
        while (wanted := starts[-1] + GROUP_FRAMES) < chunk.stop:
            starts.append(min(max(wanted, chunk.first + margin), chunk.stop - margin))
    return [Group(i, start, stop) for i, (start, stop) in enumerate(pairwise([*starts, chunks[-1].stop]))]
