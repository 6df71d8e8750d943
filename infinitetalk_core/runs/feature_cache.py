"""Features of long voices on the disk, so that a run that goes on need not hear its voice again.

A file a voice, named by its key: the numbers as they are, then the key, their shape and their checksum as JSON in
END_BYTES. It is no part of a run: the voice is heard before it is known which run it is for. So it is kept within
limits of its own, and a file that is missing, damaged, another voice's or refused by the disk costs the hearing and
nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
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
from ..speech import SpeechFeatures
from .disk import Disk

SUFFIX = ".voice"
FORMAT = 2
END_BYTES = 256
ROWS_AT_ONCE = 256  # of wav2vec base 9 MB
READ_BYTES = 1 << 24
MOST_BYTES = 10_000_000_000  # all together: 3 hours of wav2vec base
DAY_SECONDS = 86400.0

log = logging.getLogger("infinitetalk")


class CachedFeatures(DiskTensor):
    """Features that are read from their file, a few rows at a time. end: what `_check` found in it."""

    def __init__(self, file: IO[bytes], end: _End, path: Path) -> None:
        super().__init__(file, end.shape)
        self._end, self._path = end, path

    def _read(self, first: int, stop: int) -> Tensor:
        try:
            return super()._read(first, stop)
        except OSError:
            # A network drive that was away never takes an old handle back, and ComfyUI goes on handing this voice out.
            if not self._path.exists():
                raise
            file = self._path.open("rb", buffering=0)
            if _check(file) != self._end:
                file.close()
                raise
            with self._lock:
                self._file = file
        return super()._read(first, stop)

    def give_up(self) -> None:
        """Nothing will go on with them: the file loses its name. Where a file that is open can lose it (not on
        Windows) they can be read until they are let go; elsewhere it stays until there is no room for it."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class FeatureCache:
    """The folder of them. most_bytes: what they may take, or one voice that takes more; who was needed last stays."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES, disk: Disk | None = None) -> None:
        self.folder, self._most, self._disk = folder, most_bytes, disk or Disk()

    def get_or_encode(self, key: str, encode: Callable[[], SpeechFeatures]) -> SpeechFeatures:
        """The features (F, layers, channels) that are kept under `key`, or what `encode` gives, which is kept then.

        key: equal for equal features, good for a file name.
        """
        if (found := self._find(key)) is not None:
            log.info("InfiniteTalk: this voice was heard before; its features are read from %s", self.folder)
            return found
        voice = encode()
        try:
            self._keep(key, voice)
        except OSError as error:
            log.warning("InfiniteTalk: a run that is continued will have to hear this voice again: %s", error)
            return voice
        return self._find(key) or voice

    def remove_older(self, days: float, now: float | None = None) -> int:
        """Remove what nobody has needed for so many days; the bytes that are left."""
        now = time.time() if now is None else now
        left = 0
        for path, needed, size in self._files():
            if now - needed >= days * DAY_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
                    continue
            left += size
        return left

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _find(self, key: str) -> CachedFeatures | None:
        path = self._path(key)
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            return None
        end = _check(file)
        if end is not None and end.key == key:
            with contextlib.suppress(OSError):
                os.utime(path)  # needed now
            return CachedFeatures(file, end, path)
        file.close()
        what = "is damaged" if end is None else "is another voice's under this one's name"
        log.warning("InfiniteTalk: %s %s; the voice is heard again", path, what)
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _keep(self, key: str, voice: SpeechFeatures) -> None:
        self._disk.make_folder(self.folder)
        self._make_room(prod(voice.shape) * 4 + END_BYTES)
        self._disk.write(self._path(key), _content(key, voice))

    def _make_room(self, size: int) -> None:
        """Remove those that were needed longest ago, and what a crash left half written, as far as there is no room."""
        found = sorted(self._files(), key=lambda entry: entry[1])
        over = sum(taken for _, _, taken in found) + size - self._most
        for path, _, taken in found:
            if over <= 0:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                over -= taken

    def _files(self) -> list[tuple[Path, float, int]]:
        """Each with the time of day when it was needed last and its bytes."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                status = path.stat()
                found.append((path, status.st_mtime, status.st_size))
        return found


@dataclass(frozen=True)
class _End:
    """What stands at the end of a file."""

    key: str
    shape: tuple[int, ...]
    crc32: int

    def to_bytes(self) -> bytes:
        return json.dumps({"format": FORMAT, **vars(self)}).encode().ljust(END_BYTES)

    @staticmethod
    def of(data: bytes) -> _End:
        """Raises ValueError, KeyError or TypeError for anything else, and for files of earlier versions."""
        found = json.loads(data)
        if found["format"] != FORMAT:
            raise ValueError("a file of another version")
        return _End(found["key"], tuple(found["shape"]), found["crc32"])


def _content(key: str, voice: SpeechFeatures) -> Iterator[bytes]:
    """The file, in parts."""
    checksum = 0
    for start in range(0, len(voice), ROWS_AT_ONCE):
        rows = voice[torch.arange(start, min(start + ROWS_AT_ONCE, len(voice)))]
        part = rows.numpy().tobytes()
        checksum = zlib.crc32(part, checksum)
        yield part
    yield _End(key, tuple(voice.shape), checksum).to_bytes()


def _check(file: IO[bytes]) -> _End | None:
    """What stands at the end of a file; None if the numbers are not all there and as they were."""
    try:
        numbers = file.seek(0, os.SEEK_END) - END_BYTES
        file.seek(max(numbers, 0))
        end = _End.of(file.read(END_BYTES))
        if prod(end.shape) * 4 != numbers:
            return None
        file.seek(0)
        checksum = 0
        while numbers:
            part = file.read(min(READ_BYTES, numbers))
            if not part:
                return None
            checksum = zlib.crc32(part, checksum)
            numbers -= len(part)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return end if checksum == end.crc32 else None
