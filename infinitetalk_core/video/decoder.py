"""Decoding of one video stream forward from any keyframe. Handles all irregularities of containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import BinaryIO, Protocol

import av

from ..errors import InputError
from ..log import log
from ..media_file import MOST_PIXELS, Container
from .heif import refuse_tiles
from .pixels import Pose, pose_of

COPY_AGAIN = "copy it here again, or save it as MP4"
LONGEST_SECONDS = 360_000  # 100 hours, as in the Video Frames node; more comes from broken times

_HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}  # by AVColorTransferCharacteristic
_LAST_SECONDS = 5  # read again to find the end: times near it are not in order
_NO_DISPLAY_TIMES = ("avi",)  # containers with decoding times only


class FrameDecoder(Protocol):
    """What decodes the frames of a video in display order. Times are in units of `time_base` seconds.

    first_time: start of the first frame; end_time: end of the last one; pose: orientation and size of the shown frames;
    notes: sentences on what looks different from what a player shows.
    """

    notes: tuple[str, ...]
    first_time: int
    end_time: int
    time_base: Fraction
    pose: Pose

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (time, frame) from here to the end, times increasing."""
        ...

    def seek(self, time: int) -> bool:
        """Seek to a frame that should lie at or before `time`. Returns False if this file cannot seek."""
        ...

    def rewind(self) -> None:
        """Go back to the first frame."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class Decoder:
    """A `FrameDecoder` of any video file: of the stream that a player would show.

    check_interrupted: called while reading and decoding; an exception from it stops any method.
    Raises InputError, in one sentence, if the file cannot be opened or nothing in it can be decoded.
    """

    def __init__(self, file: BinaryIO, name: str, check_interrupted: Callable[[], None] = lambda: None) -> None:
        self._file, self._name, self._check = file, name, check_interrupted
        refuse_tiles(file, name)
        self._open()
        try:
            frame = next(self._container.frames(self._stream), None)
            if not isinstance(frame, av.VideoFrame):
                raise InputError(
                    f"{name} has a video track, but no picture in it can be decoded: the file is damaged or "
                    f"incomplete; {COPY_AGAIN}"
                )
            time = self._time_of(frame)
            self.first_time = time or 0
            self._has_times = time is not None
            self.pose: Pose = pose_of(frame, self._stream.sample_aspect_ratio)
            self._check_size(*self.pose.shown_size)
            self.notes = tuple(self._surprises(frame))
            for note in self.notes:
                log.warning("%s", note)
            self.end_time = max(self._find_end(), self.first_time + 1)
            if (self.end_time - self.first_time) * self.time_base > LONGEST_SECONDS:
                raise InputError(
                    f"{name} lasts {float((self.end_time - self.first_time) * self.time_base) / 3600:.0f} hours by its "
                    f"own times, which are broken: {COPY_AGAIN}"
                )
            self._container.warn_if_short(self._stream, float((self.end_time - self.first_time) * self.time_base))
            self.rewind()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._container = Container(self._file, self._name, "a video", COPY_AGAIN, self._check)
        try:
            self._stream = self._best_stream()
        except BaseException:
            self.close()
            raise
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        self.time_base = Fraction(self._stream.time_base or Fraction(1, 25))
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self._frame_ticks = max(round(1 / (rate * self.time_base)), 1)
        self._by_dts = any(name in _NO_DISPLAY_TIMES for name in self._container.av.format.name.split(","))

    def _best_stream(self) -> av.VideoStream:
        """Return the stream that a player would show: no cover, marked as default, the largest."""
        tracks = self._container.av.streams
        videos = [s for s in tracks.video if not s.disposition & s.disposition.attached_pic]
        if not videos:
            kinds = sorted({"a cover picture" if s.type == "video" else s.type for s in tracks})
            raise InputError(
                f"{self._name} has no video in it, only {' and '.join(kinds) or 'nothing'}: choose a video file"
            )
        known = [s for s in videos if s.codec_context is not None]
        if not known:
            raise InputError(
                f"{self._name} is a video of a kind that this Python environment's FFmpeg cannot decode: convert it to "
                "H.264 first"
            )
        best = max(known, key=lambda s: (not _is_still(s), bool(s.disposition & s.disposition.default), _pixels(s)))
        self._check_size(best.codec_context.height, best.codec_context.width)
        return best

    def _check_size(self, height: int, width: int) -> None:
        if height * width > MOST_PIXELS:
            raise InputError(
                f"{self._name} has pictures of {width} x {height}, more than the {MOST_PIXELS / 1e6:.0f} million "
                "pixels that are read: save it in a smaller size"
            )

    def _surprises(self, frame: av.VideoFrame) -> Iterator[str]:
        """Yield what looks different here from what a player shows, in sentences."""
        curve = _HIGH_DYNAMIC_RANGE.get(int(self._stream.codec_context.color_trc or 0))
        if curve is not None:
            yield (
                f"{self._name} is filmed in high dynamic range ({curve}) and read as it is stored, which looks pale: "
                "convert it to standard range (SDR, BT.709) first if that matters"
            )
        if frame.interlaced_frame:
            yield (
                f"{self._name} is interlaced and read as it is stored, which shows combs where something moves: "
                "deinterlace it first if that matters"
            )

    def close(self) -> None:
        """Release the container, not the file."""
        self._container.close()

    def rewind(self) -> None:
        """Go back to the first frame. Reopens the file, which also works if it cannot seek."""
        self._container.close()
        self._open()

    def seek(self, time: int) -> bool:
        """Seek to a keyframe that should lie at or before `time`. Returns False if this file cannot seek."""
        return self._has_times and self._container.seek(time, self._stream)

    def frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (time, frame) from here to the end, times increasing. Skips damaged parts with a warning."""
        last: int | None = None
        for frame in self._container.frames(self._stream):
            assert isinstance(frame, av.VideoFrame)
            time = self._time_of(frame)
            if time is None or (last is not None and time <= last):
                time = 0 if last is None else last + self._frame_ticks  # raw streams carry no times
            last = time
            yield time, frame

    def _time_of(self, frame: av.VideoFrame) -> int | None:
        return frame.dts if frame.pts is None or (self._by_dts and frame.dts is not None) else frame.pts

    def _find_end(self) -> int:
        """Return the end time of the last frame, from its packets, because declared durations are often wrong."""
        declared = self._declared_end()
        if declared is not None and not self._by_dts:
            end = None
            if self.seek(max(declared - int(_LAST_SECONDS / self.time_base), self.first_time)):
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
        if self._container.av.duration:  # in microseconds
            seconds = Fraction(self._container.av.duration + (self._container.av.start_time or 0), 1_000_000)
            return int(seconds / self.time_base)
        return None

    def _last_packet_end(self) -> int | None:
        """Return the latest end time of the packets from here on; None if there are none."""
        first: int | None = None
        end: int | None = None
        untimed = count = 0  # since the last packet with a time; in all
        for packet in self._container.packets(self._stream):
            if not packet.size or packet.is_discard:
                continue
            count += 1
            untimed += 1
            time = packet.pts if packet.pts is not None and not self._by_dts else packet.dts
            if time is not None:
                first = time if first is None else first
                # Some muxers omit the last duration or write one tick.
                lasts = packet.duration or 0
                end = max(end or time, time + (lasts if 2 * lasts >= self._frame_ticks else self._frame_ticks))
                untimed = 0
        if end is not None and first is not None:
            # Pictures come out of the decoder later than their packets' decoding times.
            delay = self.first_time - first if self._by_dts else 0
            return end + untimed * self._frame_ticks + delay
        return self.first_time + count * self._frame_ticks if count else None


def _is_still(stream: av.VideoStream) -> bool:
    """Return whether the stream is a single picture: a cover that is not marked as one, an animation's still."""
    return stream.frames == 1 or bool(stream.disposition & stream.disposition.still_image)


def _pixels(stream: av.VideoStream) -> int:
    return stream.codec_context.width * stream.codec_context.height
