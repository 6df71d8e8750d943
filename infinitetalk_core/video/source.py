"""Frame sources at 25 fps: for any frame rate of the source, frame i is the picture shown at i / 25 seconds."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from ..errors import InputError, RunError
from ..fingerprint import FileFingerprints, stream_fingerprint, tensor_fingerprint
from ..media_file import open_media
from ..model_cache import FileStamp
from ..rate import FRAMES_PER_SECOND
from .decoder import Decoder, FrameDecoder
from .picture import read_picture
from .pixels import to_rgb
from .webp import SIGNATURE_BYTES, WebpDecoder, is_webp

KEPT_FRAMES = 10  # cached 8-bit pictures: enough to read a chunk's nine context frames again without seeking
READ_ON_SECONDS = 3  # a forward gap up to this is decoded instead of skipped by seeking
_LENGTH_SLACK = Fraction(1, 20)  # in frames; containers with times in milliseconds round the end down


class FrameSource(Protocol):
    """Pictures at 25 frames a second. `height` and `width` are pixels as displayed, `length` is at least 1."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def length(self) -> int: ...

    def frame(self, index: int) -> Tensor:
        """Return the picture shown at index / 25 seconds, (H, W, 3) float32 in [0, 1]; 0 <= index < length."""
        ...

    def fingerprint(self) -> str:
        """Return a string that is equal exactly for sources of the same content."""
        ...

    def changed(self) -> bool:
        """Return whether the file was written to since it was opened, so that its frames may have changed."""
        ...

    def close(self) -> None:
        """Release the file. The source cannot be read afterwards."""
        ...


@runtime_checkable
class PixelSource(Protocol):
    """A FrameSource that can spare the conversion of its 8-bit pictures."""

    def pixels(self, index: int) -> Tensor:
        """Return `frame(index)`, or 255 times it as uint8, which must not be changed."""
        ...


def pixels_of(source: FrameSource, index: int) -> Tensor:
    """Return a frame (H, W, 3) as the source has it: as 8-bit numbers, or as float32 in [0, 1]."""
    return source.pixels(index) if isinstance(source, PixelSource) else source.frame(index)


def _frames_in(seconds: Fraction) -> int:
    return max(math.floor(seconds * FRAMES_PER_SECOND + _LENGTH_SLACK), 1)


def _check_index(index: int, length: int) -> None:
    if not 0 <= index < length:
        raise IndexError(f"the source has frames 0 to {length - 1}, not {index}")


def _stamp(file: BinaryIO) -> FileStamp | None:
    """Return the stamp of an open file, which changes when it is written to; None for a stream in memory."""
    try:
        return FileStamp.of_open(file)
    except (OSError, ValueError, AttributeError):
        return None


