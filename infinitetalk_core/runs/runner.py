"""Execution of a run: joins stored chunks and makes missing ones, in the order of the video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

from av import VideoFrame
from torch import Tensor

from ..chunks.assembly import Assembly
from ..chunks.dub import ChunkOutput, Models, dub
from ..chunks.groups import Group
from ..chunks.job import Job
from ..chunks.lip_tries import LipsWarning, LipTries
from ..chunks.metrics import measure, measured_frames
from ..chunks.plan import Chunk
from ..chunks.read_ahead import ReadAhead, frames_to_read
from ..chunks.sizes import from_8_bits
from ..errors import RunError
from ..malloc_trim import trim_heap
from ..video.segment import decode_lossless, is_segment, to_pictures
from ..video.writer import VideoWriter
from .resume import missing_tasks
from .store import RunStore
from .tasks import ChunkTask, GroupTask, plan_group_tasks, plan_tasks
from .weights_on_gpu import WeightsCheck, weights_entry
from .worker import Worker


class ChunkListener(Protocol):
    """Callbacks of a run, all in its thread. An exception from one stops the run, which can be resumed."""

    def after_step(self, chunk: Chunk, step: int, denoised: Tensor) -> None:
        """Called after denoising step `step` (from 0).

        denoised: (1, 16, T, h, w), its estimate of the clean latents.
        """

    def chunk_made_again(self, tries: LipTries) -> None:
        """Called before a chunk is made once more for its lips, with its tries so far."""

    def chunk_made(self, finished: ChunkOutput, metrics: dict[str, Any]) -> None:
        """Called after a chunk was made, stored and joined, which happens while the next one is made.

        finished: of its frames, only the last one is left.
        """

    def chunk_joined(self, chunk: Chunk, metrics: dict[str, Any]) -> None:
        """Called after a stored chunk was joined."""

    def warn(self, text: str) -> None:
        """Called with a warning for the user."""


@dataclass(frozen=True)
class Run:
    """A job with the models that make its chunks and the store that keeps them."""

    job: Job
    models: Models
    store: RunStore

    @cached_property
    def whole(self) -> list[ChunkTask]:
        """The tasks of all chunks of the video, in order."""
        return plan_tasks(self.job.plan, self.job.overrides, self.job.redo.after)

    @property
    def tasks(self) -> list[ChunkTask]:
        """The tasks of the chunks that are to be made now: all, or the first one."""
        return self.whole[:1] if self.job.first_chunk_only else self.whole

    @property
    def variant(self) -> str:
        """Hash of the recipes of `tasks`. It tells apart videos of the same run key: with other chunks made again, or
        of the first chunk only.
        """
        return _hash_of(self.tasks)

    @property
    def whole_variant(self) -> str:
        """The variant of the whole video."""
        return _hash_of(self.whole)

    @property
    def chunks_kept(self) -> int:
        """Number of chunks of the whole video that need not be made when the run goes on."""
        return sum(self.store.has_record(task) for task in self.whole)

    def done(self, task: ChunkTask) -> bool:
        """Return whether a chunk need not be made: its frames are stored, or all groups that contain them."""
        return self.store.has_record(task) and (
            self.store.has_frames(task) or all(self.store.has_group(group) for group in self._groups_of[task.stem])
        )

    def stored_frames(self, task: ChunkTask) -> list[VideoFrame] | None:
        """Return the new frames of a finished chunk, from its own file or from its groups; None if some are missing.

        May be called from any thread while the run goes on.
        """
        if self.store.has_frames(task) and (own := self.store.pictures(task)) is not None:
            return own
        found: list[VideoFrame] = []
        for group in self._groups_of[task.stem]:
            segment = self.store.group(group)
            pictures = None if segment is None else decode_lossless(segment)
            if pictures is None:
                return None
            start = group.group.start
            found += pictures[max(task.chunk.first - start, 0) : task.chunk.stop - start]
        return found if len(found) == task.chunk.keep else None

    @cached_property
    def groups(self) -> list[GroupTask]:
        """The groups of pictures of the video, in order."""
        return plan_group_tasks(self.tasks)

    @cached_property
    def _groups_of(self) -> dict[str, list[GroupTask]]:
        """The groups that contain frames of a chunk, by its stem."""
        found: dict[str, list[GroupTask]] = {}
        for group in self.groups:
            for task in group.tasks:
                found.setdefault(task.stem, []).append(group)
        return found

    def execute(self, writer: VideoWriter, listener: ChunkListener, metrics: list[dict[str, Any]]) -> None:
        """Append every chunk to `writer`, making missing ones. Appends the metrics of each chunk to `metrics`."""
        groups = {task.group: task for task in self.groups}
        size = self.job.reference.height, self.job.reference.width

        def stored(group: Group) -> bytes | None:
            segment = self.store.group(groups[group])
            return segment if segment is not None and is_segment(segment, size, group.stop - group.start) else None

        def closed(group: Group, segment: bytes) -> None:
            self.store.put_group(groups[group], segment)

        check, lips = WeightsCheck(listener.warn), LipsWarning(listener.warn)
        with Assembly(writer, list(groups), self.job.output.format, stored, closed) as assembly:
            while len(metrics) < len(self.tasks):
                task = self.tasks[len(metrics)]
                pictures = self._stored_pictures(task, assembly)
                if pictures is None:
                    missing = missing_tasks(self.store, self.tasks, len(metrics), self.done)
                    self._make_chunks(missing, assembly, listener, metrics, check, lips)
                    continue
                assembly.add(task.chunk.keep, pictures)
                metrics.append(self.store.record(task))
                check.joined(metrics[-1])
                listener.chunk_joined(task.chunk, metrics[-1])

    def _stored_pictures(self, task: ChunkTask, assembly: Assembly) -> list[VideoFrame] | None:
        """Return the stored frames of the next chunk, none where its groups are stored; None if it must be made."""
        if not self.store.has_record(task):
            return None
        if not assembly.needs(task.chunk.keep):
            return []
        pictures = self.store.pictures(task)
        reference, video_format = self.job.reference, self.job.output.format
        expected = {(reference.width, reference.height, video_format.pixels)}
        same = pictures is not None and {(p.width, p.height, p.format.name) for p in pictures} == expected
        return pictures if same else None

    def _make_chunks(
        self,
        tasks: Sequence[ChunkTask],
        assembly: Assembly,
        listener: ChunkListener,
        metrics: list[dict[str, Any]],
        check: WeightsCheck,
        lips: LipsWarning,
    ) -> None:
        """Make `tasks`, each continuing from the one before it, and append those that come next in the video.

        The next chunk needs only the last frames of one, so a worker measures, encodes and stores that meanwhile.
        """
        context = None if tasks[0].before is None else self.store.context(tasks[0].before)
        before = None if context is None else context.frames[-1].clone()
        plan = [task.planned for task in tasks]
        remaining = iter(tasks)
        with Worker() as worker, ReadAhead.of(self.job.reference, worker.submit) as reference:
            job = replace(self.job, reference=reference)

            def after_step(chunk: Chunk, step: int, denoised: Tensor) -> None:
                if step == 0:  # from here to the end of the chunk, nothing else reads the source
                    reference.start(frames_to_read(job, plan, chunk))
                worker.check()
                listener.after_step(chunk, step, denoised)

            def made(chunk: ChunkOutput, entry: dict[str, Any] | None) -> None:
                if entry is not None:
                    listener.chunk_made(chunk, entry)

            def again(tries: LipTries) -> None:
                worker.check()
                listener.chunk_made_again(tries)

            started = time.monotonic()
            for finished in dub(job, self.models, after_step, context, plan, before_retry=again):
                task = next(remaining)
                reference.settle()
                if reference.source.changed():
                    raise RunError(
                        "the source file was changed while the video was being made from it; run again, which starts a "
                        "new video from the changed file"
                    )
                shown = {frame: reference.pixels(frame) for frame in measured_frames(job, task.chunk)}
                worker.join()
                assembly.writer.load_sound()
                seconds, started = time.monotonic() - started, time.monotonic()
                weights = weights_entry(self.models, task.chunk.index)
                check.made(weights)
                lips.made(finished.tries)
                noted = {**weights, "seconds_taken": round(seconds, 3)}
                last = finished.frames[-1].clone()
                brief = replace(finished, frames=last[None])
                keep = partial(self._keep, task, [finished], shown, before, noted, assembly, metrics)
                del finished  # only the worker has its frames now, and frees them before it encodes
                worker.start(keep, partial(made, brief))
                before = last

    def _keep(
        self,
        task: ChunkTask,
        finished: list[ChunkOutput],
        shown: Mapping[int, Tensor],
        before: Tensor | None,
        noted: dict[str, Any],
        assembly: Assembly,
        metrics: list[dict[str, Any]],
    ) -> dict[str, Any] | None:
        """Measure and store a finished chunk, and append it if it comes next in the video; return its metrics then.

        finished: the chunk alone, which is taken out of the list, so that nothing else keeps its frames; shown: the
        source frames to measure it with, as 8-bit numbers; before: the last frame before it; noted: further metrics.
        """
        chunk = finished.pop()
        entry = {
            **measure(self.job, chunk, before, lambda frame: from_8_bits(shown[frame])).to_json(),
            "reference_frames": list(chunk.reference_frames),
            "frames": len(chunk.frames),
            **noted,
        }
        pictures = to_pictures(chunk.frames, self.job.output.format)
        context = chunk.context if self._is_continued(task) else None
        del chunk
        self.store.commit(task, pictures, context, entry)
        joined = task == self.tasks[len(metrics)]
        if joined:
            assembly.add(len(pictures), pictures)
            metrics.append(entry)
        del pictures
        trim_heap()
        return entry if joined else None

    def _is_continued(self, task: ChunkTask) -> bool:
        """Return whether the next chunk continues from this one."""
        after = self.whole[task.chunk.index + 1 :]
        return bool(after) and after[0].chunk.context > 0


def _hash_of(tasks: Sequence[ChunkTask]) -> str:
    return hashlib.sha256(" ".join(task.recipe for task in tasks).encode()).hexdigest()[:10]
