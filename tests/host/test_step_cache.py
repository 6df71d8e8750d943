"""The step cache inside ComfyUI: our own loop with a cache makes the same, for every number of branches."""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import asdict, replace
from importlib import import_module

import pytest
import torch
from comparing import relative
from core_modules import with_modules
from test_equality import load_model, make_backend, make_conditioning

STEPS = 10


@pytest.fixture(scope="session")
def core(core, pack):
    """With the modules of this test."""
    found = {"cache": "infinitetalk_core.sampling.step_cache", "host_cache": "nodes.host.model.cached_blocks"}
    found["guider"] = "nodes.host.sampling.guider"
    return with_modules(core, pack, **found)


@pytest.fixture
def caching(core):
    """For the random models, whose time modulation changes by about its own size at each step."""
    return core.cache.StepCaching(2.5, core.cache.CALIBRATIONS["none"], 2)


def own_loop(core, own, made, model, c, caching):
    """The engine's Euler loop on its own backbone with a cache; (latents, the cache)."""
    scale_in, scale_out = model.model.process_latent_in, model.model.process_latent_out
    heard, silence = own.adapter.speech_tokens(c.audio_windows, c.masks), own.adapter.silence(c.audio_windows)
    combine, z2 = core.guidance.guided(made.guidance), scale_in(c.reference)
    cache = core.cache.StepCache(caching)

    def velocity(x, sigma):
        branches = made.guidance.branches_at(float(sigma), made.sigmas)
        text = torch.cat([(made.positive if b.uses_text else made.negative)[0][0] for b in branches])
        z = core.wan.model_input(x.expand(len(branches), -1, -1, -1, -1), c.mask, z2)
        running = core.wan.Running(block_runner=cache.block_runner(range(len(branches)), branches))
        speech = [heard if b.uses_audio else silence for b in branches]
        t = (sigma * 1000).expand(len(branches))
        out = own.backbone(z, t, text, None, own.adapter, speech, running=running)
        return combine({b: v[None] for b, v in zip(branches, out, strict=True)})

    return scale_out(core.euler.euler(velocity, c.noise, made.sigmas, scale_in(c.context))), cache


@pytest.mark.usefixtures("text_attention_as_in_comfyui")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("text", "audio", "end"), [(1, 1, 1), (1, 2, 1), (5, 4, 1), (1, 2, 0.5)])
@torch.inference_mode()
def test_a_cached_chunk_equals_our_own_loop(core, files, own, caching, caplog, monkeypatch, text, audio, end, together):
    """1, 2 and 3 branches, in one batch and, where memory is short, one by one; the context is held clean.

    Where guidance ends, the step after it has other branches, and its blocks run.
    """
    c = make_conditioning(core, own)
    plain = load_model(core, files)
    if not together:
        monkeypatch.setattr(plain.model, "memory_required", lambda *a, **k: 1e18)
    model = core.host_cache.attach_step_cache(plain, caching)
    made = make_backend(core, model, core.guidance.Guidance(text, audio, end=end), steps=STEPS)
    with caplog.at_level(logging.INFO, logger="infinitetalk"):
        got = made.denoise(c, lambda s, x: None)
    want, cache = own_loop(core, own, made, model, c, caching)
    assert 2 <= cache.skipped <= STEPS - 3, "some steps are left out and some made, or the test shows nothing"
    assert f"chunk 1: step cache left out the blocks in {cache.skipped} of {STEPS} steps" in caplog.text
    assert relative(got, want) < 5e-5
    uncached = replace(made, model=plain).denoise(c, lambda s, x: None)
    assert relative(uncached, want) > 1e-4, "a cache changes the video"
    held = c.context.shape[2]
    torch.testing.assert_close(got[:, :, :held], c.context, atol=1e-5, rtol=1e-5)


@pytest.fixture
def caches(core, monkeypatch):
    """All step caches that are made, as they are made."""
    made = []

    def make(caching):
        made.append(core.cache.StepCache(caching))
        return made[-1]

    monkeypatch.setattr(core.guider, "StepCache", make)
    return made


@torch.inference_mode()
def test_each_chunk_begins_with_an_empty_cache_and_leaves_nothing_behind(core, files, own, caching, caches):
    c = make_conditioning(core, own)
    model = core.host_cache.attach_step_cache(load_model(core, files), caching)
    made = make_backend(core, model, core.guidance.Guidance(5, 4), steps=STEPS)
    first = made.denoise(c, lambda s, x: None)
    made.denoise(replace(c, noise=c.noise.flip(2)), lambda s, x: None)
    assert torch.equal(made.denoise(c, lambda s, x: None), first)
    assert [cache.size_bytes for cache in caches] == [0, 0, 0]
    gone = [weakref.ref(cache) for cache in caches]
    caches.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


@torch.inference_mode()
def test_an_interrupted_chunk_gives_the_memory_back(core, files, own, caching, caches):
    sizes = []

    def stop(step, denoised):
        sizes.append(caches[0].size_bytes)
        if step == 3:
            raise KeyboardInterrupt

    model = core.host_cache.attach_step_cache(load_model(core, files), caching)
    with pytest.raises(KeyboardInterrupt):
        make_backend(core, model, core.guidance.Guidance(1, 1), steps=STEPS).denoise(make_conditioning(core, own), stop)
    assert sizes[-1] > 0
    assert caches[0].size_bytes == 0


