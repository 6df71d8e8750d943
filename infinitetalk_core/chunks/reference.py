"""Which source frame a chunk looks at for identity, background and camera. Whole numbers at 25 frames a second."""

from __future__ import annotations

import enum

from ..audio.windows import mirror
from .plan import Chunk


class Policy(enum.Enum):
    """How the reference frame is chosen."""

    STILL = "still"  # one picture for the whole video
    CHUNK_START = "chunk start"  # the source at the chunk's first moment (the paper's inference)


class AfterEnd(enum.Enum):
    """What the source shows after its end, when the speech is longer."""

    HOLD = "hold the last frame"
    PING_PONG = "play backwards, then forwards"
    LOOP = "start again"


def source_frame(frame: int, length: int, after_end: AfterEnd) -> int:
    """The source frame (0 … length−1, at 25 fps) that stands for output frame `frame`."""
    if after_end is AfterEnd.LOOP:
        return frame % length
    if after_end is AfterEnd.PING_PONG:
        return mirror(frame, length)
    return min(frame, length - 1)


def reference_frame(policy: Policy, chunk: Chunk, source_length: int, after_end: AfterEnd) -> int:
    """The source frame that `chunk` looks at."""
    if policy is Policy.STILL:
        return 0
    return source_frame(chunk.start, source_length, after_end)
