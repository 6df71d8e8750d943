"""Files of InfiniteTalk weights."""

from __future__ import annotations

from pathlib import Path

from .kinds import WANT_INFINITETALK
from .weights_file import WeightsFile, open_weights


def open_infinitetalk(path: Path) -> WeightsFile:
    """A file of InfiniteTalk weights in any layout. Reads no weights, so a wrong file is refused at once."""
    return open_weights(path, WANT_INFINITETALK)
