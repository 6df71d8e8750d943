"""The trained small models speak without any host: unseen characters, unseen voices, unseen sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.sync import mouth_opening, shuffled, sync
from infinitetalk_core.audio.encoder_files import load_speech_encoder
from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import Job, Reference, Sampling
from infinitetalk_core.model.vae import load_vae
from infinitetalk_core.sampling.settings import SamplingSettings
from infinitetalk_core.speech import Speech, encode_speech
from infinitetalk_core.standalone import TorchBackend
from infinitetalk_core.video.source import PictureBatch
from tools.small_models import GUIDANCE, PICKER, SAMPLER, TRAINED, TRAINED_MODELS
from training import small_models as training_models
from training.articulation import articulate
from training.drawn_video import listening
from training.voices import speak

UNSEEN = (1_000_043, 1_000_031)
CHUNKS = 2
# Bounds; see tests/host/test_speaking.py for the longer video.
LEAST_SYNC = 0.6
MOST_LAG = 1  # frames

chunk_frames, context_frames = (TRAINED.settings[SAMPLER][name] for name in ("chunk_frames", "context_frames"))
FRAMES = chunk_frames + (CHUNKS - 1) * (chunk_frames - context_frames)


@pytest.fixture(scope="module")
def models() -> TorchBackend:
    """The files of the repository with the demo's settings."""
    chosen = TRAINED.settings[GUIDANCE]
    return TorchBackend(
        training_models.load_model(TRAINED_MODELS),
        load_vae(TRAINED_MODELS / training_models.VAE),
        Sampling(settings=SamplingSettings(*(chosen[k] for k in ("steps", "text_scale", "audio_scale", "shift")))),
    )


@pytest.fixture(scope="module", params=UNSEEN)
def spoken(request: pytest.FixtureRequest, models: TorchBackend) -> tuple[np.ndarray, np.ndarray]:
    """A portrait of an unseen character says something: the mouth's opening as made, and as it should be."""
    seed: int = request.param
    utterance = speak(seed, FRAMES / 25 + 0.1, unseen=True)
    encoder = load_speech_encoder(TRAINED_MODELS / training_models.SPEECH)
    said = encode_speech(encoder.encode, utterance.sound)
    size = TRAINED.settings[PICKER]["height"]
    source = PictureBatch(listening(1, seed, moving_camera=False, size=size).frames(0, 1))
    sound = Sound(said.sound.waveform[:, : FRAMES * said.sound.sample_rate_hz // 25], said.sound.sample_rate_hz)
    job = Job(
        speech=Speech((said.voices[0][:FRAMES],), sound),
        reference=Reference(source, size, size),
        sampling=Sampling(chunk_frames=chunk_frames, context_frames=context_frames),
    )
    frames = torch.cat([finished.frames for finished in dub(job, models)])
    return mouth_opening(frames), articulate(utterance).opening[:FRAMES]


def test_the_mouth_follows_the_voice(spoken: tuple[np.ndarray, np.ndarray]) -> None:
    found = sync(*spoken)
    assert found.correlation >= LEAST_SYNC
    assert abs(found.lag) <= MOST_LAG


def test_and_not_the_voice_of_another_time(spoken: tuple[np.ndarray, np.ndarray]) -> None:
    opening, truth = spoken
    chance = [sync(opening, shuffled(truth, seed)).correlation for seed in range(4)]
    assert max(chance) < LEAST_SYNC
    assert np.mean(chance) < LEAST_SYNC / 2
