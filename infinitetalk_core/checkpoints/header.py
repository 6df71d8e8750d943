"""Read the header of a weights file: names, shapes and dtypes of its tensors, without their data."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from ..model_cache import FileStamp
from .gguf_file import read_gguf
from .tensor_entry import DTYPES, TensorEntry

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
# Prefixes of the tensor names in released Wan checkpoints.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
# Tensors that mark a format of the whole file, which some programs write without the prefix.
MARKERS = ("scaled_fp8",)
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Header:
    """The header of a weights file. Tensor names are without their common prefix, and renamed to the model's.

    stamp: size, times and inode of the file when the header was read.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]  # the format's names: F16, BF16, F8_E4M3, Q4_K …
    metadata: Mapping[str, str]
    names: Mapping[str, str]  # the name of each tensor in the file
    # The offset of each tensor's data from the start of the file, and its size, both in bytes.
    starts: Mapping[str, int]
    sizes: Mapping[str, int]
    stamp: FileStamp
    gguf: bool = False


def read_header(path: Path, rename: Callable[[str], str] = str) -> Header:
    """Read the header of the safetensors or GGUF file at `path`.

    rename: maps the file's tensor names, without their common prefix, to the model's. Raises InputError for a missing
    file, another format, and a file that is cut off.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path.name} in {path.parent}; choose another one")
    with path.open("rb") as file:
        stamp = FileStamp.of_open(file)
        start = file.read(64)
        gguf = start[:4] == GGUF_MAGIC
        if gguf:
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


def _read_safetensors(file: BinaryIO, path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file. Raises InputError where it is cut off or damaged."""
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


def _entry(described: Mapping[str, Any], base: int) -> TensorEntry:
    """Convert a tensor's entry in a safetensors header.

    base: offset of the data section in the file, in bytes. Raises ValueError where size and shape do not fit.
    """
    shape, dtype, (begin, end) = tuple(described["shape"]), described["dtype"], described["data_offsets"]
    known = DTYPES.get(dtype)
    if begin < 0 or end < begin or (known is not None and prod(shape) * known.itemsize != end - begin):
        raise ValueError(f"{end - begin} bytes for {shape} numbers of the type {dtype}")
    return TensorEntry(shape, dtype, base + begin, end - begin)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Raise InputError if the file is a pickle or a failed download. start: its first 64 bytes."""
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise InputError(
            f"{path.name} is a pickle, which can run code when it is opened; use the safetensors file of the same "
            "weights"
        )
    refuse_failed_download(path, start)


def refuse_failed_download(path: Path, start: bytes) -> None:
    """Raise InputError if the file is empty, a Git LFS pointer or a web page. start: its first 64 bytes."""
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
    """Return `shapes` by tensor name without the common prefix."""
    prefix = _common_prefix(shapes)
    return {name.removeprefix(prefix): shape for name, shape in shapes.items()}


def _common_prefix(tensors: Iterable[str]) -> str:
    """Return the one of `PREFIXES` that all names but `MARKERS` start with, or an empty string."""
    names = [name for name in tensors if name not in MARKERS]
    for prefix in PREFIXES:
        if names and all(name.startswith(prefix) for name in names):
            return prefix
    return ""
