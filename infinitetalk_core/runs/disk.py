"""Atomic file writes: after a crash or power cut a file is complete or absent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ..errors import disk_error
from ..file_access import sync_file, sync_folder

SCRATCH = ".new"  # suffix of a file until it is complete


class Disk:
    """File operations of a run. Failures raise an OSError that names the path."""

    def make_folder(self, path: Path) -> None:
        """Create a folder and its parents if missing."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error

    def write(self, path: Path, data: bytes | Iterable[bytes]) -> None:
        """Replace the content of `path` with `data` (bytes or parts of them) atomically; on failure the old file stays.

        Raises OSError naming the path.
        """
        scratch = path.with_name(path.name + SCRATCH)
        try:
            # Created anew: an old one may be a link, through which we would write elsewhere.
            scratch.unlink(missing_ok=True)
            with self._open(scratch) as file:
                for part in [data] if isinstance(data, bytes) else data:
                    self._put(file, part)
                self._sync(file)
            self._move(scratch, path)
            self._sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise disk_error(path, error) from error

    def create(self, path: Path, data: bytes) -> bool:
        """Create a new file with `data`. Returns False if the name exists; of concurrent callers only one succeeds."""
        try:
            file = self._open(path)
        except FileExistsError:
            return False
        except OSError as error:
            raise disk_error(path, error) from error
        try:
            with file:
                self._put(file, data)
                self._sync(file)
            self._sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            raise disk_error(path, error) from error
        return True

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error

    def _open(self, path: Path) -> BinaryIO:
        return open(path, "xb", buffering=0)

    def _put(self, file: BinaryIO, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]  # on a nearly full disk, write may take a part only

    def _sync(self, file: BinaryIO) -> None:
        sync_file(file)

    def _move(self, scratch: Path, path: Path) -> None:
        os.replace(scratch, path)

    def _sync_folder(self, folder: Path) -> None:
        sync_folder(folder)
