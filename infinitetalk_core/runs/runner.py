"""Carrying a run out: what is finished is joined, what is missing is made, in the order of the video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from ..chunks.dub import ChunkOutput, Models, dub
from ..chunks.job import Job
from ..chunks.plan import Chunk
from ..errors import InputError
from ..malloc_trim import trim_heap
from ..metrics.chunk import measure
from ..video.segment import encode_segment
from ..video.writer import VideoWriter
from .store import RunStore
from .tasks import ChunkTask, plan_tasks


class Watcher(Protocol):
    """Who is told how a run goes on. What it raises stops the run, which can be resumed."""

    def after_step(self, chunk: Chunk, step: int, clean: Tensor) -> None:
        """A step (from 0) of denoising is done; `clean` (1, 16, T, h, w) is its estimate."""

    def chunk_made(self, finished: ChunkOutput, numbers: dict[str, Any]) -> None:
        """A chunk was made, kept and joined."""

    def chunk_joined(self, chunk: Chunk, numbers: dict[str, Any]) -> None:
        """A chunk that had been made before was joined."""


@dataclass(frozen=True)
class Run:
    """A job, how to make its chunks, and where they are kept."""

    job: Job
    models: Models
    store: RunStore

    @cached_property
    def steps(self) -> list[ChunkTask]:
        """The video, in order."""
        return plan_tasks(self.job.plan, self.job.overrides, self.job.redo.after)

    @property
    def variant(self) -> str:
        """Equal for runs of the same key that give the same video: those in which the same chunks are made again."""
        return hashlib.sha256(" ".join(step.recipe for step in self.steps).encode()).hexdigest()[:10]

    def carry_out(self, writer: VideoWriter, watcher: Watcher, numbers: list[dict[str, Any]]) -> None:
        """Join every chunk to `writer`, making those that are missing; `numbers` gets one entry for each."""
        while len(numbers) < len(self.steps):
            step = self.steps[len(numbers)]
            segment = self.store.segment(step)
            if segment is None:
                self._make(missing(self.store, self.steps, len(numbers)), writer, watcher, numbers)
                continue
            writer.append(segment)
            numbers.append(self.store.record(step))
            watcher.chunk_joined(step.chunk, numbers[-1])

    def _make(
        self, steps: Sequence[ChunkTask], writer: VideoWriter, watcher: Watcher, numbers: list[dict[str, Any]]
    ) -> None:
        """Make `steps`, each continuing from the one before it, and join those that come next in the video."""
        tail = None if steps[0].before is None else self.store.tail(steps[0].before)
        before = None if tail is None else tail.frames[-1].clone()
        job = self.job
        coming = iter(steps)
        began = time.monotonic()
        for finished in dub(job, self.models, watcher.after_step, tail, [step.planned for step in steps]):
            step = next(coming)
            if job.reference.source.changed():
                raise InputError(
                    "the source file was changed while the video was being made from it; run again, which starts a new "
                    "video from the changed file"
                )
            entry = {
                **measure(job, finished, before).to_json(),
                "reference_frames": list(finished.reference_frames),
                "frames": len(finished.frames),
            }
            segment = encode_segment(finished.frames, job.output.format)
            entry["seconds_taken"] = round(time.monotonic() - began, 3)
            self.store.commit(step, segment, finished.tail if self._goes_on(step) else None, entry)
            if step == self.steps[len(numbers)]:
                writer.append(segment)
                numbers.append(entry)
                watcher.chunk_made(finished, entry)
            before = finished.frames[-1].clone()
            began = time.monotonic()
            del finished  # its memory is the next chunk's
            trim_heap()

    def _goes_on(self, step: ChunkTask) -> bool:
        """Whether another chunk continues from this one."""
        after = self.steps[step.chunk.index + 1 :]
        return bool(after) and after[0].chunk.context > 0


def missing(store: RunStore, steps: Sequence[ChunkTask], position: int) -> list[ChunkTask]:
    """What to make, one after the other, so that the video goes on at `position`.

    Back to where a shot begins or a tail is there, then on as far as chunks are missing.
    """
    chain = [steps[position]]
    while (before := chain[-1].before) is not None and store.tail(before) is None:
        chain.append(before)
    chain.reverse()
    for step in islice(steps, position + 1, None):
        if store.done(step) or (step.before is not None and step.before != chain[-1]):
            break
        chain.append(step)
    return chain


def first_missing(store: RunStore, steps: Sequence[ChunkTask]) -> int:
    """The position of the first chunk that is not finished; their number if all are."""
    return next((i for i, step in enumerate(steps) if not store.done(step)), len(steps))
