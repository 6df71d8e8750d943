"""Reading of the source ahead of its use: while a chunk is made, the pictures for the next are decoded and fitted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, fields
from itertools import pairwise
from types import TracebackType

from torch import Tensor

from .camera_control import FilmedGuide
from .job import Job, Reference
from .metrics import measured_frames
from .plan import Chunk
from .reference import PlannedChunk, Policy, shown_frames, source_frame

Submit = Callable[[Callable[[], None]], "Future[None]"]


@dataclass(frozen=True)
class ReadAhead(Reference):
    """A `Reference` whose pictures can be read in another thread before they are needed. A context manager.

    submit: runs a function in that thread and returns its future. A decoder is not made for two threads: whatever reads
    through this object first waits until that thread has read. An exception there is raised where a picture that was
    not read for it is needed. Memory: 8-bit pictures, at most those of a chunk and its measured ones (110 MB for 81
    frames of 832 x 480).
    """

    submit: Submit = field(kw_only=True)
    _kept: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    _batch: list[Future[None]] = field(default_factory=list, init=False, repr=False)  # the last one, if any
    _left: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @classmethod
    def of(cls, reference: Reference, submit: Submit) -> ReadAhead:
        """Return `reference` with this ability."""
        return cls(**{each.name: getattr(reference, each.name) for each in fields(Reference)}, submit=submit)

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self.settle()
        self._kept.clear()

    def start(self, frames: Sequence[int]) -> None:
        """Read source `frames` in the other thread, in this order, and give up those that are not among them.

        Raises the exception of the reading before: after one, a decoder would go on with another picture.
        """
        self.settle()
        self._raise()
        self._batch.clear()
        for frame in set(self._kept) - set(frames):
            del self._kept[frame]
        missing = [frame for frame in frames if frame not in self._kept]
        if missing:
            self._batch.append(self.submit(lambda: self._read(missing)))

    def _read(self, frames: Sequence[int]) -> None:
        for frame in frames:
            if self._left.is_set():
                return
            self._kept[frame] = super().pixels(frame)

    def settle(self) -> None:
        """Wait until the other thread does not read."""
        wait(self._batch)

    def pixels(self, frame: int) -> Tensor:
        """Read source frame `frame` at the video's size as 8-bit numbers: (height, width, 3)."""
        self.settle()
        if frame not in self._kept:
            self._raise()
            return super().pixels(frame)
        return self._kept[frame]

    def _raise(self) -> None:
        for batch in self._batch:
            batch.result()


def frames_to_read(job: Job, plan: Sequence[PlannedChunk], chunk: Chunk) -> list[int]:
    """Return the source frames that are needed between the beginning of the sampling of `chunk` and that of the next
    chunk of `plan`: in the order of the source, so that a file is read forward."""
    found = set(measured_frames(job, chunk))
    for planned, after in pairwise(plan):
        if planned.chunk == chunk:
            found |= _frames_of(job, after, planned)
    return sorted(found)


def _frames_of(job: Job, planned: PlannedChunk, before: PlannedChunk) -> set[int]:
    """Return the source frames from which a chunk is made, without a reference that is that of the chunk before."""
    chunk, choice, reference = planned.chunk, planned.choice, job.reference
    length, after_end = reference.source.length, reference.settings.after_end
    guide = job.camera_guide
    if (
        job.sampling.pinned is not None
        or job.sampling.strength(chunk) < 1
        or (isinstance(guide, FilmedGuide) and guide.source is reference.source)
    ):
        found = set(shown_frames(chunk, length, after_end))
    else:
        found = set()
    if chunk.context == 0 and reference.settings.policy is not Policy.STILL:
        found.add(source_frame(chunk.start, length, after_end))
    if (choice.previous and chunk.context) or (choice == before.choice and len(choice.frames) == 1):
        return found
    return found | set(choice.frames) | ({choice.last} if choice.last is not None else set())
