"""The speech encoder: clips of any length, in bounded memory, with the result of the whole clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate
from torch.nn.functional import pad as pad_tensor

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.loudness import normalize_loudness
from infinitetalk_core.audio.sound import Sound, check_sound
from infinitetalk_core.audio.voice import prepare_voice
from infinitetalk_core.audio.wav2vec import (
    Limits,
    SpeechEncoder,
    frames_of,
    interpolation,
    plan_windows,
    window_weights,
)
from infinitetalk_core.errors import InputError
from tests.support.speech import tiny_wav2vec

MEDIA = Path(__file__).resolve().parents[3] / "shared" / "media"  # beside the repository; not part of it
SMALL = Limits(segment=7, window=40, overlap=20, fade=4)


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(samples: int, seed: int = 0) -> Sound:
    """Bursts of noise with a constant offset, which no statistic may take for granted."""
    rng = np.random.default_rng(seed)
    envelope = 0.02 + 0.2 * (np.sin(np.arange(samples) / 1700.0) > 0)
    return Sound(torch.from_numpy((rng.normal(0, 1, samples) * envelope + 0.03).astype(np.float32))[None], 16000)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def whole_clip(encoder: SpeechEncoder, sound: Sound, *, level: bool = True) -> torch.Tensor:
    """The reference's way: transformers' own model on the whole clip at once, asked for its hidden states."""
    samples = sound.waveform[0].numpy()
    samples = (normalize_loudness(samples, 16000) if level else samples).astype(np.float64)
    if encoder.normalize_input:
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    x = torch.from_numpy(samples).float()[None]
    x = pad_tensor(x, (0, max(0, 400 - x.shape[-1])))

    def to_25_a_second(_module, _args, features):
        return interpolate(features, size=frames_of(sound.samples), mode="linear", align_corners=True)

    with torch.no_grad(), encoder.network.feature_extractor.register_forward_hook(to_25_a_second):
        found = encoder.network(x, output_hidden_states=True)
    # In transformers 4 the last of hidden_states is last_hidden_state for both kinds of network. In 5 it is what
    # the last layer gives, before the norm that the kind with LayerNorm has there.
    return torch.cat([*found.hidden_states[1:-1], found.last_hidden_state]).transpose(0, 1)


@settings(deadline=None, max_examples=60)
@given(
    samples=st.integers(1, 60000),
    segment=st.integers(1, 60),
    by_layer=st.booleans(),
    normalize_input=st.booleans(),
)
def test_segments_give_the_result_of_the_whole_clip(samples, segment, by_layer, normalize_input):
    limits = Limits(segment=segment)
    encoder = tiny_wav2vec(by_layer=by_layer, normalize_input=normalize_input, limits=limits)
    sound = noise(samples, seed=samples)
    got = encoder.encode(sound)
    assert got.shape == (frames_of(samples), encoder.layers, encoder.channels)
    assert relative(got, whole_clip(encoder, sound)) < 1e-5


@settings(deadline=None, max_examples=60)
@given(features=st.integers(1, 12000), frames=st.integers(1, 6000), start=st.integers(0, 5999))
def test_interpolation_is_pytorchs_in_every_segment(features, frames, start):
    start = min(start, frames - 1)
    stop = min(start + 50, frames)
    x = torch.randn(features, generator=torch.Generator().manual_seed(features))
    lower, upper, weight = interpolation(start, stop, frames, features)
    want = interpolate(x[None, None], size=frames, mode="linear", align_corners=True)[0, 0, start:stop]
    assert torch.allclose(x[lower] * (1 - weight) + x[upper] * weight, want, atol=1e-6)


@given(
    frames=st.integers(1, 5000),
    overlap=st.integers(1, 60),
    more=st.integers(0, 200),
    fade=st.integers(1, 60),
)
def test_windows_cover_the_clip_and_their_weights_add_up_to_one(frames, overlap, more, fade):
    fade = min(fade, overlap)
    limits = Limits(window=overlap + 2 * fade + 4 + more, overlap=overlap, fade=fade)
    windows = plan_windows(frames, limits)
    total = torch.zeros(frames)
    for index, (start, stop) in enumerate(windows):
        assert 0 <= start < stop <= frames
        assert stop - start == min(frames, limits.window)
        if index:
            assert windows[index - 1][1] - start >= overlap
        total[start:stop] += window_weights(windows, index, fade)
    assert torch.allclose(total, torch.ones(frames), atol=1e-6)


def test_three_minutes_are_seen_whole_and_more_is_not():
    assert plan_windows(4500, Limits()) == [(0, 4500)]
    assert len(plan_windows(4501, Limits())) == 2


def test_limits_that_leave_no_room_are_refused():
    with pytest.raises(ValueError, match="limits"):
        Limits(window=30, overlap=20, fade=4)


def test_what_the_convolutions_hold_does_not_grow_with_the_clip():
    encoder = tiny_wav2vec(limits=SMALL)
    seen = []
    first = encoder.network.feature_extractor.conv_layers[0].conv
    first.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[-1]))
    for seconds in (3, 20):
        encoder.encode(noise(16000 * seconds))
    assert max(seen) <= 640 * SMALL.segment + 720


@pytest.mark.parametrize("by_layer", [False, True])
def test_windows_of_the_transformer_stay_close_to_the_whole_clip(by_layer, record_property):
    """With the real limits, on 4 minutes. Attention is made sharper, as in a trained encoder: that of random
    weights is nearly an average over the clip, which windows change least."""
    encoder = tiny_wav2vec(layers=3, hidden=64, by_layer=by_layer)
    for layer in encoder.network.encoder.layers:
        layer.attention.q_proj.weight.mul_(3.0)
        layer.attention.k_proj.weight.mul_(3.0)
    sound = noise(16000 * 240)
    windowed = encoder.encode(sound)
    encoder.limits = Limits(window=10**6)
    whole = encoder.encode(sound)
    error = relative(windowed, whole)
    record_property("seam_error", error)
    assert error < 0.03
    # No jump at the seam: the step between neighboring frames is not larger there than elsewhere.
    steps = (windowed[1:] - windowed[:-1]).flatten(1).norm(dim=1)
    middle = len(steps) // 2
    assert steps[middle - 30 : middle + 30].max() <= 1.1 * steps.max()
    print(f"windows against the whole clip, by_layer={by_layer}: relative L2 {error:.2e}")  # noqa: T201


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 640, 720, 16000])
@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("silent", [False, True])
def test_short_and_silent_clips_work(samples, by_layer, silent):
    sound = Sound(torch.zeros(1, samples), 16000) if silent else noise(samples)
    for normalize_input in (False, True):
        got = tiny_wav2vec(by_layer=by_layer, normalize_input=normalize_input).encode(sound)
        assert got.shape[0] == max(1, samples // 640)
        assert torch.isfinite(got).all()


def test_any_rate_and_channels_give_the_features_of_16_khz_mono():
    encoder = tiny_wav2vec()
    mono = noise(16000)
    stereo = Sound(mono.waveform.expand(2, -1), 16000)
    assert torch.equal(encoder.encode(mono), encoder.encode(stereo))
    assert encoder.encode(Sound(torch.rand(2, 44100) - 0.5, 44100)).shape[0] == 25


def test_a_louder_voice_gives_the_same_features():
    encoder, voice = tiny_wav2vec(), noise(32000)
    louder = Sound(voice.waveform * 8, 16000)
    assert relative(encoder.encode(louder), encoder.encode(voice)) < 1e-5


def test_a_leveled_voice_keeps_its_loudness_when_silence_is_put_around_it():
    encoder = tiny_wav2vec(by_layer=True)
    voice = prepare_voice(noise(32000))
    assert relative(encoder.encode(voice, leveled=True), encoder.encode(noise(32000))) < 1e-5
    late = pad_tensor(voice.waveform, (16000, 0))
    want = whole_clip(encoder, Sound(late, 16000), level=False)
    assert relative(encoder.encode(Sound(late, 16000), leveled=True), want) < 1e-5


def test_progress_rises_to_one():
    seen: list[float] = []
    tiny_wav2vec(limits=SMALL).encode(noise(64000), report=seen.append)
    assert seen == sorted(seen)
    assert 0 < seen[0] < 0.2
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) > 10


class Cancelled(BaseException):
    """As the host's interrupt in its newer versions."""


