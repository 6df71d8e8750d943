"""Opening of sound, video and picture files that nobody vouches for.

FFmpeg and Pillow know hundreds of formats, among them playlists that open other files and scripts that run programs.
Here only known formats are opened, through one handle of one regular file, and an interruption ends any reading.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import av

from .errors import InputError
from .log import log

# Demuxers that read nothing but the file that they are given. Not among them: playlists and scripts (hls, dash, concat,
# sdp, image2, vobsub …), devices, and formats that only games use.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,ogg,flv,asf,mxf,nut,rm,dv,gxf,wtv"
_VIDEOS = "ivf,h264,hevc,vvc,av1,obu,m4v,mpegvideo,h263,h261,vc1,dirac,mjpeg,yuv4mpegpipe,gif,apng,jpegxl_anim"
_PICTURES = (
    "png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe,j2k_pipe,jpegxl_pipe,qoi_pipe,psd_pipe,"
    "pam_pipe,pbm_pipe,pgm_pipe,ppm_pipe,exr_pipe,hdr_pipe,dpx_pipe"
)
_SOUNDS = (
    "wav,w64,flac,mp3,aac,loas,ac3,eac3,dts,dtshd,truehd,mlp,aiff,caf,au,amr,ape,wv,tta,tak,mpc,mpc8,dsf,iff,shn,"
    "voc,oma,xwma,qcp,ircam,sox"
)
FORMATS = ",".join((_CONTAINERS, _VIDEOS, _PICTURES, _SOUNDS))
# A video of 8192 x 8192; one picture of it takes 0.2 GB as bytes and 0.8 GB as numbers.
MOST_PIXELS = 8192 * 8192

# Formats that say how long a stream is; for others FFmpeg estimates it from what there is.
_DECLARE_LENGTH = {"mov", "matroska", "webm", "avi", "asf", "mxf", "wav", "w64", "flac", "aiff", "caf", "wv", "tta"}
_CLOCK = r"(\d+):(\d+):(\d+\.?\d*)"

_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def special_kind(mode: int) -> str | None:
    """Return what a file of this `st_mode` is, such as "a pipe"; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((kind for matches, kind in _KINDS if matches(mode)), "a device")


def open_media(path: Path, what: str) -> BinaryIO:
    """Open a regular file unbuffered; `what` names it in messages, such as "video file".

    Raises InputError for a missing file, a folder, pipe, socket or device, none of which is opened: a pipe would wait
    for a writer for ever.
    """
    try:
        kind = special_kind(os.stat(path).st_mode)
        if kind is None:
            # If it has become a pipe meanwhile, opening it does not wait, and the second look finds out.
            file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115
            kind = special_kind(os.fstat(file.fileno()).st_mode)
            if kind is None:
                return file
            file.close()
    except FileNotFoundError as error:
        raise InputError(f"there is no {what} {path}: check the name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path.name} cannot be opened ({reason}): check the file's name and permissions") from error
    raise InputError(f"{path.name} is {kind}, not a {what}: choose a {what}")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _Readable:
    """The handle through which FFmpeg reads. Once `check_interrupted` has raised, the file seems to be at its end.

    An exception must not cross FFmpeg, which may drop it or read on; `raise_if_stopped` raises it afterwards.
    """

    def __init__(self, file: BinaryIO, check_interrupted: Callable[[], None]) -> None:
        self._file, self._check = file, check_interrupted
        self._stopped: BaseException | None = None
        self.name = str(getattr(file, "name", ""))

    def read(self, count: int) -> bytes:
        self.look()
        return b"" if self._stopped else self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        self.look()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def look(self) -> None:
        """Ask whether to stop, and remember it."""
        if self._stopped is None:
            try:
                self._check()
            except BaseException as stop:  # ComfyUI's interruption is not an Exception
                self._stopped = stop

    def raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped


def _refuse(url: str, *_: object) -> None:
    raise PermissionError(13, "it names another file, which is not opened")


class Container:
    """An open sound or video file, whatever its format.

    file: a binary stream; name: for messages; what: the wanted kind with its article; advice: what to do if the file is
    unusable. check_interrupted: called at each reading of the file; an exception from it ends any call here.
    Raises InputError, in one sentence, if FFmpeg cannot open the file.
    """

    def __init__(
        self, file: BinaryIO, name: str, what: str, advice: str, check_interrupted: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self._file = _Readable(file, check_interrupted)
        # Not `options`, with which PyAV before 17 writes beyond its memory where streams are found while reading.
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        try:
            self._file.seek(0)
            self.av = av.open(
                self._file,  # type: ignore[arg-type]
                mode="r",
                container_options=options,
                io_open=_refuse,
                metadata_errors="replace",  # titles in old encodings
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._file.raise_if_stopped()
            refused = getattr(error, "errno", None) == 22  # EINVAL: what FFmpeg says of a format that is not listed
            reason = "it is a playlist, or of a kind that is not read" if refused else _reason(error)
            raise InputError(
                f"{name} cannot be opened as {what} ({reason}): it is damaged, cut off or of another kind; {advice}"
            ) from error
        self._file.raise_if_stopped()

    def close(self) -> None:
        self.av.close()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def seek(self, time: int, stream: av.stream.Stream) -> bool:
        """Seek to a keyframe that should lie at or before `time`. Returns False if this file cannot seek."""
        try:
            self.av.seek(time, stream=stream, backward=True)
        except (av.error.FFmpegError, OSError, OverflowError):
            self._file.raise_if_stopped()
            return False
        self._file.raise_if_stopped()
        return True

    def warn_if_short(self, stream: av.stream.Stream, seconds: float) -> None:
        """Say so if the stream, of which `seconds` were found, is much shorter than the file's header says."""
        declared = self._declared_seconds(stream)
        if declared is not None and seconds < 0.9 * declared - 0.1:
            log.warning(
                "the %s of %s ends after %.1f of the %.1f seconds that the file says to have: it is cut off or damaged",
                "sound" if stream.type == "audio" else "picture",
                self.name,
                seconds,
                declared,
            )

    def _declared_seconds(self, stream: av.stream.Stream) -> float | None:
        if not _DECLARE_LENGTH & set(self.av.format.name.split(",")):
            return None
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if match := re.fullmatch(_CLOCK, stream.metadata.get("DURATION", "")):  # in Matroska
            hours, minutes, seconds = map(float, match.groups())
            return 3600 * hours + 60 * minutes + seconds
        return self.av.duration / av.time_base if self.av.duration and len(self.av.streams) == 1 else None

    def packets(self, stream: av.stream.Stream) -> Iterator[av.Packet]:
        """Yield the stream's packets to the end of what can be read, then the empty one that flushes the decoder."""
        packets = self.av.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError, IndexError) as error:
                self._file.raise_if_stopped()
                # PyAV trips at the end over a stream that FFmpeg found only while reading.
                if not isinstance(error, IndexError):
                    log.warning("%s ends early (%s): what comes before is used", self.name, _reason(error))
                packet = av.Packet()
                packet.stream = stream
                packets = iter(())
            self._file.raise_if_stopped()
            if packet is None:
                return
            yield packet

    def frames(self, stream: av.stream.Stream) -> Iterator[av.frame.Frame]:
        """Yield the stream's decoded frames. Leaves out damaged parts with a warning."""
        warned = False
        for packet in self.packets(stream):
            try:
                for frame in packet.decode():
                    yield frame
                    self._file.look()
                    self._file.raise_if_stopped()
            except EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                if not warned:
                    log.warning("%s is damaged in places (%s), which are left out", self.name, _reason(error))
                warned = True


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
