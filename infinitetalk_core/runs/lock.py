"""A lock that allows one writer per run, with an owner and a heartbeat. It compares no clocks of different machines.

The operating system releases a file lock when its process ends in any way, so on one machine that lock suffices. Over a
network drive it may not be shared: then a lock of another machine counts as alive if its heartbeat advances while we
watch.
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

from ..errors import RunError, disk_error
from ..file_access import open_regular, read_object

BEAT_SECONDS = 2.0
WATCH_SECONDS = 7.0
SETTLE_SECONDS = 1.0
LOCKED_BYTE = 1 << 30  # far beyond the content: Windows does not allow reading locked bytes

if sys.platform == "win32":
    import msvcrt

    _HELD = (PermissionError,)

    def _try_lock(file: BinaryIO) -> None:
        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    _HELD = (BlockingIOError,)  # EACCES comes from drives that have no locks

    def _try_lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """Context manager that holds the lock file `path`, whose folder must exist.

    Entering raises RunError, naming the owner, while another process writes the run, and OSError if the file cannot
    be opened.
    """

    def __init__(
        self,
        path: Path,
        watch_seconds: float = WATCH_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.path = path
        self.watch_seconds, self.beat_seconds, self.settle_seconds = watch_seconds, beat_seconds, settle_seconds
        self.owner = uuid.uuid4().hex
        self._beat_count = 0
        self._file: BinaryIO | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        try:
            # Created if missing, never truncated: another process may hold it.
            self._file = os.fdopen(open_regular(self.path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0)
        except OSError as error:
            raise disk_error(self.path, error) from error
        try:
            locked = self._acquire()
            self._write_heartbeat()
            if not locked:
                # Two that start at once both find nothing; the one that wrote last has the run.
                time.sleep(self.settle_seconds)
                self.check()
        except BaseException:
            self._file.close()
            raise
        self._thread = threading.Thread(target=self._heartbeat_loop, name="infinitetalk-run-lock", daemon=True)
        self._thread.start()
        return self

    def _acquire(self) -> bool:
        """Wait until the run is known to be free. Returns whether the file is locked by the system."""
        assert self._file is not None
        before, locked = self._read(), True
        try:
            _try_lock(self._file)
        except OSError as error:
            if isinstance(error, _HELD):
                raise _lock_error(before) from error
            locked = False  # the file system has no locks: rely on the heartbeat alone
        # A process of this machine that wrote it has ended, or it would still hold the lock.
        ended = locked and before.get("host") in (None, platform.node())
        if before and not ended and self._heartbeat_advances(before):
            raise _lock_error(before)
        return locked

    def _heartbeat_advances(self, before: dict) -> bool:
        """Watch the file for `watch_seconds` of the local monotonic clock. Returns whether its heartbeat advances."""
        end = time.monotonic() + self.watch_seconds
        while time.monotonic() < end:
            time.sleep(min(0.1, self.watch_seconds / 10))
            now = self._read()
            if now and now != before:
                return True
        return False

    def _read(self) -> dict:
        """Read the content; empty if there is none or it is being written."""
        return read_object(self.path) or {}

    def _write_heartbeat(self) -> None:
        assert self._file is not None
        self._beat_count += 1
        content = {"owner": self.owner, "host": platform.node(), "pid": os.getpid(), "beat": self._beat_count}
        try:
            self._file.seek(0)
            self._file.write(json.dumps(content).ljust(300).encode())
        except OSError as error:
            raise disk_error(self.path, error) from error

    def _heartbeat_loop(self) -> None:
        while not self._stopped.wait(self.beat_seconds):
            # Do not stop if the disk is full or unreachable for a moment: the next heartbeat may succeed.
            with contextlib.suppress(OSError):
                if self._read().get("owner") == self.owner:
                    self._write_heartbeat()

    def check(self) -> None:
        """Raise RunError if another process has taken the lock, for instance while this machine was suspended."""
        found = self._read()
        if found and found.get("owner") != self.owner:
            raise RunError(
                f"another ComfyUI ({_holder(found)}) has taken this run over and goes on with it; this one stops here"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            with contextlib.suppress(OSError):
                if self._read().get("owner") == self.owner:
                    self._file.truncate(0)
            self._file.close()


def _holder(owner: dict) -> str:
    return f"process {owner.get('pid', '?')!s:.20} on {owner.get('host', '?')!s:.100}"


def _lock_error(owner: dict) -> RunError:
    return RunError(
        f"this very video is being made by another ComfyUI ({_holder(owner)}): wait until that has finished, or change "
        "the seed"
    )
