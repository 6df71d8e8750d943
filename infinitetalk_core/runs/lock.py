"""One writer a run: a lock with an owner and a heartbeat, without comparing any clocks.

The operating system's file lock ends with its process, however that ends, so on one machine it says all. Over a network
drive it may not be shared: then a lock of another machine counts as alive if its heartbeat moves while we watch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from ..errors import InputError, disk_error

BEAT_SECONDS = 2.0
WATCH_SECONDS = 7.0
LOCKED_BYTE = 1 << 30  # far beyond the content: Windows forbids reading what is locked

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> None:
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """Holds the lock file `path` (its folder exists); a context manager.

    Raises InputError, naming the owner, while another process writes the run.
    """

    def __init__(self, path: Path, watch_seconds: float = WATCH_SECONDS, beat_seconds: float = BEAT_SECONDS) -> None:
        self.path = path
        self.watch_seconds, self.beat_seconds = watch_seconds, beat_seconds
        self.owner = uuid.uuid4().hex
        self._beats = 0
        self._file: BinaryIO | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        try:
            # Made if it is not there, and never emptied: somebody may hold it.
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
            self._file = os.fdopen(handle, "r+b", buffering=0)
        except OSError as error:
            raise disk_error(self.path, error) from error
        try:
            self._take()
            self._beat()
        except BaseException:
            self._file.close()
            raise
        self._thread = threading.Thread(target=self._beat_on, name="infinitetalk-run-lock", daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        assert self._file is not None
        before = self._read()
        try:
            _try_lock(self._file)
        except OSError as error:
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise _held_by(before) from error
            # A file system without locks: only the heartbeat counts.
        else:
            if before.get("host") in (None, platform.node()):
                return  # its process is gone, or it would still hold the lock
        if before and self._moves(before):
            raise _held_by(before)

    def _moves(self, before: dict) -> bool:
        """Whether the heartbeat in the file goes on while we watch it, by our own monotonic clock."""
        end = time.monotonic() + self.watch_seconds
        while time.monotonic() < end:
            time.sleep(min(0.1, self.watch_seconds / 10))
            now = self._read()
            if now and now != before:
                return True
        return False

    def _read(self) -> dict:
        """The content; empty where there is none or it is being written."""
        try:
            found = json.loads(self.path.read_bytes()[:1000].decode())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _beat(self) -> None:
        assert self._file is not None
        self._beats += 1
        content = {"owner": self.owner, "host": platform.node(), "pid": os.getpid(), "beat": self._beats}
        try:
            self._file.seek(0)
            self._file.write(json.dumps(content).ljust(300).encode())
        except OSError as error:
            raise disk_error(self.path, error) from error

    def _beat_on(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            # A disk that is full or away for a moment is no reason to stop: the next beat may work.
            with contextlib.suppress(OSError):
                if self._read().get("owner") == self.owner:
                    self._beat()

    def check(self) -> None:
        """Raise InputError if the lock was taken away, for instance while this machine slept."""
        found = self._read()
        if found and found.get("owner") != self.owner:
            raise InputError(
                f"another ComfyUI ({_name(found)}) has taken this run over and goes on with it; this one stops here"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._read().get("owner") == self.owner:
                    self._file.truncate(0)
            self._file.close()


def _name(owner: dict) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _held_by(owner: dict) -> InputError:
    return InputError(
        f"this very video is being made by another ComfyUI ({_name(owner)}): wait until that has finished, or change "
        "the seed"
    )
