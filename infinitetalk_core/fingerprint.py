"""Fingerprints: short strings that are equal exactly where the content is, whatever it is called and wherever it lies.

One rule: content is taken whole, and through the same handle or object, and at the same moment, as what is used.
The one exception are weights of several gigabytes (`SAMPLED_FROM_BYTES`), see `FileFingerprints`.

A job is described by the fields of its dataclasses (`describe`). A field that does not change the video says so where
it is declared, with the reason: `field(metadata=excluded("where the file goes, not what is in it"))`.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import xxhash
from torch import Tensor

from .cache import FileStamp
from .errors import InputError

PIECE_BYTES = 1 << 24
# Weights files from here on are known by samples and by both of their times.
SAMPLED_FROM_BYTES = 2 << 30
SAMPLE_BYTES, SAMPLES = 1 << 16, 256
KEY_DIGITS = 32  # hexadecimal
LISTED_NUMBERS = 256  # a tensor of no more is described by its numbers
EXCLUDED = "excluded from the fingerprint"
ABSENT = ...  # no description has it
SCALARS = (type(None), bool, str, enum.Enum, np.generic, Real)


def excluded(reason: str) -> dict[str, str]:
    """Metadata of a dataclass field that does not change the video. reason: why not."""
    return {EXCLUDED: reason}


@dataclasses.dataclass(frozen=True)
class Component:
    """A model or another object of the host. fingerprint: JSON, equal exactly where it computes the same."""

    value: Any = dataclasses.field(metadata=excluded("it cannot be read here; it is known by its fingerprint"))
    fingerprint: Any


def describe(value: Any, describe_unknown: Callable[[Any], Any] | None = None) -> Any:
    """`value` as JSON that is equal exactly where its content is.

    Dataclasses by their fields, but for excluded ones; tensors by content; other objects by their `fingerprint()`.
    describe_unknown: gives the JSON for what has none of these; without it that is a TypeError, so that nothing is left
    out in silence.
    """
    if callable(getattr(value, "fingerprint", None)):
        return value.fingerprint()
    if isinstance(value, np.ndarray) and value.dtype != object:
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor) and value.layout is torch.strided:
        return _describe_tensor(value)
    if isinstance(value, SCALARS):
        return _describe_scalar(value)
    if isinstance(value, Mapping):
        return {str(name): describe(item, describe_unknown) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item, describe_unknown) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return describe_fields(value, describe_unknown)
    if describe_unknown is not None:
        return describe_unknown(value)
    raise TypeError(f"{type(value).__name__} has no fingerprint: give it a method `fingerprint` or exclude the field")


def _describe_scalar(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return str(value) if isinstance(value, Fraction) else float(value)


def describe_fields(value: Any, describe_unknown: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """A dataclass by its fields, but for excluded ones; for its own `fingerprint()`, where it needs one."""
    counted = [f.name for f in dataclasses.fields(value) if EXCLUDED not in f.metadata]
    return {
        "type": type(value).__name__,
        **{name: describe(getattr(value, name), describe_unknown) for name in counted},
    }


def _describe_tensor(tensor: Tensor) -> Any:
    if tensor.numel() <= LISTED_NUMBERS and tensor.is_floating_point():
        return {"dtype": str(tensor.dtype), "values": tensor.cpu().double().tolist()}
    return tensor_fingerprint(tensor)


def key_of(description: Any) -> str:
    """A name (32 hexadecimal digits) for what `describe` gave: equal exactly where that is."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def tensor_fingerprint(tensor: Tensor) -> str:
    """Type, shape and the whole content of a tensor on any device, in pieces (6 GB/s and more)."""
    digest = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for piece in _pieces(tensor.detach()):
        digest.update(piece.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Parts in order, so that a large view or a file-backed tensor is never copied as a whole."""
    if tensor.ndim == 0 or tensor.numel() * tensor.element_size() <= PIECE_BYTES:
        yield tensor
    elif tensor.is_contiguous():
        yield from tensor.reshape(-1).split(max(PIECE_BYTES // tensor.element_size(), 1))
    elif tensor.ndim == 1:
        yield from tensor.split(max(PIECE_BYTES // tensor.element_size(), 1))
    else:
        for row in tensor:
            yield from _pieces(row)


def stream_fingerprint(file: BinaryIO, between: Callable[[], None] = lambda: None) -> str:
    """Size and whole content of a seekable binary file. Its position stays.

    between: called after each 16 MB; what it raises ends the reading.
    """
    here = file.tell()
    digest = xxhash.xxh3_128(str(file.seek(0, os.SEEK_END)).encode())
    file.seek(0)
    while part := file.read(PIECE_BYTES):
        digest.update(part)
        between()
    file.seek(here)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Of a file's whole content. A copy has the same. Raises OSError where it cannot be read."""
    with open(path, "rb", buffering=0) as file:
        return stream_fingerprint(file)


def _sampled_fingerprint(file: BinaryIO, size: int) -> str:
    digest = xxhash.xxh3_128(str(size).encode())
    for number in range(SAMPLES):
        file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


class FileFingerprints:
    """Fingerprints of files, remembered as long as a file stays as it is by its stamp (`FileStamp`). Thread-safe.

    Files below 2 GiB are read whole: a copy has the same. Larger ones, which are weights, by samples of 16 MB in all
    together with the times of their last change of content and of inode, so that a change between the samples counts
    too, and so does a copy. between: called while files are read; what it raises ends the reading.
    """

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self._between = between
        self._known: dict[Path, tuple[FileStamp, str]] = {}
        self._open: dict[FileStamp, str] = {}
        self._lock = threading.Lock()

    def of_open(self, file: BinaryIO) -> str:
        """The whole content of an open file, read through this handle; from memory where the same file was read before.

        Raises InputError where it is written to meanwhile.
        """
        try:
            stamp = FileStamp.of_open(file)
        except (OSError, ValueError, AttributeError):  # a stream in memory
            return stream_fingerprint(file)
        with self._lock:
            found = self._open.get(stamp)
        if found is None:
            found = stream_fingerprint(file, self._between)
            now = FileStamp.of_open(file)
            if not now.same_content(stamp):
                raise InputError(f"{Path(stamp.path).name} was changed while it was read: run again")
            with self._lock:
                self._open[now] = found
        return found

    def of(self, path: Path) -> tuple[FileStamp, str]:
        """The stamp and the fingerprint of the file at `path`. Raises InputError where it changes while it is read,
        OSError where it cannot be read."""
        stamp = FileStamp.of(path)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known
        found = _read_fingerprint(path, self._between)
        if FileStamp.of(path) != stamp:
            raise InputError(f"{path.name} was changed while it was read: wait until it is written, and run again")
        with self._lock:
            self._known[path] = (stamp, found)
        return stamp, found


def _read_fingerprint(path: Path, between: Callable[[], None]) -> str:
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if status.st_size < SAMPLED_FROM_BYTES:
            return stream_fingerprint(file, between)
        return f"{_sampled_fingerprint(file, status.st_size)} {status.st_mtime_ns} {status.st_ctime_ns}"


def differences(one: Any, other: Any, place: Sequence[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Where two descriptions differ: (path such as `versions.torch`, what the one says, what the other says), ABSENT
    where one of them says nothing."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            yield from differences(one.get(name, ABSENT), other.get(name, ABSENT), (*place, str(name)))
    elif one != other:
        yield ".".join(place), one, other
