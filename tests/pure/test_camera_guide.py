"""The guidance of each chunk is that of its own time: motion put into a source is measured back in its latents."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from infinitetalk_core.camera.guide import PathGuide
from infinitetalk_core.camera.path import dolly, pan
from infinitetalk_core.chunks.camera_control import CameraControl, FilmedGuide
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.plan import plan_chunks
from infinitetalk_core.chunks.reference import AfterEnd, Policy, ReferenceSettings
from infinitetalk_core.errors import InputError
from infinitetalk_core.fingerprint import Component
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job

HEIGHT, WIDTH, BLOCK = 32, 48, 8
UNI3C = Component(None, "Uni3C")


def wide_picture() -> torch.Tensor:
    """Blocks of random shades, each as large as a latent, much wider than the video."""
    torch.manual_seed(0)
    shades = torch.rand(HEIGHT // BLOCK, 60)
    return shades.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[..., None].expand(-1, -1, 3)


def source_with_a_pan(frames: int, begin: int, step: int) -> PictureBatch:
    """Still until frame `begin`; from then on the camera moves `step` blocks to the right every four frames."""
    picture = wide_picture()
    shifts = [BLOCK * step * max(0, (i - begin + 3) // 4) for i in range(frames)]
    return PictureBatch(torch.stack([picture[:, s : s + WIDTH] for s in shifts]))


def shift_of(before: torch.Tensor, after: torch.Tensor) -> int:
    """By how many latents `after` (h, w) shows what `before` shows further right."""
    width = before.shape[-1]
    errors = {s: (before[:, s:] - after[:, : width - s]).abs().mean().item() for s in range(width - 1)}
    return min(errors, key=errors.__getitem__)


def test_a_pan_is_in_the_latents_of_its_chunk_and_in_no_other():
    begin = 17  # chunk 2 of 13 frames with 5 context frames is frames 16 to 28
    source = source_with_a_pan(60, begin, 1)
    job = make_job(source, 40, ReferenceSettings(Policy.CHUNK_START), camera=CameraControl(UNI3C, FilmedGuide(source)))
    models = PlainModels()
    list(dub(job, models))
    shifts = {}
    for c in models.seen:
        latents = c.camera.latents[0, 0]
        shifts[c.chunk.start] = [shift_of(a, b) for a, b in pairwise(latents)]
        assert c.camera.mask is None
    assert shifts[0] == [0, 0, 0]
    assert shifts[16] == [1, 1, 1]
    assert shifts[8] == [0, 0, 1], "its last four frames, 17 to 20, are the pan's first"


def test_a_source_shorter_than_the_speech_is_held_or_turned_around():
    source = source_with_a_pan(10, 1, 1)
    chunk = plan_chunks(40, 13, 5)[2]  # frames 16 to 28
    held = FilmedGuide(source).view(chunk, HEIGHT, WIDTH).frames
    assert all(torch.equal(f, held[0]) for f in held)
    back = FilmedGuide(source, AfterEnd.PING_PONG).view(chunk, HEIGHT, WIDTH).frames
    torch.testing.assert_close(back[0], source.frame(3), atol=3e-3, rtol=0)
    assert not torch.equal(back[0], back[-1])


def test_a_still_picture_is_a_camera_at_rest():
    still = PictureBatch(wide_picture()[None, :, :WIDTH])
    view = FilmedGuide(still).view(plan_chunks(40, 13, 5)[1], HEIGHT, WIDTH)
    assert view.frames.shape == (13, HEIGHT, WIDTH, 3)
    assert (view.frames == view.frames[0]).all()


def path_guide(path, frames: int = 30) -> PathGuide:
    torch.manual_seed(1)
    picture = torch.rand(4, 6, 3).repeat_interleave(16, 0).repeat_interleave(16, 1)
    return PathGuide(picture, torch.full((64, 96), 2.0), path, frames)


def test_a_path_is_rendered_window_by_window():
    guide = path_guide(pan(0.3))
    first, second = (guide.view(c, 64, 96) for c in plan_chunks(26, 13, 5)[:2])
    torch.testing.assert_close(first.frames[0], guide.picture, atol=3e-3, rtol=0)
    assert first.mask[0, 0, 0].sum() == 0, "the picture itself has no holes"
    assert first.frames.shape == (13, 64, 96, 3)
    assert first.mask.shape == (1, 1, 13, 64, 96)
    assert first.rays.shape == (1, 6, 13, 64, 96)
    assert torch.equal(first.frames[8], second.frames[0]), "the second chunk begins at frame 8"
    assert torch.equal(first.mask[0, 0, 8], second.mask[0, 0, 0])
    holes = second.mask[0, 0].mean(dim=(1, 2))
    assert (holes.diff() >= 0).all(), "the further to the side, the more is uncovered"
    assert holes[-1] > holes[0] > 0


def test_after_the_path_the_camera_stays():
    guide = path_guide(dolly(0.6), frames=10)
    view = guide.view(plan_chunks(60, 13, 5)[3], 64, 96)
    assert (view.frames == view.frames[0]).all()


def test_depth_of_another_picture_is_refused():
    with pytest.raises(InputError, match="depth map is 96 x 96, but the picture is 96 x 64"):
        PathGuide(torch.rand(64, 96, 3), torch.ones(96, 96), pan(), 10)


def test_what_the_path_shows_reaches_the_model():
    source = PictureBatch(path_guide(pan()).picture[None, :32, :48])
    guide = PathGuide(source.frame(0), torch.ones(32, 48), pan(0.3), 40)
    models = PlainModels()
    list(dub(make_job(source, 30, camera=CameraControl(UNI3C, guide)), models))
    for c in models.seen:
        assert c.camera.mask.shape[2] == c.chunk.length
        want = models.encode(guide.view(c.chunk, 32, 48).frames)
        assert torch.equal(c.camera.latents, want)
