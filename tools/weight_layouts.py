"""Write weights in every published layout with independent code, for tests and for docs/files.md.

The GGUF types are quantized by the gguf package where it can. It cannot quantize the K types; those are packed here
after ggml's description of the blocks, and the tests compare them with the package's dequantizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

Weights = dict[str, np.ndarray]
FP8_MAX = 448.0


def is_linear(name: str, value: np.ndarray) -> bool:
    """Return whether quantizers quantize the tensor: a weight of two dimensions."""
    return name.endswith(".weight") and value.ndim == 2


def write_plain(path: Path, weights: Weights, dtype: torch.dtype, prefix: str = "") -> None:
    """Write every tensor in one type."""
    save_file({prefix + k: torch.from_numpy(v).to(dtype) for k, v in weights.items()}, path)


def scaled_fp8(weight: np.ndarray, rows: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight as fp8 and its scale factor, () or (rows, 1)."""
    tensor = torch.from_numpy(weight).float()
    most = tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().amax()
    scale = most / FP8_MAX
    return (tensor / scale).to(torch.float8_e4m3fn), scale


def write_scaled_old(path: Path, weights: Weights, prefix: str = "", linear: Callable = is_linear) -> None:
    """Write scaled fp8 like Kijai's and ComfyUI's first files: `X.scale_weight` and a marker for the whole file."""
    tensors = {f"{prefix}scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, value in weights.items():
        if not linear(name, value):
            tensors[prefix + name] = torch.from_numpy(value).half()
            continue
        tensors[prefix + name], scale = scaled_fp8(value)
        layer = prefix + name.removesuffix(".weight")
        tensors[f"{layer}.scale_weight"] = scale
        tensors[f"{layer}.scale_input"] = torch.ones(())
    save_file(tensors, path)


def write_scaled_new(
    path: Path,
    weights: Weights,
    in_header: bool = False,
    rows: bool = False,
    prefix: str = "",
    linear: Callable = is_linear,
    format_name: str = "float8_e4m3fn",
) -> None:
    """Write scaled fp8 like ComfyUI now: `X.weight_scale`, and the format in `X.comfy_quant` or in the header."""
    tensors, layers, note = {}, {}, {"format": format_name}
    for name, value in weights.items():
        if not linear(name, value):
            tensors[prefix + name] = torch.from_numpy(value).half()
            continue
        layer = prefix + name.removesuffix(".weight")
        tensors[prefix + name], tensors[f"{layer}.weight_scale"] = scaled_fp8(value, rows)
        layers[layer] = note
        if not in_header:
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)
    header = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})} if in_header else None
    save_file(tensors, path, metadata=header)


def write_gguf(path: Path, weights: Weights, kind: str, architecture: str = "wan") -> None:
    """Write a GGUF file with weights of two dimensions in the type `kind`, all others float32.

    Rows whose length is no multiple of the type's block are float16, as in published files. Tensors of more than four
    dimensions, which GGUF does not support, are stored flat with the shape in the metadata.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in weights.items():
        quantized = gguf.GGMLQuantizationType[kind]
        if not is_linear(name, value):
            quantized = gguf.GGMLQuantizationType.F32
        elif value.shape[1] % gguf.GGML_QUANT_SIZES[quantized][0]:
            quantized = gguf.GGMLQuantizationType.F16
        if value.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(value.shape))
            value = value.reshape(value.shape[0], -1)
        writer.add_tensor(name, quantize(value.astype(np.float32), quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(value: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """Return the array in a GGUF type."""
    pack = K_TYPES.get(kind.name)
    if pack is None:
        return gguf.quants.quantize(value, kind)
    return pack(value.reshape(-1, 256)).reshape(*value.shape[:-1], -1)


def _half_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype("<f2")[:, None].view(np.uint8)


def _levels(blocks: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values 0 … top in eighths, the six-bit scales and minima, and the units of these two."""
    eighths = blocks.reshape(-1, 8, 32)
    least = np.minimum(eighths.min(axis=2), 0)
    steps = (eighths.max(axis=2) - least) / top
    unit = (steps.max(axis=1) / 63).astype("<f2").astype(np.float32)
    unit_least = (-least.min(axis=1) / 63).astype("<f2").astype(np.float32)
    scales = np.round(steps / np.maximum(unit, 1e-12)[:, None]).clip(0, 63)
    minima = np.round(-least / np.maximum(unit_least, 1e-12)[:, None]).clip(0, 63)
    step = np.maximum(unit[:, None] * scales, 1e-12)[:, :, None]
    values = np.round((eighths + (unit_least[:, None] * minima)[:, :, None]) / step).clip(0, top)
    return values.astype(np.uint8), scales.astype(np.uint8), minima.astype(np.uint8), unit, unit_least


