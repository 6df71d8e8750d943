"""Reading a safetensors file's header: names, shapes and types of its tensors, without their data."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
# What people's files put before the names of a Wan model.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors. Names are without the prefix that all of them share."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]  # safetensors' names: F16, BF16, F8_E4M3 …
    metadata: Mapping[str, str]
    prefix: str


def read_header(path: Path) -> Header:
    """The header of the safetensors file at `path`; InputError where it is none or is cut off."""
    if not path.is_file():
        raise InputError(f"there is no file {path.name} in {path.parent}; choose another one")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        if start[8:] != b"{":
            _refuse_other_formats(path, start)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise InputError(f"{path.name} ({size} bytes) is not a complete safetensors file; download it again")
        try:
            entries = json.loads(start[8:] + file.read(length - 1))
        except ValueError as error:
            raise InputError(
                f"{path.name} is not a safetensors file: its header cannot be read; download it again"
            ) from error
    metadata = entries.pop("__metadata__", {})
    end = max((e["data_offsets"][1] for e in entries.values()), default=0)
    if 8 + length + end != size:
        raise InputError(
            f"{path.name} is incomplete: it has {size} bytes and should have {8 + length + end}; download it again"
        )
    prefix = _common_prefix(entries)
    named = {k[len(prefix) :]: e for k, e in entries.items()}
    return Header(
        shapes={k: tuple(e["shape"]) for k, e in named.items()},
        dtypes={k: e["dtype"] for k, e in named.items()},
        metadata=metadata,
        prefix=prefix,
    )


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start[:4] == b"GGUF":
        raise InputError(
            f"{path.name} is a GGUF file, which this loader does not read; use the safetensors file of the same "
            "weights (a GGUF base model is fine: load it with the GGUF loader and connect its MODEL)"
        )
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise InputError(
            f"{path.name} is a pickle, which can run code when it is opened; use the safetensors file of the same "
            "weights"
        )


def _common_prefix(names: Mapping[str, object]) -> str:
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
