"""What a run consists of: one step a chunk, named by everything that decides how it comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..chunks.plan import Chunk
from ..chunks.redo import AfterRedo, ChunkOverride
from ..chunks.reference import PlannedChunk


@dataclass(frozen=True)
class ChunkTask:
    """A chunk to make. `recipe` is equal for equal results within a run; `before` is the step that it continues from,
    None where a shot begins."""

    planned: PlannedChunk
    recipe: str
    before: ChunkTask | None = field(compare=False, repr=False)  # its recipe is part of this one's

    @property
    def chunk(self) -> Chunk:
        """Its place in the video."""
        return self.planned.chunk

    @property
    def stem(self) -> str:
        """What its files are called: chunks count from 1."""
        return f"{self.chunk.index + 1:05}-{self.recipe}"


def plan_tasks(
    plan: Sequence[PlannedChunk], overrides: Mapping[int, ChunkOverride], after_redo: AfterRedo
) -> list[ChunkTask]:
    """The steps of the whole video.

    A chunk that continues from another one is another chunk, so one that is made again changes all that follow in its
    shot; with `AfterRedo.KEEP` they stay what they were, and so does their past.
    """
    steps: list[ChunkTask] = []
    plain_before: ChunkTask | None = None
    for planned in plan:
        plain = _step(planned, None, plain_before)
        before = steps[-1] if steps and after_redo is AfterRedo.CONTINUE else plain_before
        override = overrides.get(planned.chunk.index)
        same = override is None and before == plain_before
        steps.append(plain if same else _step(planned, override, before))
        plain_before = plain
    return steps


def _step(planned: PlannedChunk, override: ChunkOverride | None, before: ChunkTask | None) -> ChunkTask:
    before = before if planned.chunk.context else None
    past = "" if before is None else before.recipe
    how = "" if override is None else f"{override.seed} {override.frame}"
    recipe = hashlib.sha256(f"{planned.chunk.index} {how} {past}".encode()).hexdigest()[:10]
    return ChunkTask(planned if override is None else override.apply(planned), recipe, before)
