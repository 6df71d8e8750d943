"""The choice of attention in the Model Loader: it reaches all attention, is refused with the reason, and a backend
that spoils the picture costs one step, not the video."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
import torch.nn.functional as F
from comparing import relative
from test_equality import load_model, make_backend, make_conditioning
from test_layouts import base_model


@pytest.fixture(scope="module")
def core(core, pack):
    """With the modules of this test."""
    found = {"attention": "nodes.host.model.attention", "kernels": "infinitetalk_core.model.kernels"}
    return SimpleNamespace(**vars(core), **{k: import_module(f"{pack.__name__}.{v}") for k, v in found.items()})


def loaded(core, files, choice: str):
    return core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend(choice))


@pytest.fixture
def gpu_with_packages(core, monkeypatch):
    """A machine that says it has a Hopper GPU and both packages, which are stand-ins that count their calls."""
    calls = {"sage": 0, "flash": 0}

    def count(name):
        def run(q, k, v, **options):
            calls[name] += 1
            return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)

        return run

    for module, function, name in (("sageattention", "sageattn", "sage"), ("flash_attn", "flash_attn_func", "flash")):
        stand_in = ModuleType(module)
        setattr(stand_in, function, count(name))
        monkeypatch.setitem(sys.modules, module, stand_in)
    machine = core.kernels.Machine("cuda", (9, 0), lambda module: module in ("sageattention", "flash_attn"))
    monkeypatch.setattr(core.attention.Machine, "here", lambda device: machine)
    monkeypatch.setattr(core.kernels, "HALF_DTYPES", (torch.float32,))  # what this machine computes in
    return calls


STEPS, BLOCKS = 3, 3


def test_flash_runs_all_attention(core, files, gpu_with_packages):
    """To the video, to the text and (without CLIP vision: again the text) the picture, and to the audio."""
    want, _ = sampled(core, loaded(core, files, "auto"))
    got, _ = sampled(core, loaded(core, files, "flash"))
    assert relative(got, want) < 1e-5
    assert gpu_with_packages == {"sage": 0, "flash": 4 * BLOCKS * STEPS}


def test_sage_runs_what_it_is_good_for(core, files, gpu_with_packages):
    """Not the audio, whose few keys are no work for it; nor the picture's where ComfyUI says the same."""
    want, _ = sampled(core, loaded(core, files, "auto"))
    got, _ = sampled(core, loaded(core, files, "sage"))
    assert relative(got, want) < 1e-5
    assert gpu_with_packages["sage"] in (2 * BLOCKS * STEPS, 3 * BLOCKS * STEPS)
    assert gpu_with_packages["flash"] == 0


def test_two_speakers_are_placed_with_a_choice_too(core, files, gpu_with_packages):
    want, _ = sampled(core, loaded(core, files, "auto"), speakers=2)
    got, _ = sampled(core, loaded(core, files, "sage"), speakers=2)
    assert relative(got, want) < 1e-4
    assert gpu_with_packages["sage"]


def test_what_cannot_run_is_refused_at_the_loader(core, files):
    with pytest.raises(ValueError, match=r"'sage' cannot run here: it needs an NVIDIA GPU and ComfyUI runs on cpu"):
        loaded(core, files, "sage")


def test_sdpa_is_pytorchs_own_whatever_comfyui_was_started_with(core, files, monkeypatch):
    seen = []
    monkeypatch.setattr(core.attention, "attention_pytorch", lambda *a, **k: seen.append(1) or plain(*a, **k))
    plain = host_attention.attention_pytorch
    sampled(core, loaded(core, files, "sdpa"))
    assert len(seen) == 4 * BLOCKS * STEPS


def spoiling(times: list[int], value: float):
    """An attention node of somebody else's that gives `value` everywhere."""

    def spoil(function, q, k, v, heads, *rest, **options):
        times.append(1)
        return torch.full_like(function(q, k, v, heads, *rest, **options), value)

    return spoil


def sampled(core, model, speakers: int = 1):
    conditioning = make_conditioning(core, SimpleNamespace(adapter=core.adapter.adapter_of(model)), speakers)
    steps: list[int] = []
    with torch.inference_mode():
        latents = make_backend(core, model, core.guidance.Guidance(1, 1)).denoise(
            conditioning, lambda step, denoised: steps.append(step)
        )
    return latents, steps


def test_a_spoiled_chunk_is_made_again_with_pytorchs_attention(core, files, caplog):
    """As the black videos of SageAttention on Wan, whoever switched it on."""
    want, _ = sampled(core, load_model(core, files))
    model, times = load_model(core, files), []
    model.model_options["transformer_options"]["optimized_attention_override"] = spoiling(times, torch.nan)
    with caplog.at_level(logging.WARNING, logger="infinitetalk"):
        got, steps = sampled(core, model)
    assert relative(got, want) < 1e-5
    assert steps == [0, 1, 2], "it was seen after the first step"
    assert times
    assert "chunk 1 came out black or as not-a-number with another node's attention (spoil)" in caplog.text


def test_an_explicit_choice_that_spoils_the_chunk_is_named(core, files, gpu_with_packages, monkeypatch):
    monkeypatch.setattr(
        sys.modules["sageattention"], "sageattn", lambda q, k, v, **options: torch.full_like(q, torch.nan)
    )
    with pytest.raises(RuntimeError, match=r"chunk 1 came out .* with SageAttention; choose another attention"):
        sampled(core, loaded(core, files, "sage"))


def test_a_sampled_chunk_leaves_the_users_model_as_it_was(core, files):
    model = load_model(core, files)
    model.model_options["transformer_options"]["optimized_attention_override"] = spoiling([], torch.nan)
    before = dict(model.model_options["transformer_options"])
    sampled(core, model)
    assert model.model_options["transformer_options"] == before
