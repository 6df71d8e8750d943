"""What a run consists of: one step a chunk, named by everything that decides how it comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..chunks.plan import Chunk
from ..chunks.takes import Following, Take


@dataclass(frozen=True)
class Step:
    """A chunk to make. `recipe` is equal for equal results within a run; `before` is the step that it continues from,
    None where a shot begins."""

    chunk: Chunk
    take: Take | None
    recipe: str
    before: Step | None = field(compare=False, repr=False)  # its recipe is part of this one's

    @property
    def stem(self) -> str:
        """What its files are called: chunks count from 1."""
        return f"{self.chunk.index + 1:05}-{self.recipe}"


def plan_steps(plan: Sequence[Chunk], takes: Mapping[int, Take], following: Following) -> list[Step]:
    """The steps of the whole video.

    A chunk that continues from another one is another chunk, so a take changes all that follow in its shot; with
    `Following.KEEP` they stay what they were, and so does their past.
    """
    steps: list[Step] = []
    plain_before: Step | None = None
    for chunk in plan:
        plain = _step(chunk, None, plain_before)
        before = steps[-1] if steps and following is Following.CONTINUE else plain_before
        take = takes.get(chunk.index)
        steps.append(plain if take is None and before == plain_before else _step(chunk, take, before))
        plain_before = plain
    return steps


def _step(chunk: Chunk, take: Take | None, before: Step | None) -> Step:
    before = before if chunk.context else None
    past = "" if before is None else before.recipe
    how = "" if take is None else f"{take.seed} {take.frame}"
    recipe = hashlib.sha256(f"{chunk.index} {how} {past}".encode()).hexdigest()[:10]
    return Step(chunk, take, recipe, before)
