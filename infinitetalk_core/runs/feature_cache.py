"""Disk cache of speech features, so that a resumed run need not encode its voice again.

One file per voice, named by its key: the float32 numbers, then a footer of END_BYTES with key, shape and checksum as
JSON. The cache is not part of a run, because a voice is encoded before its run is known. It has its own size limit, and
a file that is missing, damaged, of another voice or not writable only means that the voice is encoded again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ..disk_buffer import DiskTensor
from ..file_access import is_regular, open_regular
from ..log import log
from ..speech import SpeechFeatures
from .disk import SCRATCH, Disk

SUFFIX = ".voice"
FORMAT = 2
END_BYTES = 256
ROWS_AT_ONCE = 256  # rows written at once: 9 MB for wav2vec base
READ_BYTES = 1 << 24
MOST_BYTES = 10_000_000_000  # limit of the whole cache: 3 hours of wav2vec base
DAY_SECONDS = 86400.0
_OWN = rf"[0-9a-f]+{re.escape(SUFFIX)}({re.escape(SCRATCH)})?"


class CachedFeatures(DiskTensor):
    """Features (F, layers, channels) read from their cache file, a few rows at a time. footer: from `_read_footer`."""

    def __init__(self, file: IO[bytes], footer: _Footer, path: Path) -> None:
        super().__init__(file, footer.shape)
        self._footer, self._path = footer, path

    def _read(self, first: int, stop: int) -> Tensor:
        try:
            return super()._read(first, stop)
        except OSError:
            # Reopen: handles stay invalid after a network drive was disconnected, and ComfyUI keeps this object cached.
            if not self._path.exists():
                raise
            file = _open(self._path)
            if _read_footer(file) != self._footer:
                file.close()
                raise
            with self._lock:
                self._file = file
        return super()._read(first, stop)

    def delete_file(self) -> None:
        """Delete the file, because no run will need it again. Where an open file can be deleted (not on Windows), these
        features stay readable; elsewhere the file stays until it is evicted."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class FeatureCache:
    """A least-recently-used cache of speech features in `folder`.

    most_bytes: limit of the whole cache; a single voice may exceed it.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES, disk: Disk | None = None) -> None:
        self.folder, self._most, self._disk = folder, most_bytes, disk or Disk()

    def get_or_encode(self, key: str, encode: Callable[[], SpeechFeatures]) -> SpeechFeatures:
        """Return the features (F, layers, channels) cached under `key`, or call `encode` and cache its result.

        key: equal for equal features, valid as a file name. If caching fails, the features come from memory.
        """
        if (found := self._open(key)) is not None:
            log.info("this voice was encoded before; its features are read from %s", self.folder)
            return found
        features = encode()
        try:
            self._store(key, features)
        except OSError as error:
            log.warning("the features of this voice are not cached, so a resumed run will encode it again: %s", error)
            return features
        return self._open(key) or features

    def remove_older(self, days: float, now: float | None = None) -> int:
        """Remove features not used for `days` days. Returns the bytes that remain."""
        now = time.time() if now is None else now
        left = 0
        for path, last_used, size in self._files():
            if now - last_used >= days * DAY_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
                    continue
            left += size
        return left

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _open(self, key: str) -> CachedFeatures | None:
        path = self._path(key)
        try:
            file = _open(path)
        except OSError:
            return None
        footer = _read_footer(file)
        if footer is not None and footer.key == key:
            with contextlib.suppress(OSError):
                os.utime(path)  # mark as used now
            return CachedFeatures(file, footer, path)
        file.close()
        problem = "is damaged" if footer is None else "is another voice's under this one's name"
        log.warning("%s %s; the voice is encoded again", path, problem)
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _store(self, key: str, features: SpeechFeatures) -> None:
        self._disk.make_folder(self.folder)
        self._evict(prod(features.shape) * 4 + END_BYTES)
        self._disk.write(self._path(key), _file_content(key, features))

    def _evict(self, size: int) -> None:
        """Remove the least recently used files, partly written ones of a crash included, until `size` bytes fit."""
        found = sorted(self._files(), key=lambda entry: entry[1])
        excess = sum(size_bytes for _, _, size_bytes in found) + size - self._most
        for path, _, size_bytes in found:
            if excess <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                excess -= size_bytes

    def _files(self) -> list[tuple[Path, float, int]]:
        """List (path, time of last use in s since 1970, size in bytes), partly written files included."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                status = path.lstat()
                if re.fullmatch(_OWN, path.name) and is_regular(path):
                    found.append((path, status.st_mtime, status.st_size))
        return found


@dataclass(frozen=True)
class _Footer:
    """The metadata at the end of a cache file."""

    key: str
    shape: tuple[int, ...]
    crc32: int

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **vars(self)}).encode().ljust(END_BYTES)

    @staticmethod
    def of(data: bytes) -> _Footer:
        """Parse a footer. Raises ValueError, KeyError or TypeError if it is none or of another version."""
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise ValueError("a file of another version")
        return _Footer(found["key"], tuple(found["shape"]), found["crc32"])


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(open_regular(path), "rb", buffering=0)


def _file_content(key: str, features: SpeechFeatures) -> Iterator[bytes]:
    """Yield the content of a cache file in parts: rows of float32, then the footer."""
    checksum = 0
    for start in range(0, len(features), ROWS_AT_ONCE):
        rows = features[torch.arange(start, min(start + ROWS_AT_ONCE, len(features)))]
        part = rows.numpy().tobytes()
        checksum = zlib.crc32(part, checksum)
        yield part
    yield _Footer(key, tuple(features.shape), checksum).to_bytes()


def _read_footer(file: IO[bytes]) -> _Footer | None:
    """Read the footer and verify size and checksum of the whole file. Returns None if anything is wrong."""
    try:
        size_bytes = file.seek(0, os.SEEK_END) - END_BYTES
        file.seek(max(size_bytes, 0))
        footer = _Footer.of(file.read(END_BYTES))
        if prod(footer.shape) * 4 != size_bytes:
            return None
        file.seek(0)
        checksum = 0
        while size_bytes:
            part = file.read(min(READ_BYTES, size_bytes))
            if not part:
                return None
            checksum = zlib.crc32(part, checksum)
            size_bytes -= len(part)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return footer if checksum == footer.crc32 else None
