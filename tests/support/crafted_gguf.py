"""Crafted GGUF files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from tests.support.crafted import Crafted, crafted
from tests.support.weight_files import (
    ARRAY,
    BOOL,
    F32,
    GGUF_F16,
    GGUF_F32,
    GGUF_Q8_0,
    I32,
    STRING,
    U8,
    U32,
    U64,
    Gguf,
    array_of,
    right_gguf,
    text,
)

TALK = "infinitetalk"
PROJ, NORM = "audio_proj.proj2.weight", "blocks.0.norm_x.weight"
HUGE = 1 << 60
ALIGNMENT = "general.alignment"
ORIGINAL = f"comfy.gguf.orig_shape.{PROJ}"


def _gguf(what: str, change: Callable[[Gguf], Any], reads: bool | None = False, kind: str = TALK) -> Crafted:
    """A right file, changed in place before it is written."""
    return crafted(f"GGUF {what}", kind, lambda: right_gguf(kind, change), reads, ".gguf")


def _raw(what: str, content: Callable[[], bytes] | bytes) -> Crafted:
    return crafted(f"GGUF {what}", TALK, content, False, ".gguf")


def _value(what: str, key: str | bytes, kind: int, content: bytes, reads: bool | None = False) -> Crafted:
    return _gguf(f"with {what}", lambda file: file.values.append((key, kind, content)), reads)


def _tensor(what: str, change: Callable[[tuple], tuple], of: str = PROJ) -> Crafted:
    """A right file, but for one tensor (name, dimensions, type, data)."""

    def edit(file: Gguf) -> None:
        place = next(i for i, tensor in enumerate(file.tensors) if tensor[0] == of)
        file.tensors[place] = change(file.tensors[place])

    return _gguf(f"with {of} {what}", edit)


def _set(**fields: Any) -> Callable[[Gguf], None]:
    def change(file: Gguf) -> None:
        for name, value in fields.items():
            setattr(file, name, value)

    return change


def _aligned(what: str, number: int, reads: bool | None = False) -> Crafted:
    return _value(f"an alignment of {what}", ALIGNMENT, U32, struct.pack("<I", number), reads)


def _numbers(kind: int, letter: str, *numbers: float) -> bytes:
    return array_of(kind, letter, numbers)


def _header(what: str, rest: bytes, tensors: int = 0, values: int = 1) -> Crafted:
    return _raw(what, b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest)


def _of_big_endian() -> bytes:
    return b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100)


def _empty_strings(count: int) -> bytes:
    return text("tokens") + struct.pack("<IIQ", ARRAY, STRING, count) + bytes(8 * count)


KEY = text("a") + struct.pack("<I", ARRAY)
GGUFS = (
    _gguf("right", lambda file: None, True),
    _gguf("of Uni3C", lambda file: None, True, "uni3c"),
    _gguf("of a Wan model", lambda file: None, True, "base"),
    _gguf("of an encoder", lambda file: None, False, "encoder"),
    *(_gguf(f"of version {n}", _set(version=n)) for n in (0, 1, 4, 1 << 31)),
    _raw("for machines of the other byte order", _of_big_endian),
    *(_gguf(f"of {n} tensors", _set(counts=(n, 1))) for n in (0, 1_000_000, HUGE, (1 << 64) - 1)),
    *(_gguf(f"of {n} values", _set(counts=(10, n))) for n in (0, 1_000_000, HUGE, (1 << 64) - 1)),
    *(_header(f"with a key of {n} letters", struct.pack("<Q", n) + b"abc") for n in (1 << 31, HUGE, (1 << 64) - 1)),
    _header("with a text of 2^60 letters", text("a") + struct.pack("<IQ", STRING, HUGE) + b"abc"),
    _header("with lists in lists", text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1000) * 1000),
    _header("with a list of an unknown type", KEY + struct.pack("<IQ", 77, 3) + bytes(99)),
    _header("with a list of 2^60 numbers", KEY + struct.pack("<IQ", U8, HUGE) + bytes(99)),
    _header("with a list of 2^60 empty texts", KEY + struct.pack("<IQ", STRING, HUGE) + bytes(20_000_000)),
    _header("with 7 million empty texts", _empty_strings(7_000_000)),
    _header("with 500,000 keys", (text("a") + struct.pack("<IB", U8, 1)) * 500_000, values=500_000),
    _header("with a value of an unknown type", text("a") + struct.pack("<I", 77) + bytes(99)),
    _raw("of many tensors", lambda: Gguf([], [(str(i), [0], GGUF_F32, b"") for i in range(30_000)]).bytes()),
    *(_aligned(str(n), n) for n in (0, 1, 3, 33, 48, 1 << 31)),
    _aligned("64 that its data may have", 64, None),
    _value("an alignment that is a text", ALIGNMENT, STRING, text("32")),
    _value("an alignment of 32.0", ALIGNMENT, F32, struct.pack("<f", 32.0)),
    _value("a negative alignment", ALIGNMENT, I32, struct.pack("<i", -32)),
    _value("an alignment that is a list", ALIGNMENT, ARRAY, _numbers(U32, "I", 32)),
    _value("an alignment that is true", ALIGNMENT, BOOL, b"\x01"),
    _value("the alignment that it has", ALIGNMENT, U64, struct.pack("<Q", 32), True),
    _value("a key twice", "general.architecture", STRING, text("wan")),
    _value("a key that is no text", b"\xff\xfe", STRING, text("a"), None),
    _value("a value that is no text", "note", STRING, text(b"\xff\xfe"), None),
    _tensor("twice", lambda t: (NORM, *t[1:])),
    _tensor("without a name", lambda t: ("", *t[1:])),
    _tensor("with a name of a megabyte", lambda t: ("x" * 1_000_000, *t[1:])),
    _tensor("with a name of lines", lambda t: ("a\nb", *t[1:])),
    _tensor("with a name that is no text", lambda t: (b"\xff\xfe", *t[1:])),
    *(_gguf(f"with tensors of {n} dimensions", _set(dimensions=n)) for n in (0, 9, 100, (1 << 32) - 1)),
    _tensor("of no dimension", lambda t: (t[0], [], *t[2:])),
    _tensor("of no row", lambda t: (t[0], [32, 0], *t[2:])),
    _tensor("of 2^63 rows", lambda t: (t[0], [32, 1 << 63], *t[2:])),
    _tensor("of 2^60 rows", lambda t: (t[0], [32, HUGE], *t[2:])),
    _tensor("of rows of 33", lambda t: (t[0], [33, 32], *t[2:])),
    _tensor("with other dimensions", lambda t: (t[0], [64, 16], *t[2:])),
    *(_tensor(f"of the type {n}", lambda t, n=n: (*t[:2], n, t[3])) for n in (4, 31, 99, (1 << 32) - 1)),
    _tensor("in numbers of 16 bits", lambda t: (*t[:2], GGUF_F16, t[3])),
    _tensor("without its data", lambda t: (*t[:3], b"")),
    _tensor("with a scale of NaN", lambda t: (*t[:3], b"\x00\x7e" + t[3][2:])),
    _tensor("with an infinite scale", lambda t: (*t[:3], t[3][:-34] + b"\x00\x7c" + t[3][-32:])),
    _tensor("with NaN", lambda t: (*t[:3], b"\x00\x00\xc0\x7f" + t[3][4:]), NORM),
    *(_gguf(f"with a place of {what}", _set(places={PROJ: n})) for what, n in [("0", 0), ("7", 7), ("2^60", HUGE)]),
    _gguf("with a place of 2^64 - 32", _set(places={PROJ: (1 << 64) - 32})),
    _value("an original shape that is a text", ORIGINAL, STRING, text("32, 32")),
    _value("an original shape that is negative", ORIGINAL, ARRAY, _numbers(I32, "i", -32, -32)),
    _value("an original shape of floats", ORIGINAL, ARRAY, _numbers(F32, "f", 32.0, 32.0)),
    _value("an original shape of another size", ORIGINAL, ARRAY, _numbers(I32, "i", 32, 31)),
    _value("an original shape of nothing", ORIGINAL, ARRAY, _numbers(I32, "i"), None),
    _value("an original shape that is a number", ORIGINAL, U32, struct.pack("<I", 1024)),
    _value("an original shape of 1,000 ones", ORIGINAL, ARRAY, _numbers(I32, "i", *[1] * 1000, 32, 32), None),
    _value("a scale for blocks", "note", U32, struct.pack("<I", 1), True),
    _gguf("and a scale", lambda f: f.tensors.append(("audio_proj.proj2.scale_weight", [1], GGUF_F32, bytes(4)))),
    _gguf("without a tensor", lambda file: file.tensors.pop()),
    _gguf("and one tensor more", lambda file: file.tensors.append(("more", [1], GGUF_F32, bytes(4)))),
    _gguf("and a block too far", lambda f: f.tensors.append(("blocks.1000000000.a", [1], GGUF_F32, bytes(4)))),
    _gguf("with a bias in blocks", lambda f: f.tensors.append(("b", [32], GGUF_Q8_0, bytes(34)))),
    *(_raw(f"cut off after {n} bytes", lambda n=n: right_gguf()[:n]) for n in (5, 8, 20, 24, 30, 100, 1000, -1, -5000)),
)
