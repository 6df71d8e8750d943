"""The sound of a video file: encoded once, then muxed piece by piece beside the frames."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler

from ..audio.channels import to_mono_or_stereo
from ..audio.sound import Sound

AAC_RATES_HZ = (16000, 22050, 24000, 32000, 44100, 48000)  # supported by every player; other rates become 48 kHz
BIT_RATE = 192_000
_BLOCK_SAMPLES = 1 << 16


def encode_sound(sound: Sound, check_interrupted: Callable[[], None] = lambda: None) -> bytes:
    """Encode `sound` as AAC in MP4, once and completely: an AAC encoder cannot be resumed bit-exactly.

    check_interrupted: called about once per second of sound; an exception from it stops the encoding.
    """
    file = io.BytesIO()
    rate = sound.sample_rate_hz if sound.sample_rate_hz in AAC_RATES_HZ else 48000
    layout = "mono" if to_mono_or_stereo(sound.waveform[:, :1]).shape[0] == 1 else "stereo"
    resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        stream.bit_rate = BIT_RATE
        stream.time_base = Fraction(1, rate)
        for block in _blocks(sound, layout):
            check_interrupted()
            for frame in resampler.resample(block):
                container.mux(stream.encode(frame))
        for frame in resampler.resample(None):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _blocks(sound: Sound, layout: str) -> Iterator[av.AudioFrame]:
    """Yield the sound as audio frames of 65,536 samples, about a second each."""
    for start in range(0, sound.waveform.shape[1], _BLOCK_SAMPLES):
        block = sound.waveform[:, start : start + _BLOCK_SAMPLES]
        planes = to_mono_or_stereo(block).float().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=layout)
        frame.sample_rate = sound.sample_rate_hz
        frame.time_base = Fraction(1, sound.sample_rate_hz)
        frame.pts = start
        yield frame


def is_sound(path: Path) -> bool:
    """Return whether a file can be muxed as sound from `encode_sound`."""
    try:
        with av.open(str(path.resolve()), "r", format="mp4") as file:
            return bool(file.streams.audio) and file.streams.audio[0].codec_context.name == "aac"
    except (OSError, IndexError, ValueError, av.error.FFmpegError):
        return False


class Soundtrack:
    """Muxes `encoded` (from `encode_sound`, or a file of it) as a stream of `container`."""

    def __init__(self, container: av.container.OutputContainer, encoded: bytes | Path) -> None:
        self._container = container
        # The format is given, since data from a folder is not trusted: a playlist would open other files.
        source_file = io.BytesIO(encoded) if isinstance(encoded, bytes) else str(encoded.resolve())
        self._file = av.open(source_file, "r", format="mp4")
        source = self._file.streams.audio[0]
        self._stream = container.add_stream_from_template(source, opaque=True)
        assert source.time_base is not None
        self._seconds_a_tick = source.time_base
        self._packets = (packet for packet in self._file.demux(source) if packet.pts is not None)
        self._next: av.Packet | None = next(self._packets, None)

    def write_until(self, seconds: Fraction | None) -> None:
        """Mux the sound up to this time or to its end, whichever comes first; None: to its end."""
        while (packet := self._next) is not None:
            if seconds is not None and (packet.pts or 0) * self._seconds_a_tick >= seconds:
                break
            packet.stream = self._stream
            self._container.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Drop the remaining packets, so that the file is released."""
        self._next = None
        self._file.close()
