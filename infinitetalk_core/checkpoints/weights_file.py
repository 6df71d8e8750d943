"""Open a weights file of a known kind and read its tensors in the layout in which they are stored.

Quantized tensors stay quantized in memory, as the bytes of the file; a layer dequantizes them when it uses them
(`Quantized.dequantize`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .gguf_dequant import BLOCKS
from .header import Header, read_header
from .kinds import CheckpointKind, ExpectedCheckpoint, check_kind, kind_of
from .tensor_data import read_tensors
from .tensor_entry import DTYPES
from .tensor_shapes import TensorShapes

FLOATS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SCALED = "scaled"  # layout: values of a float type, with one scale per tensor or per row
# Old and new suffix of the scale tensors: the scale of "X.weight" is "X.scale_weight" or "X.weight_scale".
SCALES = (".scale_weight", ".weight_scale")
# Suffixes of activation scales and format notes, which full-precision matrix products do not need.
COMPANION_SUFFIXES = (".scale_input", ".input_scale", ".comfy_quant")
MARKER = "scaled_fp8"
NOTE_BYTES = 4096  # of a note beside a weight, which has a few dozen
CHECKED_AT_ONCE = 1 << 24  # bytes of fp8
QUANTIZATION_SUFFIX = ".comfy_quant"
READABLE_QUANTIZATIONS = ("float8_e4m3fn", "float8_e5m2")
UNKNOWN_FORMAT = "an unknown format"
BYTES = ("U8", "I8")
NOT_A_NOTE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
READABLE_LAYOUTS = (
    f"a safetensors file in fp32, fp16, bf16 or fp8 (with or without scales), or GGUF in F16, {', '.join(BLOCKS)}"
)


@dataclass(frozen=True)
class Quantized:
    """A quantized tensor as it is stored.

    layout: a GGUF type of `BLOCKS`, or SCALED, where `scale` is (1,) or (rows, 1). stored: (…, row bytes) uint8, or for
    SCALED (…, columns) of a float type. shape: the shape after dequantization.
    """

    stored: Tensor
    layout: str
    shape: tuple[int, ...]
    scale: Tensor | None = None

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Dequantize to `shape` in `dtype`."""
        return dequantize(self.stored, self.layout, self.scale, dtype).reshape(self.shape)


Weights = Mapping[str, Tensor | Quantized]