def _in_this_thread(check: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `check` in this thread only. A host notices an interrupt once, and a thread that
    reads ahead has nobody to tell."""
    thread = threading.get_ident()
    return lambda: check() if threading.get_ident() == thread else None


def _decoder_of(file: BinaryIO, name: str, check_interrupted: Callable[[], None]) -> FrameDecoder:
    file.seek(0)
    return (WebpDecoder if is_webp(file.read(SIGNATURE_BYTES)) else Decoder)(file, name, check_interrupted)


class PictureBatch:
    """A FrameSource from pictures in memory: images (N, H, W, 3) in [0, 1] at `fps` frames per second.

    A single picture is a still of length 1. Raises InputError for a wrong shape or rate.
    """

    def __init__(self, images: Tensor, fps: float | Fraction = FRAMES_PER_SECOND) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
            raise InputError(
                f"pictures must be (count, height, width, 3 colors) with at least one, got {tuple(images.shape)}"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"frames per second must be above 0, got {fps}")
        self._images = images
        self._fps = Fraction(fps).limit_denominator(100_000)
        count, self.height, self.width = images.shape[:3]
        self.length = 1 if count == 1 else _frames_in(count / self._fps)

    def frame(self, index: int) -> Tensor:
        """Return the picture shown at index / 25 seconds, (H, W, 3) float32."""
        _check_index(index, self.length)
        shown = math.floor(index * self._fps / FRAMES_PER_SECOND)
        return self._images[min(shown, len(self._images) - 1)].float().cpu()

    def fingerprint(self) -> str:
        """Return a fingerprint of the pictures and their rate."""
        return f"{tensor_fingerprint(self._images)} at {self._fps}"

    def changed(self) -> bool:
        """Return False: the pictures are in memory."""
        return False

    def close(self) -> None:
        """Do nothing: there is no file."""


class VideoFile:
    """A FrameSource from a video file or a seekable binary stream, decoded on demand.

    Supports any codec and the containers of `media_file`, with constant or variable rate; applies rotation and
    mirroring (phones) and non-square pixels. Reading forward never seeks; a jump seeks to a keyframe and decodes from
    there. A frame is shown until the next one, also where the file is damaged or shorter than declared. `file` must be
    local. Usable as a context manager. Raises InputError, in one sentence, if the file cannot be opened, has no video,
    or no picture of it can be decoded.
    """

    def __init__(
        self,
        file: str | Path | BinaryIO,
        fingerprints: FileFingerprints | None = None,
        check_interrupted: Callable[[], None] = lambda: None,
    ) -> None:
        """fingerprints: cache of fingerprints from earlier calls. check_interrupted: called often while this thread
        reads the file; an exception from it stops the reading."""
        self._fingerprints = fingerprints or FileFingerprints()
        self._owned: BinaryIO | None = None
        if isinstance(file, (str, Path)):
            file = self._owned = open_media(Path(file), "video file")
        # The same handle is decoded, hashed and checked for changes, even if the file is renamed or replaced.
        self._file, self._stamp = file, _stamp(file)
        self._fingerprint: str | None = None
        name = getattr(file, "name", None)
        try:
            shown_name = Path(name).name if isinstance(name, str) else "the video"
            self._decoder = _decoder_of(file, shown_name, _in_this_thread(check_interrupted))
        except BaseException:
            if self._owned is not None:
                self._owned.close()
            raise
        self.height, self.width = self._decoder.pose.shown_size
        self.notes = self._decoder.notes  # what looks different from what a player shows; it is in the log already
        ticks = self._decoder.end_time - self._decoder.first_time
        self.length = _frames_in(ticks * self._decoder.time_base)
        self._reformatter = VideoReformatter()
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._picture: np.ndarray | None = None  # RGB of the shown frame, converted on demand
        self._ahead: tuple[int, av.VideoFrame] | None = None
        self._coming: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._start(self._decoder.frames())

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fingerprint(self) -> str:
        """Return the fingerprint of the opened file's whole content, even if another file has its name now. Raises
        RunError if the file was written to since it was opened."""
        if self._fingerprint is None:
            self._fingerprint = self._fingerprints.of_open(self._file)
            now = _stamp(self._file)
            if self._stamp is not None and now is not None and not now.same_content(self._stamp):
                self._fingerprint = None
                raise RunError(
                    "the source file was changed after it was opened: run again, which reads it from the beginning"
                )
            self._stamp = now
        return self._fingerprint

    def changed(self) -> bool:
        """Return whether the content of the open file has changed. A replaced or deleted file stays readable."""
        now = _stamp(self._file)
        if now in (None, self._stamp):
            return False
        if self._fingerprint is None or self._fingerprint != stream_fingerprint(self._file):
            return True
        self._stamp = now  # the same content was written again, or the file was renamed
        return False

    def close(self) -> None:
        """Close the file and drop all cached frames."""
        self._ahead = None
        self._coming = iter(())
        self._kept.clear()
        self._decoder.close()
        if self._owned is not None:
            self._owned.close()

    def frame(self, index: int) -> Tensor:
        """Return the picture shown index / 25 seconds after the first one, (H, W, 3) float32 in [0, 1]."""
        return self.pixels(index).float().div_(255)

    def pixels(self, index: int) -> Tensor:
        """Return the same as 8-bit numbers, which must not be changed."""
        _check_index(index, self.length)
        if index not in self._kept:
            self._go_to(self._time_of(index))
            if self._picture is None:
                self._picture = to_rgb(self._shown[1], self._decoder.pose, self._reformatter)
            self._kept[index] = self._picture
            if len(self._kept) > KEPT_FRAMES:
                self._kept.popitem(last=False)
        return torch.from_numpy(self._kept[index])

    def _time_of(self, index: int) -> int:
        """Return the latest start time, in the stream's ticks, of a frame that is shown at index / 25 s."""
        return self._decoder.first_time + math.floor(Fraction(index, FRAMES_PER_SECOND) / self._decoder.time_base)

    def _start(self, frames: Iterator[tuple[int, av.VideoFrame]]) -> bool:
        """Continue reading from `frames`. Returns False, leaving the current position unchanged, if there are none."""
        first = next(frames, None)
        if first is None:
            return False
        self._coming = frames
        self._show(first)
        self._ahead = next(frames, None)
        return True

    def _show(self, frame: tuple[int, av.VideoFrame]) -> None:
        self._shown = frame
        self._picture = None

    def _go_to(self, time: int) -> None:
        """Read until the shown frame is the last one that starts at or before `time`."""
        read_on = math.floor(READ_ON_SECONDS / self._decoder.time_base)
        if time < self._shown[0] or (self._ahead is not None and time > self._ahead[0] + read_on):
            self._jump(time)
        while self._ahead is not None and self._ahead[0] <= time:
            self._show(self._ahead)
            self._ahead = next(self._coming, None)

    def _jump(self, time: int) -> None:
        """Seek to a keyframe at or before `time` and continue from there.

        If a container's times or keyframe flags are wrong, the first frame after a seek is too late: retry from further
        back, finally from the beginning.
        """
        for seconds_back in (0, 2, 15):
            target = max(time - math.floor(seconds_back / self._decoder.time_base), self._decoder.first_time)
            if not self._decoder.seek(target):
                break
            if self._start(self._decoder.frames()) and self._shown[0] <= time:
                return
        self._decoder.rewind()
        self._start(self._decoder.frames())


def open_source(path: Path) -> FrameSource:
    """Open a picture file, as a still, or a video file. Raises InputError for a file that is neither, or damaged."""
    picture = read_picture(path)
    return VideoFile(path) if picture is None else PictureBatch(picture)
