"""Loudness normalization by ITU-R BS.1770, so that the speech encoder gets every voice at the same loudness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..disk_buffer import Spool

BLOCK_SECONDS = 0.4
BLOCKS_A_LENGTH = 4  # a block begins at each quarter of the one before
CHUNK_SAMPLES = 1 << 20
SILENCE_LUFS = -70.0  # blocks below are left out, …
RELATIVE_LU = -10.0  # … and then those that are so much below the loudness of the others
_OFFSET = -0.691

Samples = NDArray[np.float32]


def _k_weighted(samples: Samples, rate_hz: int) -> Iterator[Samples]:
    """Yield `samples` after the two K-weighting filters of BS.1770, one chunk at a time.

    The filters' state is carried over: filtering the whole clip at once gives the same numbers but needs several
    float64 copies of it.
    """
    # Imported on first use, since scipy.signal takes long.
    from pyloudnorm import IIRfilter
    from scipy.signal import lfilter

    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, rate_hz, "high_shelf")
    pass_ = IIRfilter(0.0, 0.5, 38.0, rate_hz, "high_pass")
    states = [np.zeros(2), np.zeros(2)]
    for start in range(0, len(samples), CHUNK_SAMPLES):
        part = np.array(samples[start : start + CHUNK_SAMPLES], dtype=np.float32)
        for number, stage in enumerate((shelf, pass_)):
            part[:], states[number] = lfilter(stage.b, stage.a, part, zi=states[number])
        yield part


def _block_powers(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    """Return the mean power of each K-weighted block. The blocks are those of pyloudnorm, to the sample."""
    step = 1 / BLOCKS_A_LENGTH
    seconds = len(samples) / rate_hz
    count = int(np.round((seconds - BLOCK_SECONDS) / (BLOCK_SECONDS * step)) + 1)
    powers = np.zeros(count)
    number, begin = 0, 0  # of the next block; where `kept` begins
    kept = np.zeros(0, np.float32)
    for part in _k_weighted(samples, rate_hz):
        kept = np.concatenate([kept, part])
        at_end = begin + len(kept) == len(samples)
        while number < count:
            first = int(BLOCK_SECONDS * (number * step) * rate_hz)
            stop = int(BLOCK_SECONDS * (number * step + 1) * rate_hz)
            if stop > begin + len(kept) and not at_end:
                kept, begin = kept[first - begin :].copy(), first
                break
            block = kept[first - begin : stop - begin]
            powers[number] = (1.0 / (BLOCK_SECONDS * rate_hz)) * np.sum(np.square(block))
            number += 1
    return powers


def integrated_loudness(samples: Samples, rate_hz: int) -> float:
    """Return the gated loudness of a mono clip in LUFS; -inf for silence.

    The same as pyloudnorm's, which needs a copy of the whole clip. A clip shorter than one block of 0.4 s is repeated
    to fill it: padding with silence would lower the measured loudness and make the gain too large.
    """
    block = math.ceil(BLOCK_SECONDS * rate_hz)
    if len(samples) < block:
        samples = np.resize(samples, block)
    powers = _block_powers(samples, rate_hz)
    with np.errstate(divide="ignore"):  # the logarithm of a silent block
        levels = _OFFSET + 10 * np.log10(powers)
    heard = levels >= SILENCE_LUFS
    threshold = max(_lufs(powers[heard]) + RELATIVE_LU, SILENCE_LUFS)
    return _lufs(powers[heard & (levels > threshold)])


def _lufs(powers: NDArray[np.float64]) -> float:
    """Return the loudness of blocks together; -inf for none."""
    return float(_OFFSET + 10 * np.log10(powers.mean())) if powers.any() else -math.inf


def normalize_loudness(
    samples: Samples, rate_hz: int, target_lufs: float = -23.0, scratch: Path | None = None
) -> Samples:
    """Scale `samples` (mono) by one gain to `target_lufs`; peaks are not limited.

    A clip whose loudness is beyond ±100 LUFS, such as silence, is returned unchanged
    (reference: generate_infinitetalk.py, loudness_norm). scratch: a folder for results of more than 256 MB.
    """
    loudness = integrated_loudness(samples, rate_hz)
    if not abs(loudness) <= 100:
        return samples
    gain = 10.0 ** ((target_lufs - loudness) / 20.0)
    spool = Spool(scratch)
    for start in range(0, len(samples), CHUNK_SAMPLES):
        spool.append(np.multiply(samples[start : start + CHUNK_SAMPLES], np.float32(gain), dtype=np.float32))
    return spool.array()
