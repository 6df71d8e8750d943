"""Context frames: the overlap of two chunks. The last frames of a chunk are the first of the next, which keeps motion.

How many there are in each chunk is planned in plan.py; dub.py encodes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .plan import Chunk


@dataclass(frozen=True)
class ContextFrames:
    """Motion context for the next chunk (paper 3.3; `motion_frame` in the reference)."""

    frames: Tensor  # (M, H, W, 3): the last M = 4(t_c - 1) + 1 frames, as written to the video
    index: int  # output frame number of the first of them

    @classmethod
    def at_end(cls, frames: Tensor, chunk: Chunk, count: int) -> ContextFrames:
        """Copy the last `count` of the frames (F, H, W, 3) of `chunk`, so that the others can be freed."""
        return cls(frames[-count:].clone(), chunk.start + chunk.length - count)
