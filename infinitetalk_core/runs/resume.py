"""Where an interrupted run continues: which of its chunks are made again, and from which stored context frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from .store import RunStore
from .tasks import ChunkTask


def missing_tasks(store: RunStore, tasks: Sequence[ChunkTask], position: int) -> list[ChunkTask]:
    """Return the consecutive tasks to make so that the video can continue at `position`.

    Starts at the nearest earlier chunk that begins a shot or whose predecessor has stored context frames, and ends
    before the next finished chunk.
    """
    chain = [tasks[position]]
    while (before := chain[-1].before) is not None and store.context(before) is None:
        chain.append(before)
    chain.reverse()
    for task in islice(tasks, position + 1, None):
        if store.done(task) or (task.before is not None and task.before != chain[-1]):
            break
        chain.append(task)
    return chain


def first_missing(store: RunStore, tasks: Sequence[ChunkTask]) -> int:
    """Return the index of the first unfinished chunk, or the number of chunks if all are finished."""
    return next((i for i, task in enumerate(tasks) if not store.done(task)), len(tasks))
