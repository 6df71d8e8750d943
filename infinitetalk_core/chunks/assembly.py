"""Encoding of the frames of a video, chunk by chunk, in groups of pictures that go to the video file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType

from av import VideoFrame

from ..video.format import VideoFormat
from ..video.segment import SegmentEncoder
from ..video.writer import VideoWriter
from .groups import Group


class Assembly:
    """Context manager that takes the frames of a video in order and appends complete groups to `writer`.

    If the block raises, the frames of the incomplete group are appended as well, as far as that works.

    stored: returns a group's segment if it was encoded before, else None; closed: called with each group and its new
    segment after that is appended.
    """

    def __init__(
        self,
        writer: VideoWriter,
        groups: Sequence[Group],
        video_format: VideoFormat,
        stored: Callable[[Group], bytes | None] = lambda group: None,
        closed: Callable[[Group, bytes], None] = lambda group, segment: None,
    ) -> None:
        self.writer, self._format, self._stored, self._closed = writer, video_format, stored, closed
        self._groups = list(groups)  # the ones not appended yet
        self._segments: dict[Group, bytes | None] = {}  # of groups that were looked for
        self._encoder: SegmentEncoder | None = None
        self._frames = 0

    def __enter__(self) -> Assembly:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._encoder is not None and self._encoder.frames:
            with contextlib.suppress(Exception):  # a failure of this must not hide the first exception
                self.writer.append(self._encoder.finish())

    def needs(self, count: int) -> bool:
        """Return whether any of the next `count` frames belongs to a group that is not stored."""
        return any(self._segment_of(group) is None for group in self._next_groups(count))

    def add(self, count: int, pictures: Sequence[VideoFrame]) -> None:
        """Add the next `count` frames. pictures: from `to_pictures`; not used unless `needs` them."""
        start, stop = self._frames, self._frames + count
        for group in self._next_groups(count):
            segment = self._segment_of(group)
            if segment is None:
                self._encoder = self._encoder or SegmentEncoder(
                    self._format.encoder, self._format.pixels, self._format.options
                )
                self._encoder.add(pictures[max(group.start - start, 0) : group.stop - start])
            if group.stop <= stop:
                self._close(group, segment)
        self._frames = stop

    def _next_groups(self, count: int) -> list[Group]:
        return [group for group in self._groups if group.overlaps(self._frames, self._frames + count)]

    def _segment_of(self, group: Group) -> bytes | None:
        if group not in self._segments:
            self._segments[group] = self._stored(group)
        return self._segments[group]

    def _close(self, group: Group, segment: bytes | None) -> None:
        self._groups.remove(group)
        self._segments.pop(group, None)
        if segment is not None:
            self.writer.append(segment)
            return
        assert self._encoder is not None
        encoder, self._encoder = self._encoder, None
        segment = encoder.finish()
        self.writer.append(segment)
        self._closed(group, segment)
