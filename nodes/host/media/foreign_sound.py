"""AUDIO as other packs hand it over, converted to samples from -1 to 1 where the meaning is sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....infinitetalk_core.audio.sound import PIECE_SAMPLES
from ....infinitetalk_core.disk_buffer import ChannelBuffer
from ....infinitetalk_core.errors import InputError
from ..messages import say
from ..model.model_files import temp_folder
from .foreign import number_of, tensor_of, unwrapped, what_is, written

WHAT = "a sound (AUDIO)"
NESTED = 3  # lists in lists: batch, channels, samples
MOST_CHANNELS = 256  # a sound with more has samples first
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz
LOUDEST = 32.0  # times full scale, 30 dB: floats up to here are taken as they are
SURELY_16_BIT, FULL_16_BIT = 256.0, 32768.0  # samples whose peak lies between these
SURELY_32_BIT = float(1 << 23)  # 24-bit samples, which some keep in 32 bits, end here


def waveform_of(audio: Any, name: str) -> tuple[Tensor, int]:
    """Return the samples (channels, n), full scale 1, and the sample rate of AUDIO.

    AUDIO is any mapping with waveform (1, channels, samples) and sample_rate. Also takes waveforms of one or two
    dimensions or with samples first, numpy, lists of numbers, whole numbers (PCM), and floats that are 16-bit samples.
    Raises InputError, naming the input, for no sound and where the meaning is not sure.
    """
    audio = unwrapped(audio)
    if audio is None:
        raise InputError(f"there is no sound in this AUDIO input ({name}); load a file that has a sound track")
    if not isinstance(audio, Mapping) or "waveform" not in audio or "sample_rate" not in audio:
        raise InputError(f"{name} takes {WHAT} with its sample rate, and got {what_is(audio)}; connect an audio loader")
    rate = _rate(audio["sample_rate"], name)
    return _floats(_channels_first(_waveform(audio["waveform"], name)), name), rate


def _rate(value: Any, name: str) -> int:
    rate = number_of(value)
    if rate is None or not LOWEST_RATE <= rate <= HIGHEST_RATE or rate != int(rate):
        got = what_is(value) if rate is None else f"{written(rate)} Hz"
        raise InputError(
            f"{name} has {got} as its sample rate, which must be a whole number from {LOWEST_RATE} to {HIGHEST_RATE}; "
            "load the sound again from its file"
        )
    return int(rate)


def _waveform(value: Any, name: str) -> Tensor:
    """Return the samples as a tensor of any numbers and 1 to 3 dimensions."""
    value = unwrapped(value)
    if isinstance(value, (list, tuple)):
        value = _listed(value, name)
    waveform = tensor_of(value, name, "a sound's samples as numbers")
    if waveform.dtype is torch.bool or not 1 <= waveform.ndim <= 3:
        raise InputError(f"{name} takes samples as channels x samples, and got {what_is(value)}")
    return waveform


def _listed(value: Any, name: str) -> Any:
    """Return a list of numbers, or lists of numbers, as an array."""
    depth, first = 0, value
    while isinstance(first, (list, tuple)) and first and depth < NESTED:
        depth, first = depth + 1, first[0]
    if isinstance(first, (Tensor, np.ndarray)):
        raise InputError(
            f"{name} got a list of {len(value)} sounds, but one speaker needs one; pick one of them, or join them one "
            "after the other"
        )
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:  # ragged, or no numbers
        raise InputError(
            f"{name} takes a sound's samples as numbers, and got {what_is(value)} that are none"
        ) from error


def _channels_first(waveform: Tensor) -> Tensor:
    """Return (channels, samples), or (clips, channels, samples) of several clips, which `check_sound` refuses."""
    if waveform.ndim == 1:
        waveform = waveform[None]
    if waveform.ndim == 3 and len(waveform) == 1:
        waveform = waveform[0]
    samples_first = waveform.shape[-2] > MOST_CHANNELS and waveform.shape[-1] < waveform.shape[-2]
    return waveform.transpose(-2, -1) if samples_first else waveform


def _floats(waveform: Tensor, name: str) -> Tensor:
    """Return samples of any type as floats with full scale 1; float samples of that scale as they are."""
    if waveform.ndim != 2 or waveform.numel() == 0:
        return waveform.float()  # `check_sound` says what is wrong with it
    zero, full = _full_scale(waveform, name)
    if (zero, full) == (0, 1) and waveform.is_floating_point():
        return waveform
    # Piece by piece to the disk, because an hour of sound takes more than a gigabyte.
    buffer = ChannelBuffer(len(waveform), temp_folder())
    for piece in waveform.split(PIECE_SAMPLES, dim=1):
        buffer.append(((piece.cpu().double() - zero) / full).float().numpy())
    return torch.from_numpy(buffer.array())


def _full_scale(waveform: Tensor, name: str) -> tuple[int, float]:
    """Return (the number that is silence, full scale) of samples (channels, n)."""
    by_type = {torch.uint8: (128, 128.0), torch.int8: (0, 128.0), torch.int16: (0, FULL_16_BIT)}
    if waveform.dtype in by_type:
        return by_type[waveform.dtype]
    limits = torch.stack(
        [torch.stack(torch.aminmax(piece)).double().cpu() for piece in waveform.split(PIECE_SAMPLES, 1)]
    )
    peak = float(limits.abs().max())  # NaN where a sample is none; `check_sound` counts them
    if SURELY_16_BIT < peak <= FULL_16_BIT:
        say(f"{name} has samples up to {peak:g}, read as 16 bits and divided by {FULL_16_BIT:g}")
        return 0, FULL_16_BIT
    if waveform.dtype is torch.int32 and peak > SURELY_32_BIT:
        return 0, float(1 << 31)
    if (waveform.is_floating_point() and not LOUDEST < peak < float("inf")) or peak == 0:
        return 0, 1.0
    raise InputError(
        f"{name} has samples up to {peak:g}, and a sound's are numbers from -1 to 1; divide them by their full scale, "
        "or load the sound from its file"
    )
