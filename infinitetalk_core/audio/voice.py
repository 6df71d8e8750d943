"""A voice as the speech encoder was trained to hear it."""

from __future__ import annotations

from pathlib import Path

import torch

from .loudness import normalise_loudness
from .sound import Sound, resample_mono

SAMPLE_RATE_HZ = 16000


def prepare_voice(sound: Sound, scratch: Path | None = None) -> Sound:
    """`sound` as 16 kHz mono at −23 LUFS (silence stays as it is). Source: audio_prepare_single of the reference.

    scratch: a folder for voices of more than 256 MB (over an hour), to the bit what they are in memory.
    """
    mono = resample_mono(sound, SAMPLE_RATE_HZ, scratch)
    samples = normalise_loudness(mono.waveform[0].numpy(), SAMPLE_RATE_HZ, scratch=scratch)
    return Sound(torch.from_numpy(samples)[None], SAMPLE_RATE_HZ)
