"""The tasks of a run: chunks and groups, identified by everything within the run that decides their result."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..chunks.groups import Group, plan_groups
from ..chunks.plan import Chunk
from ..chunks.redo import AfterRedo, ChunkOverride
from ..chunks.reference import PlannedChunk


@dataclass(frozen=True)
class ChunkTask:
    """A chunk to make.

    recipe: hash, equal for equal results within a run; before: the task it continues from, None where a shot begins.
    """

    planned: PlannedChunk
    recipe: str
    before: ChunkTask | None = field(compare=False, repr=False)  # its recipe is part of this one's

    @property
    def chunk(self) -> Chunk:
        """The chunk, without its reference and seed."""
        return self.planned.chunk

    @property
    def stem(self) -> str:
        """Name of the chunk's files without suffix; chunks count from 1."""
        return f"{self.chunk.index + 1:05}-{self.recipe}"


@dataclass(frozen=True)
class GroupTask:
    """A group of pictures to encode, with the tasks of the chunks that its frames come from."""

    group: Group
    tasks: tuple[ChunkTask, ...]

    @property
    def stem(self) -> str:
        """Name of the group's files without suffix; groups count from 1."""
        past = " ".join(task.recipe for task in self.tasks)
        recipe = hashlib.sha256(f"{self.group.start} {self.group.stop} {past}".encode()).hexdigest()[:10]
        return f"g{self.group.index + 1:05}-{recipe}"


def plan_group_tasks(tasks: Sequence[ChunkTask]) -> list[GroupTask]:
    """Return the groups of the whole video, in order."""
    starts = [task.chunk.first for task in tasks]
    return [
        GroupTask(group, tuple(tasks[bisect_right(starts, group.start) - 1 : bisect_left(starts, group.stop)]))
        for group in plan_groups([task.chunk for task in tasks])
    ]


def plan_tasks(
    plan: Sequence[PlannedChunk], overrides: Mapping[int, ChunkOverride], after_redo: AfterRedo
) -> list[ChunkTask]:
    """Return the tasks of the whole video, one per chunk.

    The recipe of a chunk includes that of the chunk it continues from, so redoing a chunk changes all later tasks of
    its shot; with `AfterRedo.KEEP` they and the recipes they continue from stay unchanged.
    """
    tasks: list[ChunkTask] = []
    plain_before: ChunkTask | None = None
    for planned in plan:
        plain = _make_task(planned, None, plain_before)
        before = tasks[-1] if tasks and after_redo is AfterRedo.CONTINUE else plain_before
        override = overrides.get(planned.chunk.index)
        same = override is None and before == plain_before
        tasks.append(plain if same else _make_task(planned, override, before))
        plain_before = plain
    return tasks


def _make_task(planned: PlannedChunk, override: ChunkOverride | None, before: ChunkTask | None) -> ChunkTask:
    before = before if planned.chunk.context else None
    past = "" if before is None else before.recipe
    how = "" if override is None else f"{override.seed} {override.frame}"
    recipe = hashlib.sha256(f"{planned.chunk.index} {how} {past}".encode()).hexdigest()[:10]
    return ChunkTask(planned if override is None else override.apply(planned), recipe, before)
