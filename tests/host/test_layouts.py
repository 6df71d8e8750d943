"""InfiniteTalk weights and a base MODEL in any layout predict, in ComfyUI, what the unquantized ones predict."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import numpy as np
import pytest
import torch
from comparing import relative
from make_tiny_models import Sizes, state_dict
from test_equality import make_conditioning, predict_on_host
from weight_layouts import KNOWN_ERROR, write_gguf, write_plain, write_scaled_new, write_scaled_old

# Rows of 256 everywhere, which the K types of GGUF need.
SIZES = Sizes(audio_hidden=256, audio_width=256)
GGUF_TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0")
LAYOUTS = {
    "fp16": lambda path, w: write_plain(path, w, torch.float16),
    "bf16": lambda path, w: write_plain(path, w, torch.bfloat16),
    "fp8": lambda path, w: write_plain(path, w, torch.float8_e4m3fn),
    "fp8 scaled, old": write_scaled_old,
    "fp8 scaled, new": write_scaled_new,
    "fp8 scaled, in header": lambda path, w: write_scaled_new(path, w, in_header=True),
    **{kind: (lambda path, w, kind=kind: write_gguf(path, w, kind)) for kind in GGUF_TYPES},
}
# Five quantized layers one after the other add up as the root of five, and the blocks behind pass it on.
LAYERS = 3.0


def known_error(name: str) -> float:
    return LAYERS * KNOWN_ERROR["fp8 scaled" if "scaled" in name else name]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    file = "model_patches/tiny_infinitetalk_single.safetensors"
    # Off the float16 numbers of the small models, or float16 would lose nothing.
    random = np.random.default_rng(0)
    return {
        k: (v * (1 + 1e-3 * random.standard_normal(v.shape))).astype(np.float32)
        for k, v in state_dict(file, SIZES).items()
    }


@pytest.fixture(scope="module")
def exact(core, files, weights, tmp_path_factory) -> SimpleNamespace:
    """The prediction with unquantized weights, and without speech: what the speech adds is what is compared."""
    path = tmp_path_factory.mktemp("exact") / "exact.safetensors"
    write_plain(path, weights, torch.float32)
    case = SimpleNamespace(path=path)
    case.want = heard(core, files, path)
    case.deaf = heard(core, files, path, strength=0.0)
    return case


def base_model(files):
    return comfy.sd.load_diffusion_model(str(files.wan), model_options={"dtype": torch.float32})


@torch.inference_mode()
def heard(core, files, path, speakers: int = 1, strength: float = 1.0, model=None) -> torch.Tensor:
    """One prediction with the InfiniteTalk weights of `path`."""
    patched = core.adapter.patch_model(model or base_model(files), path, strength)
    comfy.model_management.load_models_gpu([patched, *patched.get_additional_models()])
    return predict(core, patched, speakers)


@torch.inference_mode()
def predict(core, patched, speakers: int = 1) -> torch.Tensor:
    adapter = core.adapter.adapter_of(patched)
    c = make_conditioning(core, SimpleNamespace(adapter=adapter), speakers)
    x = core.wan.model_input(c.noise, c.mask, c.reference)
    torch.manual_seed(4)
    text, picture = torch.randn(1, 512, 4096), torch.randn(1, 257, 1280)
    tokens = adapter.speech_tokens(c.audio_windows, c.masks)
    return predict_on_host(core, patched, x, torch.tensor([612.3]), text, picture, [tokens])


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_in_every_layout_are_heard_alike(core, files, weights, exact, name, tmp_path):
    path = tmp_path / "weights"
    LAYOUTS[name](path, weights)
    got = heard(core, files, path)
    assert relative(got - exact.deaf, exact.want - exact.deaf) < known_error(name)


@pytest.mark.parametrize("name", ["Q4_K", "fp8 scaled, old"])
def test_two_speakers(core, files, weights, exact, name, tmp_path):
    LAYOUTS[name](tmp_path / "weights", weights)
    want = heard(core, files, exact.path, 2)
    got = heard(core, files, tmp_path / "weights", 2)
    assert relative(got - exact.deaf, want - exact.deaf) < known_error(name)


@pytest.mark.parametrize("name", ["Q4_K", "fp8 scaled, new"])
def test_quantized_weights_stay_quantized_and_may_be_loaded_in_parts(core, files, weights, name, tmp_path):
    path = tmp_path / "weights"
    LAYOUTS[name](path, weights)
    patched = core.adapter.patch_model(base_model(files), path, 1.0)
    (patcher,) = patched.get_additional_models()
    linear = sum(v.size for k, v in weights.items() if v.ndim == 2)
    bytes_each = {"Q4_K": 144 / 256, "fp8 scaled, new": 1}[name]
    assert linear * bytes_each <= patcher.model_size() <= linear * bytes_each * 1.1 + 100_000
    want = predict(core, patched)
    for budget in (1, 200_000, 10**9):
        patcher.partially_load(patcher.load_device, budget)
        assert torch.equal(predict(core, patched), want)
    patcher.partially_unload(patcher.offload_device, 100_000)
    assert torch.equal(predict(core, patched), want)
    patcher.detach()
    assert torch.equal(predict(core, patched), want)


@pytest.mark.parametrize("name", ["Q6_K", "fp8 scaled, old"])
def test_with_dynamic_vram_the_same_weights_are_loaded(core, files, weights, name, monkeypatch, tmp_path):
    memory = pytest.importorskip("comfy.memory_management", reason="this ComfyUI has no dynamic VRAM")
    if not hasattr(memory, "aimdo_enabled"):
        pytest.skip("this ComfyUI has no dynamic VRAM")
    LAYOUTS[name](tmp_path / "weights", weights)
    want = heard(core, files, tmp_path / "weights")
    base = base_model(files)
    monkeypatch.setattr(memory, "aimdo_enabled", True)
    patched = core.adapter.patch_model(base, tmp_path / "weights", 1.0)
    monkeypatch.setattr(memory, "aimdo_enabled", False)
    assert torch.equal(predict(core, patched), want)


def test_uni3c_quantized_gives_nearly_the_same_residuals(core, files, tmp_path):
    path = "controlnet/tiny_uni3c.safetensors"
    weights = {k: v.astype(np.float32) for k, v in state_dict(path).items()}
    write_plain(tmp_path / "exact.safetensors", weights, torch.float32)
    write_gguf(tmp_path / "q8.gguf", weights, "Q8_0")
    write_scaled_old(tmp_path / "fp8.safetensors", weights)
    torch.manual_seed(0)
    frames = (1, 1, 9, 32, 48)
    inputs = [torch.randn(1, 20, 3, 4, 6), torch.randn(1, 16, 3, 4, 6), torch.randn(1, 256)]
    inputs += [(torch.rand(frames) > 0.5).float(), torch.randn(frames).repeat(1, 6, 1, 1, 1)]
    with torch.inference_mode():
        names = ("exact.safetensors", "q8.gguf", "fp8.safetensors")
        want, q8, fp8 = (core.uni3c.load_uni3c_patcher(tmp_path / n).model(*inputs) for n in names)
    for got, exact, limit in [(q8, want, KNOWN_ERROR["Q8_0"]), (fp8, want, KNOWN_ERROR["fp8 scaled"])]:
        for a, b in zip(got, exact, strict=True):
            assert relative(a, b) < LAYERS * limit