def as_numbers(weights: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all of `weights` as plain tensors in `dtype`, dequantized where needed."""
    return {k: w.dequantize(dtype) if isinstance(w, Quantized) else w.to(dtype) for k, w in weights.items()}


def dequantize(stored: Tensor, layout: str, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Dequantize a tensor stored in `layout` (see `Quantized`) to `dtype`, on its device."""
    if layout != SCALED:
        return BLOCKS[layout].dequantize(stored, dtype)
    assert scale is not None
    return stored.to(dtype, copy=True).mul_(scale.to(device=stored.device, dtype=dtype))


@dataclass(frozen=True)
class Stored:
    """How one tensor is stored in the file. scale: the name of its scale tensor, or None."""

    shape: tuple[int, ...]
    dtype: str
    scale: str | None = None


@dataclass(frozen=True)
class LoadedWeights:
    """Weights in memory. fingerprint: hash of everything that was read for them; a copy of the file has the same."""

    tensors: dict[str, Tensor | Quantized]
    fingerprint: str


@dataclass(frozen=True)
class WeightsFile:
    """An opened file of the expected kind, whose weights are not read yet. Tensor names are those of the modules."""

    path: Path
    header: Header
    tensors: Mapping[str, Stored]

    @cached_property
    def shapes(self) -> TensorShapes:
        """The shapes after dequantization, for any layout."""
        return TensorShapes({name: stored.shape for name, stored in self.tensors.items()}, self.path.name)

    @property
    def is_merged(self) -> bool:
        """Whether the file holds another model too, of which nothing is read."""
        return bool(self.header.left_out)

    @property
    def dtypes(self) -> dict[str, torch.dtype | None]:
        """The dtype of each tensor that is stored as plain numbers; None for quantized ones."""
        return {k: DTYPES.get(stored.dtype) if stored.scale is None else None for k, stored in self.tensors.items()}

    def read(self) -> LoadedWeights:
        """Read all weights as they are stored (plain fp8 stays fp8) into memory that is independent of the file.

        Raises InputError for numbers that are not finite, RunError if the file has changed since its header was read,
        or changes during the read.
        """
        scales = {stored.scale for stored in self.tensors.values() if stored.scale is not None}
        data, fingerprint = read_tensors(self.path, self.header, {*self.tensors, *scales})
        loaded = {name: _weight(data[name], stored, data) for name, stored in self.tensors.items()}
        for name, weight in loaded.items():
            refuse_unless_finite(weight, name, self.path)
        return LoadedWeights(loaded, fingerprint)


def refuse_unless_finite(weight: Tensor | Quantized, name: str, path: Path) -> None:
    """Raise InputError if a weight holds NaN or infinite numbers, which would turn every frame black."""
    parts = [weight] if isinstance(weight, Tensor) else [weight.scale, *_float_parts(weight)]
    if not all(part is None or _is_finite(part) for part in parts):
        raise InputError(
            f"{path.name} is damaged: the tensor {name} holds numbers that are not finite; download it again"
        )


def _float_parts(weight: Quantized) -> list[Tensor]:
    """Return what holds floating-point numbers of a quantized weight: all of it, or the scales of its blocks."""
    if weight.layout == SCALED:
        return [weight.stored]
    return BLOCKS[weight.layout].scales_of(weight.stored)


def _is_finite(numbers: Tensor) -> bool:
    """Return whether no number is NaN or infinite, in one pass without a copy."""
    if not numbers.numel():
        return True
    if numbers.dtype.itemsize == 1:  # fp8, for which PyTorch has no minimum
        top = 0x7F if numbers.dtype == torch.float8_e4m3fn else 0x7C
        codes = numbers.contiguous().view(torch.uint8).flatten()
        return all(bool(((part & 0x7F) < top).all()) for part in codes.split(CHECKED_AT_ONCE))
    return all(bool(limit.isfinite()) for limit in torch.aminmax(numbers))


def _weight(data: Tensor, stored: Stored, others: Mapping[str, Tensor]) -> Tensor | Quantized:
    """Wrap `data`, a tensor from `read_tensors`. others: all tensors that were read, for the scale."""
    if stored.dtype in FLOATS:
        if stored.scale is None:
            return data
        scale = others[stored.scale].float()
        scale = scale.reshape(1 if scale.numel() == 1 else (-1, *[1] * (data.ndim - 1)))
        return Quantized(data, SCALED, stored.shape, scale)
    layout = BLOCKS[stored.dtype]
    if stored.shape[-1] % layout.values:
        # Tensors whose rows are not whole blocks were stored in another shape.
        return layout.dequantize(data, torch.float16).reshape(stored.shape)
    return Quantized(data.reshape(layout.stored_shape(stored.shape)), stored.dtype, stored.shape)


def open_weights(
    path: Path,
    wanted: ExpectedCheckpoint,
    rename: Callable[[str], str] = str,
    part: Callable[[str], bool] | None = None,
) -> WeightsFile:
    """Open the file at `path`. Raises InputError if it is not of the wanted kind or has a layout that cannot be read.

    rename: maps the file's tensor names, without their common prefix, to the model's. part: whether a tensor of a file
    that merges Wan and InfiniteTalk is one of the wanted model; the others are as if they were not there. Reads the
    header only, so a wrong file is refused at once, whatever its size.
    """
    header = read_header(path, rename)
    if part is not None and kind_of(header.shapes) is CheckpointKind.WAN_INFINITETALK:
        header = header.only(part)
    check_kind(path.name, header.shapes, wanted)
    _check_notes(path, header, wanted)
    tensors = {}
    for name, shape in header.shapes.items():
        if name.endswith(SCALES):
            _refuse_stray_scale(path, header, name)
        if name == MARKER or name.endswith((*SCALES, *COMPANION_SUFFIXES)):
            continue
        tensors[name] = Stored(shape, header.dtypes[name], _scale_of(path, header, name))
        _check_type(path, header, name, wanted)
    return WeightsFile(path, header, tensors)


def _refuse_stray_scale(path: Path, header: Header, scale: str) -> None:
    """Raise InputError if the weight that a scale belongs to is not in the file."""
    layer = next(scale.removesuffix(end) for end in SCALES if scale.endswith(end))
    if f"{layer}.weight" not in header.shapes:
        raise InputError(f"{path.name} lacks the tensor {layer}.weight, though it has its scale; download it again")


def _scale_of(path: Path, header: Header, name: str) -> str | None:
    """Return the name of the scale tensor of `name`, or None.

    Raises InputError for scales by blocks, and where scales or weight are no floating-point numbers.
    """
    layer = name.removesuffix(".weight")
    scale = next((layer + end for end in SCALES if layer != name and layer + end in header.shapes), None)
    if scale is None:
        return None
    if header.dtypes[scale] not in FLOATS or header.dtypes[name] not in FLOATS:
        raise InputError(
            f"{path.name} scales {layer}, stored as {header.dtypes[name]}, by numbers of the type "
            f"{header.dtypes[scale]}, which cannot be read; use {READABLE_LAYOUTS}"
        )
    count, rows = prod(header.shapes[scale]), [*header.shapes[name], 1][0]
    if count not in (1, rows):
        raise InputError(
            f"{path.name} scales its weights by blocks ({count} scales for {layer}), which cannot be read; "
            f"use {READABLE_LAYOUTS}"
        )
    return scale


def _check_type(path: Path, header: Header, name: str, wanted: ExpectedCheckpoint) -> None:
    """Raise InputError if the tensor `name` is stored in a type that cannot be read."""
    dtype = header.dtypes[name]
    if dtype in FLOATS or (header.gguf and dtype in BLOCKS):
        return
    _refuse_layout(path, dtype, wanted)


def _check_notes(path: Path, header: Header, wanted: ExpectedCheckpoint) -> None:
    """Raise InputError for unreadable formats that ComfyUI's newer files name, beside each weight or in the header."""
    formats = _noted_formats(header)
    # All notes are read, since layers may differ.
    names = [name for name in header.names if name.endswith(QUANTIZATION_SUFFIX)]
    short = [name for name in names if header.sizes[name] <= NOTE_BYTES and header.dtypes[name] in BYTES]
    notes, _ = read_tensors(path, header, short)
    formats |= {_format_of(note) for note in notes.values()}
    formats |= {UNKNOWN_FORMAT} if len(short) < len(names) else set()
    for other in sorted(formats - set(READABLE_QUANTIZATIONS)):
        _refuse_layout(path, other, wanted)


def _noted_formats(header: Header) -> set[str]:
    """Return the formats that the header's metadata names (`_quantization_metadata`) for the tensors that are read."""
    try:
        layers = json.loads(header.metadata.get("_quantization_metadata", "{}")).get("layers", {})
        others = {name.removesuffix(".weight") for name in header.left_out}
        return {_format_name(layer["format"]) for name, layer in layers.items() if name not in others}
    except NOT_A_NOTE:
        return {UNKNOWN_FORMAT}


def _format_of(note: Tensor) -> str:
    """Return the format that a note beside a weight names: JSON as bytes (n,)."""
    try:
        return _format_name(json.loads(bytes(note.view(torch.uint8).flatten().tolist()))["format"])
    except NOT_A_NOTE:
        return UNKNOWN_FORMAT


def _format_name(found: Any) -> str:
    return found if isinstance(found, str) and re.fullmatch(r"[\w ]{1,40}", found) else UNKNOWN_FORMAT


def _refuse_layout(path: Path, layout: str, wanted: ExpectedCheckpoint) -> None:
    raise InputError(
        f"{path.name} holds {wanted.kind.label} stored as {layout}, which cannot be read; use {READABLE_LAYOUTS}, "
        f"for example {wanted.file} from {wanted.source}"
    )
