"""The sound of a video file, encoded piece by piece as the pictures go on."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import torch
from av.audio.resampler import AudioResampler
from torch import Tensor

from ..audio.sound import Sound

AAC_RATES_HZ = (16000, 22050, 24000, 32000, 44100, 48000)  # what every player takes; others become 48 kHz
BIT_RATE = 192_000
_BLOCK_SAMPLES = 1 << 16
_MINUS_3_DB = 0.5**0.5


def to_mono_or_stereo(waveform: Tensor) -> Tensor:
    """(channels, samples) → 1 or 2 channels. 5.1 and 7.1 fold down as players do; other counts become mono.

    The fold keeps centre and surround 3 dB down, leaves the bass channel out (ITU-R BS.775) and cannot clip.
    """
    channels = waveform.shape[0]
    if channels <= 2:
        return waveform
    if channels not in (6, 8):
        return waveform.mean(dim=0, keepdim=True)
    front, centre, surround = waveform[0:2], waveform[2:3], waveform[4:]
    sides = torch.stack([surround[0::2].sum(0), surround[1::2].sum(0)])
    loudest = 1 + _MINUS_3_DB * (1 + (channels - 4) // 2)
    return (front + _MINUS_3_DB * (centre + sides)) / loudest


class Soundtrack:
    """AAC in one stream of `container`, from a Sound whose first sample is at the first picture's start."""

    def __init__(self, container: av.container.OutputContainer, sound: Sound) -> None:
        self._container, self._sound = container, sound
        self._taken = 0  # samples of the sound given to the encoder
        rate = sound.sample_rate_hz if sound.sample_rate_hz in AAC_RATES_HZ else 48000
        self._layout = "mono" if to_mono_or_stereo(sound.waveform[:, :1]).shape[0] == 1 else "stereo"
        self._stream = container.add_stream("aac", rate=rate, layout=self._layout)
        self._stream.bit_rate = BIT_RATE
        self._stream.time_base = Fraction(1, rate)
        self._resampler = AudioResampler(format="fltp", layout=self._layout, rate=rate)

    def write_until(self, seconds: Fraction) -> None:
        """Encode the sound up to this time, or to its end if that comes first."""
        goal = min(int(seconds * self._sound.sample_rate_hz), self._sound.waveform.shape[1])
        while self._taken < goal:
            self._encode(self._next_block(min(goal - self._taken, _BLOCK_SAMPLES)))

    def write_rest(self) -> None:
        """Encode the sound to its end."""
        self.write_until(Fraction(self._sound.waveform.shape[1], self._sound.sample_rate_hz))

    def finish(self) -> None:
        """Encode what resampler and encoder still hold. Nothing can be written afterwards."""
        if self._taken:
            self._encode(None)
        self._container.mux(self._stream.encode(None))

    def _next_block(self, samples: int) -> av.AudioFrame:
        block = self._sound.waveform[:, self._taken : self._taken + samples]
        planes = to_mono_or_stereo(block).float().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), format="fltp", layout=self._layout)
        frame.sample_rate = self._sound.sample_rate_hz
        frame.time_base = Fraction(1, self._sound.sample_rate_hz)
        frame.pts = self._taken
        self._taken += samples
        return frame

    def _encode(self, block: av.AudioFrame | None) -> None:
        for frame in self._resampler.resample(block):
            self._container.mux(self._stream.encode(frame))
