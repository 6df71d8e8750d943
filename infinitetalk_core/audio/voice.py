"""A voice as the speech encoder was trained to hear it."""

from __future__ import annotations

import torch

from .loudness import normalise_loudness
from .sound import Sound, resample, to_mono

SAMPLE_RATE_HZ = 16000


def prepare_voice(sound: Sound) -> Sound:
    """`sound` as 16 kHz mono at −23 LUFS (silence stays as it is). Source: audio_prepare_single of the reference."""
    mono = resample(to_mono(sound), SAMPLE_RATE_HZ)
    samples = normalise_loudness(mono.waveform[0].numpy(), SAMPLE_RATE_HZ)
    return Sound(torch.from_numpy(samples)[None], SAMPLE_RATE_HZ)
