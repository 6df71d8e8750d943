"""Loudness by ITU-R BS.1770: every voice reaches the speech encoder equally loud."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyloudnorm import IIRfilter, Meter
from scipy.signal import lfilter

from ..disk_buffer import Spool

BLOCK_SECONDS = 0.4
CHUNK_SAMPLES = 1 << 22

Samples = NDArray[np.float32]


def _k_weighted(samples: Samples, rate_hz: int, scratch: Path | None) -> Samples:
    """The two K-weighting filters of BS.1770 over the clip, a chunk at a time with the filters' state kept.

    Filtering the clip at once gives the same numbers, but needs several float64 copies of it.
    """
    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, rate_hz, "high_shelf")
    pass_ = IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass")
    states = [np.zeros(2), np.zeros(2)]
    spool = Spool(scratch)
    for start in range(0, len(samples), CHUNK_SAMPLES):
        part = np.array(samples[start : start + CHUNK_SAMPLES], dtype=np.float32)
        for number, stage in enumerate((shelf, pass_)):
            part[:], states[number] = lfilter(stage.b, stage.a, part, zi=states[number])
        spool.append(part)
    return spool.array()


def integrated_loudness(samples: Samples, rate_hz: int, scratch: Path | None = None) -> float:
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
        return float(meter.integrated_loudness(_k_weighted(samples, rate_hz, scratch)))


def normalise_loudness(
    samples: Samples, rate_hz: int, target_lufs: float = -23.0, scratch: Path | None = None
) -> Samples:
    """`samples` (mono) with one gain that brings them to `target_lufs`; peaks are not limited.

    A clip whose loudness is beyond ±100 LUFS, silence above all, is returned unchanged
    (reference: generate_infinitetalk.py, loudness_norm). scratch: a folder for results of more than 256 MB.
    """
    loudness = integrated_loudness(samples, rate_hz, scratch)
    if not abs(loudness) <= 100:
        return samples
    gain = 10.0 ** ((target_lufs - loudness) / 20.0)
    spool = Spool(scratch)
    for start in range(0, len(samples), CHUNK_SAMPLES):
        spool.append(np.multiply(samples[start : start + CHUNK_SAMPLES], np.float32(gain), dtype=np.float32))
    return spool.array()
