"""Files of InfiniteTalk weights."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ..errors import InputError
from .files import Header, read_header
from .kinds import Kind, kind_of

WHERE = "get InfiniteTalk weights (for example Wan2_1-InfiniTetalk-Single_fp16.safetensors) into models/model_patches"
FLOATS = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def read_infinitetalk_header(path: Path) -> Header:
    """The header of a file of InfiniteTalk weights. Reads no weights, so a wrong file is refused at once."""
    header = read_header(path)
    kind = kind_of(header.shapes)
    if kind is not Kind.INFINITETALK:
        raise InputError(f"{path.name} is {kind.value}, not InfiniteTalk weights; {WHERE}")
    if quantised := _quantised(header):
        raise InputError(
            f"{path.name} holds quantised weights ({quantised}), which this loader cannot read; "
            "use the fp16, bf16 or plain fp8 file"
        )
    return header


def load_infinitetalk(path: Path, header: Header) -> dict[str, Tensor]:
    """The weights under the names of `model.audio_adapter`, in the file's type.

    fp8 stays fp8: it needs layers that cast where they compute, as a host's do.
    """
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(header.prefix + name) for name in header.shapes}


def _quantised(header: Header) -> str | None:
    for name, dtype in header.dtypes.items():
        if name == "scaled_fp8" or name.endswith((".scale_weight", ".weight_scale", ".comfy_quant")):
            return "fp8 with scales"
        if dtype not in FLOATS:
            return dtype
    return "fp8 with scales" if "_quantization_metadata" in header.metadata else None
