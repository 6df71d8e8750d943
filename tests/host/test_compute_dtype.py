"""Our weights are kept in the dtype that ComfyUI computes the MODEL in, where that saves memory: equal bits."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_equality import make_backend, make_conditioning

HALVES = [torch.bfloat16, torch.float16]


def write(source, path, dtype):
    """Write the weights of `source` in `dtype`, off the numbers of 16 bits, as those of a float32 file are."""
    torch.manual_seed(0)
    weights = {k: v.float() for k, v in load_file(source).items()}
    save_file({k: (v * (1 + 1e-3 * torch.randn_like(v))).to(dtype) for k, v in weights.items()}, path)
    return path


def base(files, dtype):
    model = comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})
    if dtype != torch.float32:
        model.set_model_compute_dtype(dtype)
    return model


def types(module):
    return {name: parameter.dtype for name, parameter in module.named_parameters()}


@pytest.fixture
def shared(pack):
    return import_module(f"{pack.__name__}.nodes.host.model.shared_models").SharedModels(10**9)


@pytest.mark.parametrize("compute", [*HALVES, torch.float32])
@pytest.mark.parametrize("stored", [torch.float32, *HALVES])
def test_float32_blocks_are_cast_at_load_and_the_audio_projection_stays(core, files, stored, compute, tmp_path):
    path = write(files.infinitetalk, tmp_path / "weights.safetensors", stored)
    found = types(core.adapter.adapter_of(core.adapter.patch_model(base(files, compute), path, 1.0)))
    want = compute if stored == torch.float32 else stored
    assert {d for name, d in found.items() if name.startswith("blocks.")} == {want}
    assert {d for name, d in found.items() if name.startswith("audio_proj.")} == {stored}


@pytest.mark.parametrize("compute", HALVES)
@torch.inference_mode()
def test_a_cast_at_load_gives_the_bits_of_a_cast_at_every_use(core, files, own, compute, tmp_path):
    path = write(files.infinitetalk, tmp_path / "weights.safetensors", torch.float32)
    cast = core.adapter.patch_model(base(files, compute), path, 1.0)
    uncast = core.adapter.patch_model(base(files, torch.float32), path, 1.0)
    uncast.set_model_compute_dtype(compute)
    assert set(types(core.adapter.adapter_of(uncast)).values()) == {torch.float32}
    c = make_conditioning(core, own)
    guidance = core.guidance.Guidance(5, 4)
    got, want = (make_backend(core, m, guidance).denoise(c, lambda step, x: None) for m in (cast, uncast))
    assert torch.equal(got, want)


def test_each_compute_dtype_has_its_own_copy_only_where_the_weights_differ(core, files, shared, tmp_path):
    single = write(files.infinitetalk, tmp_path / "single.safetensors", torch.float32)
    half = write(files.infinitetalk, tmp_path / "half.safetensors", torch.float16)
    for path, copies in ((single, 3), (half, 1)):
        before = shared.cache.contents().misses
        kept = []
        for compute in [*HALVES, torch.float32] * 2:
            model = core.adapter.patch_model(base(files, compute), path, 1.0, models=shared)
            found = types(core.adapter.adapter_of(model))["blocks.0.audio_cross_attn.proj.weight"]
            assert found == (compute if path == single else torch.float16)
            kept.append(model)
        assert shared.cache.contents().misses - before == copies


@pytest.mark.parametrize("compute", HALVES)
@torch.inference_mode()
def test_uni3c_in_float32_is_cast_for_a_job_and_its_embeddings_stay(core, files, compute, tmp_path):
    path = write(files.uni3c, tmp_path / "uni3c.safetensors", torch.float32)
    patcher = core.uni3c.load_uni3c_patcher(path)
    cast = core.uni3c.narrowed_uni3c(patcher, compute)
    embeddings = ("controlnet_patch_embedding.", "controlnet_mask_embedding.")
    for name, dtype in types(cast.model).items():
        assert dtype == (torch.float32 if name.startswith(embeddings) else compute), name
    assert set(types(patcher.model).values()) == {torch.float32}, "other jobs may compute in another dtype"
    torch.manual_seed(0)
    x, latents, time = (torch.randn(s).to(compute) for s in ((1, 20, 3, 4, 6), (1, 16, 3, 4, 6), (1, 256)))
    view = [(torch.rand(1, 1, 9, 32, 48) > 0.5).float(), torch.randn(1, 6, 9, 32, 48)]
    for got, want in zip(cast.model(x, latents, time, *view), patcher.model(x, latents, time, *view), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("stored", "compute"), [(torch.float32, torch.float32), (torch.float16, torch.bfloat16)])
def test_uni3c_that_needs_no_cast_is_the_shared_one(core, files, stored, compute, tmp_path):
    patcher = core.uni3c.load_uni3c_patcher(write(files.uni3c, tmp_path / "uni3c.safetensors", stored))
    assert core.uni3c.narrowed_uni3c(patcher, compute) is patcher


@pytest.mark.parametrize("matmul", ["high", "highest"])
@torch.inference_mode()
def test_audio_tokens_are_computed_in_float32_without_tf32(core, files, own, monkeypatch, matmul):
    seen = []
    tokens = core.audio.AudioAdapter.speech_tokens

    def watched(self, windows, masks=None):
        seen.append((windows.dtype, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return tokens(self, windows, masks)

    monkeypatch.setattr(core.audio.AudioAdapter, "speech_tokens", watched)
    model = core.adapter.patch_model(base(files, torch.bfloat16), files.infinitetalk, 1.0)
    torch.set_float32_matmul_precision(matmul)
    try:
        made = make_backend(core, model, core.guidance.Guidance(1, 2), steps=1)
        made.denoise(make_conditioning(core, own), lambda step, x: None)
        assert torch.get_float32_matmul_precision() == matmul
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {(torch.float32, "highest", False)}
    assert torch.backends.cudnn.allow_tf32


@torch.inference_mode()
def test_a_compute_dtype_of_another_node_counts_whether_or_not_the_model_is_loaded(core, files, own, pack):
    """Else an interrupted run is not found while its MODEL is still loaded, and the first chunk asks for too little."""
    environment, memory, adapter = (
        import_module(f"{pack.__name__}.nodes.host.model.{name}") for name in ("environment", "memory", "audio_adapter")
    )
    vae = SimpleNamespace(vae_dtype=torch.float32, device=torch.device("cpu"))
    plain = adapter.patch_model(base(files, torch.float32), files.infinitetalk, 1.0)
    chosen = plain.clone()
    chosen.set_model_compute_dtype(torch.bfloat16)
    shape = make_conditioning(core, own).noise.shape

    def seen():
        return [(environment.precision(model, vae), memory.needed_bytes(model, shape)) for model in (plain, chosen)]

    before = seen()
    comfy.model_management.load_models_gpu([chosen])
    assert seen() == before and before[0] != before[1]
    comfy.model_management.unload_all_models()
