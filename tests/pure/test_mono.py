"""Channels as one voice: their mean, but never silence that is made of two voices that cancel each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infinitetalk_core.audio.channels import FADE_SAMPLES, WINDOW_SAMPLES, match_channels, mono_part
from infinitetalk_core.audio.sound import Sound, mix, resample_mono, to_mono
from infinitetalk_core.audio.voice import prepare_voice

RATE = 48000


def voice(samples: int = 3 * RATE, seed: int = 0) -> torch.Tensor:
    """Noise that swells and fades like syllables, with pauses."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1
    return noise * (torch.sin(torch.arange(samples) / RATE * 2 * torch.pi * 1.5)).clamp(min=0)


@pytest.mark.parametrize("channels", ["left right", "with silence", "four", "8 tracks"])
def test_a_voice_and_the_same_upside_down_are_heard_as_the_voice(channels):
    said = voice()
    waveform = {
        "left right": [said, -said],
        "with silence": [torch.zeros_like(said), said, -said],
        "four": [said, -said, said, -said],
        "8 tracks": [said, -said, *[torch.zeros_like(said)] * 6],
    }[channels]
    mono = to_mono(Sound(torch.stack(waveform), RATE))
    assert torch.equal(mono.waveform[0], said)


@pytest.mark.parametrize("level", [0.6, 0.8, 0.95, 1.2])
def test_a_voice_that_is_mostly_canceled_is_heard(level):
    said = voice()
    mono = to_mono(Sound(torch.stack([said, -level * said]), RATE)).waveform[0]
    assert mono.square().mean() > 0.2 * said.square().mean()


def test_a_part_of_a_sound_that_cancels_itself_is_heard_and_the_rest_is_the_mean():
    said = voice()
    half = len(said) // 2 // WINDOW_SAMPLES * WINDOW_SAMPLES
    other = said.clone()
    other[half:] *= -1
    mono = to_mono(Sound(torch.stack([said, other]), RATE)).waveform[0]
    assert torch.equal(mono[:half], said[:half]) and torch.equal(
        mono[half + FADE_SAMPLES :], said[half + FADE_SAMPLES :]
    )
    assert (mono - said)[half : half + FADE_SAMPLES].abs().max() <= said.abs().max()


def test_the_change_from_one_to_the_other_does_not_click():
    tone = 0.5 * torch.sin(torch.arange(4 * WINDOW_SAMPLES) * 2 * torch.pi * 200 / RATE)
    other = torch.zeros_like(tone)
    other[WINDOW_SAMPLES : 3 * WINDOW_SAMPLES] = -tone[WINDOW_SAMPLES : 3 * WINDOW_SAMPLES]
    mono = to_mono(Sound(torch.stack([tone, other]), RATE)).waveform[0]
    assert mono.diff().abs().max() < 1.2 * tone.diff().abs().max()


@pytest.mark.parametrize("kind", ["one side", "two people", "wide", "surround", "quiet copy", "echo upside down"])
def test_ordinary_sound_is_the_mean_to_the_bit(kind):
    first, second = voice(seed=1), voice(seed=2)
    waveform = {
        "one side": [first, torch.zeros_like(first)],
        "two people": [first, second],
        "wide": [first, 0.7 * first + 0.3 * second],
        "surround": [first, second, first, torch.zeros_like(first), 0.2 * second, 0.1 * first],
        "quiet copy": [first, 0.1 * first],
        "echo upside down": [first, -0.3 * first],
    }[kind]
    stacked = torch.stack(waveform)
    assert torch.equal(to_mono(Sound(stacked, RATE)).waveform, stacked.mean(dim=0, keepdim=True))


@pytest.mark.parametrize("first", [0, 1, 4799, 4800, 7000, 48123])
@pytest.mark.parametrize("length", [1, 479, 4800, 20011])
def test_any_part_is_that_part_of_the_whole(first, length):
    said = voice()
    other = said.clone()
    other[RATE : 2 * RATE] *= -1
    stacked = torch.stack([said, other])
    whole = mono_part(stacked, 0, len(said))
    assert torch.equal(mono_part(stacked, first, first + length), whole[:, first : first + length])


def test_the_encoder_and_the_mix_hear_what_to_mono_hears(monkeypatch):
    said = voice()
    upside_down = Sound(torch.stack([said, -said]), RATE)
    alone = Sound(said[None], RATE)
    monkeypatch.setattr("infinitetalk_core.audio.sound.PIECE_SAMPLES", 5000)
    assert torch.equal(resample_mono(upside_down, 16000).waveform, resample_mono(alone, 16000).waveform)
    assert torch.equal(prepare_voice(upside_down).waveform, prepare_voice(alone).waveform)
    surround = Sound(torch.zeros(6, 100), RATE)
    mixed = mix([upside_down, surround])
    assert mixed.waveform.shape[0] == 1 and torch.equal(mixed.waveform[0], said)


@pytest.mark.parametrize(("have", "want"), [(1, 2), (2, 1), (2, 6), (6, 2), (8, 2), (3, 2), (1, 6), (5, 3)])
def test_other_channels_keep_what_is_heard_and_do_not_clip(have, want):
    waveform = torch.from_numpy(np.full((have, 10), 0.9, np.float32))
    matched = match_channels(waveform, want)
    assert matched.shape == (want, 10) and 0.5 < matched[0].max() <= 0.91 and matched.abs().max() <= 0.91
