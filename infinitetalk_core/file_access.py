"""Access to files in folders that others can write to: regular files only, no links, no waiting, bounded sizes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_JSON_BYTES = 1 << 26
# What file systems answer that cannot fsync a folder (FUSE, some network drives) or do not let one open it.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF)
# Opening a named pipe would wait for its other end, and a link may lead anywhere.
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its handle. Raises OSError for links, pipes, folders and devices too."""
    with contextlib.suppress(FileNotFoundError):
        if not is_regular(path):  # checked again below: this one is for systems without O_NOFOLLOW
            raise _not_regular(path)
    handle = os.open(path, flags | _CAREFUL, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_regular(path)
    return handle


def is_regular(path: Path) -> bool:
    """Return whether `path` is a regular file and no link. Raises FileNotFoundError if there is nothing."""
    return stat.S_ISREG(os.lstat(path).st_mode)


def is_own_file(path: Path) -> bool:
    """Return whether a regular file, not a link to one, is there."""
    try:
        return is_regular(path)
    except OSError:
        return False


def read_regular(path: Path, most_bytes: int | None = None) -> bytes | None:
    """Read a regular file; None if it is missing, something else, longer than `most_bytes` or cannot be read."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            if most_bytes is not None and os.fstat(file.fileno()).st_size > most_bytes:
                return None
            return file.read()
    except OSError:
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None if it is missing or invalid."""
    data = read_regular(path, MOST_JSON_BYTES)
    try:
        found = None if data is None else json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_same_file(known: os.stat_result, path: Path) -> bool:
    """Return whether `path` is still the file of which `known` is the status: not removed, not replaced."""
    try:
        there = os.lstat(path)
    except OSError:
        return False
    # Some network drives number the same file anew at each look; then size and time tell.
    return os.path.samestat(known, there) or (known.st_size, known.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def move_new(path: Path, target: Path) -> None:
    """Give a file a name that must be free, durably. Raises FileExistsError if it is taken."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links, where only a moment is left for others
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        path.rename(target)
    else:
        path.unlink()
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make changes of names in `folder` durable, where the file system can. Only POSIX: Windows opens no folders."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_file(file: BinaryIO) -> None:
    """Make the content of `file` durable, where the file system can."""
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is a link, a folder, a pipe or a device, and not a file", str(path))
