"""Sound and loudness: what a user connects is understood or refused in one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infinitetalk_core.audio import loudness as loudness_module
from infinitetalk_core.audio.loudness import integrated_loudness, normalize_loudness
from infinitetalk_core.audio.sound import Sound, check_sound, mix, pad_to, resample, to_mono
from infinitetalk_core.errors import InputError

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"


def tone(samples: int, rate: int = 16000, hertz: float = 300.0, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.float32)


@given(st.integers(1, 2**40), st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 44101]))
def test_frames_are_seconds_times_25_with_halves_rounded_up(samples, rate):
    sound = Sound(torch.empty(1, 1).expand(1, samples), rate)
    exact = Fraction(samples * 25, rate)
    assert sound.frames == max(1, int(exact + Fraction(1, 2)))
    assert sound.seconds == pytest.approx(samples / rate)


@pytest.mark.parametrize(
    ("waveform", "rate", "said"),
    [
        (torch.zeros(1, 0), 16000, "empty"),
        (torch.zeros(0, 100), 16000, "empty"),
        (torch.zeros(2, 1, 100), 16000, "batch of 2"),
        (torch.zeros(1, 100), 0, "sample rate is 0"),
        (torch.zeros(1, 100), -8000, "sample rate is -8000"),
        (torch.full((1, 100), float("nan")), 16000, "100 of the sound's 100 samples"),
        (torch.tensor([[0.0, float("inf")]]), 16000, "1 of the sound's 2 samples"),
        (torch.zeros(100), 16000, "(channels, samples)"),
        (torch.zeros(1, 100, dtype=torch.int16), 16000, "torch.int16"),
    ],
)
def test_a_sound_that_cannot_be_used_is_refused_in_one_sentence(waveform, rate, said):
    with pytest.raises(InputError) as refused:
        check_sound(waveform, rate)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_hosts_audio_becomes_a_sound():
    sound = check_sound(torch.rand(1, 2, 480, dtype=torch.float64), 48000)
    assert sound.waveform.shape == (2, 480)
    assert sound.waveform.dtype == torch.float32
    assert sound.frames == 1


@given(st.integers(1, 5000), st.sampled_from([8000, 22050, 44100, 48000]), st.sampled_from([8000, 16000, 44100]))
def test_resampling_keeps_the_duration(samples, old, new):
    sound = resample(Sound(torch.rand(2, samples), old), new)
    assert sound.sample_rate_hz == new
    assert sound.samples == -(-samples * new // old)


def test_resampling_keeps_the_tone():
    sound = resample(Sound(torch.from_numpy(tone(48000, 48000))[None], 48000), 16000)
    want = torch.from_numpy(tone(16000))
    assert (sound.waveform[0] - want)[200:-200].abs().max() < 1e-4


def test_mixing_adds_sounds_of_different_lengths_rates_and_channels():
    mono = Sound(torch.full((1, 100), 0.25), 16000)
    stereo = Sound(torch.stack([torch.full((50,), 0.5), torch.zeros(50)]), 16000)
    both = mix([mono, stereo])
    assert both.waveform.shape == (2, 100)
    assert both.waveform[0, :50].eq(0.75).all()
    assert both.waveform[1].eq(0.25).all()
    assert mix([mono, Sound(torch.zeros(1, 96000), 48000)]).samples == 96000
    assert mix([stereo, Sound(torch.zeros(6, 10), 16000)]).waveform.shape == (1, 50)
    with pytest.raises(InputError, match="no sound"):
        mix([])


def test_mixing_and_placing_leave_their_inputs_alone():
    first, second = Sound(torch.ones(1, 10), 16000), Sound(torch.ones(1, 10), 16000)
    mix([first, second])
    assert first.waveform.eq(1).all()
    assert pad_to(first, 2, 16).waveform.tolist() == [[0.0] * 2 + [1.0] * 10 + [0.0] * 4]
    assert pad_to(first, 0, 3).samples == 10
    assert to_mono(Sound(torch.tensor([[1.0], [0.0]]), 16000)).waveform.tolist() == [[0.5]]


@settings(deadline=None)
@given(st.integers(6400, 60000), st.integers(1000, 9000), st.integers(0, 9))
def test_loudness_in_pieces_is_pyloudnorms_of_the_whole(samples, piece, seed):
    noise = np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loudness_module, "CHUNK_SAMPLES", piece)
        got = integrated_loudness(noise, 16000)
    assert got == pytest.approx(pyloudnorm.Meter(16000).integrated_loudness(noise), abs=1e-6)


@pytest.mark.parametrize("level", [1e-3, 0.1, 3.0])
def test_every_voice_comes_to_minus_23_lufs(level):
    out = normalize_loudness(tone(32000, level=level), 16000)
    assert out.dtype == np.float32
    assert integrated_loudness(out, 16000) == pytest.approx(-23.0, abs=1e-3)


@pytest.mark.parametrize("samples", [1, 399, 640, 6399, 6400, 32000])
def test_silence_stays_silence(samples):
    assert not normalize_loudness(np.zeros(samples, np.float32), 16000).any()


def test_a_clip_shorter_than_the_meters_block_gets_the_gain_of_a_longer_one():
    short, long = tone(640), tone(64000)
    gain = normalize_loudness(short, 16000)[100] / short[100]
    assert gain == pytest.approx(normalize_loudness(long, 16000)[100] / long[100], rel=0.1)
    assert np.isfinite(normalize_loudness(tone(1) + np.float32(0.1), 16000)).all()


@pytest.mark.skipif(not MEDIA.exists(), reason=f"no {MEDIA}")
@pytest.mark.parametrize("name", ["speech_man.wav", "speech_single.wav", "speech_woman.wav"])
def test_real_speech_comes_to_minus_23_lufs(name):
    av = pytest.importorskip("av")
    with av.open(str(MEDIA / name)) as file:
        stream = file.streams.audio[0]
        rate = stream.rate
        planar = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in file.decode(stream) for part in planar.resample(frame)]
    sound = resample(to_mono(check_sound(torch.from_numpy(np.concatenate(parts, axis=1)), rate)), 16000)
    out = normalize_loudness(sound.waveform[0].numpy(), 16000)
    assert pyloudnorm.Meter(16000).integrated_loudness(out) == pytest.approx(-23.0, abs=0.01)
