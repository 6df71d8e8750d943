"""The FlashTalk preset in ComfyUI: its sampler is the engine's own loop, to be made again and continued bit by bit."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import comfy.samplers
import pytest
import torch
from comparing import relative
from test_equality import load_model, make_backend, make_conditioning, sample_with_own_loop
from test_schedules import job_of


@pytest.fixture(scope="module")
def model(core, files):
    return load_model(core, files)


def flashtalk_job(core, model, sampler=None, **sampling):
    settings = core.settings.PRESETS["FlashTalk (4 steps)"]
    job = job_of(core, model, sampler, **sampling)
    return replace(job, sampling=replace(job.sampling, settings=settings))


def backend_of(core, model, sampler=None):
    made = make_backend(core, model, core.guidance.Guidance(1, 1))
    backend = core.run._backend(core.run.with_host_settings(flashtalk_job(core, model, sampler)))
    return replace(made, sampler=backend.sampler, sigmas=backend.sigmas, guidance=backend.guidance)


def denoise(backend, c):
    seen = []
    latents = backend.denoise(c, lambda step, denoised: seen.append(step))
    assert seen == [0, 1, 2, 3]
    return latents


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@torch.inference_mode()
def test_the_presets_sampler_is_the_engines_own_loop(core, own, model):
    c = make_conditioning(core, own)
    made = backend_of(core, model)

    def loop(velocity, x, sigmas, context):
        def estimate(x, sigma):
            x = core.euler.pin(x, context)
            return core.euler.pin(x - sigma * velocity(x, sigma), context)

        return core.renoise.renoise(estimate, x, sigmas, c.seed)

    with_loop = SimpleNamespace(**{**vars(core), "euler": SimpleNamespace(euler=loop)})
    got = denoise(made, c)
    assert relative(got, sample_with_own_loop(with_loop, own, made, model, c)) < 5e-5
    held = c.context.shape[2]
    torch.testing.assert_close(got[:, :, :held], c.context, atol=1e-5, rtol=1e-5)
    assert relative(got, denoise(replace(made, sampler=comfy.samplers.sampler_object("euler")), c)) > 0.01


@pytest.mark.parametrize("sampler", [None, "lcm"])
@torch.inference_mode()
def test_a_chunk_is_the_same_each_time_and_another_with_another_seed(core, own, model, sampler):
    """With the preset alone, and with ComfyUI's LCM as SAMPLER, whatever was drawn before."""
    c = make_conditioning(core, own)
    backend = backend_of(core, model, sampler)
    one = denoise(backend, c)
    torch.randn(7)
    assert torch.equal(denoise(backend, c), one)
    assert not torch.equal(denoise(backend, replace(c, seed=c.seed + 1)), one)


def test_the_presets_lengths_are_said_and_part_of_what_a_run_is_known_by(core, model, caplog):
    with caplog.at_level(logging.INFO, "infinitetalk"):
        job = core.run.with_host_settings(flashtalk_job(core, model))
    assert (job.sampling.chunk_frames, job.sampling.context_frames) == (33, 5)
    assert "the preset makes chunks of 33 frames with 5 of context" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "infinitetalk"):
        chosen = core.run.with_host_settings(flashtalk_job(core, model, chunk_frames=49, context_frames=13))
    assert (chosen.sampling.chunk_frames, chosen.sampling.context_frames) == (49, 13)
    assert not caplog.text


def test_a_connected_sampler_replaces_the_presets(core, model):
    backend = core.run._backend(core.run.with_host_settings(flashtalk_job(core, model, "euler")))
    assert backend.sampler.sampler_function is comfy.samplers.sampler_object("euler").sampler_function
    assert torch.equal(backend.sigmas, core.schedule.even_sigmas(4, 5.0))