@pytest.mark.parametrize("after", [0.0, 0.3, 0.7])
def test_a_cancelled_encoder_works_again(after):
    encoder, sound = tiny_wav2vec(limits=SMALL), noise(64000)
    want = encoder.encode(sound)

    def cancel(fraction: float) -> None:
        if fraction > after:
            raise Cancelled

    with pytest.raises(Cancelled):
        encoder.encode(sound, report=cancel)
    assert not torch.is_inference_mode_enabled()
    assert not any(module._forward_hooks for module in encoder.modules())
    assert torch.equal(encoder.encode(sound), want)


def test_features_can_be_trained_on():
    features = tiny_wav2vec().encode(noise(16000))
    assert not features.is_inference()
    (features * torch.ones(1, requires_grad=True)).sum().backward()


def test_values_that_are_not_numbers_are_refused_and_half_precision_is_named():
    encoder = tiny_wav2vec()
    encoder.network.encoder.layers[1].layer_norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=r"layer 2.*half precision"):
        encoder.encode(noise(16000))


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_checkpoint_saved_by_transformers_gives_what_transformers_computes(by_layer, tmp_path):
    theirs = tiny_wav2vec(layers=3, hidden=128, by_layer=by_layer, normalize_input=by_layer)
    theirs.network.save_pretrained(tmp_path)
    ours, sound = load_speech_encoder(tmp_path), noise(40000)
    assert relative(ours.encode(sound), whole_clip(theirs, sound)) < 1e-5


@pytest.mark.skipif(not MEDIA.exists(), reason=f"no {MEDIA}")
def test_real_speech_in_segments_is_real_speech_whole():
    av = pytest.importorskip("av")
    with av.open(str(MEDIA / "speech_single.wav")) as file:
        planar = av.AudioResampler(format="fltp", layout="mono", rate=16000)
        parts = [part.to_ndarray() for frame in file.decode(audio=0) for part in planar.resample(frame)]
    sound = check_sound(torch.from_numpy(np.concatenate(parts, axis=1))[:, : 16000 * 20], 16000)
    encoder = tiny_wav2vec(hidden=64, conv=16)
    assert relative(encoder.encode(sound), whole_clip(encoder, sound)) < 1e-5
