"""Gray after a reference is encoded only until the VAE has settled, by a rule that no earlier chunk has a part in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from infinitetalk_core.chunks.conditioning import reference_video
from infinitetalk_core.chunks.dub import dub
from infinitetalk_core.chunks.encoded_reference import settles_after
from infinitetalk_core.chunks.job import Job, Reference
from infinitetalk_core.chunks.plan import CHUNK_FRAMES
from infinitetalk_core.chunks.redo import ChunkOverride
from infinitetalk_core.chunks.reference import Policy, ReferenceSettings
from infinitetalk_core.model.vae import WanVae, fast, load_vae
from infinitetalk_core.video.source import PictureBatch
from tests.support.models import PlainModels, make_job
from tools.small_models import TRAINED_MODELS
from training import small_models as training_models

CHUNKS = 4
CONTEXT = 9
FRAMES = CHUNK_FRAMES + (CHUNKS - 1) * (CHUNK_FRAMES - CONTEXT)
WHOLE = CHUNK_FRAMES
SIZES = [(32, 48), (48, 16)]
SMALL = (16, 24)


class Encoding(PlainModels):
    """Plain models with another encoder; `lengths`: frames of each clip that it encoded, without context frames."""

    def __init__(self, encoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.lengths: list[int] = []

    def encode(self, frames: Tensor) -> Tensor:
        if len(frames) not in (1, CONTEXT):
            self.lengths.append(len(frames))
        return self.encoder(frames)

    @property
    def references(self) -> list[Tensor]:
        """The latents of the reference of each chunk."""
        return [conditioning.reference for conditioning in self.seen]


@cache
def trained() -> WanVae:
    return fast(load_vae(TRAINED_MODELS / training_models.VAE), torch.float32)


@cache
def drawn() -> WanVae:
    """Random weights, which remember a picture for longer."""
    torch.manual_seed(0)
    return fast(WanVae(8).train(False), torch.float32)


def encoder_of(vae: WanVae) -> Callable[[Tensor], Tensor]:
    return lambda frames: vae.encode(frames[None])


def flaky(frames: Tensor) -> Tensor:
    """An encoder that forgets dark pictures at once, and always tells that a picture was bright."""
    latents = PlainModels().encode(frames)
    latents[:, 0, 1:] += (frames[0].mean() > 0.6).float()
    return latents


def job_of(size: tuple[int, int] = SMALL, policy: Policy = Policy.CHUNK_START, dark: int = 0) -> Job:
    """A job of four chunks; dark: the first frames of the source that are."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(FRAMES, 6, 4, 3, generator=generator) * 0.4 + 0.6
    pictures[:dark] -= 0.6
    settings = ReferenceSettings(policy)
    job = make_job(PictureBatch(pictures), FRAMES, settings, chunk_frames=CHUNK_FRAMES, context_frames=CONTEXT)
    return replace(job, reference=Reference(job.reference.source, *size, settings))


def whole(job: Job, encode: Callable[[Tensor], Tensor], frame: int) -> Tensor:
    return encode(reference_video(job.reference.picture(frame), CHUNK_FRAMES))


@pytest.mark.parametrize("size", SIZES)
def test_a_trained_vae_encodes_little_gray(size):
    job, encode = job_of(size), encoder_of(trained())
    models = Encoding(encode)
    list(dub(job, models))
    short = models.lengths[1]
    assert models.lengths == [WHOLE, *[short] * (CHUNKS - 1)] and short <= 33
    for planned, found in zip(job.plan, models.references, strict=True):
        exact = whole(job, encode, planned.choice.frames[0])
        error = (found - exact).square().mean((0, 3, 4)).sqrt()  # by channel and latent frame
        assert error[:, : 1 + (short - 1) // 4].max() < 1e-4, "the picture and what follows it are encoded"
        assert error.max() < 5e-3, "half of what bfloat16 rounds"
    assert torch.equal(models.references[0], whole(job, encode, 0)), "the first chunk is encoded as ever"


@pytest.mark.parametrize("size", SIZES)
def test_random_weights_encode_all_of_it(size):
    job, encode = job_of(size), encoder_of(drawn())
    models = Encoding(encode)
    list(dub(job, models))
    assert models.lengths == [WHOLE] * CHUNKS
    for planned, found in zip(job.plan, models.references, strict=True):
        assert torch.equal(found, whole(job, encode, planned.choice.frames[0]))


@pytest.mark.parametrize(
    ("dark", "lengths"),
    [
        (0, [WHOLE, 5, 5, 5]),  # all alike
        (1, [WHOLE, 5, WHOLE, 5, WHOLE, 5, WHOLE]),
        (100, [WHOLE, 5, 5, WHOLE, 5, WHOLE]),
        (FRAMES, [WHOLE, 5, 5, 5]),
    ],
)
def test_each_reference_must_have_settled_itself(dark, lengths):
    job, models = job_of(dark=dark), Encoding(flaky)
    list(dub(job, models))
    assert models.lengths == lengths
    for planned, found in zip(job.plan, models.references, strict=True):
        assert torch.equal(found, whole(job, flaky, planned.choice.frames[0]))


ENCODERS = {
    "trained": lambda: encoder_of(trained()),
    "random": lambda: encoder_of(drawn()),
    "flaky": lambda: flaky,
    "plain": lambda: PlainModels().encode,
}


@pytest.mark.parametrize(
    ("encoder", "policy", "start"),
    [
        *((name, Policy.CHUNK_START, 2) for name in ("trained", "random")),
        *product(("flaky", "plain"), (Policy.CHUNK_START, Policy.PREVIOUS_OUTPUT, Policy.ADAPTIVE), (1, 2, 3)),
    ],
)
def test_a_resumed_run_has_the_same_bits(encoder, policy, start):
    encode, job = ENCODERS[encoder](), job_of(policy=policy, dark=100)
    calm, resumed = Encoding(encode), Encoding(encode)
    contexts = [finished.context for finished in dub(job, calm)]
    list(dub(job, resumed, context=contexts[start - 1], plan=job.plan[start:]))
    assert all(map(torch.equal, resumed.references, calm.references[start:]))


def test_chunks_made_again_do_not_change_the_others():
    job, encode = job_of(), encoder_of(trained())
    calm, again = Encoding(encode), Encoding(encode)
    list(dub(job, calm))
    list(dub(job, again, plan=[ChunkOverride(frame=30).apply(job.plan[0]), *job.plan[1:]]))
    assert not torch.equal(calm.references[0], again.references[0])
    assert all(map(torch.equal, calm.references[1:], again.references[1:]))


def test_one_reference_is_encoded_once():
    models = Encoding(encoder_of(trained()))
    list(dub(job_of(policy=Policy.STILL), models))
    assert models.lengths == [WHOLE]


def test_first_and_last_are_encoded_whole():
    models = Encoding(encoder_of(trained()))
    list(dub(job_of(policy=Policy.FIRST_LAST), models))
    assert models.lengths == [WHOLE] * CHUNKS


def test_settling_is_seen_in_the_channel_that_takes_longest():
    latents = torch.zeros(1, 16, 21, 4, 6)
    latents[:, :, 0] = torch.randn(1, 16, 4, 6)
    assert settles_after(latents) == 2
    for last_moving in range(1, 20):
        slow = latents.clone()
        slow[:, 7, last_moving] += 0.02
        assert settles_after(slow) == (last_moving + 2 if last_moving <= 8 else None)
    assert settles_after(torch.full_like(latents, torch.nan)) is None
    assert settles_after(torch.zeros_like(latents)) == 2, "a picture of gray"
    assert settles_after(latents[:, :, :3]) is None, "too few to tell"
