"""SAMPLER and SIGMAS of other nodes: which noise levels a chunk gets, and how near the result is to the flow's end."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import comfy.model_sampling
import comfy.samplers
import comfy.sd
import pytest
import torch
from comparing import relative
from test_equality import load_model, make_conditioning

STEPS, SHIFT = 8, 7.0
WAN_SHIFT = 8.0  # of ComfyUI's Wan
MULTISTEP = ["uni_pc", "res_multistep", "dpmpp_2m", "deis"]
COUNTS = range(2, 61)  # of steps; with one, kl_optimal gives NaN


@pytest.fixture(scope="module")
def model(core, files):
    return load_model(core, files)


def job_of(core, model, sampler=None, **sampling):
    """A job with what the choice of noise levels reads."""
    known = core.fingerprint.Component
    settings = core.settings.SamplingSettings(STEPS, 1.0, 1.0, SHIFT)
    return core.job.Job(
        speech=None,
        reference=None,
        sampling=core.job.Sampling(settings=settings, **sampling),
        components=core.job.Components(
            known(model, "model"),
            known(None, "vae"),
            sampler=sampler and known(comfy.samplers.sampler_object(sampler), sampler),
        ),
    )


def backend_of(core, *args, **kwargs):
    return core.run._backend(core.run.with_host_settings(job_of(core, *args, **kwargs)))


@pytest.fixture(scope="module")
def trained(core, models_dir):
    """The trained small MODEL, whose flow has an end that all samplers approach."""
    wan = str(models_dir / "diffusion_models" / "small_wan2.1_i2v.safetensors")
    base = comfy.sd.load_diffusion_model(wan, model_options={"dtype": torch.float32})
    return core.adapter.patch_model(base, models_dir / "model_patches" / "small_infinitetalk_single.safetensors", 1.0)


@torch.inference_mode()
def test_multistep_samplers_without_sigmas_come_nearer_to_the_flows_end_than_euler(core, trained):
    c = make_conditioning(core, SimpleNamespace(adapter=core.adapter.adapter_of(trained)))

    def denoise(backend):
        return backend.denoise(c, lambda step, x: None)

    euler = backend_of(core, trained)
    end = denoise(replace(euler, sigmas=core.schedule.even_sigmas(30, SHIFT)))
    allowed = relative(denoise(euler), end)
    for name in MULTISTEP:
        assert relative(denoise(backend_of(core, trained, name)), end) < allowed, name


def test_only_a_sampler_without_sigmas_has_evenly_spaced_levels(core, model):
    given = torch.tensor([1.0, 0.5, 0.0])
    reference, even = core.schedule.shifted_sigmas(STEPS, SHIFT), core.schedule.even_sigmas(STEPS, SHIFT)
    assert torch.equal(backend_of(core, model).sigmas, reference), "the reference's Euler"
    assert torch.equal(backend_of(core, model, "uni_pc").sigmas, even)
    for sampler in ("uni_pc", None):
        assert torch.equal(backend_of(core, model, sampler, sigmas=given).sigmas, given)


def test_the_levels_belong_to_what_a_run_is_known_by(core, model):
    one, other = (core.run.with_host_settings(job_of(core, model, s)).sampling.sigmas for s in ("uni_pc", None))
    assert other is None
    assert torch.equal(one, core.schedule.even_sigmas(STEPS, SHIFT))


@torch.inference_mode()
def test_a_sampler_that_writes_into_its_sigmas_changes_no_others(core, model, own):
    given = core.schedule.even_sigmas(4, SHIFT)
    before = given.clone()
    backend = backend_of(core, model, "uni_pc", sigmas=given)
    c = make_conditioning(core, own)
    one, two = (backend.denoise(c, lambda step, x: None) for _ in range(2))
    assert torch.equal(given, before)
    assert torch.equal(one, two), "the second chunk has the levels of the first"


@pytest.fixture(scope="module")
def enters(pack):
    """The check of SIGMAS that enter a node."""
    return import_module(f"{pack.__name__}.nodes.connections").sigmas


def test_sigmas_are_copied_when_they_enter(enters):
    given = torch.tensor([1.0, 0.5, 0.0])
    assert torch.equal(enters(given, "sigmas"), given)
    assert enters(given, "sigmas").data_ptr() != given.data_ptr()


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([1.5, 0.5, 0.0], "above 1"),
        ([1.0, float("nan"), 0.0], "no numbers"),
        ([1.0, 0.5, 0.0, 0.0], "equal or rise"),
        ([1.0, 0.4, 0.6, 0.0], "equal or rise"),
        ([1.0], "at least 2"),
        ([1.0, 0.5], "end at 0"),
    ],
)
@pytest.mark.parametrize("form", [list, torch.tensor])
def test_odd_sigmas_do_not_enter(enters, levels, words, form):
    with pytest.raises(ValueError, match=words):
        enters(form(levels), "sigmas")


class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """The noise levels of ComfyUI's Wan."""


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_each_scheduler_of_comfyui_enters_or_is_refused_with_a_true_sentence(core, enters, scheduler):
    flow = Flow(SimpleNamespace(sampling_settings={"shift": WAN_SHIFT}))
    refused = []
    for steps in COUNTS:
        levels = enters(comfy.samplers.calculate_sigmas(flow, scheduler, steps), "sigmas")
        try:
            core.job.check_sigmas(levels, from_source=False)
        except ValueError as error:
            refused.append(steps)
            assert float(levels[0]) < 0.98
            assert "(ddim_uniform begins lower with most numbers of steps)" in str(error)
    assert bool(refused) == (scheduler == "ddim_uniform"), refused
    lower = [n for n in COUNTS if float(comfy.samplers.calculate_sigmas(flow, scheduler, n)[0]) < 0.9999]
    assert (len(lower) > 30) == (scheduler == "ddim_uniform"), lower
