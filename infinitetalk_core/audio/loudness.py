"""Loudness by ITU-R BS.1770: every voice reaches the speech encoder equally loud."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from pyloudnorm import IIRfilter, Meter
from scipy.signal import lfilter

BLOCK_SECONDS = 0.4
CHUNK_SAMPLES = 1 << 22

Samples = NDArray[np.float32]


def _k_weighted(samples: Samples, rate_hz: int) -> Samples:
    """The two K-weighting filters of BS.1770 over the clip, a chunk at a time with the filters' state kept.

    Filtering the clip at once gives the same numbers, but needs several float64 copies of it.
    """
    stages = [
        IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, rate_hz, "high_shelf"),
        IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass"),
    ]
    weighted = np.array(samples, dtype=np.float32)
    for stage in stages:
        b, a = stage.b, stage.a
        state = np.zeros(2)
        for start in range(0, len(weighted), CHUNK_SAMPLES):
            part = weighted[start : start + CHUNK_SAMPLES]
            part[:], state = lfilter(b, a, part, zi=state)
    return weighted


def integrated_loudness(samples: Samples, rate_hz: int) -> float:
    """Gated loudness of a mono clip in LUFS; -inf for silence.

    Blocks, gates and sums are pyloudnorm's. A clip shorter than one block of 0.4 s is measured on repetitions
    of itself: silence around it would make it look quieter than it is, and the gain for it too large.
    """
    block = math.ceil(BLOCK_SECONDS * rate_hz)
    if len(samples) < block:
        samples = np.resize(samples, block)
    meter = Meter(rate_hz, filter_class="custom", block_size=BLOCK_SECONDS)  # the weighting is done here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # log of zero: a silent block
        return float(meter.integrated_loudness(_k_weighted(samples, rate_hz)))


def normalise_loudness(samples: Samples, rate_hz: int, target_lufs: float = -23.0) -> Samples:
    """`samples` (mono) with one gain that brings them to `target_lufs`; peaks are not limited.

    A clip whose loudness is beyond ±100 LUFS, silence above all, is returned unchanged
    (reference: generate_infinitetalk.py, loudness_norm).
    """
    loudness = integrated_loudness(samples, rate_hz)
    if not abs(loudness) <= 100:
        return samples
    gain = 10.0 ** ((target_lufs - loudness) / 20.0)
    return np.multiply(samples, np.float32(gain), dtype=np.float32)
