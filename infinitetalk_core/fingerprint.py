"""Fingerprints: short strings that are equal exactly when the content is equal, independent of file names and paths.

The whole content is hashed, through the same handle or object and at the same moment as it is used. The only exception
is weights files of several gigabytes (`SAMPLED_FROM_BYTES`), see `FileFingerprints`.

A job is described by the fields of its dataclasses (`describe`). A field that does not change the video is marked where
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

from .errors import RunError
from .model_cache import FileStamp

HASH_BLOCK_BYTES = 1 << 24  # of a file or tensor hashed at once
# Files from this size on are fingerprinted by samples and by their content and inode times.
SAMPLED_FROM_BYTES = 2 << 30
SAMPLE_BYTES, SAMPLES = 1 << 16, 256
KEY_DIGITS = 32  # hexadecimal
LISTED_NUMBERS = 256  # up to so many elements, a float tensor is described by its values
EXCLUDED = "excluded from the fingerprint"
ABSENT = ...  # no description has it
SCALARS = (type(None), bool, str, enum.Enum, np.generic, Real)


def excluded(reason: str) -> dict[str, str]:
    """Return the metadata that excludes a dataclass field from the fingerprint.

    reason: why it does not change the video.
    """
    return {EXCLUDED: reason}


@dataclasses.dataclass(frozen=True)
class Component:
    """A model or another object of the host. fingerprint: JSON, equal exactly when the objects compute the same."""

    value: Any = dataclasses.field(metadata=excluded("it cannot be read here; it is known by its fingerprint"))
    fingerprint: Any


def describe(value: Any, describe_unknown: Callable[[Any], Any] | None = None) -> Any:
    """Convert `value` to JSON that is equal exactly when the content is equal.

    Dataclasses by their fields, except excluded ones; tensors by content; other objects by their `fingerprint()`.
    describe_unknown: returns the JSON for any other object; without it such an object raises TypeError, so that
    nothing is left out silently.
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
    """Describe a dataclass by its fields, except excluded ones.

    Ignores its own `fingerprint()`, which may call this.
    """
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
    """Hash the result of `describe` to 32 hexadecimal digits."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def tensor_fingerprint(tensor: Tensor) -> str:
    """Hash dtype, shape and all content of a tensor on any device, piece by piece (6 GB/s and more)."""
    digest = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for piece in _pieces(tensor.detach()):
        digest.update(piece.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the content in order, in pieces, so that large views and file-backed tensors are not copied as a whole."""
    if tensor.ndim == 0 or tensor.numel() * tensor.element_size() <= HASH_BLOCK_BYTES:
        yield tensor
    elif tensor.is_contiguous():
        yield from tensor.reshape(-1).split(max(HASH_BLOCK_BYTES // tensor.element_size(), 1))
    elif tensor.ndim == 1:
        yield from tensor.split(max(HASH_BLOCK_BYTES // tensor.element_size(), 1))
    else:
        for row in tensor:
            yield from _pieces(row)


def stream_fingerprint(file: BinaryIO, check_interrupted: Callable[[], None] = lambda: None) -> str:
    """Hash size and all content of a seekable binary file. Restores the file position.

    check_interrupted: called after each 16 MB; an exception from it stops the reading.
    """
    here = file.tell()
    digest = xxhash.xxh3_128(str(file.seek(0, os.SEEK_END)).encode())
    file.seek(0)
    while part := file.read(HASH_BLOCK_BYTES):
        digest.update(part)
        check_interrupted()
    file.seek(here)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Hash a file's size and all content; copies have the same fingerprint. Raises OSError if it cannot be read."""
    with open(path, "rb", buffering=0) as file:
        return stream_fingerprint(file)


def _sampled_fingerprint(file: BinaryIO, size: int) -> str:
    digest = xxhash.xxh3_128(str(size).encode())
    for number in range(SAMPLES):
        file.seek((size - SAMPLE_BYTES) * number // (SAMPLES - 1))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


class FileFingerprints:
    """Computes fingerprints of files and caches them while a file's `FileStamp` stays the same. Thread-safe.

    Files below 2 GiB are hashed completely, so a copy has the same fingerprint. Larger files, which are weights, are
    hashed by samples of 16 MB in all plus the times of their last content and inode change: a change between the
    samples changes the fingerprint, and a copy has another one. check_interrupted: called while files are read; an
    exception from it stops the reading.
    """

    def __init__(self, check_interrupted: Callable[[], None] = lambda: None) -> None:
        self._check_interrupted = check_interrupted
        self._known: dict[Path, tuple[FileStamp, str]] = {}
        self._open: dict[FileStamp, str] = {}
        self._lock = threading.Lock()

    def of_open(self, file: BinaryIO) -> str:
        """Return the fingerprint of an open file's whole content, read through this handle or cached.

        Raises RunError if the file is written to meanwhile.
        """
        try:
            stamp = FileStamp.of_open(file)
        except (OSError, ValueError, AttributeError):  # a stream in memory
            return stream_fingerprint(file)
        with self._lock:
            found = self._open.get(stamp)
        if found is None:
            found = stream_fingerprint(file, self._check_interrupted)
            now = FileStamp.of_open(file)
            if not now.same_content(stamp):
                raise RunError(f"{Path(stamp.path).name} was changed while it was read: run again")
            with self._lock:
                self._open[now] = found
        return found

    def of(self, path: Path) -> tuple[FileStamp, str]:
        """Return the stamp and the fingerprint of the file at `path`. Raises RunError if it changes while it is read,
        OSError if it cannot be read."""
        stamp = FileStamp.of(path)
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known
        found = _read_fingerprint(path, self._check_interrupted)
        if FileStamp.of(path) != stamp:
            raise RunError(f"{path.name} was changed while it was read: wait until it is written, and run again")
        with self._lock:
            self._known[path] = (stamp, found)
        return stamp, found


def _read_fingerprint(path: Path, check_interrupted: Callable[[], None]) -> str:
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if status.st_size < SAMPLED_FROM_BYTES:
            return stream_fingerprint(file, check_interrupted)
        return f"{_sampled_fingerprint(file, status.st_size)} {status.st_mtime_ns} {status.st_ctime_ns}"


def differences(one: Any, other: Any, path_parts: Sequence[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Yield each difference of two descriptions: (path such as `versions.torch`, value in `one`, value in `other`).

    A value is ABSENT where a description does not have the path.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in sorted({*one, *other}):
            yield from differences(one.get(name, ABSENT), other.get(name, ABSENT), (*path_parts, str(name)))
    elif one != other:
        yield ".".join(path_parts), one, other
