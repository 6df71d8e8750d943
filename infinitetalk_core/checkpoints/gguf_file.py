"""Read the header of GGUF files.

The `gguf` package supplies the types and their sizes. Its own reader is not used: it creates an array for every token
of a text encoder's vocabulary, which took 15 s for a file that this module reads in 0.1 s. Source: the format's
specification, docs/gguf.md of ggml.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from .tensor_entry import TensorEntry

VERSIONS = (2, 3)
# struct formats of scalar metadata values, by the format's type numbers.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
SHORT_ARRAY = 16  # items; longer arrays are vocabularies, which nothing here reads
# Key prefix: the shape of a tensor that has more dimensions than GGUF supports, or rows that are not whole blocks.
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
DEFAULT_ALIGNMENT = 32
# Bytes read for the header: first try, and second try for a file with a very large vocabulary.
HEADER_BYTES = (1 << 24, 1 << 27)


class _Cursor:
    """Reads the values of a GGUF header in order. `position` is the byte offset of the next one."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def number(self, struct_format: str) -> Any:
        value = struct.unpack_from(struct_format, self.data, self.position)[0]
        self.position += struct.calcsize(struct_format)
        return value

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.data):
            raise IndexError("the file ends inside its header")

    def skip_strings(self, count: int) -> None:
        """Skip `count` strings. Calls no other method, for speed: a vocabulary has hundreds of thousands of strings."""
        position, length = self.position, struct.Struct("<Q").unpack_from
        for _ in range(count):
            position += 8 + length(self.data, position)[0]
        self.position = position

    def string(self) -> str:
        length = self.number("<Q")
        start = self.position
        self.skip(length)
        return self.data[start : self.position].decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.number("<I")
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(SCALARS[kind])
        inner, count = self.number("<I"), self.number("<Q")
        if inner == STRING:
            self.skip_strings(count)
            return None
        if count <= SHORT_ARRAY:
            return [self.number(SCALARS[inner]) for _ in range(count)]
        self.skip(count * struct.calcsize(SCALARS[inner]))
        return None


def read_gguf(file: BinaryIO, path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Read the header of a GGUF file: its tensors, and its metadata as text. Vocabularies are left out.

    Raises InputError where the file is cut off or damaged.
    """
    size = file.seek(0, 2)
    for length in HEADER_BYTES:
        file.seek(0)
        try:
            entries, metadata, end = _parse(_Cursor(file.read(length)), path)
            break
        except (struct.error, IndexError, KeyError, OverflowError) as error:
            if length < min(size, HEADER_BYTES[-1]):
                continue
            raise InputError(
                f"{path.name} is a GGUF file whose header is cut off or damaged; download it again"
            ) from error
    if end > size:
        raise InputError(f"{path.name} is incomplete: it has {size} bytes and should have {end}; download it again")
    return entries, {k: str(v) for k, v in metadata.items() if v is not None}


def _parse(cursor: _Cursor, path: Path) -> tuple[dict[str, TensorEntry], dict[str, Any], int]:
    """Return the tensors, the metadata (None for vocabularies) and the byte at which the last tensor ends."""
    cursor.skip(4)
    version = cursor.number("<I")
    if version not in VERSIONS:
        raise InputError(f"{path.name} is a GGUF file of version {version}, only 2 and 3 are known; get a newer one")
    tensors, values = cursor.number("<Q"), cursor.number("<Q")
    metadata: dict[str, Any] = {}
    for _ in range(values):
        key = cursor.string()
        metadata[key] = cursor.value()
    described = []
    for _ in range(tensors):
        name = cursor.string()
        shape = tuple(reversed([cursor.number("<Q") for _ in range(cursor.number("<I"))]))
        described.append((name, shape, cursor.number("<I"), cursor.number("<Q")))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    base = -(-cursor.position // alignment) * alignment
    entries, end = {}, base
    for name, stored, number, offset in described:
        dtype = _type_name(number)
        shape, length = tuple(metadata.get(ORIGINAL_SHAPE + name) or stored), stored_bytes(stored, dtype)
        if prod(shape) != prod(stored):
            raise InputError(f"{path.name} stores {name} as {stored}, which cannot be {shape}; download it again")
        entries[name] = TensorEntry(shape, dtype, base + offset, length)
        end = max(end, base + offset + length)
    return entries, metadata, end


def _type_name(number: int) -> str:
    types = _package().GGMLQuantizationType
    return types(number).name if number in types._value2member_map_ else f"type {number}"


def block_size(dtype: str) -> tuple[int, int] | None:
    """Return the values and bytes of a block of the GGUF type named `dtype`; None for a type unknown to the package."""
    gguf = _package()
    known = gguf.GGMLQuantizationType.__members__.get(dtype)
    return None if known is None else gguf.GGML_QUANT_SIZES[known]


def stored_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of a tensor of `shape` in the GGUF type `dtype`; 0 for an unknown type."""
    size = block_size(dtype)
    return 0 if size is None else prod(shape) // size[0] * size[1]


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            "to read GGUF files the Python package gguf is needed (pip install gguf); or use the safetensors file of "
            "the same weights"
        ) from error
    return gguf
