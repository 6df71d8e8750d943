"""Sound: checking, mixing, padding and resampling of what is heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InputError
from ..rate import FRAMES_PER_SECOND
from ..scratch import Spool

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


def pad_to(sound: Sound, samples: int) -> Sound:
    """Silence after the sound until it has `samples` samples; a sound that is long enough is not cut."""
    missing = samples - sound.samples
    return sound if missing <= 0 else Sound(pad(sound.waveform, (0, missing)), sound.sample_rate_hz)


def resample(sound: Sound, rate: int) -> Sound:
    """The same sound at `rate` Hz: ceil(samples · rate / old rate) samples, by soxr at high quality.

    Quality and length follow librosa.load, with which the reference reads its files.
    """
    if rate == sound.sample_rate_hz:
        return sound
    wanted = -(-sound.samples * rate // sound.sample_rate_hz)
    got = soxr.resample(sound.waveform.numpy().T, sound.sample_rate_hz, rate, quality="HQ")
    waveform = torch.from_numpy(np.ascontiguousarray(got.T, dtype=np.float32))[:, :wanted]
    return pad_to(Sound(waveform, rate), wanted)


def resample_mono(sound: Sound, rate: int, scratch: Path | None = None) -> Sound:
    """`resample(to_mono(sound), rate)`, to the bit (to rounding from 3 channels on), a piece at a time: no copy of the
    whole at the old rate.

    scratch: a folder for a result of more than 256 MB; None keeps it in memory.
    """
    wanted = -(-sound.samples * rate // sound.sample_rate_hz)
    spool = Spool(scratch)
    stream = None
    if rate != sound.sample_rate_hz:
        stream = soxr.ResampleStream(sound.sample_rate_hz, rate, 1, dtype="float32", quality="HQ")
    for start in range(0, sound.samples, PIECE_SAMPLES):
        piece = to_mono(Sound(sound.waveform[:, start : start + PIECE_SAMPLES], sound.sample_rate_hz)).waveform[0]
        numbers = np.ascontiguousarray(piece.numpy())
        if stream is not None:
            numbers = stream.resample_chunk(numbers, last=start + PIECE_SAMPLES >= sound.samples)
        spool.append(numbers[: wanted - spool.count])
    spool.append(np.zeros(wanted - spool.count, np.float32))
    return Sound(torch.from_numpy(spool.array())[None], rate)


def mix(sounds: Sequence[Sound]) -> Sound:
    """All sounds heard at once: their sum, at the highest rate, as long as the longest of them.

    One channel is heard on all channels; sounds whose channels cannot be matched (stereo with 5.1) are made
    mono first. Levels are not changed, so the sum can go beyond full scale.
    """
    if not sounds:
        raise InputError("there is no sound to mix; connect at least one speaker's sound")
    rate = max(sound.sample_rate_hz for sound in sounds)
    sounds = [resample(sound, rate) for sound in sounds]
    length = max(sound.samples for sound in sounds)
    if len({sound.waveform.shape[0] for sound in sounds} - {1}) > 1:
        sounds = [to_mono(sound) for sound in sounds]
    total = torch.zeros(max(sound.waveform.shape[0] for sound in sounds), length)
    for sound in sounds:
        total[:, : sound.samples] += sound.waveform
    return Sound(total, rate)
