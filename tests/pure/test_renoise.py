"""Sampling by estimates that are noised anew, and the preset of SoulX-FlashTalk, against its own loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import infinitetalk_core as it
from infinitetalk_core.chunks.conditioning import draw_noise
from infinitetalk_core.chunks.job import ColorHold, Sampling
from infinitetalk_core.sampling.euler import pin
from infinitetalk_core.sampling.guidance import Branch
from infinitetalk_core.sampling.renoise import renoise
from infinitetalk_core.sampling.settings import PRESETS
from tests.pure.test_python_api import tiny_backend, tiny_job

FLASHTALK = PRESETS["FlashTalk (4 steps)"]
SHAPE = (1, 16, 5, 4, 6)


def test_the_presets_levels_are_flashtalks_timesteps():
    """1000, 750, 500, 250 and 0, shifted by 5 (flash_talk_pipeline.py, `prepare_params`)."""
    want = [5 * t / (1 + 4 * t) for t in (1.0, 0.75, 0.5, 0.25, 0.0)]
    assert FLASHTALK.sigmas.tolist() == pytest.approx(want, abs=1e-7)
    assert FLASHTALK.guidance.branches == (Branch.COND,), "one prediction a step"


def test_it_is_flashtalks_loop():
    """Written again from the description: one generator for the chunk's noise and, after it, that of each step."""
    torch.manual_seed(0)
    context, target = torch.randn(1, 16, 2, 4, 6), torch.randn(SHAPE)

    def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x - sigma * target)

    sigmas, generator = FLASHTALK.sigmas, torch.Generator().manual_seed(7)
    x = torch.randn(SHAPE, generator=generator)
    x[:, :, :2] = context
    for sigma, following in pairwise(sigmas):
        estimate = x - sigma * velocity(x, sigma)
        x = (1 - following) * estimate + following * torch.randn(SHAPE, generator=generator)
        x[:, :, :2] = context

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        x = pin(x, context)
        return pin(x - sigma * velocity(x, sigma), context)

    steps = []
    got = renoise(denoise, draw_noise(7, SHAPE), sigmas, 7, lambda step, denoised, x: steps.append(step))
    torch.testing.assert_close(got, x, atol=1e-6, rtol=1e-6)
    assert steps == [0, 1, 2, 3]


def test_each_step_has_noise_of_its_own_and_each_seed_others():
    noises: dict[int, list[torch.Tensor]] = {}
    for seed in (3, 3, 4, 2**64 - 1):
        seen: list[torch.Tensor] = []
        result = renoise(
            lambda x, sigma, to=seen: to.append(x / sigma) or torch.zeros_like(x),
            draw_noise(seed, SHAPE),
            FLASHTALK.sigmas,
            seed,
        )
        assert torch.equal(result, torch.zeros(SHAPE))
        if seed in noises:
            assert all(torch.equal(a, b) for a, b in zip(noises[seed], seen, strict=True))
        noises[seed] = seen
    drawn = [noise.flatten() for seen in noises.values() for noise in seen]
    alike = torch.corrcoef(torch.stack(drawn)) - torch.eye(len(drawn))
    assert alike.abs().max() < 0.15, "all are independent"


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        (FLASHTALK, {}, (33, 5)),
        (FLASHTALK, {"chunk_frames": 49}, (49, 5)),
        (FLASHTALK, {"context_frames": 1}, (33, 1)),
        (it.SamplingSettings(), {}, (81, 9)),
        (it.SamplingSettings(), {"chunk_frames": 33}, (33, 9)),
    ],
)
def test_the_preset_sets_the_lengths_where_they_are_the_defaults(settings, given, expected):
    found = Sampling(settings=settings, **given).with_lengths_of_model()
    assert (found.chunk_frames, found.context_frames) == expected
    assert found.with_lengths_of_model() == found


def test_a_job_that_goes_on_at_its_second_chunk_makes_the_same_frames():
    backend = tiny_backend()
    sampling = replace(
        backend.sampling, settings=FLASHTALK, chunk_frames=13, context_frames=5, color=ColorHold(0.0), seed=11
    )
    backend = replace(backend, sampling=sampling)
    sound = it.Sound(torch.zeros(1, 16000 * 29 // 25), 16000)
    speech = it.Speech((torch.randn(29, 3, 4, generator=torch.Generator().manual_seed(1)),), sound)
    job = replace(tiny_job(backend), speech=speech, sampling=sampling)
    whole = list(it.dub(job, backend))
    assert len(whole) == 3
    rest = list(it.dub(job, backend, context=whole[0].context, plan=job.plan[1:]))
    for one, other in zip(whole[1:], rest, strict=True):
        assert torch.equal(one.frames, other.frames)
    plain = replace(backend, sampling=replace(sampling, settings=replace(FLASHTALK, renoise=False)))
    assert not torch.equal(next(iter(it.dub(replace(job, sampling=plain.sampling), plain))).frames, whole[0].frames)
