"""Where an interrupted run continues: which of its chunks are made again, and from which stored context frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from .store import RunStore
from .tasks import ChunkTask


def missing_tasks(
    store: RunStore, tasks: Sequence[ChunkTask], position: int, done: Callable[[ChunkTask], bool]
) -> list[ChunkTask]:
    """Return the consecutive tasks to make so that the video can continue at `position`.

    Starts at the nearest earlier chunk that begins a shot or whose predecessor has stored context frames, and ends
    before the next finished chunk. done: whether a chunk need not be made.
    """
    chain = [tasks[position]]
    while (before := chain[-1].before) is not None and store.context(before) is None:
        chain.append(before)
    chain.reverse()
    for task in islice(tasks, position + 1, None):
        if done(task) or (task.before is not None and task.before != chain[-1]):
            break
        chain.append(task)
    return chain
