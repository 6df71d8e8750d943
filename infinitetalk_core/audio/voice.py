"""Preparation of a voice as input of the speech encoder, as in training."""

from __future__ import annotations

from pathlib import Path

import torch

from .loudness import normalize_loudness
from .sound import Sound, resample_mono

SAMPLE_RATE_HZ = 16000


def prepare_voice(sound: Sound, scratch: Path | None = None) -> Sound:
    """Convert `sound` to 16 kHz mono at -23 LUFS (silence stays unchanged).

    Source: audio_prepare_single of the reference.
    scratch: a folder for voices of more than 256 MB (over an hour); the result is bit-exact the same as in memory.
    """
    mono = resample_mono(sound, SAMPLE_RATE_HZ, scratch)
    samples = normalize_loudness(mono.waveform[0].numpy(), SAMPLE_RATE_HZ, scratch=scratch)
    return Sound(torch.from_numpy(samples)[None], SAMPLE_RATE_HZ)
