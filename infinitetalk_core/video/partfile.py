"""The file under a growing video: it stays playable when the disk fails."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import disk_error


class PartFile:
    """A binary file for PyAV to write to, which after a first failure is never touched again.

    FFmpeg goes on after a failed write, up to replacing the head of the file: that would lose what was good.
    An OSError names the path and says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False
        try:
            self.raw = open(path, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise disk_error(self.path, error) from error

    def write(self, data: bytes) -> int:
        """All of `data`; pretends to, once a write has failed."""
        view = memoryview(data)
        while view and not self.failed:
            try:
                view = view[self.raw.write(view) :]  # a nearly full disk takes a part of it
            except OSError as error:
                self.failed = True
                raise disk_error(self.path, error) from error
            except BaseException:
                self.failed = True
                raise
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's."""
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self.raw.tell()

    def close(self) -> None:
        """As a file's. What was written is on the disk then, so that what it was made from may go."""
        try:
            if not self.raw.closed and not self.failed:
                os.fsync(self.raw.fileno())
        finally:
            self.raw.close()

    def cut_to_whole_fragments(self) -> None:
        """Cut away, after a failure, what was written of a fragment that did not get finished."""
        with open(self.path, "r+b") as file:
            file.truncate(whole_fragments_end(self.path))


def whole_fragments_end(path: Path) -> int:
    """Where the last complete fragment of an MP4 file ends: moof and mdat, both whole. 0 if there is none."""
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
