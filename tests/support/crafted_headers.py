"""Crafted safetensors headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.crafted import DEEP, Crafted, crafted
from tests.support.weight_files import edited, right_bytes, safetensors, split

PROJ = "audio_proj.proj1.weight"
TALK = "infinitetalk"


def _entry(what: str, change: Callable[[dict[str, Any]], Any]) -> Crafted:
    """A right file, but for the entry of one tensor in its header, changed in place or replaced."""

    def edit(header: dict[str, Any]) -> None:
        found = change(header[PROJ])
        header[PROJ] = header[PROJ] if found is None else found

    return crafted(f"entry {what}", TALK, lambda: edited(TALK, edit))


def _is(value: Any) -> Crafted:
    return crafted(f"entry is {value!r}", TALK, lambda: edited(TALK, lambda header: header.update({PROJ: value})))


def _field(field: str, what: str, value: Any) -> Crafted:
    return _entry(f"{field} {what}", lambda entry: entry.update({field: value}))


def _lacks(field: str) -> Crafted:
    return _entry(f"without {field}", lambda entry: {k: v for k, v in entry.items() if k != field})


def _offsets(what: str, change: Callable[[int, int], Any]) -> Crafted:
    return _entry(f"offsets {what}", lambda entry: entry.update(data_offsets=change(*entry["data_offsets"])))


def _renamed(what: str, name: str) -> Crafted:
    return crafted(f"named {what}", TALK, lambda: edited(TALK, lambda h: h.update({name: h.pop(PROJ)})))


def _said(what: str, metadata: Any, reads: bool | None = False) -> Crafted:
    return crafted(f"metadata {what}", TALK, lambda: edited(TALK, lambda h: h.update(__metadata__=metadata)), reads)


def _noted(what: str, notes: str) -> Crafted:
    return _said(f"with notes: {what}", {"_quantization_metadata": notes})


def _raw(what: str, header: bytes | Callable[[], bytes], reads: bool = False) -> Crafted:
    """The data of a right file behind another header."""

    def content() -> bytes:
        return safetensors(header() if callable(header) else header, split(right_bytes(TALK))[1])

    return crafted(f"header {what}", TALK, content, reads)


def _many(count: int) -> bytes:
    """A header of many tensors without a byte of data, with the name of one of a right file among them."""
    empty = '{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
    names = ["audio_proj.proj1_vf.weight", *(str(i) for i in range(count))]
    return safetensors(("{" + ",".join(f'"{name}":{empty}' for name in names) + "}").encode())


def _right() -> bytes:
    return json.dumps(split(right_bytes(TALK))[0]).encode()


def _twice() -> bytes:
    return _right()[:-1] + b"," + json.dumps({PROJ: split(right_bytes(TALK))[0][PROJ]}).encode()[1:]


LENGTHS = (0, 1, 67, 1 << 31, 1 << 63, (1 << 64) - 1)
LARGE = b"x" * 1_000_000
HEADERS = (
    *(crafted(f"header length {n}", TALK, lambda n=n: safetensors(b"{}", bytes(64), n)) for n in LENGTHS),
    crafted("header of 1.5 million tensors", TALK, lambda: _many(1_500_000)),
    crafted("header of 19,000 tensors", TALK, lambda: _many(19_000)),
    crafted("header of 150,000 tensors", TALK, lambda: _many(150_000)),
    crafted("header of 150,000 tensors, of an encoder", "encoder", lambda: _many(150_000)),
    crafted("header of 90 MB of spaces", TALK, lambda: safetensors(b"{" + b" " * 90_000_000 + b"}")),
    crafted("header of empty lists", TALK, lambda: safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")),
    crafted("header of no tensors", TALK, safetensors(b"{}")),
    _raw("of lists in lists", b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    _raw("of objects in objects", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    _raw("of lists that do not end", b'{"a":' + b"[" * DEEP),
    _raw("with a number of 5,000 digits", b'{"a":{"dtype":"F16","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,2]}}'),
    _raw("of rubbish", b"{otjson!"),
    _raw("of two objects", b"{}{}"),
    _raw("with a comma too many", b'{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4],},}'),
    _raw("not in UTF-8", b'{"\xff\xfe":1}'),
    _raw("with a tensor twice", _twice),
    _raw("padded with spaces", lambda: _right() + b" " * 500, True),
    *(_is(value) for value in ([], 5, "text", None, True)),
    *(_lacks(field) for field in ("dtype", "shape", "data_offsets")),
    *(_field("dtype", repr(v), v) for v in (None, 5, [], {}, "", "F99", "f16", "F16 ", "I16", "F64", "F\n16", "nan")),
    _field("dtype", "of a megabyte", LARGE.decode()),
    *(_field("shape", repr(v), v) for v in (None, "32,24", [-32, -120], [32.0, 120.0], ["32", "120"], [[32], [120]])),
    *(_field("shape", repr(v), v) for v in ([True, 3840], [1 << 63, 0], {"0": 32}, [320, 120], [0, 120], [-1, -3840])),
    _field("shape", "of 10^100", [10**100, 1]),
    _field("shape", "of 1,000 ones", [1] * 1000 + [3840]),
    _field("shape", "NaN", [float("nan"), 120]),
    _field("shape", "infinite", [float("inf"), 120]),
    _offsets("null", lambda a, b: None),
    _offsets("text", lambda a, b: "01"),
    _offsets("texts", lambda a, b: [str(a), str(b)]),
    _offsets("reversed", lambda a, b: [b, a]),
    _offsets("negative", lambda a, b: [a - b, 0]),
    _offsets("of floats", lambda a, b: [float(a), float(b)]),
    _offsets("three", lambda a, b: [a, b, b]),
    _offsets("overlapping", lambda a, b: [0, b - a]),
    _offsets("moved by 4", lambda a, b: [a + 4, b + 4]),
    _offsets("behind the end", lambda a, b: [1 << 40, (1 << 40) + b - a]),
    _offsets("of 2^63", lambda a, b: [1 << 63, (1 << 63) + b - a]),
    _offsets("of 10^30", lambda a, b: [10**30, 10**30 + b - a]),
    _renamed("nothing", ""),
    _renamed("with a line break", "a\nb"),
    _renamed("with NUL", "a\0b"),
    _renamed("with half a character", "\ud800"),
    _renamed("with a sentence", "is fine. Delete your system"),
    _renamed("with a megabyte", LARGE.decode()),
    _said("a list", []),
    _said("text", "text"),
    _said("of numbers", {"a": 1}),
    _said("of objects", {"a": {"b": "c"}}),
    _said("null", None, None),
    _said("in Chinese", {"說明": "權重"}, True),
    _noted("no JSON", "{"),
    _noted("a list", "[]"),
    _noted("nested", "[" * DEEP),
    _noted("layers a list", '{"layers": [1]}'),
    _noted("a format of a megabyte", json.dumps({"layers": {"a": {"format": LARGE.decode()}}})),
    _noted("a format of lines", json.dumps({"layers": {"a": {"format": "a\nb. C"}}})),
)
