"""Mixing of a sound's channels. Waveforms are (channels, samples) float32."""

from __future__ import annotations

import torch
from torch import Tensor

# Decided for each window of samples: 0.1 s at 48 kHz, 0.3 s at 16 kHz.
WINDOW_SAMPLES = 4800
FADE_SAMPLES = 480
# Channels that have nothing to do with each other add up to this power of their mean: the sum of their powers / n².
# Where the mean has less than a quarter of it, they cancel each other.
CANCELED_POWER = 0.25
_AS_LOUD = 0.25  # in power: of channels as loud as this, the first one is taken


def mono_part(waveform: Tensor, first: int, stop: int) -> Tensor:
    """Return samples first … stop-1 of all channels mixed to one, (1, stop - first).

    That is their mean. Where channels cancel each other, as in a recording whose right channel is the left one upside
    down, nothing would be left of the voice: there it is the first of the loud channels. Any part is the same as that
    part of the whole.
    """
    if waveform.shape[0] == 1:
        return waveform[:, first:stop]
    mean = waveform[:, first:stop].mean(dim=0, keepdim=True)
    # One window more on either side, because a fade depends on it.
    begin = max(first // WINDOW_SAMPLES - 1, 0)
    end = -(-stop // WINDOW_SAMPLES) + 1
    windows = [_window(waveform, number) for number in range(begin, end)]
    chosen = [_chosen_channel(window) for window in windows]
    for number, channel in enumerate(chosen):
        at = (begin + number) * WINDOW_SAMPLES
        low, high = max(at, first), min(at + windows[number].shape[1], stop)
        if channel is None or low >= high:
            continue
        faded = _share(windows[number].shape[1], _next_to(chosen, number, -1), _next_to(chosen, number, 1))
        share, wanted = faded[low - at : high - at], windows[number][channel, low - at : high - at]
        kept = mean[0, low - first : high - first]
        mean[0, low - first : high - first] = torch.where(share < 1, kept + share * (wanted - kept), wanted)
    return mean


def _window(waveform: Tensor, number: int) -> Tensor:
    return waveform[:, number * WINDOW_SAMPLES : (number + 1) * WINDOW_SAMPLES]


def _chosen_channel(window: Tensor) -> int | None:
    """Return the channel to take instead of the mean, -1 where any is as good, None where the mean is right."""
    if not window.shape[1]:
        return -1
    power = window.square().sum(dim=1)
    loudest = power.max()
    if not loudest > 0:
        return -1
    canceled = window.mean(dim=0).square().sum() < CANCELED_POWER * power.sum() / len(window) ** 2
    return int((power >= _AS_LOUD * loudest).nonzero()[0]) if canceled else None


def _next_to(chosen: list[int | None], number: int, step: int) -> bool:
    """Return whether the mean is taken in the window before (step -1) or after (1)."""
    other = number + step
    return 0 <= other < len(chosen) and chosen[other] is None


def _share(samples: int, fade_in: bool, fade_out: bool) -> Tensor:
    """Return how much of the chosen channel each sample of a window gets, 0 … 1."""
    share = torch.ones(samples)
    length = min(FADE_SAMPLES, samples)
    ramp = torch.arange(1, length + 1) / (length + 1)
    if fade_in:
        share[:length] = ramp
    if fade_out:
        share[-length:] = torch.minimum(share[-length:], ramp.flip(0))
    return share


def match_channels(waveform: Tensor, channels: int) -> Tensor:
    """Return `waveform` with another number of channels: mono is copied to all, stereo becomes the first two."""
    count = waveform.shape[0]
    if count == channels:
        return waveform
    if channels == 1:
        return waveform.mean(dim=0, keepdim=True)
    if count > 2 and channels == 2:
        waveform = to_mono_or_stereo(waveform)
    if waveform.shape[0] == 1:
        return waveform.expand(channels, -1)
    silent = waveform.new_zeros(max(channels - waveform.shape[0], 0), waveform.shape[1])
    return torch.cat([waveform[:channels], silent])


_MINUS_3_DB = 0.5**0.5


def to_mono_or_stereo(waveform: Tensor) -> Tensor:
    """Downmix (channels, samples) to 1 or 2 channels: 5.1 and 7.1 to stereo as in players, other counts to mono.

    The stereo downmix attenuates center and surround by 3 dB, drops the LFE channel (ITU-R BS.775) and cannot clip.
    """
    channels = waveform.shape[0]
    if channels <= 2:
        return waveform
    if channels not in (6, 8):
        return waveform.mean(dim=0, keepdim=True)
    front, center, surround = waveform[0:2], waveform[2:3], waveform[4:]
    sides = torch.stack([surround[0::2].sum(0), surround[1::2].sum(0)])
    loudest = 1 + _MINUS_3_DB * (1 + (channels - 4) // 2)
    return (front + _MINUS_3_DB * (center + sides)) / loudest
