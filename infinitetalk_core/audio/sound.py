"""Checking, mixing and resampling of sound, in pieces; long results are stored on disk."""

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
from .channels import mono_part

PIECE_SAMPLES = 1 << 20
# Telephones have 8000 Hz; one-bit recordings (DSD512) come out of their decoder with 2,822,400 Hz.
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1000, 3_072_000
MOST_CHANNELS = 64  # as in FFmpeg's resampler


@dataclass(frozen=True)
class Sound:
    """A sound.

    waveform: (channels, samples) float32 on the CPU, full scale is -1 … 1 (not enforced).
    sample_rate_hz: samples per second of each channel.
    """

    waveform: Tensor
    sample_rate_hz: int

    @property
    def samples(self) -> int:
        """Samples in each channel."""
        return self.waveform.shape[-1]

    @property
    def seconds(self) -> float:
        """Duration of the sound."""
        return self.samples / self.sample_rate_hz

    @property
    def frames(self) -> int:
        """Duration in video frames at 25 fps: seconds · 25, halves rounded up, at least 1.

        Computed with integers, so that no length is off by one through rounding.
        """
        doubled = 2 * FRAMES_PER_SECOND * self.samples + self.sample_rate_hz
        return max(1, doubled // (2 * self.sample_rate_hz))


def check_sound(waveform: Tensor, sample_rate: int) -> Sound:
    """Return a Sound from `waveform`, (channels, samples) or (1, channels, samples).

    Raises InputError if it is unusable.
    """
    if sample_rate != int(sample_rate) or not LOWEST_RATE_HZ <= sample_rate <= HIGHEST_RATE_HZ:
        raise InputError(
            f"the sound's sample rate is {sample_rate}, but it must be a whole number of Hz from {LOWEST_RATE_HZ} to "
            f"{HIGHEST_RATE_HZ}; load the sound again from its file"
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
    # Piece by piece, because an hour of sound takes more than a gigabyte.
    broken = sum(int((~torch.isfinite(part)).sum()) for part in waveform.split(PIECE_SAMPLES, dim=1))
    if broken:
        raise InputError(
            f"{broken} of the sound's {waveform.numel()} samples are NaN or infinite; "
            "export the sound again, for example as a 16-bit WAV file"
        )
    return Sound(waveform, int(sample_rate))


def to_mono(sound: Sound) -> Sound:
    """Average all channels to one, except where they cancel each other (`mono_part`)."""
    if sound.waveform.shape[0] == 1:
        return sound
    return Sound(mono_part(sound.waveform, 0, sound.samples), sound.sample_rate_hz)


def resample(sound: Sound, rate: int, scratch: Path | None = None) -> Sound:
    """Resample to `rate` Hz with soxr at high quality: ceil(samples · rate / old rate) samples.

    Quality and length follow librosa.load, which the reference uses. scratch: a folder for a result of more than 256
    MB; None keeps it in memory.
    """
    return sound if rate == sound.sample_rate_hz else _in_pieces(sound, rate, _pieces(sound), scratch)


def resample_mono(sound: Sound, rate: int, scratch: Path | None = None) -> Sound:
    """Compute `resample(to_mono(sound), rate)` without a copy of the whole sound at the old rate.

    Bit-exact up to 2 channels, equal up to rounding from 3 channels on. scratch: as for `resample`.
    """
    starts = range(0, sound.samples, PIECE_SAMPLES)
    mono = (mono_part(sound.waveform, start, min(start + PIECE_SAMPLES, sound.samples)) for start in starts)
    return _in_pieces(sound, rate, mono, scratch)


def _pieces(sound: Sound) -> Iterator[Tensor]:
    yield from sound.waveform.split(PIECE_SAMPLES, dim=1)


def _in_pieces(sound: Sound, rate: int, pieces: Iterator[Tensor], scratch: Path | None) -> Sound:
    """Resample `pieces` (channels, n), which together have the length and rate of `sound`, to `rate` and join them."""
    length = -(-sound.samples * rate // sound.sample_rate_hz)
    found: ChannelBuffer | None = None
    stream, consumed = None, 0
    for piece in pieces:
        channels, samples = piece.shape
        found = found or ChannelBuffer(channels, scratch)
        consumed += samples
        numbers = piece.numpy()
        if rate != sound.sample_rate_hz:
            stream = stream or soxr.ResampleStream(sound.sample_rate_hz, rate, channels, dtype="float32", quality="HQ")
            # soxr expects (samples, channels) for several channels.
            given = np.ascontiguousarray(numbers.T if channels > 1 else numbers[0])
            got = stream.resample_chunk(given, last=consumed >= sound.samples)
            numbers = got.T if channels > 1 else got[None]
        found.append(np.ascontiguousarray(numbers[:, : length - found.count]))
    assert found is not None  # a sound has samples
    found.append(np.zeros((found.rows, length - found.count), np.float32))
    return Sound(torch.from_numpy(found.array()), rate)


def pad_to(sound: Sound, start: int, samples: int, scratch: Path | None = None) -> Sound:
    """Pad the sound with silence to `samples` samples, with its beginning at sample `start`. It is never cut.

    scratch: a folder for a result of more than 256 MB; None keeps it in memory.
    """
    length = max(samples, start + sound.samples)
    return sound if length == sound.samples else _sum([sound], [start], length, sound.waveform.shape[0], scratch)


def lay_out(sounds: Sequence[Sound], in_turn: bool) -> tuple[list[int], int]:
    """Return (start sample of each, total samples) for sounds of one rate, at once or one after the other."""
    ends = list(accumulate(sound.samples for sound in sounds))
    return ([0, *ends[:-1]], ends[-1]) if in_turn else ([0] * len(sounds), max(sound.samples for sound in sounds))


def mix(sounds: Sequence[Sound], *, in_turn: bool = False, scratch: Path | None = None) -> Sound:
    """Mix sounds at the highest rate among them: at once, or (in_turn) one after the other.

    Mono sounds are copied to all channels; if channel counts cannot be matched (stereo with 5.1), all are made mono.
    Levels are not changed, so the sum can exceed full scale. scratch: a folder for results of more than 256 MB; None
    keeps all in memory. Raises InputError without sounds.
    """
    if not sounds:
        raise InputError("there is no sound to mix; connect at least one speaker's sound")
    rate = max(sound.sample_rate_hz for sound in sounds)
    sounds = [resample(sound, rate, scratch) for sound in sounds]
    starts, length = lay_out(sounds, in_turn)
    counts = {sound.waveform.shape[0] for sound in sounds}
    return _sum(sounds, starts, length, 1 if len(counts - {1}) > 1 else max(counts), scratch)


def _sum(sounds: Sequence[Sound], starts: Sequence[int], length: int, channels: int, scratch: Path | None) -> Sound:
    """Add sounds of one rate, each at its start sample, to (channels, length). channels 1: each is averaged to mono."""
    total = ChannelBuffer(channels, scratch)
    for begin in range(0, length, PIECE_SAMPLES):
        piece = torch.zeros(channels, min(PIECE_SAMPLES, length - begin))
        for sound, start in zip(sounds, starts, strict=True):
            first, stop = max(begin, start), min(begin + piece.shape[1], start + sound.samples)
            if first < stop:
                part = sound.waveform[:, first - start : stop - start]
                if channels == 1:
                    part = mono_part(sound.waveform, first - start, stop - start)
                piece[:, first - begin : stop - begin] += part
        total.append(piece.numpy())
    return Sound(torch.from_numpy(total.array()), sounds[0].sample_rate_hz)
