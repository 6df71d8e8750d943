"""A weights file of a known kind: how each of its tensors is stored, and reading them as they are stored.

Quantised tensors stay quantised in memory, as the bytes of the file; a layer turns them into numbers where it uses them
(`Quantised.dequantise`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from .gguf_dequant import BLOCKS
from .header import Header, read_header
from .kinds import ExpectedCheckpoint, check_kind
from .tensor_data import read_tensors

FLOATS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SCALED = "scaled"  # numbers of a float type times a scale a tensor or a row
# Old and new names of what stands beside a scaled weight; "X.weight" belongs to "X.scale_weight" or "X.weight_scale".
SCALES = (".scale_weight", ".weight_scale")
# Scales of the activations and notes on the format: nothing that full-precision products need.
BESIDE = (".scale_input", ".input_scale", ".comfy_quant")
MARKER = "scaled_fp8"
NOTE = ".comfy_quant"
READABLE_NOTES = ("float8_e4m3fn", "float8_e5m2")
READS = f"a safetensors file in fp32, fp16, bf16 or fp8 (with or without scales), or GGUF in F16, {', '.join(BLOCKS)}"


@dataclass(frozen=True)
class Quantised:
    """A tensor as it is stored. layout: a GGUF type of `BLOCKS`, or SCALED, where `scale` is (1,) or (rows, 1).

    stored: (…, row bytes) uint8, or for SCALED (…, columns) of a float type. shape: of the numbers.
    """

    stored: Tensor
    layout: str
    shape: tuple[int, ...]
    scale: Tensor | None = None

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The numbers, in `shape`."""
        return dequantise(self.stored, self.layout, self.scale, dtype).reshape(self.shape)


Weights = Mapping[str, Tensor | Quantised]


def as_numbers(weights: Weights, dtype: torch.dtype) -> dict[str, Tensor]:
    """All of `weights` in `dtype`, for modules that hold plain tensors."""
    return {k: w.dequantise(dtype) if isinstance(w, Quantised) else w.to(dtype) for k, w in weights.items()}


def dequantise(stored: Tensor, layout: str, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The numbers of a tensor stored in `layout` (see `Quantised`), on its device, in `dtype`."""
    if layout != SCALED:
        return BLOCKS[layout].dequantise(stored, dtype)
    assert scale is not None
    return stored.to(dtype, copy=True).mul_(scale.to(device=stored.device, dtype=dtype))


@dataclass(frozen=True)
class Stored:
    """How one tensor lies in the file. scale: the name of the tensor of its scale, or None."""

    shape: tuple[int, ...]
    dtype: str
    scale: str | None = None


@dataclass(frozen=True)
class LoadedWeights:
    """Weights in memory. fingerprint: of all that was read for them, so equal in a copy of the file."""

    tensors: dict[str, Tensor | Quantised]
    fingerprint: str


@dataclass(frozen=True)
class WeightsFile:
    """A file of the kind that was wanted, its weights not read yet. Names are those of the model's modules."""

    path: Path
    header: Header
    tensors: Mapping[str, Stored]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the numbers, whatever the layout."""
        return {name: stored.shape for name, stored in self.tensors.items()}

    def read(self) -> LoadedWeights:
        """All weights as they are stored (plain fp8 stays fp8), in memory that no change of the file reaches.

        Raises InputError where the file was changed since its header was read, or is while this reads it.
        """
        scales = {stored.scale for stored in self.tensors.values() if stored.scale is not None}
        data, fingerprint = read_tensors(self.path, self.header, {*self.tensors, *scales})
        loaded = {name: _weight(data[name], stored, data) for name, stored in self.tensors.items()}
        return LoadedWeights(loaded, fingerprint)


def _weight(data: Tensor, stored: Stored, others: Mapping[str, Tensor]) -> Tensor | Quantised:
    """data: what `read_tensors` gives. others: the same of all tensors, for the scale."""
    if stored.dtype in FLOATS:
        if stored.scale is None:
            return data
        scale = others[stored.scale].float()
        scale = scale.reshape(1 if scale.numel() == 1 else (-1, *[1] * (data.ndim - 1)))
        return Quantised(data, SCALED, stored.shape, scale)
    layout = BLOCKS[stored.dtype]
    if stored.shape[-1] % layout.values:
        # Rows that are no whole blocks were stored under another shape.
        return layout.dequantise(data, torch.float16).reshape(stored.shape)
    return Quantised(data.reshape(layout.stored_shape(stored.shape)), stored.dtype, stored.shape)


def open_weights(path: Path, wanted: ExpectedCheckpoint, rename: Callable[[str], str] = str) -> WeightsFile:
    """The file at `path`, if it is of the wanted kind and stored in a way that can be read.

    rename: from the file's names, without their common prefix, to the model's. Reads the header only, so a wrong file
    is refused at once whatever its size.
    """
    header = read_header(path, rename)
    check_kind(path.name, header.shapes, wanted)
    _check_notes(path, header, wanted)
    tensors = {}
    for name, shape in header.shapes.items():
        if name == MARKER or name.endswith((*SCALES, *BESIDE)):
            continue
        tensors[name] = Stored(shape, header.dtypes[name], _scale_of(path, header, name))
        _check_type(path, header, name, wanted)
    return WeightsFile(path, header, tensors)


def _scale_of(path: Path, header: Header, name: str) -> str | None:
    layer = name.removesuffix(".weight")
    scale = next((layer + end for end in SCALES if layer != name and layer + end in header.shapes), None)
    if scale is None:
        return None
    count, rows = prod(header.shapes[scale]), header.shapes[name][0]
    if count not in (1, rows):
        raise InputError(
            f"{path.name} scales its weights by blocks ({count} scales for {layer}), which cannot be read; use {READS}"
        )
    return scale


def _check_type(path: Path, header: Header, name: str, wanted: ExpectedCheckpoint) -> None:
    dtype = header.dtypes[name]
    if dtype in FLOATS or (header.gguf and dtype in BLOCKS):
        return
    _refuse_layout(path, dtype, wanted)


def _check_notes(path: Path, header: Header, wanted: ExpectedCheckpoint) -> None:
    """Refuse formats that ComfyUI's newer files name: in a note beside each weight, or in the header."""
    formats = _noted_formats(header.metadata)
    # All are read: layers may differ. They are some dozens of bytes each.
    notes, _ = read_tensors(path, header, [name for name in header.names if name.endswith(NOTE)])
    formats |= {_format_of(note) for note in notes.values()}
    for other in sorted(formats - set(READABLE_NOTES)):
        _refuse_layout(path, other, wanted)


def _noted_formats(metadata: Mapping[str, str]) -> set[str]:
    try:
        layers = json.loads(metadata.get("_quantization_metadata", "{}")).get("layers", {})
        return {str(layer["format"]) for layer in layers.values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"an unknown format"}


def _format_of(note: Tensor) -> str:
    try:
        return str(json.loads(bytes(note.to(torch.uint8).flatten().tolist()))["format"])
    except (ValueError, KeyError, TypeError):
        return "an unknown format"


def _refuse_layout(path: Path, layout: str, wanted: ExpectedCheckpoint) -> None:
    raise InputError(
        f"{path.name} holds {wanted.kind.label} stored as {layout}, which cannot be read; use {READS}, "
        f"for example {wanted.file} from {wanted.source}"
    )
