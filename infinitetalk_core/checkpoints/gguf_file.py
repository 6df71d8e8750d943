"""Headers of GGUF files.

The `gguf` package knows the types and their sizes. Its own reader is not used: it makes an array of every word of a
text encoder's vocabulary, which took 15 s for one that this reads in a tenth of a second. Source: the format's
specification, docs/gguf.md of ggml.
"""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from .header import Entry

VERSIONS = (2, 3)
# Types of metadata values, by the format's numbers.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
SHORT_ARRAY = 16  # longer ones are vocabularies, which nothing here reads
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # of tensors with more dimensions than GGUF has, or odd rows
DEFAULT_ALIGNMENT = 32
# So much is read for the header, then for one with a very large vocabulary.
HEADER_BYTES = (1 << 24, 1 << 27)


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: bytes):
        self.data = data
        self.place = 0

    def number(self, form: str) -> Any:
        value = struct.unpack_from(form, self.data, self.place)[0]
        self.place += struct.calcsize(form)
        return value

    def skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise IndexError("the file ends inside its header")

    def skip_strings(self, count: int) -> None:
        """A vocabulary has hundreds of thousands: hence no calls of the other methods."""
        place, length = self.place, struct.Struct("<Q").unpack_from
        for _ in range(count):
            place += 8 + length(self.data, place)[0]
        self.place = place

    def string(self) -> str:
        length = self.number("<Q")
        start = self.place
        self.skip(length)
        return self.data[start : self.place].decode("utf-8", "replace")

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


def read_gguf(file: BinaryIO, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors and the metadata (as text) of a GGUF file, read from its header; InputError where it is cut off."""
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


def _parse(cursor: _Cursor, path: Path) -> tuple[dict[str, Entry], dict[str, Any], int]:
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
    base = -(-cursor.place // alignment) * alignment
    entries, end = {}, base
    for name, stored, number, offset in described:
        dtype = _type_name(number)
        shape, length = tuple(metadata.get(ORIGINAL_SHAPE + name) or stored), stored_bytes(stored, dtype)
        if prod(shape) != prod(stored):
            raise InputError(f"{path.name} stores {name} as {stored}, which cannot be {shape}; download it again")
        entries[name] = Entry(shape, dtype, base + offset, length)
        end = max(end, base + offset + length)
    return entries, metadata, end


def _type_name(number: int) -> str:
    types = _package().GGMLQuantizationType
    return types(number).name if number in types._value2member_map_ else f"type {number}"


def block_size(dtype: str) -> tuple[int, int] | None:
    """Values and bytes of a block of the GGUF type named `dtype`; None where the package does not know it."""
    gguf = _package()
    known = gguf.GGMLQuantizationType.__members__.get(dtype)
    return None if known is None else gguf.GGML_QUANT_SIZES[known]


def stored_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes of a tensor of `shape` in the GGUF type `dtype`; 0 where that is not known."""
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
