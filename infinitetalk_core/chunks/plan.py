"""The plan: which frames each chunk makes, in whole numbers, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import InputError

CHUNK_FRAMES = 81
CONTEXT_FRAMES = 9
SEEDS = 2**64


@dataclass(frozen=True)
class Chunk:
    """One chunk of the video: frames start … start+length−1 of the output at 25 fps, and of the speech."""

    index: int
    start: int
    length: int  # 4n + 1
    context: int  # frames at its start that repeat the end of the chunk before; 0 where a shot begins
    keep: int  # new frames that go into the video: less than length − context only where a shot ends

    @property
    def latent_frames(self) -> int:
        """T, the latent frames of the chunk."""
        return latent_frames(self.length)

    @property
    def new(self) -> slice:
        """The frames of this chunk that are written."""
        return slice(self.context, self.context + self.keep)


def chunk_seed(seed: int, chunk: Chunk) -> int:
    """The seed of a chunk's noise: the job's plus the chunk's index, so that any chunk can be made again alone."""
    return (int(seed) + chunk.index) % SEEDS


def latent_frames(frames: int) -> int:
    """Latent frames of a video of 4n+1 frames: the first stands alone, then four share one."""
    return 1 + (frames - 1) // 4


def check_4n_plus_1(what: str, frames: int) -> None:
    """Refuse frame counts that the VAE would silently shorten."""
    if frames < 1 or frames % 4 != 1:
        nearest = max(frames // 4 * 4 + 1, 1)
        raise InputError(f"{what} must be 4n+1 frames (1, 5, 9, 13 …), got {frames}; try {nearest} or {nearest + 4}")


def plan_chunks(
    total: int, length: int = CHUNK_FRAMES, context: int = CONTEXT_FRAMES, cuts: Sequence[int] = ()
) -> list[Chunk]:
    """Cover exactly `total` frames with chunks of `length`, each after the first repeating `context` frames.

    cuts: output frames, rising, at which another shot begins. The plan starts afresh there, so no chunk continues
    from frames of another shot. Every chunk has the full length the model was trained on, also when the speech or
    the shot ends inside it: what is too much is not kept (`keep`).
    """
    check_4n_plus_1("chunk length", length)
    check_4n_plus_1("context frames", context)
    if context >= length:
        raise InputError(
            f"context frames ({context}) must be fewer than the chunk length ({length}); 9 of 81 is the usual choice"
        )
    if total < 1:
        raise InputError(f"there must be at least one frame to make, got {total}; is the sound empty?")
    chunks: list[Chunk] = []
    for first, end in pairwise([0, *(cut for cut in cuts if 0 < cut < total), total]):
        chunks.append(Chunk(len(chunks), first, length, 0, min(length, end - first)))
        while chunks[-1].start + length < end:
            start = chunks[-1].start + length - context
            keep = min(length - context, end - start - context)
            chunks.append(Chunk(len(chunks), start, length, context, keep))
    return chunks
