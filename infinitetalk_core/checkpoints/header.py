"""Reading the header of a weights file: names, shapes and types of its tensors, without their data."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..cache import FileStamp
from ..errors import InputError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
# What people's files put before the names of a Wan model.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
# Tensors that stand for the whole file, which some programs write without the prefix.
MARKERS = ("scaled_fp8",)
GGUF_MAGIC = b"GGUF"
# Types that both formats have under these names.
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
class Header:
    """What a file says of its tensors. Names are without the prefix that all of them share, and renamed.

    stamp: of the file when this was read.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]  # the format's names: F16, BF16, F8_E4M3, Q4_K …
    metadata: Mapping[str, str]
    names: Mapping[str, str]  # what each tensor is called in the file
    # Where each tensor's data begins, in bytes from the start of the file, and how many bytes it has.
    starts: Mapping[str, int]
    sizes: Mapping[str, int]
    stamp: FileStamp
    gguf: bool = False


@dataclass(frozen=True)
class Entry:
    """One tensor in a file, under its name in the file."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    size: int  # bytes


def read_header(path: Path, rename: Callable[[str], str] = str) -> Header:
    """The header of the safetensors or GGUF file at `path`; InputError where it is neither or is cut off.

    rename: from the file's names, without their common prefix, to the model's.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path.name} in {path.parent}; choose another one")
    with path.open("rb") as file:
        stamp = FileStamp.of_open(file)
        start = file.read(64)
        gguf = start[:4] == GGUF_MAGIC
        if gguf:
            from .gguf_file import read_gguf  # imports the gguf package, which few files need

            entries, metadata = read_gguf(file, path)
        else:
            if start[8:9] != b"{":
                _refuse_other_formats(path, start)
            entries, metadata = _read_safetensors(file, path)
    prefix = _common_prefix(entries)
    names = {rename(name.removeprefix(prefix)): name for name in entries}
    return Header(
        shapes={k: entries[name].shape for k, name in names.items()},
        dtypes={k: entries[name].dtype for k, name in names.items()},
        metadata=metadata,
        names=names,
        starts={k: entries[name].start for k, name in names.items()},
        sizes={k: entries[name].size for k, name in names.items()},
        stamp=stamp,
        gguf=gguf,
    )


def _read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise InputError(f"{path.name} ({size} bytes) is not a complete safetensors file; download it again")
    try:
        found = json.loads(file.read(length))
        metadata = found.pop("__metadata__", {})
        entries = {name: _entry(described, 8 + length) for name, described in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path.name} is not a safetensors file: its header cannot be read; download it again"
        ) from error
    end = max((entry.start + entry.size for entry in entries.values()), default=8 + length)
    if end != size:
        raise InputError(f"{path.name} is incomplete: it has {size} bytes and should have {end}; download it again")
    return entries, metadata


def _entry(described: Mapping[str, Any], base: int) -> Entry:
    """base: where the data of all tensors begins. Raises ValueError where size and shape do not fit."""
    shape, dtype, (begin, end) = tuple(described["shape"]), described["dtype"], described["data_offsets"]
    known = DTYPES.get(dtype)
    if begin < 0 or end < begin or (known is not None and prod(shape) * known.itemsize != end - begin):
        raise ValueError(f"{end - begin} bytes for {shape} numbers of the type {dtype}")
    return Entry(shape, dtype, base + begin, end - begin)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise InputError(
            f"{path.name} is a pickle, which can run code when it is opened; use the safetensors file of the same "
            "weights"
        )
    refuse_failed_download(path, start)


def refuse_failed_download(path: Path, start: bytes) -> None:
    """InputError where the file begins as what people get in place of a weights file. start: its first 64 bytes."""
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes): the download failed; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path.name} is only a Git LFS pointer, not the file it stands for; download the file itself")
    if start.lstrip()[:1] == b"<":
        raise InputError(
            f"{path.name} is a web page, not a weights file: the download failed, often because a login was needed; "
            "download it again in the browser"
        )


def without_prefix(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by their names without the prefix that all of them share."""
    prefix = _common_prefix(shapes)
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def _common_prefix(tensors: Iterable[str]) -> str:
    names = [name for name in tensors if name not in MARKERS]
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
