"""Features of long voices on the disk, so that a run that goes on need not hear its voice again.

A file a voice, named by its key: the numbers as they are, then its shape and their checksum as JSON in END_BYTES. It is
no part of a run: the voice is heard before it is known which run it is for. So it is kept within limits of its own, and
a file that is missing, damaged or refused by the disk costs the hearing and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ..scratch import StoredRows
from ..speech import Voice
from .disk import Disk

SUFFIX = ".voice"
END_BYTES = 256
ROWS_AT_ONCE = 256  # of wav2vec base 9 MB
READ_BYTES = 1 << 24
MOST_BYTES = 10_000_000_000  # all together: 3 hours of wav2vec base
DAY_SECONDS = 86400.0

log = logging.getLogger("infinitetalk")


class KeptVoice(StoredRows):
    """Features that are read from their file, a few rows at a time."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], path: Path) -> None:
        super().__init__(file, shape)
        self._path = path

    def _read(self, first: int, stop: int) -> Tensor:
        try:
            return super()._read(first, stop)
        except OSError:
            # A network drive that was away never takes an old handle back, and ComfyUI goes on handing this voice out.
            if not self._path.exists():
                raise
            with self._lock:
                self._file = self._path.open("rb", buffering=0)
        return super()._read(first, stop)

    def give_up(self) -> None:
        """Nothing will go on with them: the file loses its name. Where a file that is open can lose it (not on
        Windows) they can be read until they are let go; elsewhere it stays until there is no room for it."""
        with contextlib.suppress(OSError):
            self._path.unlink()


class KeptVoices:
    """The folder of them. most_bytes: what they may take, or one voice that takes more; who was needed last stays."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES, disk: Disk | None = None) -> None:
        self.folder, self._most, self._disk = folder, most_bytes, disk or Disk()

    def heard(self, key: str, hear: Callable[[], Voice]) -> Voice:
        """The features (F, layers, channels) that are kept under `key`, or what `hear` gives, which is kept then.

        key: equal for equal features, good for a file name.
        """
        if (found := self._find(key)) is not None:
            log.info("InfiniteTalk: this voice was heard before; its features are read from %s", self.folder)
            return found
        voice = hear()
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

    def _find(self, key: str) -> KeptVoice | None:
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                shape = _shape_if_whole(file)
            if shape is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)  # needed now
                return KeptVoice(path.open("rb", buffering=0), shape, path)
        except OSError:
            return None
        log.warning("InfiniteTalk: %s is damaged; the voice is heard again", path)
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def _keep(self, key: str, voice: Voice) -> None:
        self._disk.make_folder(self.folder)
        self._make_room(prod(voice.shape) * 4 + END_BYTES)
        self._disk.write(self._path(key), _content(voice))

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


def _content(voice: Voice) -> Iterator[bytes]:
    """The file, in parts."""
    checksum = 0
    for start in range(0, len(voice), ROWS_AT_ONCE):
        rows = voice[torch.arange(start, min(start + ROWS_AT_ONCE, len(voice)))]
        part = rows.numpy().tobytes()
        checksum = zlib.crc32(part, checksum)
        yield part
    yield json.dumps({"shape": list(voice.shape), "crc32": checksum}).encode().ljust(END_BYTES)


def _shape_if_whole(file: IO[bytes]) -> tuple[int, ...] | None:
    """What shape the numbers in a file have; None if they are not all there and as they were."""
    try:
        numbers = file.seek(0, os.SEEK_END) - END_BYTES
        file.seek(max(numbers, 0))
        end = json.loads(file.read(END_BYTES))
        shape = tuple(end["shape"])
        if prod(shape) * 4 != numbers:
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
    return shape if checksum == end["crc32"] else None
