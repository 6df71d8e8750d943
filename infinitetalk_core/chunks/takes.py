"""Chunks made again: another seed or another reference for some of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .conditioning import seeded_noise
from .dub import Job
from .plan import Chunk
from .reference import Pick


class Following(enum.Enum):
    """What becomes of the chunks after one that is made again."""

    CONTINUE = "continue"  # they are made again too, from its last frames
    KEEP = "keep"  # they stay as they are; the join may show


@dataclass(frozen=True)
class Take:
    """How a chunk is made again. seed: None for the run's own; frame: of the source, None for the planned one."""

    seed: int | None = None
    frame: int | None = None


def parse_takes(text: str, chunks: int, source_frames: int) -> dict[int, Take]:
    """`4=77, 7=5@2.5, 9@1.2` → takes by chunk index: chunk 4 with seed 77, chunk 9 with the source at 1.2 s.

    chunks: how many there are, counted from 1. Raises InputError in one sentence.
    """
    takes: dict[int, Take] = {}
    for word in text.replace(",", " ").split():
        rest, at, seconds = word.partition("@")
        number, equals, seed = rest.partition("=")
        try:
            chunk = int(number)
            take = Take(
                int(seed) if equals else None,
                int(float(seconds) * FRAMES_PER_SECOND + 1e-6) if at else None,
            )
        except ValueError as error:
            raise InputError(
                f"{word!r} is no chunk to redo; write chunk=seed or chunk@seconds of the source, such as 4=77 or 4@2.5"
            ) from error
        if not 1 <= chunk <= chunks:
            raise InputError(f"there is no chunk {chunk} to redo: this video has chunks 1 to {chunks}")
        if take.seed is not None and not 0 <= take.seed < 2**64:
            raise InputError(f"the seed of chunk {chunk} must be between 0 and 2^64 - 1, got {take.seed}")
        if take.frame is not None and not 0 <= take.frame < source_frames:
            end = source_frames / FRAMES_PER_SECOND
            raise InputError(f"chunk {chunk} cannot look at {seconds} s: the source lasts {end:g} s from 0")
        if take == Take():
            raise InputError(f"chunk {chunk} would come out as it is: give another seed, such as {chunk}=77")
        takes[chunk - 1] = take
    return takes


def take_seed(seed: int, take: Take | None) -> int:
    """The seed that counts for a chunk, to which its index is added."""
    return seed if take is None or take.seed is None else take.seed


def with_takes(job: Job, takes: Mapping[int, Take], plan: Sequence[Chunk]) -> Job:
    """`job` for the chunks of `plan`, with the noise and the references of `takes`."""
    picks = list(job.picks)
    for index, take in takes.items():
        if take.frame is not None:
            picks[index] = Pick((take.frame,))

    def noise(chunk: Chunk, shape: tuple[int, ...]) -> Tensor:
        take = takes.get(chunk.index)
        draw = job.noise if take is None or take.seed is None else seeded_noise(take.seed)
        return draw(chunk, shape)

    return replace(job, plan=plan, picks=picks, noise=noise)
