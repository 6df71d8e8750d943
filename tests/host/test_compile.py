"""ComfyUI's torch.compile works with our patches: one graph, the same numbers, nothing taken for something else.

With the backend "eager" the graph is traced, guarded and chosen as with any other, and then run operation by operation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import comfy.sd
import pytest
import test_uni3c
import torch
import torch._dynamo
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comparing import relative
from core_modules import with_modules
from test_equality import make_backend, make_conditioning
from torch._dynamo.utils import counters


@pytest.fixture(scope="session")
def core(core, pack):
    """With the modules of this test."""
    found = {
        "kernels": "infinitetalk_core.model.kernels",
        "attention": "infinitetalk_core.model.attention",
        "block": "infinitetalk_core.model.audio_cross_attention",
        "rope": "infinitetalk_core.model.rope",
        "cache": "infinitetalk_core.sampling.step_cache",
        "host_cache": "nodes.host.model.cached_blocks",
    }
    return with_modules(core, pack, **found)


@pytest.fixture(autouse=True)
def forget():
    """Nothing compiled, nothing counted."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def load(core, files, strength: float = 1.0):
    """With PyTorch's attention, as on GPUs: what ComfyUI takes on the CPU asks for free memory and breaks graphs."""
    base = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    return core.adapter.patch_model(base, files.infinitetalk, strength, core.kernels.AttentionBackend.SDPA)


def newest_comfyui_skips(entries):
    """What TorchCompileModel of ComfyUI 0.33 does: guards on transformer_options are left out."""
    return ["transformer_options" not in entry.name for entry in entries]


def compiled(model, filtered: bool = True):
    clone = model.clone()
    set_torch_compile_wrapper(clone, "eager", options={"guard_filter_fn": newest_comfyui_skips} if filtered else None)
    return clone


def breaks() -> int:
    return sum(counters["graph_break"].values())


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize(("speakers", "text", "audio"), [(1, 1, 1), (1, 5, 4), (2, 1, 2)])
@torch.inference_mode()
def test_a_compiled_model_is_one_graph_for_all_steps_and_chunks(core, files, own, speakers, text, audio, filtered):
    model = load(core, files)
    plain = make_backend(core, model, core.guidance.Guidance(text, audio))
    fast = make_backend(core, compiled(model, filtered), core.guidance.Guidance(text, audio))
    c = make_conditioning(core, own, speakers)
    later = c.__class__(**{**vars(c), "audio_windows": c.audio_windows.flip(1)})
    for chunk in (c, later):
        want = plain.denoise(chunk, lambda s, x: None)
        assert relative(fast.denoise(chunk, lambda s, x: None), want) < 1e-5
    assert (breaks(), graphs()) == (0, 1)


@torch.inference_mode()
def test_branches_one_by_one_each_hear_their_own_when_compiled(core, files, own, monkeypatch):
    """They have the same shapes, so only the guards tell them apart."""
    model, c = load(core, files), make_conditioning(core, own)
    monkeypatch.setattr(model.model, "memory_required", lambda *a, **k: 1e18)
    guidance = core.guidance.Guidance(5, 4)
    want = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    got = make_backend(core, compiled(model), guidance).denoise(c, lambda s, x: None)
    assert relative(got, want) < 1e-5
    assert breaks() == 0


@torch.inference_mode()
def test_another_strength_is_another_graph(core, files, own):
    c, guidance = make_conditioning(core, own), core.guidance.Guidance(1, 1)
    made = {}
    for strength in (1.0, 0.5, 0.0):
        model = load(core, files, strength)
        made[strength] = make_backend(core, compiled(model), guidance).denoise(c, lambda s, x: None)
        want = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
        assert relative(made[strength], want) < 1e-5
    assert relative(made[0.0], made[1.0]) > 1e-4


@torch.inference_mode()
def test_the_step_cache_works_in_a_compiled_model(core, files, own):
    caching = core.cache.StepCaching(2.5, core.cache.CALIBRATIONS["none"], 2)
    model = core.host_cache.attach_step_cache(load(core, files), caching)
    c, guidance = make_conditioning(core, own), core.guidance.Guidance(5, 4)
    want = make_backend(core, model, guidance, steps=8).denoise(c, lambda s, x: None)
    fast = make_backend(core, compiled(model), guidance, steps=8)
    for _ in range(2):
        assert relative(fast.denoise(c, lambda s, x: None), want) < 1e-5
    assert breaks() == 0
    assert graphs() == 3, "first steps, steps that are kept, steps that are left out"


def test_our_block_is_a_full_graph(core, own):
    """Forward with two speakers, on the engine's own backbone."""
    torch.manual_seed(0)
    block, audio, grid = own.backbone.blocks[0], own.adapter.blocks[0], (2, 4, 6)
    dim, heads = own.backbone.config.dim, own.backbone.config.heads
    rotate = core.rope.video_rotation(grid, dim // heads, torch.device("cpu"))
    masks = torch.zeros(3, 24)
    masks[0, :10], masks[1, 14:], masks[2, 10:14] = 1, 1, 1
    tokens = torch.randn(2, 2 * own.adapter.config.tokens, own.adapter.config.token_dim)
    calls = core.block.BlockCalls(
        self_attention=lambda y, keep: block.self_attn(y, rotate),
        cross_attention=partial(block.cross_attn.attend, text=torch.randn(1, 8, dim), picture=None),
        attention=core.attention.sdpa,
    )

    def run(x, e):
        return core.block.audio_conditioned_block(
            block, audio, x, e, [core.cross_attention.SpeechTokens(tokens, masks)], 1.0, calls
        )

    x, e = torch.randn(1, 48, dim), torch.randn(1, 6, dim)
    with torch.inference_mode():
        want = run(x, e)
        got = torch.compile(run, backend="eager", fullgraph=True)(x, e)
    torch.testing.assert_close(got, want)


@torch.inference_mode()
def test_a_camera_that_ends_works_in_a_compiled_model(core, files, own):
    """Its network runs inside the graph of the steps that it takes part in, at most one break."""
    loaded = SimpleNamespace(
        model=load(core, files), patcher=core.uni3c.load_uni3c_patcher(files.uni3c), adapter=own.adapter
    )
    c = test_uni3c.conditioning(core, loaded, view=True)
    made = test_uni3c.make_backend(core, loaded, 5, 4, strength=0.8, start=0.0, end=0.6)
    want = made.denoise(c, lambda s, x: None)
    got = replace(made, model=compiled(made.model)).denoise(c, lambda s, x: None)
    assert relative(got, want) < 1e-5
    assert breaks() <= 1


@torch.inference_mode()
def test_blocks_compiled_one_by_one_make_the_same_video(core, files, own):
    """As some nodes of other packs do it. Ours then run as they are: they call a block's layers, not the block."""
    model, c = load(core, files), make_conditioning(core, own)
    blocks = model.clone()
    keys = [f"diffusion_model.blocks.{i}" for i in range(len(own.backbone.blocks))]
    set_torch_compile_wrapper(blocks, "eager", keys=keys)
    guidance = core.guidance.Guidance(1, 2)
    want = make_backend(core, model, guidance).denoise(c, lambda s, x: None)
    assert relative(make_backend(core, blocks, guidance).denoise(c, lambda s, x: None), want) < 1e-5
