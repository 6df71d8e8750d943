"""Planning of chunks: the frames that each chunk makes, as integers, computed before generation starts."""

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
    """One chunk of the video: frames start … start+length-1 of output and speech at 25 fps."""

    index: int
    start: int
    length: int  # 4n + 1
    context: int  # frames at its start that repeat the end of the previous chunk; 0 where a shot begins
    keep: int  # new frames written to the video: fewer than length - context only where a shot ends

    @property
    def latent_frames(self) -> int:
        """T, the number of latent frames of the chunk."""
        return latent_frames(self.length)

    @property
    def first(self) -> int:
        """The first new frame of the video that it makes."""
        return self.start + self.context

    @property
    def stop(self) -> int:
        """The frame of the video after its last new one."""
        return self.first + self.keep

    @property
    def new(self) -> slice:
        """The slice of this chunk's frames that is written to the video."""
        return slice(self.context, self.context + self.keep)


def chunk_seed(seed: int, chunk: Chunk) -> int:
    """Return the seed of a chunk's noise: job seed + chunk index, so that any chunk can be made again alone."""
    return (int(seed) + chunk.index) % SEEDS


def latent_frames(frames: int) -> int:
    """Return the number of latent frames of 4n+1 frames: one for the first, one for each further four."""
    return 1 + (frames - 1) // 4


def check_4n_plus_1(what: str, frames: int) -> None:
    """Raise InputError unless `frames` is 4n+1: the VAE would silently drop the rest. what: name for the message."""
    if frames < 1 or frames % 4 != 1:
        nearest = max(frames // 4 * 4 + 1, 1)
        raise InputError(f"{what} must be 4n+1 frames (1, 5, 9, 13 …), got {frames}; try {nearest} or {nearest + 4}")


def plan_chunks(
    total: int, length: int = CHUNK_FRAMES, context: int = CONTEXT_FRAMES, cuts: Sequence[int] = ()
) -> list[Chunk]:
    """Cover exactly `total` frames with chunks of `length`, each after the first repeating `context` frames.

    cuts: output frames, increasing, at which another shot begins. A chunk without context starts there, so no chunk
    continues from frames of another shot. Every chunk has the full length the model was trained on, even if the speech
    or the shot ends inside it: `keep` says how many new frames are written. Raises InputError for invalid counts.
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