@torch.inference_mode()
def test_with_sdedit_and_other_samplers_it_leaves_out_steps_too(core, files, own, caching):
    c = replace(make_conditioning(core, own), source=torch.randn(1, 16, 4, 8, 12), strength=0.7)
    model = core.host_cache.attach_step_cache(load_model(core, files), caching)
    for sampler in ("euler", "uni_pc", "heun"):
        latents = make_backend(core, model, core.guidance.Guidance(1, 2), sampler, STEPS).denoise(c, lambda s, x: None)
        assert torch.isfinite(latents).all()
        held = c.context.shape[2]
        torch.testing.assert_close(latents[:, :, :held], c.context, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_another_nodes_block_replacement_still_sees_every_block(core, files, own, caching):
    model = core.host_cache.attach_step_cache(load_model(core, files), caching)
    calls = []
    model.set_model_patch_replace(
        lambda args, extra: calls.append(1) or extra["original_block"](args), "dit", "double_block", 0
    )
    c = make_conditioning(core, own)
    made = make_backend(core, model, core.guidance.Guidance(1, 1), steps=STEPS)
    got = made.denoise(c, lambda s, x: None)
    assert len(calls) == STEPS
    plain = core.host_cache.attach_step_cache(load_model(core, files), caching)
    torch.testing.assert_close(got, replace(made, model=plain).denoise(c, lambda s, x: None))


def test_the_node_sets_it_and_its_numbers_are_part_of_the_runs_name(core, files, pack):
    node = import_module(f"{pack.__name__}.nodes.step_cache").StepCacheNode
    base = load_model(core, files)
    (model,) = node.execute(base, 0.3, "wan 2.1 720p", 4, "GPU").args
    found = core.host_cache.step_caching_of(model)
    assert asdict(found) == {
        "threshold": 0.3,
        "calibration": core.cache.CALIBRATIONS["wan 2.1 720p"],
        "first_steps": 4,
        "on_gpu": True,
    }
    assert core.host_cache.step_caching_of(model.clone()) is found, "LoRA nodes after it keep it"
    assert core.host_cache.step_caching_of(base) is None, "the MODEL before it stays as it was"
    with pytest.raises(ValueError, match="calibration must be one of"):
        node.execute(base, 0.3, "480", 4, "GPU")


def test_the_job_knows_the_cache_that_its_model_carries(core, files, caching):
    """So a cached video never goes on from chunks that were made without it."""
    plain = load_model(core, files)
    job = import_module(f"{core.job.__package__}.job").Job(None, None, core.job.Sampling())
    for model, want in ((plain, None), (core.host_cache.attach_step_cache(plain, caching), caching)):
        components = core.job.Components(core.fingerprint.Component(model, "model"), None)
        assert core.run.with_host_settings(replace(job, components=components)).sampling.step_cache == want


def test_texts_of_several_parts_are_refused(core):
    core.run.check_single_part("positive", [["text", {}]], "InfiniteTalk Step Cache")
    with pytest.raises(ValueError, match="the positive text is made of 2 parts"):
        core.run.check_single_part("positive", [["text", {}], ["another", {}]], "InfiniteTalk Step Cache")


@pytest.mark.parametrize("ours_too", [False, True])
@torch.inference_mode()
def test_comfyuis_own_cache_of_steps_works_as_well(core, files, own, caching, ours_too):
    """EasyCache of ComfyUI, alone and together with ours: it may leave out whole predictions behind our back."""
    easy = import_module("comfy_extras.nodes_easycache").EasyCacheNode
    c, plain = make_conditioning(core, own), load_model(core, files)
    model = core.host_cache.attach_step_cache(plain, caching) if ours_too else plain
    (model,) = easy.execute(model, 1.0, 0.1, 0.95, False).args
    made = make_backend(core, model, core.guidance.Guidance(5, 4), steps=STEPS)
    got = made.denoise(c, lambda s, x: None)
    assert torch.isfinite(got).all()
    uncached = replace(made, model=plain).denoise(c, lambda s, x: None)
    assert 1e-4 < relative(got, uncached) < 1.0
    torch.testing.assert_close(got[:, :, :2], c.context, atol=1e-5, rtol=1e-5)


def test_it_runs_in_a_workflow(server, small):
    """Between the MODEL and the sampler, on the server, with a run of its own."""
    videos = set()
    for cached in (False, True):
        workflow = small("talking_portrait")
        (sampler,) = (node for node in workflow.values() if node["class_type"] == "InfiniteTalkChunkSampler")
        for node in workflow.values():
            node["inputs"].update(CHANGES.get(node["class_type"], {}))
        if cached:
            inputs = {"model": sampler["inputs"]["model"], "threshold": 2.5, "calibration": "none", "first_steps": 2}
            workflow["cache"] = {"class_type": "InfiniteTalkStepCache", "inputs": inputs}
            sampler["inputs"]["model"] = ["cache", 0]
        result = server.follow(server.queue(workflow), timeout=300)
        assert result.status == "success", result.error
        output = next(out for i, out in result.outputs.items() if workflow[i] is sampler)
        videos.add(server.path_of(output["images"][0]).read_bytes())
    assert len(videos) == 2, "a cached video is another one"


CHANGES = {
    "InfiniteTalkReferencePicker": {"size": "custom", "width": 64, "height": 64},
    "InfiniteTalkGuidance": {"preset": "custom", "steps": 6, "text_scale": 1.0, "audio_scale": 1.0, "shift": 7.0},
    "InfiniteTalkChunkSampler": {"chunk_frames": 29, "context_frames": 5},
}
