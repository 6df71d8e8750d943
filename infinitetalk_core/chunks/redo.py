"""Overrides for chunks that are made again with another seed or another reference frame."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ..errors import InputError
from ..number_lists import number_in, shortened, whole_number_in, words_in
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
            planned = replace(planned, seed=chunk_seed(self.seed, planned.chunk), seed_given=True)
        return planned if self.frame is None else replace(planned, choice=ReferenceChoice((self.frame,)))


def parse_redo(text: str, chunks: int, source_frames: int) -> dict[int, ChunkOverride]:
    """Parse text such as `4=77, 7=5@2.5, 9@1.2` to overrides by chunk index (from 0).

    The text counts chunks from 1: here chunk 4 gets seed 77, chunk 9 the source frame at 1.2 s, chunk 7 both. chunks:
    their number; source_frames: length of the source at 25 fps. Raises InputError in one sentence.
    """
    overrides: dict[int, ChunkOverride] = {}
    for word in words_in(text):
        rest, at, seconds_text = word.partition("@")
        number, equals, seed_text = rest.partition("=")
        chunk, seed, seconds = whole_number_in(number), whole_number_in(seed_text), number_in(seconds_text)
        if chunk is None or (equals and seed is None) or (at and seconds is None):
            raise InputError(
                f"{shortened(word)!r} is no chunk to redo; write chunk=seed or chunk@seconds of the source, such as "
                "4=77 or 4@2.5"
            )
        if not 1 <= chunk <= chunks:
            raise InputError(f"there is no chunk {chunk} to redo: this video has chunks 1 to {chunks}")
        if seed is not None and not 0 <= seed < SEEDS:
            raise InputError(f"the seed of chunk {chunk} must be between 0 and 2^64 - 1, got {seed}")
        frame, end = None, source_frames / FRAMES_PER_SECOND
        if seconds is not None:
            frame = int(min(seconds, end) * FRAMES_PER_SECOND + 1e-6)  # 1e-6 against rounding down
            if seconds < 0 or frame >= source_frames:
                raise InputError(f"chunk {chunk} cannot use the source at {seconds:g} s: it lasts {end:g} s from 0")
        if seed is None and seconds is None:
            raise InputError(f"chunk {chunk} would come out as it is: give another seed, such as {chunk}=77")
        if chunk - 1 in overrides:
            raise InputError(f"chunk {chunk} is to be redone twice: write both in one word, such as {chunk}=77@2.5")
        overrides[chunk - 1] = ChunkOverride(seed, frame)
    return overrides
