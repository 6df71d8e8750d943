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
from .opened import shown
from .tensor_entry import TensorEntry
from .tensor_shapes import Shape

VERSIONS = (2, 3)
# Bounds on time: a text encoder's header has some dozens of values and two vocabularies of up to 500,000 texts.
MAX_VALUES = 10_000
MAX_TENSORS = 20_000
MAX_DIMENSIONS = 8
MAX_TEXTS = 4_000_000  # in lists, together
MAX_ALIGNMENT = 1 << 20
# struct formats of scalar metadata values, by the format's type numbers.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
SHORT_ARRAY = 16  # items; longer arrays are vocabularies, which nothing here reads
# Key prefix: the shape of a tensor that has more dimensions than GGUF supports, or rows that are not whole blocks.
ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
DEFAULT_ALIGNMENT = 32
# Bytes read for the header: first try, and second try for a file with a very large vocabulary.
HEADER_BYTES = (1 << 24, 1 << 26)


class _DamagedError(ValueError):
    """Raised for a header that no program writes. The message completes the sentence "… is a GGUF file that is damaged:
    it"."""


class _Cursor:
    """Reads the values of a GGUF header in order. `position` is the byte offset of the next one."""

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0
        self.texts = 0

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
        self.texts += count
        if self.texts > MAX_TEXTS:
            raise _DamagedError(f"lists {self.texts} texts")
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
            entries, metadata = _parse(_Cursor(file.read(length)), path)
            break
        except _DamagedError as error:
            raise InputError(f"{path.name} is a GGUF file that is damaged: it {error}; download it again") from error
        except (struct.error, IndexError, KeyError, OverflowError) as error:
            if length < min(size, HEADER_BYTES[-1]):
                continue
            raise InputError(
                f"{path.name} is a GGUF file whose header is cut off or damaged; download it again"
            ) from error
    end = max((entry.start + entry.size for entry in entries.values()), default=0)
    if end > size:
        raise InputError(f"{path.name} is incomplete: it has {size} bytes and should have {end}; download it again")
    return entries, {k: str(v) for k, v in metadata.items() if v is not None}


def _parse(cursor: _Cursor, path: Path) -> tuple[dict[str, TensorEntry], dict[str, Any]]:
    """Return the tensors and the metadata (None for vocabularies)."""
    cursor.skip(4)
    version = cursor.number("<I")
    if version not in VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise InputError(f"{path.name} is a GGUF file for big-endian machines; get the one for little-endian")
        raise InputError(f"{path.name} is a GGUF file of version {version}, only 2 and 3 are known; get a newer one")
    tensors, values = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or values > MAX_VALUES:
        raise _DamagedError(f"says that it holds {tensors} tensors and {values} values")
    metadata: dict[str, Any] = {}
    for _ in range(values):
        key = cursor.string()
        if key in metadata:
            raise _DamagedError(f"holds the value {shown(key)} twice")
        metadata[key] = cursor.value()
    described: dict[str, tuple[Shape, int, int]] = {}
    for _ in range(tensors):
        name, dimensions = cursor.string(), cursor.number("<I")
        if name in described or dimensions > MAX_DIMENSIONS:
            raise _DamagedError(f"holds the tensor {shown(name)} twice or in {dimensions} dimensions")
        shape = tuple(reversed([cursor.number("<Q") for _ in range(dimensions)]))
        described[name] = shape, cursor.number("<I"), cursor.number("<Q")
    alignment = _alignment(metadata)
    base = -(-cursor.position // alignment) * alignment
    entries = {}
    for name, (stored, number, offset) in described.items():
        dtype = _type_name(number)
        if offset % alignment:
            raise _DamagedError(f"stores the tensor {shown(name)} between two places of its data")
        shape = _original_shape(name, stored, metadata)
        entries[name] = TensorEntry(shape, dtype, base + offset, stored_bytes(stored, dtype))
    _refuse_overlap(entries)
    return entries, metadata


def _alignment(metadata: dict[str, Any]) -> int:
    """Return the alignment of the tensors' data in bytes. Raises _DamagedError for one that no program writes."""
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise _DamagedError(f"aligns its data to {shown(alignment)} bytes, which is not a power of two")
    return alignment


def _original_shape(name: str, stored: Shape, metadata: dict[str, Any]) -> Shape:
    """Return the shape of a tensor before it was stored, if the metadata have one.

    Raises _DamagedError if it cannot be.
    """
    found = metadata.get(ORIGINAL_SHAPE + name)
    if not found:
        return stored
    if not isinstance(found, list) or not all(type(size) is int and size > 0 for size in found):
        raise _DamagedError(f"gives the tensor {shown(name)} the shape {shown(found)}")
    if prod(found) != prod(stored):
        raise _DamagedError(f"stores the tensor {shown(name)} as {stored}, which cannot be {tuple(found)}")
    return tuple(found)


def _refuse_overlap(entries: dict[str, TensorEntry]) -> None:
    """Raise _DamagedError if two tensors share data; between them there may be a gap."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start < end:
            raise _DamagedError(f"stores the tensor {shown(name)} where another one is")
        end = entry.start + entry.size


def _type_name(number: int) -> str:
    types = _package().GGMLQuantizationType
    return types(number).name if number in types._value2member_map_ else f"type {number}"


def block_size(dtype: str) -> tuple[int, int] | None:
    """Return the values and bytes of a block of the GGUF type named `dtype`; None for a type unknown to the package."""
    gguf = _package()
    known = gguf.GGMLQuantizationType.__members__.get(dtype)
    return None if known is None else gguf.GGML_QUANT_SIZES[known]


def stored_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of a tensor of `shape` in the GGUF type `dtype`; 0 for an unknown type.

    Raises _DamagedError if its rows are not whole blocks.
    """
    size = block_size(dtype)
    if size is None:
        return 0
    if (shape[-1] if shape else 1) % size[0]:
        raise _DamagedError(f"stores a tensor of the shape {shape} in blocks of {size[0]} values")
    return prod(shape) // size[0] * size[1]


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            "to read GGUF files the Python package gguf is needed (pip install gguf); or use the safetensors file of "
            "the same weights"
        ) from error
    return gguf
