"""Training against drift: contexts worn as after many chunks, and contexts that the model itself has made."""

from __future__ import annotations

import random

import pytest
import torch

pytest.importorskip("cv2", reason="training needs opencv-python-headless")
pytest.importorskip("espeakng_loader", reason="training needs espeakng_loader")

from infinitetalk_core.chunks.color import rgb_to_lab
from infinitetalk_core.model.vae import WanVae
from training import stages
from training.drawn_video import listening
from training.own_chunks import OwnChunks, with_own_contexts
from training.shapes import PARTS
from training.small_models import load_model, new_model
from training.stages import tune_model
from training.worn_context import add_part_drift, coded_again

from .test_training import TINY, random_samples, tiny_config


def colors(frames: torch.Tensor, parts: torch.Tensor, name: str) -> torch.Tensor:
    """Return the mean color of a part in Lab."""
    return rgb_to_lab(frames)[parts[:, PARTS.index(name)]].mean(0)


def moved_by(seed: int, strength: float) -> dict[str, torch.Tensor]:
    video = listening(1, seed, moving_camera=False)
    frames, parts = video.frames(0, 1), video.parts(0, 1)
    moved = add_part_drift(frames, parts, strength, random.Random(seed))
    assert moved.shape == frames.shape and moved.min() >= 0 and moved.max() <= 1
    return {n: colors(moved, parts, n) - colors(frames, parts, n) for n in ("wall", "hair", "skin", "clothes")}


def test_each_part_moves_to_a_color_of_its_own():
    moves = [moved_by(seed, 5.0) for seed in range(6)]
    sizes = torch.stack([torch.stack(list(move.values())).norm(dim=-1) for move in moves])
    assert 3 < sizes.mean() < 15, "three channels of a deviation of 5"
    apart = torch.stack([(move["wall"] - move["clothes"]).norm() for move in moves])
    assert apart.mean() > 4, "not all of the picture by one color"


def test_without_strength_nothing_moves():
    assert max(move.norm().item() for move in moved_by(3, 0.0).values()) < 0.1


def test_the_parts_of_a_video_cover_it_and_never_overlap():
    parts = listening(2, 5, moving_camera=True).parts(0, 2)
    assert parts.shape == (2, len(PARTS), 96, 96)
    assert parts.sum(1).max() == 1 and parts.any(1).float().mean() > 0.85


def test_each_context_goes_through_the_codec_as_often_as_asked():
    class Darkening:
        """Stands for a codec."""

        def parameters(self):
            yield torch.zeros(1)

        def encode(self, frames):
            return frames

        def decode(self, latents):
            return latents / 2

    passes = torch.tensor([2, 0, 1, 2])
    made = coded_again(Darkening(), torch.ones(4, 1, 2, 2, 3), passes)  # type: ignore[arg-type]
    assert made.flatten(1).amax(1).tolist() == [0.25, 1.0, 0.5, 0.25] == made.flatten(1).amin(1).tolist()


@pytest.fixture(scope="module")
def codec() -> WanVae:
    torch.manual_seed(0)
    return WanVae(4).eval().requires_grad_(False)


def test_a_share_of_the_contexts_is_made_by_the_model_and_depends_on_it(codec):
    samples, settings = random_samples(6), OwnChunks(share=0.5, steps=2, batch=2)
    policies = tiny_config().policies
    one, again, other = (
        with_own_contexts(model, codec, samples, policies, settings, seed=1)
        for model in (moving(0), moving(0), moving(1))
    )
    changed = (one != samples.drifted).flatten(1).any(dim=1)
    assert changed.sum() == 3
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == samples.drifted.shape and one.isfinite().all()


def moving(seed: int):
    """A model that predicts something: the head of an untrained one is zero."""
    model = new_model(TINY, seed)
    torch.nn.init.normal_(model.backbone.head.head.weight, std=0.5)
    return model


def test_tuning_trains_the_finished_model_in_rounds_and_can_be_interrupted(codec, tmp_path, monkeypatch):
    config, own = tiny_config(steps=6, save_every=1), OwnChunks(steps=1, batch=3)

    def tune(name, model):
        return tune_model(config, own, model, codec, random_samples(6), tmp_path / name, tmp_path / f"{name}_models",
                          lambda line: None)  # fmt: skip

    whole = tune("whole", moving(0))
    assert len(list((tmp_path / "whole").glob("own_contexts_*.safetensors"))) == stages.TUNING_ROUNDS - 1
    with monkeypatch.context() as patch:
        patch.setattr(stages.Trainer, "run", stopping_at(3, stages.Trainer.run))
        with pytest.raises(KeyboardInterrupt):
            tune("parts", moving(0))
    again = tune("parts", moving(0))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]
    before = head_of(moving(0))
    assert not torch.equal(before, head_of(load_model(tmp_path / "whole_models")))


def head_of(model) -> torch.Tensor:
    return model.backbone.head.head.weight.detach()


def stopping_at(step, run):
    def stopped(trainer, report, until=None):
        run(trainer, report, min(until, step))
        if trainer.step == step:
            raise KeyboardInterrupt

    return stopped
