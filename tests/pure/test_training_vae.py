"""The small autoencoder and how it is trained."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infinitetalk_core.model.vae import WanVae, fast, load_vae, save_vae
from training import vae_clips, vae_training
from training.muon import Muon, orthogonal
from training.vae_clips import ClipPool, ClipShape
from training.vae_init import start_from_clips, unit_variance
from training.vae_training import Stage, VaeTraining, train_vae

TINY = ClipShape(2, 5, 16)


@pytest.fixture(scope="module")
def pool():
    return ClipPool(4, 9, 32)


@pytest.fixture(scope="module")
def started(pool):
    """A small autoencoder as training begins."""
    torch.manual_seed(0)
    vae = WanVae(8)
    start_from_clips(vae, *pool.batch(ClipShape(4, 9, 32), np.random.default_rng(0)))
    return vae.requires_grad_(False)


def recipe(**changes):
    stages = (Stage("together", 2, 1e-3, 1e-4, (TINY,)), Stage("decoder", 2, 1e-3, 1e-4, (TINY,), encoder=False))
    return replace(VaeTraining(dim=8, size=32, clips=2, clip_frames=5, compile=False, stages=stages), **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train_vae(recipe(), folder)


def random_vae():
    torch.manual_seed(1)
    return WanVae(8).eval().requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_a_clip_becomes_latents_of_a_quarter_of_its_frames_and_an_eighth_of_its_sides(frames):
    vae = random_vae()
    latents = vae.encode(torch.rand(1, frames, 16, 24, 3))
    assert latents.shape == (1, 16, 1 + (frames - 1) // 4, 2, 3)
    assert vae.decode(latents).shape == (1, frames, 16, 24, 3)


def test_no_latent_knows_a_later_frame():
    vae, frames = random_vae(), torch.rand(1, 9, 16, 16, 3)
    changed = frames.clone()
    changed[:, 5:] = 0.0
    before, after = vae.encode(frames), vae.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


def test_no_frame_knows_a_later_latent():
    vae, latents = random_vae(), torch.randn(1, 16, 3, 2, 2)
    changed = latents.clone()
    changed[:, :, 2] = 0.0
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-6)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_bfloat16_with_channels_last_gives_the_same_picture(started, pool):
    frames = pool.clips[:1].float() / 255
    copy = WanVae(8)
    copy.load_state_dict(started.state_dict())
    exact = started.decode(started.encode(frames))
    quick = fast(copy, torch.bfloat16)
    assert (quick.decode(quick.encode(frames)) - exact).abs().mean() < 0.01


def test_a_file_keeps_the_weights_in_half_precision_under_the_released_names(tmp_path):
    vae = random_vae()
    path = tmp_path / "vae.safetensors"
    save_vae(vae, path)
    weights = load_file(path)
    assert {w.dtype for w in weights.values()} == {torch.float16}
    assert {"encoder.downsamples.5.time_conv.weight", "decoder.head.0.gamma", "conv2.bias"} <= set(weights)
    again = load_vae(path)
    assert torch.allclose(again.conv1.weight, vae.conv1.weight, atol=1e-3)
    assert not list(tmp_path.glob("*.part"))


def test_training_begins_with_a_blurred_picture_and_not_with_gray(started, pool):
    frames = pool.clips.float() / 255
    gray = (frames - frames.mean((0, 1, 2, 3))).square().mean()
    made = started.decode(started.encode(frames))
    assert (made - frames).square().mean() < 0.7 * gray


def test_latents_have_mean_0_and_variance_1_and_rescaling_them_leaves_the_decoded_picture_alone(started, pool):
    pixels, _ = pool.batch(ClipShape(4, 9, 32), np.random.default_rng(3))
    vae = WanVae(8).requires_grad_(False)
    vae.load_state_dict(started.state_dict())
    vae.conv1.weight.mul_(3.0)
    before = vae.pixels(vae.means(pixels))
    unit_variance(vae, pixels)
    latents = vae.means(pixels)
    assert torch.allclose(latents.std((0, 2, 3, 4)), torch.ones(16), atol=0.02)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.02
    assert torch.allclose(vae.pixels(latents), before, atol=2e-3)


def test_a_run_writes_weights_and_a_log_and_keeps_the_encoder_when_it_is_frozen(trained, tmp_path):
    stopped = recipe()
    stopped = replace(stopped, stages=stopped.stages[:1])
    early = train_vae(stopped, tmp_path)
    joint = load_file(early)
    final = load_file(trained)
    assert set(joint) == set(final)
    encoder = [k for k in final if k.startswith("encoder.")]
    assert all(torch.equal(joint[k], final[k]) for k in encoder)
    assert any(not torch.equal(joint[k], final[k]) for k in final if k.startswith("decoder."))


def test_an_interrupted_run_goes_on_to_the_same_weights(trained, tmp_path, monkeypatch):
    class PowerCutError(Exception):
        pass

    def stop_after_three(run, stage, step, progress, original=vae_training._Run.train):
        if step == 3:
            raise PowerCutError
        original(run, stage, step, progress)

    with monkeypatch.context() as patch:
        patch.setattr(vae_training._Run, "train", stop_after_three)
        with pytest.raises(PowerCutError):
            train_vae(recipe(checkpoint_every=1), tmp_path)
    path = train_vae(recipe(checkpoint_every=1), tmp_path)
    whole = load_file(trained)
    assert all(torch.equal(value, whole[key]) for key, value in load_file(path).items())


def test_the_log_tells_step_stage_and_quality(tmp_path, monkeypatch):
    monkeypatch.setattr(vae_training, "LOG_EVERY", 2)
    train_vae(recipe(), tmp_path)
    entries = [json.loads(line) for line in (tmp_path / vae_training.LOG).read_text().splitlines()]
    assert [(entry["step"], entry["stage"]) for entry in entries] == [(2, "together"), (4, "decoder")]
    assert all(entry["loss"] > 0 and entry["psnr"] > 0 for entry in entries)


def test_what_matters_is_the_mouth_then_what_moves():
    clip = torch.zeros(1, 3, 3, 32, 32)
    clip[:, :, 1, 4:8, 4:8] = 0.9
    inside = torch.tensor(vae_clips.MOUTH_INTERIOR) / 127.5 - 1
    clip[:, :, 1, 24:28, 24:28] = inside.view(3, 1, 1)
    weight = vae_clips.importance(clip)[0, 0, 0]
    assert weight[25, 25] == vae_clips.MOUTH_WEIGHT
    assert 1.0 < weight[5, 5] < weight[25, 25]
    assert weight[16, 10] == 1.0


def test_batches_are_the_same_for_the_same_seed_and_in_range(pool):
    first, second = (pool.batch(TINY, np.random.default_rng(5))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (2, 3, 5, 16, 16)
    assert first.abs().max() <= 1.0


def test_a_step_of_muon_has_the_same_length_in_every_direction():
    torch.manual_seed(0)
    gradient = torch.randn(8, 40) * torch.logspace(0, -2, 8)[:, None]
    values = torch.linalg.svdvals(orthogonal(gradient))
    assert values.min() > 0.5 and values.max() < 1.4


def test_muon_finds_the_minimum_of_a_badly_scaled_square():
    torch.manual_seed(0)
    wanted, weight = torch.randn(4, 6), torch.zeros(4, 6)
    inputs = torch.randn(64, 6) * torch.logspace(0, -1, 6)
    optimizer = Muon([weight])
    for step in range(300):
        gradient = (inputs @ (weight - wanted).T).T @ inputs / 64
        optimizer.step([gradient], 0.2 * (1 - step / 300))
    assert (weight - wanted).abs().max() < 0.1
