"""Open files of InfiniteTalk weights."""

from __future__ import annotations

from pathlib import Path

from .kinds import WANT_INFINITETALK
from .weights_file import WeightsFile, open_weights


def open_infinitetalk(path: Path) -> WeightsFile:
    """Open a file of InfiniteTalk weights in any layout. Reads the header only; raises InputError for another file."""
    return open_weights(path, WANT_INFINITETALK)
