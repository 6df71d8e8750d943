"""HEIF pictures (HEIC, AVIF) that are stored in tiles, of which FFmpeg decodes each as a picture of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import InputError

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"avif", b"avis"}
_MOST_BOXES = 64
_MOST_BYTES = 1 << 20  # of the box that lists the items; phones write a few thousand
_MADE_OF_OTHERS = {b"grid": "in tiles", b"iovl": "in layers"}


def refuse_tiles(file: BinaryIO, name: str) -> None:
    """Raise InputError if `file` is a HEIF picture made of several coded ones, as phones write them."""
    how = _MADE_OF_OTHERS.get(_primary_type(file) or b"")
    if how is not None:
        raise InputError(
            f"{name} is a HEIC or AVIF picture stored {how}, as phones do, of which only a part would be seen: "
            "save it as JPEG or PNG"
        )


def _primary_type(file: BinaryIO) -> bytes | None:
    """Return the type of the item that the file shows, such as b"hvc1"; None if it is no HEIF picture."""
    file.seek(0)
    meta = None
    for number in range(_MOST_BOXES):
        head = file.read(8)
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head)
        header = 8
        if size == 1:
            size, header = int.from_bytes(file.read(8), "big"), 16
        if number == 0:
            brands = file.read(min(max(size - header, 0), 256)) if kind == b"ftyp" else b""
            if not {brands[i : i + 4] for i in range(0, len(brands), 4)} & _BRANDS:
                return None
            file.seek(size)
            continue
        if kind == b"moov":
            return None  # a sequence: it has a video track
        if kind == b"meta":
            meta = file.read(min(max(size - header, 0), _MOST_BYTES))
        elif size >= header:
            file.seek(size - header, 1)
        if size < header:  # damaged, or up to the end of the file
            break
    return None if meta is None else _type_in(meta)


def _type_in(meta: bytes) -> bytes | None:
    primary: int | None = None
    types: dict[int, bytes] = {}
    for kind, body in _boxes(meta[4:]):
        if kind == b"pitm" and len(body) >= 6:
            primary = int.from_bytes(body[4 : 6 if body[0] == 0 else 8], "big")
        elif kind == b"iinf":
            for entry_kind, entry in _boxes(body[6 if body[:1] == b"\0" else 8 :]):
                if entry_kind == b"infe" and len(entry) >= 12:
                    wide = 2 if entry[0] < 3 else 4  # bytes of an item's number
                    types[int.from_bytes(entry[4 : 4 + wide], "big")] = entry[6 + wide : 10 + wide]
    return types.get(primary) if primary is not None else None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of the boxes in `data`; stops at what is none."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size
