"""Files of plain floating-point weights: the right kind, nothing quantised."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .files import Header, read_header
from .kinds import Kind, kind_of

FLOATS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def read_plain_header(path: Path, wanted: Kind, where: str) -> Header:
    """The header of a file of the kind `wanted`; `where` tells what to get instead of another file.

    Reads no weights, so a wrong file is refused at once.
    """
    header = read_header(path)
    kind = kind_of(header.shapes)
    if kind is not wanted:
        raise InputError(f"{path.name} is {kind.value}, not {wanted.value}; {where}")
    if quantised := _quantised(header):
        raise InputError(
            f"{path.name} holds quantised weights ({quantised}), which this loader cannot read; "
            "use the fp16, bf16 or plain fp8 file"
        )
    return header


def _quantised(header: Header) -> str | None:
    for name, dtype in header.dtypes.items():
        if name == "scaled_fp8" or name.endswith((".scale_weight", ".weight_scale", ".comfy_quant")):
            return "fp8 with scales"
        if dtype not in FLOATS:
            return dtype
    return "fp8 with scales" if "_quantization_metadata" in header.metadata else None
