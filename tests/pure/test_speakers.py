"""Two people: tracks together or in turn, silence that is really encoded, places as text or masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.disk_buffer import DiskTensor, RowWriter
from infinitetalk_core.errors import InputError
from infinitetalk_core.fingerprint import describe, tensor_fingerprint
from infinitetalk_core.speakers import Box, areas_of
from infinitetalk_core.speech import EncodedVoice, Speech, Timing, encode_speakers, encode_speech

RATE = 16000


def tone(seconds: float, hz: float = 200.0, rate: int = RATE, channels: int = 1) -> Sound:
    t = torch.arange(round(seconds * rate)) / rate
    return Sound(0.3 * torch.sin(2 * torch.pi * hz * t).expand(channels, -1).contiguous(), rate)


def loudness_a_frame(voice: Sound) -> torch.Tensor:
    """A stand-in for the encoder: one value a frame of 1/25 s."""
    frames = voice.waveform[0][: voice.samples // 640 * 640].view(-1, 640)
    return frames.abs().amax(1).view(-1, 1, 1)


def speaking(voice: torch.Tensor) -> list[bool]:
    return (voice.flatten() > 1e-6).tolist()


def test_together_the_shorter_track_is_followed_by_silence():
    speech = encode_speakers(loudness_a_frame, [tone(1.0), tone(2.0)], Timing.TOGETHER)
    assert [len(v) for v in speech.voices] == [50, 50]
    assert speaking(speech.voices[0]) == [True] * 25 + [False] * 25
    assert speaking(speech.voices[1]) == [True] * 50
    assert speech.frames == 50


def test_in_turn_the_second_starts_when_the_first_has_finished():
    speech = encode_speakers(loudness_a_frame, [tone(1.0), tone(2.0)], Timing.IN_TURN)
    assert speaking(speech.voices[0]) == [True] * 25 + [False] * 50
    assert speaking(speech.voices[1]) == [False] * 25 + [True] * 50
    assert speech.frames == 75
    assert speech.sound.samples == 3 * RATE


@pytest.mark.parametrize("timing", Timing)
def test_somebody_who_only_listens_is_silent_all_the_time(timing):
    speech = encode_speakers(loudness_a_frame, [None, tone(1.0)], timing)
    assert speaking(speech.voices[0]) == [False] * 25
    assert speaking(speech.voices[1]) == [True] * 25
    assert speech.frames == 25


def test_silence_goes_through_the_encoder():
    """The features of silence are as large as those of speech: zeros in their place would be wrong."""
    speech = encode_speakers(lambda v: loudness_a_frame(v) + 5, [tone(0.4), tone(0.8)], Timing.TOGETHER)
    assert (speech.voices[0] >= 5).all()


def test_different_rates_and_channels_are_heard_as_they_are():
    speech = encode_speakers(loudness_a_frame, [tone(1, rate=8000), tone(1, rate=44100, channels=2)], Timing.IN_TURN)
    assert speech.sound.sample_rate_hz == 44100
    assert speech.sound.waveform.shape == (2, 2 * 44100)


def test_nobody_speaks():
    with pytest.raises(InputError, match="nobody speaks"):
        encode_speakers(loudness_a_frame, [None, None], Timing.TOGETHER)


def test_one_voice_keeps_its_sound():
    sound = tone(1.0, rate=22050)
    speech = encode_speech(loudness_a_frame, sound)
    assert speech.sound is sound
    assert speech.frames == 25


def known(voice: Sound) -> EncodedVoice:
    """As the host encodes: with a key."""
    return EncodedVoice(loudness_a_frame(voice), tensor_fingerprint(voice.waveform))


@pytest.mark.parametrize("encode", [known, loudness_a_frame], ids=["known by a key", "known by its features"])
@pytest.mark.parametrize("timing", Timing)
def test_a_speech_is_known_by_who_says_what(encode, timing):
    def found(sounds: list[Sound | None], areas=None) -> object:
        return describe(encode_speakers(encode, sounds, timing, areas))

    one, two = tone(1.0), tone(1.0, hz=300.0)
    boxes = (Box(0, 0, 8, 8), Box(8, 0, 16, 8))
    speech = found([one, two])
    assert speech == found([tone(1.0), tone(1.0, hz=300.0)])
    others = [found([two, one]), found([one, one]), found([one, None]), found([None, one]), found([one, two], boxes)]
    assert all(other != speech for other in others)
    assert found([one, two], boxes) == found([one, two], boxes) != found([one, two], boxes[::-1])
    if timing is Timing.TOGETHER:
        mixes = [encode_speakers(encode, pair, timing).sound.waveform for pair in ([one, two], [two, one])]
        assert torch.equal(*mixes), "what is heard does not tell them apart"


def test_last_bits_of_the_features_do_not_make_another_speech():
    one = encode_speech(known, tone(1.0))
    assert describe(one) == describe(replace(one, voices=(one.voices[0] * (1 + 1e-7),)))
    assert describe(one) != describe(replace(one, voice_keys=("another",)))
    plain = replace(one, voice_keys=())
    assert describe(plain) != describe(replace(plain, voices=(one.voices[0] * 1.01,)))
    with pytest.raises(ValueError, match="1 voices need as many keys or none, got 2"):
        replace(one, voice_keys=("a", "b"))


def test_features_in_a_file_are_known_as_those_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr("infinitetalk_core.disk_buffer.KEPT_BYTES", 1000)
    features = torch.randn(700, 2, 5)
    writer = RowWriter(tuple(features.shape), tmp_path)
    writer.append(features)
    assert isinstance(writer.rows(), DiskTensor)
    speech = Speech((features,), tone(28.0))
    assert describe(speech) == describe(replace(speech, voices=(writer.rows(),)))
    features[699, 1, 4] += 1e-3
    assert describe(speech) != describe(replace(speech, voices=(writer.rows(),)))


def test_places_as_text_and_as_masks():
    mask = torch.ones(1, 8, 8)
    assert areas_of((None, None), ("", " ")) is None
    assert areas_of((None, None), ("1, 2, 3, 4", "5 6 7 8")) == (Box(1, 2, 3, 4), Box(5, 6, 7, 8))
    first, second = areas_of((mask, None), ("", "1,2,3,4"))
    assert first is mask
    assert second == Box(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("masks", "boxes", "words"),
    [
        ((torch.ones(1, 8, 8), None), ("", ""), "1 of 2 speakers"),
        ((torch.ones(1, 8, 8), None), ("1,2,3,4", "1,2,3,4"), "a mask and a box"),
        ((None, None), ("1,2,3", "1,2,3,4"), "speaker 1's box must be four numbers"),
        ((None, None), ("1,2,3,4", "a,b,c,d"), "speaker 2's box must be four numbers"),
    ],
)
def test_places_that_cannot_be_used(masks, boxes, words):
    with pytest.raises(InputError, match=words):
        areas_of(masks, boxes)
