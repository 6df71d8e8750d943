"""A lock on an output folder, so that two programs do not carry out the same jobs and write the same files."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from client_errors import JobError

LOCK_FILE = "dub_folder.lock"  # in the output folder, where it stays: removing it would race with another program
HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    HELD += (errno.EACCES,)

    def _try_lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases too when this program ends in any way.

    Raises JobError while another program holds it. On a drive without locks it says so and goes on.
    """
    path = folder / LOCK_FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror}") from error
    try:
        try:
            _try_lock(handle)
        except OSError as error:
            if error.errno in HELD:
                raise JobError(
                    f"another dub_folder is at work in {folder}: wait until it has ended, or give this one an --out of "
                    "its own"
                ) from error
            print(f"{folder} is on a drive without locks: start only one dub_folder there at a time", flush=True)
        yield
    finally:
        os.close(handle)
