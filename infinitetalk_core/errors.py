"""Errors whose messages are written for the ComfyUI user."""

from __future__ import annotations

import errno
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(ValueError):
    """Raised for unusable input. The message names the input, its value, and what to do next."""

    __module__ = "infinitetalk"  # ComfyUI shows module and name; the real module begins with the pack's path


class RunError(RuntimeError):
    """Raised where a run cannot go on although its input is usable: another process has the run, a file has changed.

    The message says what to do; the same job may work later.
    """

    __module__ = "infinitetalk"


def disk_error(path: Path, error: OSError) -> OSError:
    """Return an OSError with the same errno whose one-sentence message names the path and says what to do."""
    what_next = "free some space there" if error.errno in _NO_SPACE else "check that disk and folder"
    return OSError(error.errno, f"{path} could not be written ({error.strerror}): {what_next}, then run again")
