"""The user's own MODEL keeps working under InfiniteTalk whatever its weights are stored as."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import folder_paths
import gguf
import numpy as np
import pytest
import torch
from comparing import relative
from make_tiny_models import state_dict
from safetensors.torch import load_file
from test_equality import make_backend
from test_layouts import base_model, heard
from weight_layouts import KNOWN_ERROR, quantize, write_plain, write_scaled_new, write_scaled_old

# What published fp8 files of Wan leave unquantized.
KEPT = ("embedding", "img_emb", "head", "time_projection")


def in_blocks(name: str, value: np.ndarray) -> bool:
    return name.endswith(".weight") and value.ndim == 2 and not name.startswith(KEPT)


FILES = {
    "fp16, as it is": (lambda path, w: write_plain(path, w, torch.float16), "default", "fp16"),
    "fp16, as fp8": (lambda path, w: write_plain(path, w, torch.float16), "fp8_e4m3fn", "fp8"),
    "bf16": (lambda path, w: write_plain(path, w, torch.bfloat16), "default", "bf16"),
    "fp8": (lambda path, w: write_plain(path, w, torch.float8_e4m3fn), "default", "fp8"),
    "fp8 scaled, old": (lambda path, w: write_scaled_old(path, w, linear=in_blocks), "default", "fp8 scaled"),
    "fp8 scaled, in header": (
        lambda path, w: write_scaled_new(path, w, in_header=True, linear=in_blocks),
        "default",
        "fp8 scaled",
    ),
    "fp8 scaled, new": (lambda path, w: write_scaled_new(path, w, linear=in_blocks), "default", "fp8 scaled"),
}
LAYERS = 6.0  # three blocks of the backbone are quantized here, not the adapter alone


@pytest.fixture(scope="module")
def wan() -> dict[str, np.ndarray]:
    return {k: v.astype(np.float32) for k, v in state_dict("diffusion_models/tiny_wan2.1_i2v.safetensors").items()}


@pytest.fixture(scope="module")
def exact(core, files) -> SimpleNamespace:
    return SimpleNamespace(
        want=heard(core, files, files.infinitetalk), deaf=heard(core, files, files.infinitetalk, strength=0.0)
    )


def check(core, files, exact, model, error: float) -> None:
    want, deaf = (heard(core, files, files.infinitetalk, strength=s, model=model) for s in (1.0, 0.0))
    assert relative(want, exact.want) < LAYERS * error
    assert relative(want - deaf, exact.want - exact.deaf) < LAYERS * error, "what the speech adds"


@pytest.mark.parametrize("name", FILES)
@torch.inference_mode()  # as ComfyUI runs every node
def test_from_load_diffusion_model(core, files, wan, exact, name, monkeypatch, tmp_path):
    """Through ComfyUI's own loader node."""
    from nodes import UNETLoader

    write, weight_dtype, error = FILES[name]
    path = tmp_path / "wan.safetensors"
    write(path, wan)
    if name == "fp8 scaled, new" and not hasattr(comfy.ops, "_load_quantized_module"):
        pytest.skip("this ComfyUI knows fp8 files with notes in the header only")
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda kind, file: str(path))
    (model,) = UNETLoader().load_unet(path.name, weight_dtype)
    check(core, files, exact, model, KNOWN_ERROR[error])


class Packed(torch.Tensor):
    """Quantized bytes that say the shape of the numbers, as the GGUF loader pack's tensors do."""

    kind: str | None = None
    numbers: tuple[int, ...] | None = None

    @property
    def shape(self):
        return super().shape if self.numbers is None else torch.Size(self.numbers)

    def to(self, *args, **kwargs):
        moved = super().to(*args, **kwargs)
        moved.kind, moved.numbers = self.kind, self.numbers
        return moved


def packed(value: np.ndarray, kind: str) -> Packed:
    tensor = torch.from_numpy(quantize(value, gguf.GGMLQuantizationType[kind])).as_subclass(Packed)
    tensor.kind, tensor.numbers = kind, value.shape
    return tensor


class PackedOperations(comfy.ops.manual_cast):
    """Layers that unpack where they compute, with weights that are no parameters of the numbers' shape."""

    class Linear(comfy.ops.manual_cast.Linear):
        def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features = in_features, out_features
            self.weight = self.bias = None

        def _load_from_state_dict(self, state, prefix, *rest):
            self.weight = torch.nn.Parameter(state[f"{prefix}weight"], requires_grad=False)
            self.bias = torch.nn.Parameter(state[f"{prefix}bias"], requires_grad=False)
            self.packing = getattr(state[f"{prefix}weight"], "kind", None)

        def forward(self, x):
            weight = self.weight.detach().as_subclass(torch.Tensor)
            if self.packing is not None:
                numbers = gguf.quants.dequantize(weight.numpy(), gguf.GGMLQuantizationType[self.packing])
                weight = torch.from_numpy(numbers)
            return torch.nn.functional.linear(x, weight.to(x), self.bias.to(x))


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    """A patcher of its own class that stays of that class when it is cloned."""

    def clone(self, *args, **kwargs):
        copy = super().clone(*args, **kwargs)
        copy.__class__ = PackedPatcher
        return copy


@pytest.fixture
def packed_model(wan):
    """What a GGUF loader gives: a stand-in with the GGUF loader pack's seams (tensors that are not what they say,
    operations of its own, a patcher of its own). The pack itself: test_gguf_pack.py."""

    def make(kind: str):
        state = {
            k: packed(v, kind) if in_blocks(k, v) and v.shape[1] % 256 == 0 else torch.from_numpy(v).clone()
            for k, v in wan.items()
        }
        model = comfy.sd.load_diffusion_model_state_dict(state, model_options={"custom_operations": PackedOperations})
        model.__class__ = PackedPatcher
        return model

    return make


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_from_a_gguf_loader(core, files, exact, packed_model, kind):
    model = packed_model(kind)
    weight = model.model.diffusion_model.blocks[0].ffn[0].weight
    assert weight.dtype == torch.uint8, "or this shows nothing"
    check(core, files, exact, model, KNOWN_ERROR[kind])


def test_a_chunk_is_sampled_on_a_gguf_model_with_another_patcher(core, files, packed_model):
    from test_equality import make_conditioning

    model = core.adapter.patch_model(packed_model("Q8_0"), files.infinitetalk, 1.0)
    assert isinstance(model, PackedPatcher)
    adapter = core.adapter.adapter_of(model)
    conditioning = make_conditioning(core, SimpleNamespace(adapter=adapter))
    guidance = core.guidance.Guidance(5, 4)
    plain = core.adapter.patch_model(base_model(files), files.infinitetalk, 1.0)
    with torch.inference_mode():
        got = make_backend(core, model, guidance).denoise(conditioning, lambda *_: None)
        want = make_backend(core, plain, guidance).denoise(conditioning, lambda *_: None)
    assert relative(got, want) < 10 * KNOWN_ERROR["Q8_0"]


def test_the_small_model_is_the_file_that_comfyui_loads(files, wan):
    assert {k: tuple(v.shape) for k, v in load_file(files.wan).items()} == {k: v.shape for k, v in wan.items()}
