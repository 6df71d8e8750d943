"""How a finished autoencoder is trained further: on the color of each part of the picture, and on its own output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("cv2", reason="training needs opencv-python-headless")

from infinitetalk_core.chunks.color import lab_to_rgb, rgb_to_lab
from infinitetalk_core.model.vae import WanVae, save_vae
from training import vae_training
from training.characters import make_character
from training.color_loss import part_color_errors
from training.folded_convolution import fold_convolutions
from training.shapes import PARTS
from training.vae_clips import BORDER, EYES_WEIGHT, ClipPool, ClipShape, clip_parts, draw_clip
from training.vae_losses import contrast_loss
from training.vae_training import refining, train_vae

SIZE = 96


def turned(pixels: torch.Tensor, where: torch.Tensor, units: float) -> torch.Tensor:
    """Return pixels (3, F, H, W) in [-1, 1] whose hue is `units` of Lab away where (F, H, W)."""
    lab = rgb_to_lab(pixels.permute(1, 2, 3, 0) * 0.5 + 0.5)
    moved = torch.where(where[..., None], lab + lab.new_tensor([0, 0.6 * units, -0.8 * units]), lab)
    return lab_to_rgb(moved).permute(3, 0, 1, 2) * 2 - 1


def seen(seed: int, frames: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a clip as training sees it, (1, 3, F, H, W), and the part of each pixel."""
    clip = torch.from_numpy(draw_clip(seed, frames, SIZE)).permute(3, 0, 1, 2).float() / 127.5 - 1
    return clip[None], torch.from_numpy(clip_parts(seed, frames, SIZE, 0, frames))[None]


@pytest.mark.parametrize("part", ["wall", "hair", "skin", "clothes"])
@pytest.mark.parametrize("units", [3.0, 10.0])
def test_a_part_of_another_color_costs_its_distance_whatever_its_size(part, units):
    clip, parts = seen(4)
    made = turned(clip[0], parts[0] == PARTS.index(part), units)[None]
    errors = part_color_errors(made, clip, parts)
    assert errors.max().item() == pytest.approx(units, rel=0.25)
    assert errors.sum() < 1.15 * errors.max(), "the other parts have their colors"


def test_the_true_picture_and_one_that_is_only_blurred_cost_little():
    clip, parts = seen(4)
    soft = torch.nn.functional.avg_pool3d(clip, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    assert part_color_errors(clip, clip, parts).max() == 0
    assert part_color_errors(soft, clip, parts).mean() < 3


def test_a_batch_knows_the_parts_of_its_pixels():
    """Cut, moved and flipped like the picture: the most frequent colors of the clothes and the hair are their own."""
    pool, rng = ClipPool(1, 5, SIZE, first_seed=4), np.random.default_rng(0)
    character = make_character(4)
    found: dict[str, list[torch.Tensor]] = {"clothes": [], "hair": []}
    for _ in range(12):
        pixels, weight, parts = pool.batch_with_parts(ClipShape(1, 5, 48), rng, recolored=0.0)
        assert parts.max() <= BORDER and parts.shape == pixels[:, 0].shape
        for name, colors in found.items():
            colors.append(pixels[0, :, 0].permute(1, 2, 0)[parts[0, 0] == PARTS.index(name)])
        fine = (parts == PARTS.index("eyes")) | (parts == PARTS.index("brows"))
        assert (weight[:, 0][fine] >= EYES_WEIGHT).all()
    for name, own in (("clothes", character.shirt), ("hair", character.hair)):
        colors, counts = torch.unique((torch.cat(found[name]) * 127.5 + 127.5).round(), dim=0, return_counts=True)
        assert tuple(colors[counts.argmax()].int().tolist()) == own


@pytest.mark.parametrize("frames", [1, 5])
def test_folded_convolutions_give_the_same_picture_and_gradients(frames):
    torch.manual_seed(0)
    plain, folded = WanVae(8), WanVae(8)
    folded.load_state_dict(plain.state_dict())
    fold_convolutions(folded)
    assert folded.state_dict().keys() == plain.state_dict().keys()
    pixels = torch.rand(2, 3, frames, 16, 24) * 2 - 1
    made = [vae.pixels(vae.means(pixels)) for vae in (plain, folded)]
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=1e-4)
    for picture in made:
        picture.square().mean().backward()
    for one, other in zip(plain.parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-3)


