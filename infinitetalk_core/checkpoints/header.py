"""Read the header of a weights file: names, shapes and dtypes of its tensors, without their data."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..errors import InputError
from ..model_cache import FileStamp
from .gguf_file import read_gguf
from .opened import opened, shown
from .tensor_entry import DTYPES, TensorEntry

# Bounds on time and memory: Wan has 1,300 tensors and a header of 150 kB; the format allows 100 MB.
MAX_HEADER_BYTES = 16_000_000
MAX_TENSORS = 20_000
MAX_BRACKETS = 50 * MAX_TENSORS  # three of each tensor, and those in the metadata's texts
MAX_NAME = 500  # letters
MAX_DIMENSIONS = 8
TYPE_NAME = "[A-Z][A-Z0-9_]{0,15}"
ARCHIVES = (b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
# Prefixes of the tensor names in released Wan checkpoints.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")
# Tensors that mark a format of the whole file, which some programs write without the prefix.
MARKERS = ("scaled_fp8",)
GGUF_MAGIC = b"GGUF"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Header:
    """The header of a weights file. Tensor names are without their common prefix, and renamed to the model's.

    stamp: size, times and inode of the file when the header was read. left_out: the names, with and without prefix, of
    tensors that belong to another model, with which this one is merged (see `only`).
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
    left_out: frozenset[str] = frozenset()

    def only(self, belongs: Callable[[str], bool]) -> Header:
        """Return the header of one of the models that a file merges. belongs: whether a tensor is one of its."""
        kept = {name for name in self.names if belongs(name)}

        def of(values: Mapping[str, Value]) -> dict[str, Value]:
            return {name: value for name, value in values.items() if name in kept}

        return replace(
            self,
            shapes=of(self.shapes),
            dtypes=of(self.dtypes),
            names=of(self.names),
            starts=of(self.starts),
            sizes=of(self.sizes),
            left_out=frozenset(n for name, found in self.names.items() if name not in kept for n in (name, found)),
        )


def read_header(path: Path, rename: Callable[[str], str] = str) -> Header:
    """Read the header of the safetensors or GGUF file at `path`.

    rename: maps the file's tensor names, without their common prefix, to the model's. Raises InputError for a missing
    file, another format, a file that is cut off, and a header that is damaged or of no weights file's size.
    """
    with opened(path) as file:
        stamp = FileStamp.of_open(file)
        start = file.read(64)
        gguf = start[:4] == GGUF_MAGIC
        if gguf:
            entries, metadata = read_gguf(file, path)
        else:
            if start[8:9] != b"{":
                _refuse_other_formats(path, start)
            entries, metadata = _read_safetensors(file, path)
    check_entries(path, entries)
    prefix = _common_prefix(entries)
    names = {rename(name.removeprefix(prefix)): name for name in entries}
    if len(names) < len(entries):
        raise InputError(f"{path.name} holds a tensor twice, with and without a prefix of its name; get another copy")
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
    if not 2 <= length <= size - 8:
        raise InputError(f"{path.name} ({size} bytes) is not a complete safetensors file; download it again")
    if length > MAX_HEADER_BYTES:
        raise InputError(
            f"{path.name} has a header of {length} bytes, and no weights file needs more than {MAX_HEADER_BYTES}; "
            "get another copy"
        )
    content = file.read(length)
    # Counted before they are parsed, which takes some time and memory for each.
    if content.count(b'"data_offsets"') > MAX_TENSORS or content.count(b"[") + content.count(b"{") > MAX_BRACKETS:
        raise InputError(
            f"{path.name} has a header of more than {MAX_TENSORS} tensors, which no model has; get another copy"
        )
    try:
        found = json.loads(content, object_pairs_hook=_without_repetition)
        metadata = _metadata(found.pop("__metadata__", None))
        entries = {name: _entry(described, 8 + length) for name, described in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path.name} is not a safetensors file: its header cannot be read; download it again"
        ) from error
    end = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.size)):
        if entry.start != end:
            raise InputError(f"{path.name} is damaged: its tensors overlap or leave gaps; download it again")
        end += entry.size
    if end != size:
        raise InputError(f"{path.name} is incomplete: it has {size} bytes and should have {end}; download it again")
    return entries, metadata


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError if it has a key twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _metadata(found: Any) -> dict[str, str]:
    """Return the metadata of a safetensors header. Raises TypeError for anything but texts by name."""
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise TypeError("metadata that are no texts")
    return found


