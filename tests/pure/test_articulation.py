"""What the mouth of a drawn speaker does must be what is heard."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from training.articulation import (
    LIPS_CLOSED,
    VISEMES,
    articulate,
    articulate_sound,
    viseme_classes,
)
from training.voices import PAUSE, TimedPhoneme, Utterance


def buzz(seconds: float, level: float = 0.3) -> torch.Tensor:
    """A voice without words: harmonics of 120 Hz, (1, samples)."""
    time = torch.arange(round(seconds * 16000)) / 16000
    tones = [torch.sin(2 * torch.pi * 120 * k * time) / k for k in range(1, 40)]
    return level * torch.stack(tones).sum(dim=0, keepdim=True) / 2


def held(*symbols: str, seconds: float = 0.4, level: float = 0.3) -> Utterance:
    """Each symbol held for `seconds`, over a steady buzz; pauses are silent."""
    sound = torch.cat([buzz(seconds, 0.0 if symbol == PAUSE else level) for symbol in symbols], dim=1)
    phonemes = tuple(TimedPhoneme(index * seconds, symbol) for index, symbol in enumerate(symbols))
    return Utterance(Sound(sound, 16000), phonemes)


def test_vowels_open_and_shape_the_mouth_as_people_do():
    a, i, u, f = (articulate(held(symbol)) for symbol in ("ɑː", "iː", "uː", "f"))
    middle = 5
    assert a.opening[middle] > 0.9 > 0.6 > i.opening[middle] > f.opening[middle]
    assert u.width[middle] < -0.8 and abs(a.width[middle]) < 0.3 and i.width[middle] > 0.7
    assert len(a) == 10 and a.opening.dtype == a.width.dtype == a.energy.dtype == np.float32


@pytest.mark.parametrize("lips", ["p", "b", "m"])
def test_short_p_b_m_close_the_lips_between_open_vowels(lips):
    sound = Sound(buzz(1.0), 16000)
    for start in np.arange(0.4, 0.44, 0.01):
        phonemes = (TimedPhoneme(0.0, "æ"), TimedPhoneme(start, lips), TimedPhoneme(start + 0.06, "ɑː"))
        opening = articulate(Utterance(sound, phonemes)).opening
        assert opening[8:14].min() < 0.15
        assert opening[5] > 0.9 and opening[16] > 0.9


def test_the_mouth_moves_at_the_frame_where_the_sound_changes():
    opening = articulate(held("m", "ɑː", "m", seconds=0.4)).opening
    crossed = np.flatnonzero(np.diff((opening > 0.5).astype(int)))
    # Sounds change at frames 10 and 20; a frame tells of the moment 12.5 ms after its start.
    assert list(crossed) == [9, 19] or list(crossed) == [10, 19]


def test_silence_closes_the_mouth_and_quiet_speech_opens_it_less():
    said = held("ɑː", PAUSE, "ɑː")
    found = articulate(said)
    assert found.opening[13:17].max() < 0.02 and found.energy[13:17].max() < 0.05 and found.opening[5] > 0.9
    quiet = said.sound.waveform.clone()
    quiet[:, 12800:] *= 0.1  # 20 dB
    quieter = articulate(Utterance(Sound(quiet, 16000), said.phonemes)).opening
    assert quieter[25] < 0.6 * found.opening[25] and quieter[25] > 0.05


def test_a_clip_of_faint_noise_is_silence():
    noise = Sound(torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 1e-6, 16000)
    for found in (articulate_sound(noise), articulate_sound(Sound(torch.zeros(1, 16000), 16000))):
        assert found.opening.max() == 0.0 and found.energy.max() == 0.0 and len(found) == 25


def test_a_diphthong_passes_through_both_of_its_vowels():
    found = articulate(held("aɪ", seconds=0.8))
    assert found.opening[4] > 0.9 and found.opening[15] < 0.6 and found.width[15] > 0.7


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("samples", [1, 639, 16000, 23457])
def test_there_is_one_value_for_each_frame_of_the_sound(rate, samples):
    sound = Sound(torch.rand(2, samples), rate)
    found = articulate_sound(sound)
    assert len(found.opening) == len(found.width) == len(found.energy) == sound.frames
    said = Utterance(sound, (TimedPhoneme(0.0, "a"),))
    assert len(articulate(said)) == len(viseme_classes(said)) == sound.frames


def test_every_letter_has_one_shape():
    letters = [letter for viseme in VISEMES for letter in viseme.letters]
    assert len(letters) == len(set(letters))
    assert viseme_classes(held("b"))[5] == LIPS_CLOSED


def test_loudness_tells_most_of_the_opening_of_a_spoken_sentence():
    pytest.importorskip("espeakng_loader", reason="synthetic speech needs the package espeakng_loader")
    from training.voices import speak

    said = [speak(seed, 3.0) for seed in range(8)]
    found = [np.corrcoef(articulate(one).opening, articulate_sound(one.sound).opening)[0, 1] for one in said]
    assert np.mean(found) > 0.8 and min(found) > 0.7
