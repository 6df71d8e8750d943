"""Loudness normalization by ITU-R BS.1770, so that the speech encoder gets every voice at the same loudness."""

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
    """Apply the two K-weighting filters of BS.1770, one chunk at a time, carrying over the filters' state.

    Filtering the whole clip at once gives the same numbers but needs several float64 copies of it.
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
    """Return the gated loudness of a mono clip in LUFS; -inf for silence.

    Blocks, gates and sums are pyloudnorm's. A clip shorter than one block of 0.4 s is repeated to fill it: padding with
    silence would lower the measured loudness and make the gain too large.
    """
    block = math.ceil(BLOCK_SECONDS * rate_hz)
    if len(samples) < block:
        samples = np.resize(samples, block)
    # "custom" is a meter without filters: `_k_weighted` applies them.
    meter = Meter(rate_hz, filter_class="custom", block_size=BLOCK_SECONDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)  # log of zero: a silent block
        return float(meter.integrated_loudness(_k_weighted(samples, rate_hz, scratch)))


def normalize_loudness(
    samples: Samples, rate_hz: int, target_lufs: float = -23.0, scratch: Path | None = None
) -> Samples:
    """Scale `samples` (mono) by one gain to `target_lufs`; peaks are not limited.

    A clip whose loudness is beyond ±100 LUFS, such as silence, is returned unchanged
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
