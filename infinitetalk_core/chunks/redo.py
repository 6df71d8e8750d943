"""Overrides for chunks that are made again with another seed or another reference frame."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from .plan import SEEDS, chunk_seed
from .reference import PlannedChunk, ReferenceChoice


class AfterRedo(enum.Enum):
    """How to handle the chunks that follow one that is made again."""

    CONTINUE = "continue"  # make them again too, continuing from its last frames
    KEEP = "keep"  # keep them; the seam may be visible


@dataclass(frozen=True)
class Redo:
    """Chunks to make again. chunks: text such as `4=77, 9@1.2`, see `parse_redo`."""

    chunks: str = ""
    after: AfterRedo = AfterRedo.CONTINUE


@dataclass(frozen=True)
class ChunkOverride:
    """Changed settings of one chunk. seed: None for the job's own; frame: source frame, None for the planned one."""

    seed: int | None = None
    frame: int | None = None

    def apply(self, planned: PlannedChunk) -> PlannedChunk:
        """Return `planned` with this seed and this reference frame."""
        if self.seed is not None:
            planned = replace(planned, seed=chunk_seed(self.seed, planned.chunk))
        return planned if self.frame is None else replace(planned, choice=ReferenceChoice((self.frame,)))


def parse_redo(text: str, chunks: int, source_frames: int) -> dict[int, ChunkOverride]:
    """Parse text such as `4=77, 7=5@2.5, 9@1.2` to overrides by chunk index (from 0).

    The text counts chunks from 1: here chunk 4 gets seed 77, chunk 9 the source frame at 1.2 s, chunk 7 both. chunks:
    their number; source_frames: length of the source at 25 fps. Raises InputError in one sentence.
    """
    overrides: dict[int, ChunkOverride] = {}
    for word in text.replace(",", " ").split():
        rest, at, seconds = word.partition("@")
        number, equals, seed = rest.partition("=")
        try:
            chunk = int(number)
            override = ChunkOverride(
                int(seed) if equals else None,
                int(float(seconds) * FRAMES_PER_SECOND + 1e-6) if at else None,
            )
        except ValueError as error:
            raise InputError(
                f"{word!r} is no chunk to redo; write chunk=seed or chunk@seconds of the source, such as 4=77 or 4@2.5"
            ) from error
        if not 1 <= chunk <= chunks:
            raise InputError(f"there is no chunk {chunk} to redo: this video has chunks 1 to {chunks}")
        if override.seed is not None and not 0 <= override.seed < SEEDS:
            raise InputError(f"the seed of chunk {chunk} must be between 0 and 2^64 - 1, got {override.seed}")
        if override.frame is not None and not 0 <= override.frame < source_frames:
            end = source_frames / FRAMES_PER_SECOND
            raise InputError(f"chunk {chunk} cannot use the source at {seconds} s: it lasts {end:g} s from 0")
        if override == ChunkOverride():
            raise InputError(f"chunk {chunk} would come out as it is: give another seed, such as {chunk}=77")
        overrides[chunk - 1] = override
    return overrides
