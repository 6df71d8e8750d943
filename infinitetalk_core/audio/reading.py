"""Reading of sound files of any length, decoded piece by piece; long sounds are stored on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler

from ..disk_buffer import ChannelBuffer, Floats
from ..errors import InputError
from ..log import log
from ..media_file import Container, open_media
from .channels import match_channels
from .sound import HIGHEST_RATE_HZ, LOWEST_RATE_HZ, MOST_CHANNELS, PIECE_SAMPLES, Sound, check_sound
from .timeline import Timeline

COPY_AGAIN = "copy it here again, or save it as WAV"
# Containers that store the time of each piece of sound. In others it is computed from the samples before.
_TIMED = {"mov", "matroska", "webm", "ogg", "mpegts", "mpeg", "flv", "asf", "nut", "mxf"}
_UNKNOWN_LENGTH = 0x7FFF0000  # programs that record without an end write this or more
_FOR_OTHERS = ("comment", "hearing_impaired", "visual_impaired")  # tracks beside the main one


def read_sound(path: Path, scratch: Path | None = None, check_interrupted: Callable[[], None] = lambda: None) -> Sound:
    """Read the sound track of `path` that a player would play, complete, with its own rate and channels.

    The sound lasts as long as its times say: holes and a late start are silent. A rate or channels that change inside
    the file become those of its beginning.
    scratch: a folder for a sound of more than 256 MB (12 minutes in stereo at 48 kHz); None keeps it in memory.
    check_interrupted: called several times per second of sound; an exception from it stops the reading.
    Raises InputError, in one sentence, if there is no sound or none of it can be decoded.
    """
    with open_media(path, "sound or video file") as file:
        _warn_if_cut_off(file, path.name)
        with Container(file, path.name, "a sound or video file", COPY_AGAIN, check_interrupted) as container:
            found, rate = _read(container, scratch, check_interrupted)
    if found is None or not found.count:
        raise InputError(f"no sound in {path.name} can be decoded: it is damaged or incomplete; {COPY_AGAIN}")
    return check_sound(torch.from_numpy(found.array()), rate)


def _read(
    container: Container, scratch: Path | None, check_interrupted: Callable[[], None]
) -> tuple[ChannelBuffer | None, int]:
    """Return (sound, rate); no sound if nothing can be decoded."""
    stream = _best_stream(container)
    _check_numbers(stream.codec_context.sample_rate or LOWEST_RATE_HZ, _plain_channels(stream) or 1, container.name)
    found: ChannelBuffer | None = None
    rate = 0
    for time, piece, piece_rate in _pieces(container, stream):
        if found is None:
            found, rate = ChannelBuffer(len(piece), scratch), piece_rate
            timeline = Timeline(container.name, _start_of(container), rate, len(piece))
        place = timeline.place(time, found.count, piece.shape[1])
        _append_silence(found, place.silence, check_interrupted)
        found.append(np.ascontiguousarray(piece[:, place.skipped :]))
    if found is not None:
        container.warn_if_short(stream, found.count / rate)
    return found, rate


def _best_stream(container: Container) -> av.AudioStream:
    """Return the sound track that a player would play: marked as default, with the most channels, the first."""
    # A track that FFmpeg has no decoder for has no codec context.
    known = [s for s in container.av.streams.audio if s.codec_context is not None]
    if not known:
        raise InputError(f"{container.name} has no sound in it that can be decoded: choose a file with a sound track")

    def rank(stream: av.AudioStream) -> tuple[bool, bool, int]:
        marks = stream.disposition
        main = not any(marks & getattr(marks, name) for name in _FOR_OTHERS)
        return bool(marks & marks.default), main, _plain_channels(stream)

    return max(known, key=rank)


def _plain_channels(stream: av.AudioStream) -> int:
    """Return the number of channels, and let the decoder call them by their usual names.

    PyAV 15 and later free a layout with channels in an order of its own (as in a QuickTime or CAF file) once for each
    object that looked at it, which ends the process. The names are not needed: samples stay in the stored order.
    """
    channels = stream.codec_context.channels
    if channels > 0:
        # FFmpeg's notations for the usual layout of a number, which 9 and others have not, and for one without names.
        stream.codec_context.layout = f"{channels}c" if channels <= 8 else f"{channels}C"
    return channels


def _start_of(container: Container) -> Fraction | None:
    """Return the time at which a player starts this file, in seconds; None if the sound's times are computed."""
    if not _TIMED & set(container.av.format.name.split(",")):
        return None
    return Fraction(container.av.start_time or 0, av.time_base)


def _warn_if_cut_off(file: BinaryIO, name: str) -> None:
    """Say so if a WAV or AVI file is shorter than its header says; FFmpeg takes its length from what there is."""
    file.seek(0)
    start = file.read(12)
    declared, length = int.from_bytes(start[4:8], "little") + 8, file.seek(0, 2)
    if (
        start[:4] == b"RIFF"
        and start[8:] in (b"WAVE", b"AVI ")
        and length < 0.9 * declared
        and declared < _UNKNOWN_LENGTH
    ):
        log.warning("%s has only %d of its %d bytes: it is cut off", name, length, declared)


def _append_silence(found: ChannelBuffer, samples: int, check_interrupted: Callable[[], None]) -> None:
    for start in range(0, samples, PIECE_SAMPLES):
        check_interrupted()
        found.append(np.zeros((found.rows, min(PIECE_SAMPLES, samples - start)), np.float32))


def _pieces(container: Container, stream: av.AudioStream) -> Iterator[tuple[Fraction | None, Floats, int]]:
    """Yield (start in seconds, (channels, samples), rate), all with the rate and channels of the first piece."""
    rate = channels = 0
    convert: AudioResampler | None = None
    setup: tuple[str, str, int] | None = None
    for frame in container.frames(stream):
        assert isinstance(frame, av.AudioFrame)
        _check_numbers(frame.sample_rate, frame.layout.nb_channels, container.name)
        rate, channels = rate or frame.sample_rate, channels or frame.layout.nb_channels
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if convert is None or now != setup:
            yield from ((None, piece, rate) for piece in _converted(convert, None, channels))
            # Packed: PyAV reads beyond the planes of a planar frame of 8 and more channels.
            convert, setup = AudioResampler(format="flt", rate=rate), now
        time = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
        for piece in _converted(convert, frame, channels):
            yield time, piece, rate
            time = None
    yield from ((None, piece, rate) for piece in _converted(convert, None, channels))


def _converted(convert: AudioResampler | None, frame: av.AudioFrame | None, channels: int) -> Iterator[Floats]:
    """Yield what comes out of the resampler for a frame; None: what is left in it."""
    for converted in [] if convert is None else convert.resample(frame):
        if converted is not None and converted.samples:
            piece = converted.to_ndarray().reshape(converted.samples, -1).T
            same = len(piece) == channels
            yield piece if same else match_channels(torch.from_numpy(piece), channels).numpy()


def _check_numbers(rate: int, channels: int, name: str) -> None:
    """Raise InputError for a rate or a number of channels that no recording has, before anything is made for it."""
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise InputError(
            f"the sound of {name} has a sample rate of {rate} Hz, but {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} are read: "
            f"{COPY_AGAIN}"
        )
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(
            f"the sound of {name} has {channels} channels, but at most {MOST_CHANNELS} are read: save it with fewer"
        )
