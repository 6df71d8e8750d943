"""Sound: checking, mixing and resampling of what is heard, in pieces; long results lie on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from ..disk_buffer import ChannelBuffer
from ..errors import InputError
from ..rate import FRAMES_PER_SECOND

PIECE_SAMPLES = 1 << 20


@dataclass(frozen=True)
class Sound:
    """What is heard.

    waveform: (channels, samples) float32 on the CPU, full scale is -1 … 1 (not enforced).
    sample_rate_hz: samples a second of each channel.
    """

    waveform: Tensor
    sample_rate_hz: int

    @property
    def samples(self) -> int:
        """Samples in each channel."""
        return self.waveform.shape[-1]

    @property
    def seconds(self) -> float:
        """How long the sound lasts."""
        return self.samples / self.sample_rate_hz

    @property
    def frames(self) -> int:
        """Video frames at 25 a second that the sound lasts: seconds · 25, halves rounded up, at least 1.

        Whole-number arithmetic on the samples, so that no length is off by one through rounding.
        """
        doubled = 2 * FRAMES_PER_SECOND * self.samples + self.sample_rate_hz
        return max(1, doubled // (2 * self.sample_rate_hz))


def check_sound(waveform: Tensor, sample_rate: int) -> Sound:
    """A Sound of `waveform`, (channels, samples) or (1, channels, samples), or one sentence why not."""
    if sample_rate != int(sample_rate) or sample_rate <= 0:
        raise InputError(
            f"the sound's sample rate is {sample_rate}, but it must be a whole number of Hz above 0; "
            "load the sound again from its file"
        )
    if not waveform.is_floating_point():
        raise InputError(
            f"the sound's samples are {waveform.dtype}, but they must be floating point from -1 to 1; "
            "divide whole-number samples by their full scale first"
        )
    if waveform.ndim == 3:
        if waveform.shape[0] > 1:
            raise InputError(
                f"the sound is a batch of {waveform.shape[0]} clips, but one speaker needs one clip; "
                "pick one of them, or join them one after the other"
            )
        waveform = waveform.flatten(0, 1)
    if waveform.ndim != 2:
        raise InputError(
            f"the sound has shape {tuple(waveform.shape)}, but (channels, samples) is needed; "
            "connect the AUDIO output of an audio loader"
        )
    if waveform.numel() == 0:
        raise InputError(f"the sound is empty (shape {tuple(waveform.shape)}); choose a file that has a sound track")
    waveform = waveform.detach().to(device="cpu", dtype=torch.float32)
    # Piece by piece: the sound of an hour has more than a gigabyte.
    broken = sum(int((~torch.isfinite(part)).sum()) for part in waveform.split(PIECE_SAMPLES, dim=1))
    if broken:
        raise InputError(
            f"{broken} of the sound's {waveform.numel()} samples are NaN or infinite; "
            "export the sound again, for example as a 16-bit WAV file"
        )
    return Sound(waveform, int(sample_rate))


def to_mono(sound: Sound) -> Sound:
    """The mean of all channels, as one channel."""
    if sound.waveform.shape[0] == 1:
        return sound
    return Sound(sound.waveform.mean(dim=0, keepdim=True), sound.sample_rate_hz)


def resample(sound: Sound, rate: int, scratch: Path | None = None) -> Sound:
    """The same sound at `rate` Hz: ceil(samples · rate / old rate) samples, by soxr at high quality.

    Quality and length follow librosa.load, with which the reference reads its files. scratch: a folder for a result of
    more than 256 MB; None keeps it in memory.
    """
    return sound if rate == sound.sample_rate_hz else _in_pieces(sound, rate, _pieces(sound), scratch)


def resample_mono(sound: Sound, rate: int, scratch: Path | None = None) -> Sound:
    """`resample(to_mono(sound), rate)`, to the bit (to rounding from 3 channels on), without a copy of the whole at the
    old rate. scratch: as of `resample`."""
    mono = (to_mono(Sound(piece, sound.sample_rate_hz)).waveform for piece in _pieces(sound))
    return _in_pieces(sound, rate, mono, scratch)


def _pieces(sound: Sound) -> Iterator[Tensor]:
    yield from sound.waveform.split(PIECE_SAMPLES, dim=1)


def _in_pieces(sound: Sound, rate: int, pieces: Iterator[Tensor], scratch: Path | None) -> Sound:
    """`pieces` (channels, n) of what `sound` becomes at its own rate, resampled and put together."""
    wanted = -(-sound.samples * rate // sound.sample_rate_hz)
    found: ChannelBuffer | None = None
    stream, seen = None, 0
    for piece in pieces:
        channels, samples = piece.shape
        found = found or ChannelBuffer(channels, scratch)
        seen += samples
        numbers = piece.numpy()
        if rate != sound.sample_rate_hz:
            stream = stream or soxr.ResampleStream(sound.sample_rate_hz, rate, channels, dtype="float32", quality="HQ")
            # (samples, channels) of more channels than one, as the library wants it.
            given = np.ascontiguousarray(numbers.T if channels > 1 else numbers[0])
            got = stream.resample_chunk(given, last=seen >= sound.samples)
            numbers = got.T if channels > 1 else got[None]
        found.append(np.ascontiguousarray(numbers[:, : wanted - found.count]))
    assert found is not None  # a sound has samples
    found.append(np.zeros((found.rows, wanted - found.count), np.float32))
    return Sound(torch.from_numpy(found.array()), rate)


def place(sound: Sound, start: int, samples: int, scratch: Path | None = None) -> Sound:
    """The sound from sample `start` on, in a silence of `samples`; a sound that is longer is not cut.

    scratch: a folder for a result of more than 256 MB; None keeps it in memory.
    """
    length = max(samples, start + sound.samples)
    return sound if length == sound.samples else _sum([sound], [start], length, sound.waveform.shape[0], scratch)


def lay_out(sounds: Sequence[Sound], in_turn: bool) -> tuple[list[int], int]:
    """At which sample each of these sounds of one rate begins, at once or one after the other; samples of all."""
    ends = list(accumulate(sound.samples for sound in sounds))
    return ([0, *ends[:-1]], ends[-1]) if in_turn else ([0] * len(sounds), max(sound.samples for sound in sounds))


def mix(sounds: Sequence[Sound], *, in_turn: bool = False, scratch: Path | None = None) -> Sound:
    """All sounds, at the highest rate among them: at once, as long as the longest; or in_turn, one after the other.

    One channel is heard on all channels; sounds whose channels cannot be matched (stereo with 5.1) are made
    mono first. Levels are not changed, so the sum can go beyond full scale. scratch: a folder for what of it is more
    than 256 MB; None keeps all in memory.
    """
    if not sounds:
        raise InputError("there is no sound to mix; connect at least one speaker's sound")
    rate = max(sound.sample_rate_hz for sound in sounds)
    sounds = [resample(sound, rate, scratch) for sound in sounds]
    starts, length = lay_out(sounds, in_turn)
    counts = {sound.waveform.shape[0] for sound in sounds}
    return _sum(sounds, starts, length, 1 if len(counts - {1}) > 1 else max(counts), scratch)


def _sum(sounds: Sequence[Sound], starts: Sequence[int], length: int, channels: int, scratch: Path | None) -> Sound:
    """Sounds of one rate added up from their starts on, in `channels` (1: as the mean of each) and `length` samples."""
    total = ChannelBuffer(channels, scratch)
    for begin in range(0, length, PIECE_SAMPLES):
        piece = torch.zeros(channels, min(PIECE_SAMPLES, length - begin))
        for sound, start in zip(sounds, starts, strict=True):
            first, stop = max(begin, start), min(begin + piece.shape[1], start + sound.samples)
            if first < stop:
                part = Sound(sound.waveform[:, first - start : stop - start], sound.sample_rate_hz)
                piece[:, first - begin : stop - begin] += (to_mono(part) if channels == 1 else part).waveform
        total.append(piece.numpy())
    return Sound(torch.from_numpy(total.array()), sounds[0].sample_rate_hz)
