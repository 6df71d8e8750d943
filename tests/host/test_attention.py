"""The choice of attention in the Model Loader: it reaches all attention, is refused with the reason, and a backend
that spoils the picture costs one step, not the video."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
import torch.nn.functional as F
from comparing import relative
from core_modules import with_modules
from test_equality import load_model, make_backend, make_conditioning
from test_layouts import base_model


@pytest.fixture(scope="module")
def core(core, pack):
    """With the modules of this test."""
    found = {"attention": "nodes.host.model.attention", "kernels": "infinitetalk_core.model.kernels"}
    return with_modules(core, pack, **found)


def loaded(core, files, choice: str):
    return core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0, core.kernels.AttentionBackend(choice))


@pytest.fixture
def gpu_with_packages(core, monkeypatch):
    """A machine that says it has a Hopper GPU and both packages: stand-ins that note the numbers of keys."""
    calls: dict[str, list[int]] = {"sage": [], "flash": []}

    def count(name):
        def run(q, k, v, **options):
            calls[name].append(k.shape[1])
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
SMALL, LARGE = (8, 12), (32, 32)  # latents of 96 and of 1024 video tokens: 4 frames of them
TEXT = 512


def test_flash_runs_all_attention_but_the_audios(core, files, gpu_with_packages):
    """To the video, to the text and (without CLIP vision: again the text) the picture."""
    want, _ = sampled(core, loaded(core, files, "auto"))
    model = loaded(core, files, "flash")
    gpu_with_packages["flash"].clear()  # the trial
    got, _ = sampled(core, model)
    assert relative(got, want) < 1e-5
    assert sorted(gpu_with_packages["flash"]) == [96] * BLOCKS * STEPS + [TEXT] * 2 * BLOCKS * STEPS
    assert gpu_with_packages["sage"] == []


@pytest.mark.parametrize("speakers", [1, 2])
@pytest.mark.parametrize(("size", "calls"), [(SMALL, 0), (LARGE, BLOCKS * STEPS)])
def test_sage_runs_what_it_is_good_for(core, files, gpu_with_packages, size, calls, speakers):
    """The attention to the video, from 1024 tokens on; never the few keys of text, picture and audio."""
    want, _ = sampled(core, loaded(core, files, "auto"), speakers, size)
    model = loaded(core, files, "sage")
    gpu_with_packages["sage"].clear()  # the trial
    got, _ = sampled(core, model, speakers, size)
    assert relative(got, want) < 1e-4
    assert gpu_with_packages["sage"] == [1024] * calls
    assert gpu_with_packages["flash"] == []


def test_what_cannot_run_is_refused_at_the_loader(core, files):
    with pytest.raises(ValueError, match=r"'sage' cannot run here: it needs an NVIDIA GPU and ComfyUI runs on cpu"):
        loaded(core, files, "sage")


def test_sdpa_is_pytorchs_own_whatever_comfyui_was_started_with(core, files, monkeypatch):
    seen = []
    monkeypatch.setattr(core.attention, "attention_pytorch", lambda *a, **k: seen.append(1) or plain(*a, **k))
    plain = host_attention.attention_pytorch
    sampled(core, loaded(core, files, "sdpa"))
    assert len(seen) == 3 * BLOCKS * STEPS


def spoiling(times: list[int], value: float):
    """An attention node of somebody else's that gives `value` everywhere."""

    def spoil(function, q, k, v, heads, *rest, **options):
        times.append(1)
        return torch.full_like(function(q, k, v, heads, *rest, **options), value)

    return spoil


def sampled(core, model, speakers: int = 1, size: tuple[int, int] = SMALL):
    conditioning = make_conditioning(core, SimpleNamespace(adapter=core.adapter.adapter_of(model)), speakers)
    if size != SMALL:
        conditioning = larger(core, conditioning, size)
    steps: list[int] = []
    with torch.inference_mode():
        latents = make_backend(core, model, core.guidance.Guidance(1, 1)).denoise(
            conditioning, lambda step, denoised: steps.append(step)
        )
    return latents, steps


def larger(core, conditioning, size: tuple[int, int]):
    """The same chunk with latents of another size, random too."""
    torch.manual_seed(4)
    height, width = size
    tokens = height // 2 * width // 2
    masks = conditioning.masks
    if masks is not None:
        masks = torch.zeros(3, tokens)
        masks[0, : tokens // 3], masks[1, tokens // 2 :], masks[2, tokens // 3 : tokens // 2] = 1, 1, 1
    return replace(
        conditioning,
        noise=torch.randn(1, 16, 4, *size),
        context=torch.randn(1, 16, 2, *size),
        reference=torch.randn(1, 16, 4, *size),
        mask=core.conditioning.reference_mask(4, *size),
        masks=masks,
    )


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
    model = loaded(core, files, "sage")
    monkeypatch.setattr(
        sys.modules["sageattention"], "sageattn", lambda q, k, v, **options: torch.full_like(q, torch.nan)
    )
    with pytest.raises(RuntimeError, match=r"chunk 1 came out .* with SageAttention; choose another attention"):
        sampled(core, model, size=LARGE)


def test_a_sampled_chunk_leaves_the_users_model_as_it_was(core, files):
    model = load_model(core, files)
    model.model_options["transformer_options"]["optimized_attention_override"] = spoiling([], torch.nan)
    before = dict(model.model_options["transformer_options"])
    sampled(core, model)
    assert model.model_options["transformer_options"] == before
