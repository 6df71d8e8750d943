"""The entry of one tensor in the header of a weights file."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Types that safetensors and GGUF both have, under these names.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file. start: offset of its data from the start of the file, in bytes."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    size: int  # bytes
