"""A base MODEL that ComfyUI keeps quantized (fp8, int8, 4 bits), loaded by its own node, works under InfiniteTalk.

What each layout loses on its own, without us, is measured beside it: the speech and a LoRA may lose no more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.quant_ops
import comfy.sd
import folder_paths
import numpy as np
import pytest
import torch
from comparing import relative
from core_modules import with_modules
from make_tiny_models import state_dict
from safetensors.torch import save_file
from test_base_layouts import in_blocks
from test_equality import load_model, make_backend, make_conditioning
from weight_layouts import write_plain, write_scaled_new

# Layout -> what quantizes a weight: the format's name in the file, ComfyUI's layout, and its options.
LAYOUTS = {
    "int8": ("int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True}, {}),
    "int8-one-scale": ("int8_tensorwise", "TensorWiseINT8Layout", {}, {}),
    "int8-rotated": (
        "int8_tensorwise",
        "TensorWiseINT8Layout",
        {"per_channel": True, "convrot": True},
        {"convrot": True},
    ),
    "nvfp4": ("nvfp4", "TensorCoreNVFP4Layout", {}, {}),
    "mxfp8": ("mxfp8", "TensorCoreMXFP8Layout", {}, {}),
    "w4a8": ("asym_w4a8_int8", "AsymW4A8Int8Layout", {}, {}),
    "w4a4": ("convrot_w4a4", "TensorCoreConvRotW4A4Layout", {}, {}),
}
FAST = {
    # fp8 in fp8: the file, and weight_dtype in Load Diffusion Model.
    "fp8-fast": (lambda path, w: write_plain(path, w, torch.float16), "fp8_e4m3fn_fast"),
    "fp8-flag": (lambda path, w: write_plain(path, w, torch.float8_e4m3fn), "default"),
    "fp8-scaled": (lambda path, w: write_scaled_new(path, w, in_header=True, linear=in_blocks), "default"),
}
ROWS = (*LAYOUTS, *FAST)
# Of one prediction of the small model by itself, as in docs/compatibility.md.
LOST = {
    **{"int8": 0.011, "int8-one-scale": 0.011, "int8-rotated": 0.015, "mxfp8": 0.037, "nvfp4": 0.16, "w4a8": 0.09},
    **{"w4a4": 0.23, "fp8-fast": 0.058, "fp8-flag": 0.06, "fp8-scaled": 0.045},
}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def write_quantized(path, weights: dict[str, np.ndarray], layout: str) -> None:
    """Write a file as ComfyUI does: each weight of the blocks in the layout, with its note in `comfy_quant`."""
    name, kind, options, note = LAYOUTS[layout]
    tensors: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        tensor = torch.from_numpy(value)
        if not in_blocks(key, value):
            tensors[key] = tensor.half()
            continue
        quantized = comfy.quant_ops.QuantizedTensor.from_float(tensor.bfloat16(), kind, **options)
        tensors |= {k: v.contiguous() for k, v in quantized.state_dict(key).items()}
        text = json.dumps({"format": name, **note}).encode()
        tensors[f"{key.removesuffix('weight')}comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    save_file(tensors, path)


@pytest.fixture(scope="session")
def core(core, pack):
    """With the modules of this test."""
    found = {"cache": "infinitetalk_core.sampling.step_cache", "host_cache": "nodes.host.model.cached_blocks"}
    found |= {"memory": "nodes.host.model.memory", "environment": "nodes.host.model.environment"}
    return with_modules(core, pack, **found)


@pytest.fixture(scope="module")
def wan() -> dict[str, np.ndarray]:
    return {k: v.astype(np.float32) for k, v in state_dict("diffusion_models/tiny_wan2.1_i2v.safetensors").items()}


@pytest.fixture
def load(wan, monkeypatch, tmp_path) -> Callable[[str], Any]:
    """`load(row)`: the MODEL of Load Diffusion Model."""
    from nodes import UNETLoader

    def noted(out: Any) -> Any:
        make.in_fp8 += out is not None
        return out

    def make(row: str) -> Any:
        path, dtype = tmp_path / "wan.safetensors", "default"
        if row in FAST:
            write, dtype = FAST[row]
            write(path, wan)
            # As on a GPU that multiplies in fp8; the CPU does.
            monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
            inner = comfy.ops.fp8_linear
            monkeypatch.setattr(comfy.ops, "fp8_linear", lambda layer, x: noted(inner(layer, x)))
            feature = comfy.ops.PerformanceFeature.Fp8MatrixMultiplication
            monkeypatch.setattr(comfy.ops.args, "fast", {feature} if row == "fp8-flag" else set())
        else:
            if LAYOUTS[row][0] not in comfy.quant_ops.QUANT_ALGOS:
                pytest.skip("this ComfyUI does not know the layout")
            write_quantized(path, wan, row)
        with monkeypatch.context() as patched:
            patched.setattr(folder_paths, "get_full_path_or_raise", lambda kind, file: str(path))
            (model,) = UNETLoader().load_unet(path.name, dtype)
        return model

    make.in_fp8 = 0  # matrix products of the layers that fp8 fast makes
    return make


def latents(core, model, c, **changed):
    made = make_backend(core, model, core.guidance.Guidance(1, 2))
    short = {name: [[getattr(made, name)[0][0][:, :8], {}]] for name in ("positive", "negative")}
    return replace(made, **short, **changed).denoise(c, lambda s, x: None)


def predicted(core, model, c) -> torch.Tensor:
    """What the backbone predicts by itself, without us."""
    comfy.model_management.load_models_gpu([model])
    torch.manual_seed(4)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    return model.model.diffusion_model(x, torch.tensor([612.3]), torch.randn(1, 8, 4096), torch.randn(1, 257, 1280))


@pytest.fixture(scope="module")
@torch.inference_mode()
def exact(core, files, own) -> SimpleNamespace:
    """With unquantized weights."""
    c, model = make_conditioning(core, own), load_model(core, files)
    other = replace(c, audio_windows=c.audio_windows.flip(1))
    base, want = predicted(core, model, c), latents(core, model, c)
    return SimpleNamespace(
        c=c, other=other, model=model, base=base, want=want, speech=latents(core, model, other) - want
    )


@pytest.mark.parametrize("row", ROWS)
@torch.inference_mode()  # as ComfyUI runs every node
def test_it_speaks(core, files, exact, load, row):
    """The speech is as near to that of unquantized weights as the layout allows."""
    c, base = exact.c, load(row)
    lost = relative(predicted(core, base, c), exact.base)
    model = core.adapter.patch_model(base, files.infinitetalk, 1.0)
    assert core.patchers.compute_dtype(model) is torch.float32
    assert core.memory.needed_bytes(model, c.noise.shape) == core.memory.needed_bytes(exact.model, c.noise.shape)
    got = latents(core, model, c)
    speech = relative(latents(core, model, exact.other) - got, exact.speech)
    assert lost < 1.25 * LOST[row]
    assert relative(got, exact.want) < 1.5 * lost
    assert speech < 3 * lost
    caching = core.cache.StepCaching(2.5, core.cache.CALIBRATIONS["none"], 1)
    cached = latents(core, core.host_cache.attach_step_cache(model, caching), c)
    assert 1e-3 < relative(cached, got) < 0.2, "steps are left out"
    assert bool(load.in_fp8) == (row in ("fp8-fast", "fp8-flag"))


@pytest.mark.parametrize("row", ["int8", "nvfp4", "fp8-fast", "fp8-scaled"])
@torch.inference_mode()
def test_a_lora_acts(core, files, exact, load, monkeypatch, row):
    """The core node LoraLoaderModelOnly, after ours. The weights are rounded again, so it loses as much as they do."""
    from nodes import LoraLoaderModelOnly

    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, name: str(files.lora))
    add = lambda model: LoraLoaderModelOnly().load_lora_model_only(model, files.lora.name, 1.0)[0]  # noqa: E731
    model = core.adapter.patch_model(load(row), files.infinitetalk, 1.0)
    got, want = latents(core, add(model), exact.c), latents(core, add(exact.model), exact.c)
    lost = relative(latents(core, model, exact.c), exact.want)
    assert relative(got, want) < 1.5 * lost
    assert relative(want, exact.want) > 0.01, "the LoRA must matter"


def int8_by_hand(value: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    tensor = torch.from_numpy(value)
    scale = tensor.abs().amax(dim=1, keepdim=True) / 127
    return (tensor / scale).round().to(torch.int8), scale


@pytest.mark.parametrize("dtype", ["default", "fp8_e4m3fn"])
@pytest.mark.parametrize("layout", ["int8", "fp8 scaled, new"])
def test_a_file_that_was_loaded_without_its_scales_is_refused(
    core, files, own, wan, monkeypatch, tmp_path, layout, dtype
):
    """A ComfyUI that does not know a layout takes the bytes of a weight for its numbers, which gives noise."""
    from nodes import UNETLoader

    path = tmp_path / "wan.safetensors"
    if layout == "int8":
        tensors = {k: torch.from_numpy(v).half() for k, v in wan.items() if not in_blocks(k, v)}
        for key, value in wan.items():
            if in_blocks(key, value):
                layer = key.removesuffix(".weight")
                tensors[key], tensors[f"{layer}.weight_scale"] = int8_by_hand(value)
                note = torch.tensor(list(b'{"format": "int8_tensorwise"}'), dtype=torch.uint8)
                tensors[f"{layer}.comfy_quant"] = note
        save_file(tensors, path)
    else:
        write_scaled_new(path, wan, linear=in_blocks)
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, file: str(path))
    (model,) = UNETLoader().load_unet(path.name, dtype)
    if hasattr(comfy.ops, "_load_quantized_module"):  # this ComfyUI knows both
        core.adapter.patch_model(model, files.infinitetalk, 1.0)
        return
    with pytest.raises(ValueError, match="quantized in a way that this ComfyUI does not know"):
        core.adapter.patch_model(model, files.infinitetalk, 1.0)


def test_the_page_has_a_row_for_each():
    text = PAGE.read_text(encoding="utf-8")
    for row in ROWS:
        assert f"`[{row}]`" in text, row
