"""Files that are whole or not there at all, whenever the power goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import disk_error

SCRATCH = ".new"  # what a file is called until it is whole


class Disk:
    """The few things that a run does to the disk. What fails is an OSError that names the path."""

    def make_folder(self, path: Path) -> None:
        """Make a folder and those above it."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(path, error) from error

    def write(self, path: Path, data: bytes | Iterable[bytes]) -> None:
        """Make `path` hold `data`, perhaps in parts: all of it, or what was there before."""
        scratch = path.with_name(path.name + SCRATCH)
        try:
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
        """Make a new file that holds `data`; False if there is one of that name. Of two who try one succeeds."""
        try:
            file = self._open(path, "xb")
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

    def _open(self, path: Path, mode: Literal["wb", "xb"] = "wb") -> BinaryIO:
        return open(path, mode, buffering=0)

    def _put(self, file: BinaryIO, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]  # a nearly full disk takes a part of it

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())

    def _move(self, scratch: Path, path: Path) -> None:
        os.replace(scratch, path)

    def _sync_folder(self, folder: Path) -> None:
        """Make the new name last too, where a folder can be opened (not on Windows)."""
        if os.name != "posix":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
