"""Errors that speak to the person at the graph."""

from __future__ import annotations

import errno
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, its value, and what to do next."""


def disk_error(path: Path, error: OSError) -> OSError:
    """`error` in one sentence that names the path and says what to do."""
    what_next = "free some space there" if error.errno in _NO_SPACE else "check that disk and folder"
    return OSError(error.errno, f"{path} could not be written ({error.strerror}): {what_next}, then run again")
