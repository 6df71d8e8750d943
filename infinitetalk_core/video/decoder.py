"""Decoding of one video stream forward from any keyframe. Handles all irregularities of containers."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import av

from ..errors import InputError
from ..log import log
from .pixels import Pose, pose_of

COPY_AGAIN = "copy it here again, or save it as MP4"

_HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}  # by AVColorTransferCharacteristic


class Decoder:
    """Decodes the first video stream of an open file in display order. Times are in units of `time_base` seconds.

    first_time: start of the first frame; end_time: end of the last one; pose: orientation and size of the shown frames.
    Raises InputError, in one sentence, if the file cannot be opened or nothing in it can be decoded.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._open()
        try:
            first = next(self.frames(), None)
            if first is None:
                raise InputError(
                    f"{name} has a video track, but no picture in it can be decoded: the file is damaged or "
                    f"incomplete; {COPY_AGAIN}"
                )
            self.first_time, frame = first
            self._has_times = frame.pts is not None or frame.dts is not None
            self.pose: Pose = pose_of(frame, self._stream.sample_aspect_ratio)
            self._warn_if_hdr()
            self.end_time = max(self._find_end(), self.first_time + 1)
            self.rewind()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._file.seek(0)
        try:
            self._container = av.open(self._file, mode="r", metadata_errors="replace")
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self._name} cannot be opened as a video ({error.strerror}): it is damaged, cut off or of another "
                f"kind; {COPY_AGAIN}"
            ) from error
        tracks = self._container.streams
        videos = [s for s in tracks.video if not s.disposition & s.disposition.attached_pic]
        if not videos:
            kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in tracks})
            self._container.close()
            raise InputError(
                f"{self._name} has no video in it, only {' and '.join(kinds) or 'nothing'}: choose a video file"
            )
        known = [s for s in videos if s.codec_context is not None]
        if not known:
            self._container.close()
            raise InputError(
                f"{self._name} is a video of a kind that this Python environment's FFmpeg cannot decode: convert it to "
                "H.264 first"
            )
        self._stream = known[0]
        self._stream.thread_type = "AUTO"
        self.time_base = Fraction(self._stream.time_base or Fraction(1, 25))
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self._frame_ticks = max(round(1 / (rate * self.time_base)), 1)

    def _warn_if_hdr(self) -> None:
        curve = _HIGH_DYNAMIC_RANGE.get(int(self._stream.codec_context.color_trc or 0))
        if curve is not None:
            log.warning(
                "%s is filmed in high dynamic range (%s) and read as it is stored, which looks pale: convert it to "
                "standard range (SDR, BT.709) first if that matters",
                self._name,
                curve,
            )

    def close(self) -> None:
        self._container.close()

    def rewind(self) -> None:
        """Go back to the first frame. Reopens the file, which also works if it cannot seek."""
        self._container.close()
        self._open()

    def seek(self, time: int) -> bool:
        """Seek to a keyframe that should lie at or before `time`. Returns False if this file cannot seek."""
        if not self._has_times:
            return False
        try:
            self._container.seek(time, stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (time, frame) from here to the end, times increasing. Skips damaged parts with a warning."""
        last: int | None = None
        for frame in self._decoded():
            time = frame.pts if frame.pts is not None else frame.dts
            if time is None or (last is not None and time <= last):
                time = 0 if last is None else last + self._frame_ticks  # raw streams carry no times
            last = time
            yield time, frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        warned = False
        for packet in self._packets():
            try:
                yield from packet.decode()
            except (av.error.FFmpegError, OSError) as error:
                if isinstance(error, EOFError):
                    return
                if not warned:
                    log.warning("%s is damaged in places (%s): the picture before stays on there", self._name, error)
                warned = True

    def _packets(self) -> Iterator[av.Packet]:
        """Yield packets up to the end of what can be read, then the empty one that flushes the decoder."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                log.warning("%s ends early (%s): the last picture stays on from there", self._name, error)
                drain = av.Packet()
                drain.stream = self._stream
                yield drain
                return
            if packet is None:
                return
            yield packet

    def _find_end(self) -> int:
        """Return the end time of the last frame, from its packets, because declared durations are often wrong."""
        declared = self._declared_end()
        if declared is not None and self.seek(declared):
            end = self._last_packet_end()
            if end is not None:
                return end
        # No declared end, no seeking, or a file that stops before its declared end: read all packets once.
        self.rewind()
        end = self._last_packet_end()
        return self.first_time if end is None else end

    def _declared_end(self) -> int | None:
        if self._stream.duration:
            return self._stream.duration + (self._stream.start_time or 0)
        if self._container.duration:  # in microseconds
            seconds = Fraction(self._container.duration + (self._container.start_time or 0), 1_000_000)
            return int(seconds / self.time_base)
        return None

    def _last_packet_end(self) -> int | None:
        """Return the latest end time of the packets from here on; None if there are none."""
        end: int | None = None
        count = 0
        for packet in self._packets():
            if not packet.size or packet.is_discard:
                continue
            count += 1
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                # Some muxers omit the last duration or write one tick.
                lasts = packet.duration or 0
                end = max(end or time, time + (lasts if 2 * lasts >= self._frame_ticks else self._frame_ticks))
        if end is None and count:
            end = self.first_time + count * self._frame_ticks
        return end