def test_a_spot_that_moves_costs_less_contrast_than_one_that_fades():
    parts = torch.full((1, 1, 12, 12), PARTS.index("eyes"))
    true = torch.zeros(1, 3, 1, 12, 12)
    true[..., 4:8, 4:8] = 1.0
    moved, faded = torch.roll(true, 1, dims=-1), 0.5 * true
    assert (faded - true).square().mean() < (moved - true).square().mean()
    assert contrast_loss(true, true, parts) == 0
    assert contrast_loss(faded, true, parts) > contrast_loss(moved, true, parts) > 0


def test_contrast_counts_at_eyes_brows_and_mouths_only():
    parts = torch.full((1, 1, 12, 12), PARTS.index("wall"))
    assert contrast_loss(torch.rand(1, 3, 1, 12, 12), torch.zeros(1, 3, 1, 12, 12), parts) == 0


def test_clips_are_the_same_whether_other_processes_draw_them():
    drawn, here = ClipPool(2, 3, 32, workers=1), ClipPool(2, 3, 32)
    assert torch.equal(drawn.clips, here.clips) and torch.equal(drawn.parts(1), here.parts(1))
    drawn.close()


@pytest.fixture
def finished(tmp_path):
    """A finished autoencoder, as far as its file goes."""
    torch.manual_seed(0)
    save_vae(WanVae(8), tmp_path / "finished.safetensors")
    return tmp_path / "finished.safetensors"


def few_steps(start, steps=4, **changes):
    whole = refining(start, steps)
    stage = replace(whole.stages[0], shapes=(ClipShape(1, 13, 32),), **changes)
    return replace(whole, dim=8, size=32, clips=4, clip_frames=13, checkpoint_every=1, compile=False, stages=(stage,))


def test_both_halves_of_a_finished_autoencoder_are_trained_further(finished, tmp_path):
    before, after = load_file(finished), load_file(train_vae(few_steps(finished), tmp_path / "run"))
    assert before.keys() == after.keys()
    trained = {key for key in after if not torch.equal(before[key], after[key])}
    assert any(key.startswith("encoder.") for key in trained) and any(key.startswith("decoder.") for key in trained)


def test_inputs_that_have_been_through_the_codec_have_the_true_pictures_as_their_target(finished, tmp_path):
    """And every second of them begins with the end of a chunk, as the next chunk does."""
    config = few_steps(finished, again=1.0)
    (stage,) = config.stages
    run, lengths = vae_training._Run(config, tmp_path, print, torch.device("cpu")), []
    for step in range(8):
        batch = run._batch(stage, step)
        lengths.append(batch.pixels.shape[2])
        clips = run.pool.batch_with_parts(stage.shapes[0], np.random.default_rng([0, step]), stage.recolored)
        drawn = [tensor[:, :, -lengths[-1] :] for tensor in clips[:2]] + [clips[2][:, -lengths[-1] :]]
        for got, wanted in zip((batch.pixels, batch.weight, batch.parts), drawn, strict=True):
            assert torch.equal(got, wanted)
        assert batch.latents.shape[2] == (lengths[-1] + 3) // 4
    assert set(lengths) == {9, 13}


def test_it_goes_on_where_it_was_interrupted_with_the_same_batches(finished, tmp_path, monkeypatch):
    whole = load_file(train_vae(few_steps(finished), tmp_path / "whole"))
    monkeypatch.setattr(vae_training, "_schedule", lambda stages, done, all_of=vae_training._schedule: (
        step for step in all_of(stages, done) if done or step[1] < 2
    ))  # fmt: skip
    folder = tmp_path / "parts"
    train_vae(few_steps(finished), folder)
    again = load_file(train_vae(few_steps(finished), folder))
    assert all(torch.equal(value, whole[key]) for key, value in again.items())


def test_the_log_tells_the_error_of_color(finished, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(vae_training, "LOG_EVERY", 2)
    train_vae(few_steps(finished), tmp_path / "run", lines.append)
    assert len(lines) == 2 and all('"color": ' in line for line in lines)