def _twelve_bytes(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    first = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    second = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    third = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)


def _pairs(values: np.ndarray) -> np.ndarray:
    """Pack nibbles (n, 8, 32) into bytes (n, 128): the first of two eighths low, the second high."""
    return ((values[:, 0::2] & 15) | ((values[:, 1::2] & 15) << 4)).reshape(len(values), 128)


def _pack_q4_k(blocks: np.ndarray) -> np.ndarray:
    values, scales, minima, unit, least = _levels(blocks, 15)
    return np.concatenate(
        [_half_bytes(unit), _half_bytes(least), _twelve_bytes(scales, minima), _pairs(values)], axis=1
    )


def _pack_q5_k(blocks: np.ndarray) -> np.ndarray:
    values, scales, minima, unit, least = _levels(blocks, 31)
    top = np.zeros((len(blocks), 32), np.uint8)
    for i in range(8):
        top |= (values[:, i] >> 4) << i
    parts = [_half_bytes(unit), _half_bytes(least), _twelve_bytes(scales, minima), top, _pairs(values)]
    return np.concatenate(parts, axis=1)


def _pack_q6_k(blocks: np.ndarray) -> np.ndarray:
    groups = blocks.reshape(-1, 16, 16)
    steps = np.abs(groups).max(axis=2) / 31
    unit = (steps.max(axis=1) / 127).astype("<f2").astype(np.float32)
    scales = np.round(steps / np.maximum(unit, 1e-12)[:, None]).clip(-128, 127)
    step = np.maximum(unit[:, None] * scales, 1e-12)[:, :, None]
    values = (np.round(groups / step).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.stack([values[:, :, j] & 15 | (values[:, :, j + 2] & 15) << 4 for j in (0, 1)], axis=2)
    top = np.zeros((len(blocks), 2, 32), np.uint8)
    for j in range(4):
        top |= (values[:, :, j] >> 4) << (2 * j)
    parts = [low.reshape(-1, 128), top.reshape(-1, 64), scales.astype(np.int8).view(np.uint8), _half_bytes(unit)]
    return np.concatenate(parts, axis=1)


K_TYPES = {"Q4_K": _pack_q4_k, "Q5_K": _pack_q5_k, "Q6_K": _pack_q6_k}
# Relative root mean square error of normally distributed weights. fp: half a unit in the last place, evenly
# distributed; blocks: a step over the square root of 12, the step being the usual span of a block over its levels.
KNOWN_ERROR = {
    "fp32": 1e-7,
    "fp16": 3e-4,
    "bf16": 2.5e-3,
    "fp8": 4e-2,  # without scales: weights around 0.02 are near the type's smallest numbers
    "fp8 scaled": 3e-2,
    "F16": 3e-4,
    "BF16": 2.5e-3,
    "Q8_0": 7e-3,
    "Q6_K": 2.4e-2,
    "Q5_1": 4.5e-2,
    "Q5_0": 5.2e-2,
    "Q5_K": 4.5e-2,
    "Q4_K": 9.5e-2,
    "Q4_1": 9.5e-2,
    "Q4_0": 1.1e-1,
}
