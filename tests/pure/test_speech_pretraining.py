"""Training the small speech encoder: what is trained is what runs, and a run can go on where it stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the package espeakng_loader")

from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.sound import Sound
from training import speech_pretraining
from training.articulation import VISEMES
from training.speech_clips import change_speed, draw_batch, make_clip, simulate_recording
from training.speech_pretraining import (
    ProbedEncoder,
    SpeechPretraining,
    train_speech_encoder,
    write_encoder,
)
from training.voices import speak

BRIEF = SpeechPretraining(
    clips=2, clip_seconds=1.5, unseen_clips=1, steps=4, batch_frames=60, shortest=25, longest=30, save_every=2
)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_written_encoder_gives_the_features_that_were_trained(tmp_path):
    torch.manual_seed(0)
    probed = ProbedEncoder(replace(BRIEF, bfloat16=False))
    sound = speak(3, 2.0).sound
    encoder = load_speech_encoder(write_encoder(probed.network, tmp_path / "encoder.safetensors"))
    with torch.no_grad():
        trained = torch.stack(probed.hidden_states(sound.waveform), dim=2)[0]
    used = encoder.encode(sound, leveled=True)
    assert used.shape == trained.shape == (sound.frames, 4, 64)
    assert float((used - trained).norm() / trained.norm()) < 5e-3  # float16 in the file


def test_every_hidden_state_has_unit_variance(tmp_path):
    encoder = load_speech_encoder(train_speech_encoder(BRIEF, tmp_path))
    states = encoder.encode(speak(4, 1.5).sound)
    assert torch.allclose(states.std(dim=-1), torch.ones(states.shape[:2]), atol=0.02)


def test_a_stopped_run_goes_on_to_the_same_encoder(tmp_path, monkeypatch):
    whole = train_speech_encoder(BRIEF, tmp_path / "whole").read_bytes()
    step = speech_pretraining._step

    def break_off(*args):
        if args[-1] == 3:
            raise KeyboardInterrupt
        return step(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(speech_pretraining, "_step", break_off)
        train_speech_encoder(BRIEF, tmp_path / "stopped")
    assert train_speech_encoder(BRIEF, tmp_path / "stopped").read_bytes() == whole
    assert train_speech_encoder(replace(BRIEF, seed=1), tmp_path / "stopped").read_bytes() != whole


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    probed = ProbedEncoder(BRIEF)
    optimizer = torch.optim.AdamW([part for part in probed.parameters() if part.requires_grad], lr=2e-3)
    clips = [make_clip(seed, 1.5) for seed in range(2)]
    config = replace(BRIEF, steps=1000, warm_up=5)
    losses = [speech_pretraining._step(probed, optimizer, clips, config, step) for step in range(25)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


def test_a_piece_of_a_clip_keeps_sound_and_truth_together(monkeypatch):
    monkeypatch.setattr("training.speech_clips.simulate_recording", lambda samples, _rng: samples)
    clip = make_clip(2, 2.0)
    batch = draw_batch([clip], 3, 30, np.random.default_rng(0))
    assert batch.samples.shape == (3, 30 * 640 + 16)
    for samples, classes, mouth in zip(batch.samples, batch.classes, batch.mouth, strict=True):
        starts = [s for s in range(len(clip.classes) - 29) if torch.equal(clip.mouth[s : s + 30], mouth)]
        assert any(
            torch.equal(clip.samples[s * 640 : (s + 30) * 640 + 16], samples)
            and torch.equal(clip.classes[s : s + 30], classes)
            for s in starts
        )
    assert int(batch.classes.max()) < len(VISEMES)


def test_a_faster_tape_has_its_sounds_earlier_and_higher():
    said = speak(6, 2.0)
    fast = change_speed(said, 1.25)
    assert abs(fast.sound.seconds - said.sound.seconds / 1.25) <= 0.041
    assert fast.phonemes[9].seconds == pytest.approx(said.phonemes[9].seconds / 1.25)
    time = torch.arange(16000) / 16000
    tone = replace(said, sound=Sound(torch.sin(2 * torch.pi * 400 * time)[None], 16000))
    heard = change_speed(tone, 1.25).sound.waveform[0, :12000]
    assert int(torch.fft.rfft(heard).abs().argmax()) * 16000 / 12000 == pytest.approx(500, abs=2)


def test_recordings_differ_and_stay_recognizable():
    clip = make_clip(2, 2.0)
    rows = clip.samples[None].repeat(8, 1)
    heard = simulate_recording(rows, np.random.default_rng(1))
    assert heard.shape == rows.shape and torch.isfinite(heard).all()
    for one in heard:
        assert float((one - clip.samples).abs().max()) > 0.01
        # The course of loudness is still that of the voice.
        loud, known = (
            part[: len(part) // 640 * 640].reshape(-1, 640).square().mean(1).sqrt() for part in (one, rows[0])
        )
        assert float(torch.corrcoef(torch.stack([loud, known]))[0, 1]) > 0.7
