"""Reading of sound files of any length, decoded piece by piece; long sounds are stored on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler

from ..disk_buffer import ChannelBuffer
from ..errors import InputError
from ..log import log
from .sound import Sound, check_sound

COPY_AGAIN = "copy it here again, or save it as WAV"


def read_sound(path: Path, scratch: Path | None = None, check_interrupted: Callable[[], None] = lambda: None) -> Sound:
    """Read the first sound track of `path` that can be decoded, complete, with its own rate and channels.

    scratch: a folder for a sound of more than 256 MB (12 minutes in stereo at 48 kHz); None keeps it in memory.
    check_interrupted: called about once per second of sound; an exception from it stops the reading.
    Raises InputError, in one sentence, if there is no sound or none of it can be decoded.
    """
    try:
        container = av.open(str(path.resolve()), mode="r", metadata_errors="replace")  # titles in old encodings
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path.name} cannot be opened as a sound or video file ({error.strerror}): it is damaged, cut off or of "
            f"another kind; {COPY_AGAIN}"
        ) from error
    with container:
        # A track that FFmpeg has no decoder for has no codec context.
        stream = next((s for s in container.streams.audio if s.codec_context is not None), None)
        if stream is None:
            raise InputError(f"{path.name} has no sound in it that can be decoded: choose a file with a sound track")
        found: ChannelBuffer | None = None
        rate = 0
        for block in _blocks(container, stream, path.name):
            planes = block.to_ndarray()
            if found is None:
                found, rate = ChannelBuffer(len(planes), scratch), block.sample_rate
            if found.count // rate != (found.count + planes.shape[1]) // rate:
                check_interrupted()
            found.append(planes.astype(np.float32, copy=False))
    if found is None or not found.count:
        raise InputError(f"no sound in {path.name} can be decoded: it is damaged or incomplete; {COPY_AGAIN}")
    return check_sound(torch.from_numpy(found.array()), rate)


def _blocks(container: av.container.InputContainer, stream: av.AudioStream, name: str) -> Iterator[av.AudioFrame]:
    """Yield decoded frames as planar float32. Skips damaged parts with a warning."""
    to_floats = AudioResampler(format="fltp")  # rate and channels stay
    warned = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            for frame in packet.decode():
                yield from to_floats.resample(frame)
        except EOFError:
            return
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if not warned:
                log.warning("the sound of %s is damaged in places (%s), which are left out", name, error)
            warned = True
