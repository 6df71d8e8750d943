"""Step caches of ComfyUI and of other packs (docs/compatibility.md): each chunk by itself, or one clear sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comparing import relative
from core_modules import with_modules
from step_cache_nodes import Passes, easycache, lazycache, magcache, teacache, unknown_cache
from test_equality import load_model, make_backend, make_conditioning

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
STEPS = 10
# The threshold at which each leaves out some of the steps of the random models, and keeps some.
ROWS = {
    "easycache": (easycache, 1.0),
    "lazycache": (lazycache, 1.0),
    "teacache": (teacache, 2.5),
    "magcache": (magcache, 0.3),
    "unknown-cache": (unknown_cache, 2.5),
}
TWO_SLOTS = ("teacache", "magcache")


@pytest.fixture(scope="session")
def core(core, pack):
    """With the modules of this test."""
    found = {"cache": "infinitetalk_core.sampling.step_cache", "host_cache": "nodes.host.model.cached_blocks"}
    found["foreign"] = "nodes.host.model.foreign_caches"
    return with_modules(core, pack, **found)


@pytest.fixture
def plain(core, files):
    return load_model(core, files)


@torch.inference_mode()
def latents(core, model, c, text=1, audio=2, steps=STEPS):
    made = make_backend(core, model, core.guidance.Guidance(text, audio), steps=steps)
    short = {name: [[getattr(made, name)[0][0][:, :8], {}]] for name in ("positive", "negative")}
    return replace(made, **short).denoise(c, lambda s, x: None)


@pytest.mark.parametrize("audio", [1, 2])
@pytest.mark.parametrize("name", ROWS)
def test_a_chunk_is_the_same_whatever_was_made_before_it(core, files, own, plain, name, audio):
    """One and two predictions a step. Speech is heard, steps are left out, and nothing of a chunk is in the next."""
    cached, threshold = ROWS[name]
    c = make_conditioning(core, own)
    later = replace(c, audio_windows=c.audio_windows.flip(1))
    passes = Passes().watch(plain)
    without = latents(core, plain, c, audio=audio)
    all_passes, passes.items = passes.items, 0
    with_cache = latents(core, cached(plain, threshold), c, audio=audio)
    assert all_passes == STEPS * audio
    assert 0.3 * all_passes <= passes.items <= 0.8 * all_passes, "some are left out and some made"
    assert 1e-4 < relative(with_cache, without) < 0.5
    model = cached(load_model(core, files), threshold)
    alone = latents(core, model, later, audio=audio)
    assert torch.equal(latents(core, model, c, audio=audio), with_cache)
    assert torch.equal(latents(core, model, later, audio=audio), alone)
    assert relative(alone, with_cache) > 1e-4, "the speech is heard"


@pytest.mark.parametrize("speakers", [1, 2])
@pytest.mark.parametrize("name", ROWS)
def test_without_a_step_left_out_it_is_the_video_without_a_cache(core, own, plain, name, speakers):
    c = make_conditioning(core, own, speakers)
    got = latents(core, ROWS[name][0](plain, 1e-9), c, steps=3)
    assert relative(got, latents(core, plain, c, steps=3)) < 1e-5


@pytest.mark.parametrize("name", ["easycache", "lazycache"])
@pytest.mark.parametrize("together", [True, False])
def test_three_predictions_a_step(core, own, plain, monkeypatch, name, together):
    """In one batch, and one by one where memory is short: the same steps are left out."""
    cached, threshold = ROWS[name]
    c = make_conditioning(core, own)
    want = latents(core, cached(plain, threshold), c, 5, 4)
    if not together:
        monkeypatch.setattr(plain.model, "memory_required", lambda *a, **k: 1e18)
    assert relative(latents(core, cached(plain, threshold), c, 5, 4), want) < 1e-4
    held = c.context.shape[2]
    torch.testing.assert_close(want[:, :, :held], c.context, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["easycache", "teacache"])
def test_it_may_come_before_the_model_loader(core, files, own, plain, name):
    import comfy.sd

    cached, threshold = ROWS[name]
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    before = core.adapter.patch_model(cached(base, threshold), files.infinitetalk, 1.0)
    c = make_conditioning(core, own)
    assert torch.equal(latents(core, before, c), latents(core, cached(plain, threshold), c))


@pytest.mark.parametrize("name", TWO_SLOTS)
def test_a_cache_of_two_slots_is_refused_where_there_are_three_predictions(core, plain, name):
    model = ROWS[name][0](plain, 0.2)
    core.foreign.check_step_caches(model, core.guidance.Guidance(1, 2), 20)
    with pytest.raises(ValueError, match=r"knows 2 predictions per step, and this guidance .* makes 3; set text to 1"):
        core.foreign.check_step_caches(model, core.guidance.Guidance(5, 4), 20)


@pytest.mark.parametrize("name", ["easycache", "lazycache", "teacache", "magcache"])
def test_two_caches_on_one_model_are_said(core, plain, caplog, name):
    model = ROWS[name][0](plain, 0.2)
    core.foreign.check_step_caches(model, core.guidance.Guidance(1, 2), 20)
    assert not caplog.text
    core.foreign.check_step_caches(
        core.host_cache.attach_step_cache(model, core.cache.StepCaching()), core.guidance.Guidance(1, 2), 20
    )
    assert "has two step caches" in caplog.text


@pytest.mark.parametrize("name", ["easycache", "lazycache", "teacache", "magcache"])
def test_guidance_that_begins_later_is_refused(core, plain, name):
    """On ComfyUI 0.3.75 EasyCache ends with a KeyError where a prediction is new in a step that it leaves out."""
    model = ROWS[name][0](plain, 0.2)
    core.foreign.check_step_caches(model, core.guidance.Guidance(1, 1, start=0.125), 20)
    core.foreign.check_step_caches(model, core.guidance.Guidance(1, 4, end=0.5), 20)
    with pytest.raises(ValueError, match="this guidance begins after 12% of the steps; set guidance_start to 0"):
        core.foreign.check_step_caches(model, core.guidance.Guidance(1, 4, start=0.125), 20)


def test_texts_of_several_parts_are_for_caches_that_tell_them_apart(core, plain):
    """The others have one answer for each prediction of a step; see test_step_cache.py for the sentence."""
    found = {name: core.foreign.caches_by_branch(ROWS[name][0](plain, 0.2)) for name in ROWS}
    assert [bool(found[name]) for name in ("easycache", "lazycache", *TWO_SLOTS)] == [False, False, True, True]


def test_magcache_with_too_few_steps_is_refused(core, plain):
    model = magcache(plain, 0.06)
    core.foreign.check_step_caches(model, core.guidance.Guidance(1, 2), 5)
    with pytest.raises(ValueError, match="MagCache of another pack leaves out the first of 4 steps"):
        core.foreign.check_step_caches(model, core.guidance.Guidance(1, 2), 4)


def test_a_state_that_another_sampler_left_is_not_used(core, own, plain):
    c = make_conditioning(core, own)
    model = teacache(plain, 2.5)
    want = latents(core, model, c, audio=1)
    backbone = plain.get_model_object("diffusion_model")
    with pytest.raises(KeyboardInterrupt):
        make_backend(core, model, core.guidance.Guidance(1, 1), steps=STEPS).denoise(c, stop)
    assert "teacache_state" not in vars(backbone), "removed also where a chunk is interrupted"
    backbone.teacache_state = {0: SimpleNamespace(modulation=None, residual=None)}
    assert torch.equal(latents(core, model, c, audio=1), want)


def stop(step, denoised):
    raise KeyboardInterrupt


def test_the_page_has_a_row_for_each():
    text = PAGE.read_text(encoding="utf-8")
    for name in ROWS:
        assert f"`[{name}]`" in text, name