def _entry(described: Mapping[str, Any], base: int) -> TensorEntry:
    """Convert a tensor's entry in a safetensors header.

    base: offset of the data section in the file, in bytes. Raises ValueError, KeyError or TypeError where the entry is
    damaged, or where size and shape do not fit.
    """
    shape, dtype, (begin, end) = tuple(described["shape"]), described["dtype"], described["data_offsets"]
    if not all(type(number) is int for number in (*shape, begin, end)) or not isinstance(described["shape"], list):
        raise TypeError("a size that is no whole number")
    if not isinstance(dtype, str) or not re.fullmatch(TYPE_NAME, dtype):
        raise TypeError("a type that is no name")
    known = DTYPES.get(dtype)
    if not 0 <= begin <= end or (known is not None and prod(shape) * known.itemsize != end - begin):
        raise ValueError(f"{end - begin} bytes for {shape} numbers of the type {dtype}")
    return TensorEntry(shape, dtype, base + begin, end - begin)


def check_entries(path: Path, entries: Mapping[str, TensorEntry]) -> None:
    """Raise InputError for more tensors than any model has, and for names and shapes that no tensor has."""
    if len(entries) > MAX_TENSORS:
        raise InputError(
            f"{path.name} says that it holds {len(entries)} tensors, and no model has more than {MAX_TENSORS}; get "
            "another copy"
        )
    for name, entry in entries.items():
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or any(letter.isspace() for letter in name):
            raise InputError(f"{path.name} is damaged: it names a tensor {shown(name)!r}; download it again")
        if len(entry.shape) > MAX_DIMENSIONS or not all(0 <= size < 1 << 63 for size in entry.shape):
            raise InputError(
                f"{path.name} is damaged: its tensor {shown(name)} has no possible shape; download it again"
            )


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Raise InputError if the file is a pickle or a failed download. start: its first 64 bytes."""
    if start[:2] == b"PK" or start[:1] == b"\x80":
        raise InputError(
            f"{path.name} is a pickle, which can run code when it is opened; use the safetensors file of the same "
            "weights"
        )
    refuse_failed_download(path, start)


def refuse_failed_download(path: Path, start: bytes) -> None:
    """Raise InputError if the file is empty, a text, a web page, an archive or zeros. start: its first 64 bytes."""
    if not start:
        raise InputError(f"{path.name} is empty (0 bytes): the download failed; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{path.name} is only a Git LFS pointer, not the file it stands for; download the file itself")
    text = _as_text(start)
    if text.lstrip("\ufeff \t\r\n")[:1] == "<":
        raise InputError(
            f"{path.name} is a web page, not a weights file: the download failed, often because a login was needed; "
            "download it again in the browser"
        )
    if text:
        raise InputError(
            f"{path.name} is a text ({shown(' '.join(text.split()))!r}), neither a safetensors nor another weights "
            "file: the download failed, often because a login was needed; download it again in the browser"
        )
    if start.startswith(ARCHIVES):
        raise InputError(f"{path.name} is an archive, not a weights file; unpack it, and use what is in it")
    if len(start) == 64 and not any(start):
        raise InputError(f"{path.name} begins with nothing but zeros: the download did not finish; download it again")


def _as_text(start: bytes) -> str:
    """Return the start of a file as text; an empty string if it is none."""
    for encoding in ("utf-8", "utf-16") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8",):
        text = start.decode(encoding, "ignore")
        whole = len(start) > 8 and len(text.encode(encoding)) >= len(start) - 3  # its last letter may be cut off
        if whole and all(letter.isprintable() or letter in "\ufeff\t\r\n" for letter in text):
            return text
    return ""


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
