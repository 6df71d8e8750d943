"""Pinned regions: outside the mask the source stays to the bit, inside the video is free."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.job import ColorHold
from infinitetalk_core.chunks.pinned import Pinned, latent_mask, soften
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job, run_and_measure


def source(frames: int = 30) -> PictureBatch:
    torch.manual_seed(0)
    return PictureBatch(torch.rand(frames, 32, 48, 3).mul(255).round().div(255))


def run(masks: torch.Tensor, feather: float = 0.0, total: int = 25):
    clip = source()
    job = make_job(clip, total, ReferenceSettings(Policy.CHUNK_START), pinned=Pinned(masks, feather))
    models = PlainModels()
    frames, metrics = run_and_measure(job, models)
    return clip, models, frames, metrics


def test_a_mask_of_zeros_gives_the_source_itself():
    clip, _, frames, metrics = run(torch.zeros(1, 32, 48))
    assert torch.equal(frames, torch.stack([clip.frame(i) for i in range(25)]))
    assert all(m.outside_drift == 0 for m in metrics)


def test_a_mask_of_ones_pins_nothing():
    clip, models, frames, _ = run(torch.ones(1, 32, 48))
    free = PlainModels()
    plain = torch.cat([f.frames for f in dub(make_job(clip, 25, ReferenceSettings(Policy.CHUNK_START)), free)])
    assert torch.equal(frames, plain)
    assert all((c.denoise_mask == 1).all() for c in models.seen)


def test_only_the_inside_changes():
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:24, 16:32] = 1
    clip, _, frames, metrics = run(mask, feather=4.0)
    soft = soften(mask, 4.0)[0]
    kept = torch.stack([clip.frame(i) for i in range(25)])
    assert torch.equal(frames[:, soft == 0], kept[:, soft == 0])
    assert not torch.equal(frames[:, mask[0] == 1], kept[:, mask[0] == 1])
    assert all(m.outside_drift == 0 for m in metrics)


def test_a_mask_a_frame_follows_the_chunks():
    masks = torch.zeros(30, 32, 48)
    masks[10:20, :, :24] = 1
    clip, models, frames, _ = run(masks)
    changed = [(frames[i] != clip.frame(i)).any().item() for i in range(25)]
    assert changed == [10 <= i < 20 for i in range(25)]
    assert models.seen[0].denoise_mask[0, 0, :, 0, 0].tolist() == [0, 0, 0, 1]


@given(
    feather=st.integers(0, 12),
    box=st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(0, 30), st.integers(1, 18)),
)
def test_the_soft_edge_lies_outside_and_falls(feather, box):
    top, height, left, width = box
    mask = torch.zeros(1, 32, 48)
    mask[:, top : top + height, left : left + width] = 1
    soft = soften(mask, feather)
    assert ((soft >= 0) & (soft <= 1)).all()
    assert (soft[mask == 1] == 1).all()
    reach = torch.nn.functional.max_pool2d(mask, 2 * feather + 1, 1, feather) if feather else mask
    assert (soft[reach == 0] == 0).all(), "no further than the feather"


def test_the_soft_edge_does_not_depend_on_the_order_of_its_directions():
    torch.manual_seed(0)
    mask = (torch.rand(1, 32, 48) > 0.9).float()
    turned = soften(mask.transpose(1, 2), 9).transpose(1, 2)
    torch.testing.assert_close(soften(mask, 9), turned)


class PerfectModels(PlainModels):
    """A sampler that gives exactly the source."""

    def denoise(self, conditioning, after_step):
        return conditioning.source


def test_light_that_changes_within_a_chunk_is_followed_inside_the_mask():
    """Colors are held to the source of each moment, not to one frame: else the face keeps an older light."""
    light = torch.linspace(0.3, 0.9, 25)[:, None, None, None]
    torch.manual_seed(0)
    clip = PictureBatch((torch.rand(1, 4, 6, 3) * light).repeat_interleave(8, 1).repeat_interleave(8, 2))
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:24, 16:32] = 1
    options = {"pinned": Pinned(mask, 0.0), "color": ColorHold(1.0)}
    frames, _ = run_and_measure(make_job(clip, 25, ReferenceSettings(Policy.CHUNK_START), **options), PerfectModels())
    held = torch.stack([clip.frame(i) for i in range(25)])
    assert (frames - held).abs().mean(dim=(1, 2, 3)).max() < 0.03


def test_a_latent_is_free_where_any_of_its_pixels_is():
    masks = torch.zeros(5, 16, 16)
    masks[2, 3, 12] = 1
    assert latent_mask(masks, 2)[0, 0].tolist() == [[[0, 0], [0, 0]], [[0, 1], [0, 0]]]


@pytest.mark.parametrize(
    ("masks", "words"),
    [(torch.ones(1, 16, 16), "16 x 16, but the source is 48 x 32"), (torch.ones(7, 32, 48), "there are 7 masks")],
)
def test_masks_that_do_not_fit_the_source(masks, words):
    with pytest.raises(InputError, match=words):
        Pinned(masks).check((32, 48), 30)


def test_an_empty_mask_is_refused():
    with pytest.raises(InputError, match="mask must be"):
        Pinned(torch.ones(0, 4, 4))
