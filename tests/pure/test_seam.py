"""Two chunks join without a jump, and nothing of that is handed on."""

from __future__ import annotations

import pytest
import torch

from infinitetalk_core.chunks.metrics import seam
from infinitetalk_core.chunks.plan import Chunk, plan_chunks
from infinitetalk_core.chunks.seam import check_seam_fade, fade_seam
from infinitetalk_core.errors import InputError
from tests.support.models import PlainModels, make_job, run_and_measure
from tests.support.runs import portrait

HEIGHT, WIDTH = 4, 6


def chunk_frames(chunk: Chunk) -> torch.Tensor:
    """A picture with detail that moves a little from frame to frame, away from black and white."""
    torch.manual_seed(3)
    detail = torch.rand(HEIGHT, WIDTH, 3)
    return torch.stack([0.4 + 0.1 * detail + 0.002 * i for i in range(chunk.length)])


def second_chunk(length: int = 33, context: int = 9) -> Chunk:
    return plan_chunks(100, length, context)[1]


def test_the_first_new_frame_is_as_far_from_the_last_one_as_the_model_made_it():
    chunk = second_chunk()
    frames = chunk_frames(chunk)
    last = frames[8] + 0.05 * torch.rand(HEIGHT, WIDTH, 3)  # what the VAE lost of it
    faded = fade_seam(frames, chunk, last, 4, 9)
    step = frames[9] - frames[8]
    torch.testing.assert_close(faded[9] - last, step - step.mean((0, 1)))
    assert seam(last, faded[9:]) < 1.5 < 5 < seam(last, frames[9:])


def test_what_was_lost_fades_within_so_many_frames():
    chunk = second_chunk()
    frames = chunk_frames(chunk)
    faded = fade_seam(frames, chunk, frames[8] + 0.05, 4, 9)
    added = (faded - frames).mean(dim=(1, 2, 3)).abs()
    assert added[:9].abs().max() == 0 and added[13:].abs().max() == 0
    assert (added[9:13] > 0).all() and (added[9:13].diff() < 0).all()


def test_new_frames_do_not_begin_with_a_flash():
    chunk = second_chunk()
    frames = chunk_frames(chunk)
    frames[9:] += 0.01
    faded = fade_seam(frames, chunk, frames[8], 4, 9)
    torch.testing.assert_close(faded[9].mean((0, 1)), frames[8].mean((0, 1)))
    torch.testing.assert_close(faded[13:], frames[13:])


def test_light_that_is_switched_on_is_no_flash():
    chunk = second_chunk()
    frames = chunk_frames(chunk)
    frames[9:] += 0.3
    faded = fade_seam(frames, chunk, frames[8], 4, 9)
    assert (faded[9] - frames[8]).mean() > 0.27


@pytest.mark.parametrize("count", [4, 24, 64])
def test_the_tail_is_never_touched(count):
    chunk = second_chunk()
    frames = chunk_frames(chunk)
    assert torch.equal(fade_seam(frames, chunk, frames[8] + 0.1, count, 9)[-9:], frames[-9:])


def test_nothing_to_do_gives_the_same_frames():
    first, second = plan_chunks(100, 33, 9)[:2]
    frames = chunk_frames(second)
    other = torch.ones(HEIGHT, WIDTH, 3)
    assert fade_seam(frames, second, other, 0, 9) is frames, "off"
    assert fade_seam(frames, first, other, 4, 9) is frames, "a chunk that continues nothing"
    short, few = second_chunk(17, 9), frames[:17]
    assert fade_seam(few, short, other, 4, 9) is few, "a chunk whose new frames are all handed on"


def test_a_negative_count_is_refused():
    with pytest.raises(InputError, match="seam_fade must be 0"):
        check_seam_fade(-1)


class Dimming(PlainModels):
    """A codec that gives everything back darker than it took it, so that every chunk begins with a jump."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return super().decode(latents) * 0.9

    def denoise(self, conditioning, after_step):
        """The context goes on unchanged."""
        latents = super().denoise(conditioning, after_step)
        if conditioning.context is not None:
            latents[:, :, conditioning.context.shape[2] :] = conditioning.context[:, :, -1:]
        return latents


def test_a_run_whose_codec_dims_has_no_jumps():
    jumps = {}
    for count in (0, 4):
        frames, _ = run_and_measure(make_job(portrait(), 40, seam_fade=count), Dimming())
        steps = (frames[1:] - frames[:-1]).abs().mean(dim=(1, 2, 3))
        jumps[count] = max(float(steps[k]) for k in (12, 20, 28))
    assert jumps[4] < 0.01 < jumps[0]
