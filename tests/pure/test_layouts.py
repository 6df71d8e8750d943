"""Whatever layout a file of weights has, what is read from it is the weights, within what the layout can hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitetalk_core.checkpoints.gguf_dequant import BLOCKS
from infinitetalk_core.checkpoints.loaders import open_infinitetalk, open_uni3c
from infinitetalk_core.checkpoints.weights_file import SCALED, Quantized
from infinitetalk_core.errors import InputError
from infinitetalk_core.model.audio_adapter import AdapterConfig, AudioAdapter
from infinitetalk_core.model.uni3c import Uni3C, Uni3CConfig
from tools import weight_layouts as layouts

# Rows of 256, which the K types need, but for kv_linear, whose rows only the 32s divide.
CONFIG = AdapterConfig(dim=256, heads=2, blocks=2, audio_width=256, hidden=256, tokens=4, token_dim=64)
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "model.")
PLAIN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    state = AudioAdapter(CONFIG).state_dict()
    return {k: (torch.randn_like(v) * 0.02).numpy() for k, v in state.items()}


def relative(got, want) -> float:
    return float(np.sqrt(((got - want) ** 2).sum() / (want**2).sum()))


def numbers(read) -> dict[str, np.ndarray]:
    return {
        k: (v.dequantize(torch.float32) if isinstance(v, Quantized) else v.float()).numpy() for k, v in read.items()
    }


def check(path, weights, limit, quantized: bool) -> None:
    file = open_infinitetalk(path)
    assert AdapterConfig.from_shapes(file.shapes, heads=2) == CONFIG
    read = file.read().tensors
    assert read.keys() == weights.keys()
    assert any(isinstance(v, Quantized) for v in read.values()) is quantized, "quantized weights stay quantized"
    for name, value in numbers(read).items():
        assert value.shape == weights[name].shape
        assert relative(value, weights[name]) < limit, name


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_floats(weights, name, prefix, tmp_path):
    layouts.write_plain(tmp_path / "x.safetensors", weights, PLAIN[name], prefix)
    check(tmp_path / "x.safetensors", weights, layouts.KNOWN_ERROR[name], False)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_fp8_with_scales_of_the_old_kind(weights, prefix, tmp_path):
    layouts.write_scaled_old(tmp_path / "x.safetensors", weights, prefix)
    check(tmp_path / "x.safetensors", weights, layouts.KNOWN_ERROR["fp8 scaled"], True)


def test_a_marker_without_the_prefix_does_not_hide_it(weights, tmp_path):
    path = tmp_path / "x.safetensors"
    layouts.write_scaled_old(path, weights, "diffusion_model.")
    tensors = load_file(path)
    tensors["scaled_fp8"] = tensors.pop("diffusion_model.scaled_fp8")
    save_file(tensors, path)
    check(path, weights, layouts.KNOWN_ERROR["fp8 scaled"], True)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("in_header", [False, True], ids=["comfy_quant", "_quantization_metadata"])
@pytest.mark.parametrize("rows", [False, True], ids=["a tensor", "a row"])
def test_fp8_with_scales_of_the_new_kind(weights, prefix, in_header, rows, tmp_path):
    layouts.write_scaled_new(tmp_path / "x.safetensors", weights, in_header, rows, prefix)
    check(tmp_path / "x.safetensors", weights, layouts.KNOWN_ERROR["fp8 scaled"], True)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", *BLOCKS])
def test_gguf(weights, name, tmp_path):
    layouts.write_gguf(tmp_path / "x.gguf", weights, name)
    limit = layouts.KNOWN_ERROR.get(name, layouts.KNOWN_ERROR["fp32"])
    check(tmp_path / "x.gguf", weights, limit, name in BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_gguf_blocks_are_read_as_the_gguf_package_reads_them(name):
    """Random bytes, so every bit of a block counts; only the float16 scales are kept finite."""
    kind = gguf.GGMLQuantizationType[name]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    assert (BLOCKS[name].values, BLOCKS[name].bytes) == (values, size)
    stored = np.random.default_rng(0).integers(0, 256, (3, 5 * size), dtype=np.uint8)
    positions = {"Q6_K": [208]}.get(name, [0, 2] if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0])
    for block in range(5):
        for position in positions:
            stored[:, block * size + position + 1] = 0x2C  # about 0.06
    want = gguf.quants.dequantize(stored, kind)
    got = BLOCKS[name].dequantize(torch.from_numpy(stored), torch.float32)
    torch.testing.assert_close(got, torch.from_numpy(want), atol=0, rtol=0)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(BLOCKS[name].dequantize(torch.from_numpy(stored), dtype), got.to(dtype))


def test_quantized_weights_are_as_small_in_memory_as_on_the_disk(weights, tmp_path):
    layouts.write_gguf(tmp_path / "x.gguf", weights, "Q4_K")
    read = open_infinitetalk(tmp_path / "x.gguf").read().tensors
    proj = read["blocks.0.audio_cross_attn.proj.weight"]
    assert isinstance(proj, Quantized)
    assert proj.shape == (256, 256)
    assert proj.stored.nbytes == 256 * 144
    # Rows of 64, which no K block fits.
    assert read["blocks.0.audio_cross_attn.kv_linear.weight"].dtype == torch.float16


def test_uni3c_in_quantized_layouts(tmp_path):
    torch.manual_seed(0)
    config = Uni3CConfig(
        dim=64, ffn_dim=64, heads=2, blocks=2, embed_dim=32, time_dim=32, out_dim=32, view_channels=7, view_dim=8
    )
    weights = {k: torch.randn_like(v).numpy() for k, v in Uni3C(config).state_dict().items()}
    wan_names = {k.replace("to_out.0", "o").replace("self_attn.to_", "self_attn."): v for k, v in weights.items()}
    layouts.write_gguf(tmp_path / "x.gguf", wan_names, "Q8_0")
    layouts.write_scaled_old(tmp_path / "x.safetensors", wan_names)
    for name, limit in (("x.gguf", 7e-3), ("x.safetensors", 3.2e-2)):
        file = open_uni3c(tmp_path / name)
        assert Uni3CConfig.from_shapes(file.shapes, heads=2) == config
        read = file.read().tensors
        assert isinstance(read["controlnet_blocks.0.self_attn.to_q.weight"], Quantized)
        for key, value in numbers(read).items():
            assert value.shape == weights[key].shape, "convolutions have five dimensions, GGUF has four"
            assert relative(value, weights[key]) < limit


@pytest.mark.parametrize("format_name", ["nvfp4", "mxfp8", "int8_tensorwise", "something new"])
@pytest.mark.parametrize("in_header", [False, True])
def test_formats_that_cannot_be_read_are_named(weights, format_name, in_header, tmp_path):
    layouts.write_scaled_new(tmp_path / "x.safetensors", weights, in_header, format_name=format_name)
    with pytest.raises(
        InputError, match=rf"InfiniteTalk weights stored as {format_name}, which cannot be read; use a safetensors"
    ):
        open_infinitetalk(tmp_path / "x.safetensors")


def test_notes_that_are_damaged_are_refused(weights, tmp_path):
    path = tmp_path / "x.safetensors"
    layouts.write_scaled_new(path, weights)
    tensors = load_file(path)
    note = next(k for k in tensors if k.endswith(".comfy_quant"))
    save_file(tensors | {note: torch.zeros(4, dtype=torch.uint8)}, path)
    with pytest.raises(InputError, match="stored as an unknown format"):
        open_infinitetalk(path)
    save_file(tensors, path, metadata={"_quantization_metadata": "[]"})
    with pytest.raises(InputError, match="stored as an unknown format"):
        open_infinitetalk(path)


def test_integers_blocks_of_scales_and_other_gguf_types_are_refused(weights, tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({k: torch.from_numpy(v).to(torch.int8) for k, v in weights.items()}, path)
    with pytest.raises(InputError, match="stored as I8, which cannot be read"):
        open_infinitetalk(path)
    layouts.write_scaled_new(path, weights)
    tensors = load_file(path)
    save_file(tensors | {"audio_proj.proj2.weight_scale": torch.ones(256, 8)}, path)
    with pytest.raises(InputError, match=r"scales its weights by blocks \(2048 scales for audio_proj.proj2\)"):
        open_infinitetalk(path)
    layouts.write_gguf(tmp_path / "x.gguf", weights, "TQ2_0")
    with pytest.raises(InputError, match=r"stored as TQ2_0, .* or GGUF in F16, Q8_0, "):
        open_infinitetalk(tmp_path / "x.gguf")


def test_the_page_of_files_is_current():
    """Every number measured again, every sentence said again."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "tools/file_table.py", "--check"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scales_beside_unquantized_weights_count_too():
    stored = Quantized(torch.full((2, 4), 3.0, dtype=torch.bfloat16), SCALED, (2, 4), torch.tensor([[2.0], [0.5]]))
    assert stored.dequantize(torch.float32).tolist() == [[6.0] * 4, [1.5] * 4]
    assert stored.stored.unique().item() == 3, "the stored weight is used again"
