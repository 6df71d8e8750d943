"""Synthetic voices to train from: sound, times of the sounds, and the wall between training and evaluation."""

from __future__ import annotations

import itertools

import pytest
import torch

from infinitetalk_core.audio.wav2vec import frames_of
from infinitetalk_core.errors import InputError
from training.sentences import training_sentence, unseen_sentence

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the package espeakng_loader")

from training.voices import PAUSE, Voice, say, say_long, speak, training_voice, unseen_voice

WOMAN = Voice("en-us+f3")
TEXT = "My boy bought a big blue map."


def loudest(samples: torch.Tensor, start: float, stop: float) -> float:
    """Peak between two times in seconds."""
    return float(samples[0, round(start * 16000) : round(stop * 16000)].abs().max())


def test_a_sentence_sounds_the_same_whatever_was_said_before():
    first = say(TEXT, WOMAN)
    say("Something else, by a man.", Voice("en-029+m1", rate=200, pitch=20))
    again = say(TEXT, WOMAN)
    assert torch.equal(first.sound.waveform, again.sound.waveform)
    assert first.phonemes == again.phonemes


def test_phonemes_come_in_order_and_end_with_the_sound():
    spoken = say(TEXT, WOMAN)
    times = [phoneme.seconds for phoneme in spoken.phonemes]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= spoken.sound.seconds
    letters = "".join(phoneme.symbol for phoneme in spoken.phonemes)
    assert letters.count("b") == 4 and letters.startswith("m") and letters.rstrip(PAUSE).endswith("p")


def test_the_times_of_phonemes_are_those_of_the_sound():
    # A hiss has most of its power high up, the vowels around it low down.
    spoken = say("A sea saw.", Voice("en-us+m2", rate=130))
    wave = spoken.sound.waveform[0]
    ends = [phoneme.seconds for phoneme in spoken.phonemes[1:]] + [spoken.sound.seconds]
    checked = []
    for phoneme, end in zip(spoken.phonemes, ends, strict=True):
        middle = round((phoneme.seconds + end) / 2 * 16000)
        power = torch.fft.rfft(wave[middle - 320 : middle + 320] * torch.hann_window(640)).abs().square()
        high = float(power[100:].sum() / power.sum())  # above 2.5 kHz
        if phoneme.symbol == "s":
            checked.append(high > 0.5)
        elif phoneme.symbol.strip("ˈˌ") in ("iː", "ɔː"):
            checked.append(high < 0.5)
    assert checked == [True] * 4


@pytest.mark.parametrize("unseen", [False, True])
def test_long_speech_has_silent_pauses_and_whole_frames(unseen):
    spoken = say_long(5, 4.0, WOMAN, unseen=unseen)
    assert spoken.sound.seconds >= 4.0 and spoken.sound.sample_rate_hz == 16000
    assert spoken.sound.frames == frames_of(spoken.sound.samples) == spoken.sound.samples // 640
    # The first pause, and the last one: nothing is heard.
    begin = next(phoneme.seconds for phoneme in spoken.phonemes if phoneme.symbol != PAUSE)
    assert 0.2 <= begin <= 0.65 and loudest(spoken.sound.waveform, 0, begin - 0.01) < 0.001
    assert loudest(spoken.sound.waveform, spoken.sound.seconds - 0.19, spoken.sound.seconds) < 0.001
    assert loudest(spoken.sound.waveform, 0, 4.0) > 0.1


def test_speech_for_a_dataset_depends_on_the_seed_alone():
    first, again, other = speak(7, 2.0), speak(7, 2.0), speak(8, 2.0)
    assert torch.equal(first.sound.waveform, again.sound.waveform)
    assert not torch.equal(first.sound.waveform[:, :16000], other.sound.waveform[:, :16000])


def test_no_voice_and_no_sentence_of_evaluation_is_trained_on():
    def parts(voices):
        names = [voice.name.split("+") for voice in voices]
        return {accent for accent, _ in names}, {variant for _, variant in names}

    seeds = range(800)
    seen, unseen = parts(map(training_voice, seeds)), parts(map(unseen_voice, seeds))
    assert not any(known & new for known, new in zip(seen, unseen, strict=True))
    assert [len(kind) for kind in itertools.chain(seen, unseen)] == [6, 47, 2, 15]
    trained, evaluated = ({sentence(seed) for seed in range(5000)} for sentence in (training_sentence, unseen_sentence))
    assert not trained & evaluated and len(trained) > 4000 and len(evaluated) > 3000


@pytest.mark.parametrize(
    ("text", "voice", "reason"), [("Hello", Voice("nobody"), "no voice"), ("   ", Voice("en-us"), "words")]
)
def test_what_cannot_be_said_is_told_in_a_sentence(text, voice, reason):
    with pytest.raises(InputError, match=reason):
        say(text, voice)
