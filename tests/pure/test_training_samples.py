"""A training sample is what the sampler would be given for the same chunk."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("cv2", reason="training needs opencv-python-headless")
pytest.importorskip("espeakng_loader", reason="training needs espeakng_loader")

from infinitetalk_core.audio.sound import Sound
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold, Job, Reference, Sampling
from infinitetalk_core.chunks.plan import Chunk
from infinitetalk_core.chunks.reference import PlannedChunk, Policy, ReferenceChoice, ReferenceSettings
from infinitetalk_core.speech import Speech, encode_speech
from tests.support.models import PlainModels
from training import drawing
from training.articulation import articulate
from training.dataset import make_samples
from training.drawing import DatasetConfig
from training.drawn_video import speaking
from training.voices import speak

CONFIG = DatasetConfig(
    samples=2, first_seed=7, size=32, chunk_frames=13, still_share=0.0, policies=(Policy.CHUNK_START,), guides=True
)


class PlainVae:
    """PlainModels' codec, in batches."""

    def parameters(self):
        yield torch.zeros(1)

    def encode(self, frames):
        return torch.cat([PlainModels().encode(clip) for clip in frames])


def heard(sound: Sound) -> torch.Tensor:
    """Speech features that tell the frames apart."""
    return torch.arange(sound.frames, dtype=torch.float32).view(-1, 1, 1).expand(-1, 2, 3) / 100


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    monkeypatch.setattr(drawing, "SHARD", 2)


@pytest.fixture
def samples(tmp_path):
    return make_samples(CONFIG, tmp_path, PlainVae(), heard)  # type: ignore[arg-type]


def test_a_sample_is_what_the_sampler_would_be_given(samples):
    """The chunk is found again in the video by its speech; then the run is asked for the same chunk."""
    utterance = speak(CONFIG.first_seed, CONFIG.seconds)
    video = speaking(articulate(utterance), CONFIG.first_seed, moving_camera=True, size=CONFIG.size)
    features = encode_speech(heard, utterance.sound).voices[0]
    for number in range(len(samples)):
        start = round(samples.speech[number, 4, 2, 0, 0].item() * 100) - 4
        planned = PlannedChunk(Chunk(0, start, 13, 0, 13), ReferenceChoice((start,)), seed=0)
        job = Job(
            speech=Speech((features,), utterance.sound),
            reference=Reference(video, 32, 32, ReferenceSettings(Policy.CHUNK_START)),
            sampling=Sampling(chunk_frames=13, context_frames=5, color=ColorHold(0.0)),
        )
        models = PlainModels()
        list(dub(job, models, plan=[planned]))
        (asked,) = models.seen
        half = {"atol": 2e-3, "rtol": 2e-3}
        torch.testing.assert_close(
            samples.references_of(Policy.CHUNK_START)[number].float(), asked.reference[0], **half
        )
        torch.testing.assert_close(samples.speech[number].float(), asked.audio_windows[0], **half)
        torch.testing.assert_close(samples.target[number, :, :1].float(), asked.context[0], **half)
        whole = models.encode(video.frames(start, start + 13))
        torch.testing.assert_close(samples.target[number].float(), whole[0], **half)


def test_the_mouth_share_finds_the_mouth(samples):
    share = samples.mouth.float()
    assert share.shape == (2, 4, 4, 4)
    assert 0 < share.mean() < 0.25
    assert share[:, :, :2].eq(0).all(), "hair and eyes are not the mouth"
    assert share[:, :, 2:, 1:3].sum() > 0.8 * share.sum(), "the mouth is in the middle"


def test_the_guide_has_the_camera_but_not_the_performance(samples):
    """Its corners, which show the wall only, are the target's; its middle is not."""
    difference = (samples.guide.float() - samples.target.float())[:, :3].abs().amax(dim=(1, 2))
    assert difference[:, 0, 0].max() < 0.02 and difference[:, 0, 3].max() < 0.02
    assert difference[:, 1:3, 1:3].amax(dim=(1, 2)).min() > 0.02


def test_making_samples_goes_on_where_it_was_interrupted(tmp_path):
    config = DatasetConfig(**{**vars(CONFIG), "samples": 4})
    made = []
    whole = make_samples(config, tmp_path / "whole", PlainVae(), heard, made.append)  # type: ignore[arg-type]
    assert len(made) == 2
    (tmp_path / "whole" / "000002.safetensors").unlink()
    again = make_samples(config, tmp_path / "whole", PlainVae(), heard, made.append)  # type: ignore[arg-type]
    assert len(made) == 3
    assert torch.equal(whole.target, again.target) and torch.equal(whole.references, again.references)


def test_samples_of_another_recipe_are_not_mixed_in(tmp_path, samples):
    other = DatasetConfig(**{**vars(CONFIG), "size": 64})
    with pytest.raises(ValueError, match="another configuration"):
        make_samples(other, tmp_path, PlainVae(), heard)  # type: ignore[arg-type]
