"""The file of a growing video, which stays playable when the disk fails."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import disk_error
from ..file_access import is_same_file, sync_file


class PartFile:
    """A binary output file for PyAV that writes nothing more after the first failure.

    FFmpeg continues after a failed write and may even replace the head of the file, which would destroy the part
    written before. An OSError names the path and says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False
        self._status: os.stat_result | None = None  # when it was closed
        try:
            self.raw = open(path, "xb", buffering=0)  # noqa: SIM115
        except FileExistsError:
            raise
        except OSError as error:
            raise disk_error(self.path, error) from error

    def write(self, data: bytes) -> int:
        """Write all of `data` and return its length; after a failed write, do nothing and return the same."""
        view = memoryview(data)
        while view and not self.failed:
            try:
                view = view[self.raw.write(view) :]  # on a nearly full disk, write may take a part only
            except OSError as error:
                self.failed = True
                raise disk_error(self.path, error) from error
            except BaseException:
                self.failed = True
                raise
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move the file position, as `io.RawIOBase.seek`."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """Return the file position."""
        return self.raw.tell()

    def close(self) -> None:
        """Close the file after fsync, so that the data it was made from may be deleted."""
        if self.raw.closed:
            return
        try:
            if not self.failed:
                sync_file(self.raw)
        finally:
            self._status = os.fstat(self.raw.fileno())
            self.raw.close()

    def is_there(self) -> bool:
        """Return whether the closed file, and no other one, is still under its name."""
        return self._status is not None and is_same_file(self._status, self.path)

    def cut_to_whole_fragments(self) -> None:
        """Truncate the file to its last complete fragment after a failure."""
        with open(self.path, "r+b") as file:
            file.truncate(whole_fragments_end(self.path))
            self._status = os.fstat(file.fileno())


def whole_fragments_end(path: Path) -> int:
    """Return the byte offset at which the last complete MP4 fragment (moof and mdat) ends; 0 if there is none."""
    size = path.stat().st_size
    end = start = 0
    in_fragment = False
    with open(path, "rb") as file:
        while start + 8 <= size:
            file.seek(start)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8 or start + length > size:
                break
            start += length
            if kind == b"mdat" and in_fragment:
                end = start
            in_fragment = kind == b"moof"
    return end
