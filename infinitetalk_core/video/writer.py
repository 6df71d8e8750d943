"""Writing of a video file by joining segments and sound; the file is playable at any time."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from ..errors import InputError, RunError
from ..file_access import move_new
from ..log import log
from ..rate import FRAMES_PER_SECOND
from ..wording import counted
from .partfile import PartFile
from .segment import Segment
from .soundtrack import Soundtrack

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
# The growing file is a fragmented MP4 with one fragment per key frame (between key frames, FFmpeg 8 can lose the last
# frame on closing). delay_moov makes the index contain the encoder delay of picture and sound that a player skips.
# _BEST turns the file into an ordinary MP4 with one index on closing; FFmpeg before 7.1 does not support it, and 7.1
# writes invalid files with it (seen with PyAV 14.2).
_PLAIN = "frag_keyframe+delay_moov+default_base_moof+use_metadata_tags"
_BEST = "hybrid_fragmented+frag_keyframe+delay_moov+use_metadata_tags"
_INTERRUPTED = "_interrupted"  # appended to the stem
_KEPT_STEM = rf".+{_INTERRUPTED}(_[0-9]+)?"
_MUXER = {"flush_packets": "1", "max_interleave_delta": "1000000"}


def _growing_flags() -> str:
    """Return the best movflags that this FFmpeg supports, found by a trial in memory (a few milliseconds)."""
    return _BEST if _survives_closing(_BEST) else _PLAIN


def _survives_closing(flags: str) -> bool:
    """Return whether a short file of several fragments, written with `flags`, can be read after closing."""
    file = io.BytesIO()
    packets = 0
    try:
        with av.open(file, "w", format="mp4", options={"frag_duration": "500000", "movflags": flags}) as written:
            stream = written.add_stream("aac", rate=16000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 3 * 16000), np.float32), "fltp", "mono")
            silence.sample_rate = 16000
            for packet in [*stream.encode(silence), *stream.encode(None)]:
                packets += 1
                written.mux(packet)
        file.seek(0)
        with av.open(file) as read:
            sizes = [packet.decode() for packet in read.demux(audio=0) if packet.size]
    except (ValueError, OSError, IndexError, av.error.FFmpegError):
        return False
    return len(sizes) == packets


def free_path(path: Path) -> Path:
    """Return `path`, or the first of path_2, path_3 … that does not exist."""
    number = 2
    free = path
    while os.path.lexists(free):
        free = path.with_stem(f"{path.stem}_{number}")
        number += 1
    return free


def is_interrupted_name(path: Path) -> bool:
    """Return whether a `VideoWriter` could have named an unfinished video so."""
    return bool(re.fullmatch(_KEPT_STEM, path.stem))


def is_part_name(path: Path, video: Path) -> bool:
    """Return whether `path` could be the part file of `video`."""
    part = VideoWriter.part_of(video)
    return path.parent == part.parent and bool(
        re.fullmatch(rf"{re.escape(part.stem)}(_[0-9]+)?{re.escape(part.suffix)}", path.name)
    )


class VideoWriter:
    """Context manager that muxes segments (of one format, 25 fps) and an encoded sound into `path`.

    The same segments give the same file, whether the run was resumed or not. The sound is written up to the time of the
    frames, its rest at the end. Until then the file is `<stem>.part<suffix>`, which is playable, also after a crash, up
    to the last segment but one. A normal exit renames it to `path`. An exception keeps what was
    written, with the sound cut at that time, as `<stem>_interrupted<suffix>`, or nothing if no frame was written. No
    existing file is overwritten or renamed: beside a part file of an earlier crash or of another process, this one is
    `<stem>.part_2<suffix>`.

    path: .mp4, .m4v or .mov, in an existing folder; part: another name of the part file; sound: from `encode_sound`, or
    a file of it, or a function that returns one of them when it is needed, or None; whole_sound: whether its rest
    follows after the last frame; metadata: written as tags, where
    ComfyUI looks for "prompt" and "workflow"; on_closed: called with the finished part file just before it is renamed;
    on_kept: the same for an unfinished one, with its name to be, which it does not get if this raises OSError. Raises
    InputError for invalid arguments and segments, RunError if the part file is taken or removed meanwhile, OSError
    naming the path if the disk fails.
    """

    def __init__(
        self,
        path: Path,
        sound: bytes | Path | Callable[[], bytes | Path] | None,
        *,
        part: Path | None = None,
        whole_sound: bool = True,
        metadata: Mapping[str, str] | None = None,
        on_closed: Callable[[Path], None] = lambda part: None,
        on_kept: Callable[[Path, Path], None] = lambda part, target: None,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in CONTAINERS:
            raise InputError(f"a video can be written as .mp4, .m4v or .mov, not as {self.path.name}")
        if not self.path.parent.is_dir():
            raise InputError(f"there is no folder {self.path.parent} to write {self.path.name} to")
        # A part file that is there belongs to a crash or to another process: it is left alone.
        self.part = part or free_path(self.part_of(self.path))
        self.frames_written = 0
        self.kept: Path | None = None  # path of the kept unfinished video
        self.on_closed, self.on_kept = on_closed, on_kept
        self._sound: bytes | Path | Callable[[], bytes | Path] | None = sound
        self._whole_sound = whole_sound
        self._metadata = dict(metadata or {})
        self._container: av.container.OutputContainer | None = None
        self._file: PartFile | None = None
        self._stream: av.VideoStream | None = None
        self._soundtrack: Soundtrack | None = None

    @staticmethod
    def part_of(path: Path) -> Path:
        """Return the name of the part file of `path`."""
        return path.with_name(f"{path.stem}.part{path.suffix}")

    @property
    def interrupted(self) -> Path:
        """The path of an unfinished video, if it is free."""
        return self.path.with_name(f"{self.path.stem}{_INTERRUPTED}{self.path.suffix}")

    def __enter__(self) -> VideoWriter:
        if os.path.lexists(self.path):
            raise InputError(f"{self.path} exists already: choose another name or move it away")
        try:
            self._file = PartFile(self.part)
        except FileExistsError as error:
            raise RunError(f"{self.part} is being written by another program; run again, under another name") from error
        return self

    def _open(self, segment: Segment) -> av.VideoStream:
        """Open the container with the stream settings of the first segment, which all segments share."""
        options = {**_MUXER, "movflags": _growing_flags()}
        container = av.open(self._file, "w", format=CONTAINERS[self.path.suffix.lower()], options=options)
        self._container = container
        container.metadata.update(self._metadata)
        # opaque: copy the stream without an encoder. PyAV before 15 would open one by the decoder's name; AV1 has none.
        stream = container.add_stream_from_template(segment.stream, opaque=True)
        with contextlib.suppress(RuntimeError):  # PyAV 14 cannot set it; then FFmpeg chooses finer units
            stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        if segment.encoder.tag is not None:
            stream.codec_context.codec_tag = segment.encoder.tag
        sound = self.load_sound()
        self._soundtrack = None if sound is None else Soundtrack(container, sound)
        return stream

    def load_sound(self) -> bytes | Path | None:
        """Return the sound; one that is given as a function is asked for once, in the thread of the first call."""
        if callable(self._sound):
            self._sound = self._sound()
        return self._sound

    def append(self, data: bytes) -> None:
        """Append a segment (from `encode_segment`) and the sound up to its end.

        Raises InputError for a segment of another size or codec, OSError naming the path if the disk is full or gone.
        """
        if self._file is None:
            raise RuntimeError("a VideoWriter takes segments inside its with block only")
        with Segment(data) as segment:
            if self._stream is None:
                self._stream = self._open(segment)
                self._size, self._kind = segment.size, segment.encoder.kind
            if segment.size != self._size:
                raise InputError(f"a segment is {segment.size}, and the video's (height, width) is {self._size}")
            if segment.encoder.kind != self._kind:
                raise InputError(f"a segment is {segment.encoder.kind}, and the video is {self._kind}")
            assert self._container is not None
            first = self.frames_written
            for packet in segment.packets(first):
                packet.stream = self._stream
                self._container.mux(packet)
                self.frames_written += 1
        if self._soundtrack is not None:
            self._soundtrack.write_until(Fraction(self.frames_written, FRAMES_PER_SECOND))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        else:
            self._keep_playable_part()

    def _finish(self) -> None:
        if not self.frames_written:
            self._discard()
            raise InputError(f"no frame was written to {self.path}: there is no video")
        try:
            self._close(whole_sound=self._whole_sound)
            if not self._is_there():
                raise RunError(f"{self.part} was removed or replaced while it was written; run again")
            self.on_closed(self.part)
        except BaseException:
            self._keep_playable_part()
            raise
        try:
            move_new(self.part, self.path)
        except FileExistsError:
            self._keep()
            raise InputError(
                f"{self.path} appeared while the video was made, which is now {self.kept or self.part}"
            ) from None

    def _close(self, *, whole_sound: bool) -> None:
        """Close container and file; on failure the others are still closed. A second call does nothing."""
        container, self._container = self._container, None
        soundtrack, self._soundtrack = self._soundtrack, None
        with contextlib.ExitStack() as closing:  # in reverse order of registration
            if self._file is not None:
                closing.callback(self._file.close)
            if container is not None:
                closing.callback(container.close)
            if soundtrack is not None:
                closing.callback(soundtrack.close)
                if whole_sound:
                    soundtrack.write_until(None)
        if container is not None and self._file is not None and self._file.failed:
            raise OSError(f"{self.part} is incomplete: the disk failed while it was written")

    def _keep_playable_part(self) -> None:
        """After a failure, close the file as far as possible and keep it if it is playable, else delete it."""
        if not self.frames_written:
            self._discard()
            return
        try:
            self._close(whole_sound=False)
        except (OSError, av.error.FFmpegError) as error:
            log.warning("%s could not be closed properly: %s", self.part, error)
        if not self._is_there():
            return
        assert self._file is not None
        if self._file.failed:
            self._file.cut_to_whole_fragments()
        if _can_be_played(self.part):
            self._keep()
        else:
            self.part.unlink(missing_ok=True)

    def _keep(self) -> None:
        """Rename the part file to `…_interrupted` after `on_kept`, which notes it; without a note it keeps its name."""
        target = free_path(self.interrupted)
        try:
            self.on_kept(self.part, target)
            move_new(self.part, target)
        except OSError as error:
            log.warning("the unfinished video of %s stays %s: %s", self._length, self.part, error)
            return
        self.kept = target
        log.warning("the unfinished video of %s is kept as %s", self._length, self.kept)

    @property
    def _length(self) -> str:
        return counted(self.frames_written, "frame")

    def _discard(self) -> None:
        """Close and delete the part file."""
        try:
            self._close(whole_sound=False)
        except (OSError, av.error.FFmpegError) as error:
            log.debug("closing the empty %s: %s", self.part, error)
        if self._is_there():
            self.part.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        return self._file is not None and self._file.is_there()


def _can_be_played(path: Path) -> bool:
    """Return whether the first frame can be decoded."""
    try:
        with av.open(str(path.resolve())) as container:
            return next(container.decode(video=0), None) is not None
    except (OSError, av.error.FFmpegError, IndexError):
        return False
