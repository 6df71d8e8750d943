"""Our Uni3C is ComfyUI's own, plus the render mask and the camera embedding that ComfyUI's node leaves out."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.ops
import folder_paths
import pytest
import torch
from comparing import relative

native = pytest.importorskip("comfy.ldm.wan.uni3c", reason="this ComfyUI has no Uni3C of its own")

T, H, W = 3, 4, 6


@pytest.fixture(scope="module")
def core(pack):
    """The modules under test, from the pack as ComfyUI loads it."""
    names = {"files": "infinitetalk_core.checkpoints.loaders", "model": "infinitetalk_core.model.uni3c"}
    return SimpleNamespace(**{k: import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture
def path(models_dir):
    return models_dir / "controlnet" / "tiny_uni3c.safetensors"


@pytest.fixture
def theirs(path, monkeypatch):
    """The file as ComfyUI's ModelPatchLoader loads it."""
    from comfy_extras.nodes_model_patch import ModelPatchLoader

    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(path))
    (patcher,) = ModelPatchLoader().load_model_patch(path.name)
    assert isinstance(patcher.model, native.WanUni3CControlnet)
    return patcher.model


@pytest.fixture
def ours(core, path):
    """The file in ComfyUI's casting layers."""
    file = core.files.open_uni3c(path)
    model = core.model.Uni3C(core.model.Uni3CConfig.from_shapes(file.shapes), comfy.ops.manual_cast, device="meta")
    model.load_state_dict(file.read().tensors, assign=True)
    return model


def inputs(config, dtype=torch.float32):
    """First 20 channels of Wan's input, guidance latents, time embedding, render mask, camera embedding."""
    torch.manual_seed(0)
    x, render = torch.randn(2, 20, T, H, W), torch.randn(2, 16, T, H, W)
    temb = torch.randn(2, config.time_dim)
    frames = (2, 1, 4 * (T - 1) + 1, 8 * H, 8 * W)
    mask, camera = (torch.rand(frames) > 0.5).float(), torch.randn(frames).repeat(1, 6, 1, 1, 1)
    return [t.to(dtype) for t in (x, render, temb, mask, camera)]


def native_residuals(theirs, x, render, temb, mask=None, camera=None):
    hidden, freqs = theirs.process_input(torch.cat([x, render], dim=1), mask, camera)
    residuals = []
    for i in range(theirs.num_layers):
        hidden, residual = theirs.forward_block(i, hidden, temb, freqs)
        residuals.append(residual)
    return residuals


@pytest.mark.parametrize("with_view", [False, True], ids=["no mask", "mask and camera"])
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)], ids=str
)
@torch.inference_mode()
def test_residuals_are_the_same(ours, theirs, with_view, dtype, limit):
    x, render, temb, *view = inputs(ours.config, dtype)
    view = view if with_view else []
    got = ours(x, render, temb, *view)
    want = native_residuals(theirs, x, render, temb, *view)
    assert len(got) == len(want) == ours.config.blocks
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        assert relative(a, b) < limit


@torch.inference_mode()
def test_sizes_are_those_that_comfyui_reads(ours, theirs):
    block = theirs.controlnet_blocks[0]
    c = ours.config
    assert (c.heads, c.blocks) == (block.self_attn.num_heads, theirs.num_layers)
    assert c.time_dim == block.norm1.linear.in_features
    assert c.out_dim == theirs.proj_out[0].out_features
